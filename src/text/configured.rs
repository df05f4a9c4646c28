//! What transformers, and so the server, makes of `tokenizer.json` on account of the files beside it.
//!
//! After `TokenizersBackend` in `transformers/tokenization_utils_tokenizers.py` and `LlamaTokenizer` in
//! `transformers/models/llama/tokenization_llama.py`, release 5.

use std::path::Path;

use serde_json::Value;
use tokenizers::decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence, strip::Strip};
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, Tokenizer};

/// The special tokens that every tokenizer may name, in the order in which missing ones get their ids.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Models whose configuration names Llama's class, which transformers knows to be wrong.
const NOT_LLAMA: [&str; 9] =
    ["phi3", "phi3_v", "internlm2", "minicpm3", "llava", "llava_next", "vipllava", "jamba", "chameleon"];

/// Changes `tokenizer` as the files of `folder` say. Without them it stays as it is.
pub(super) fn configure(tokenizer: &mut Tokenizer, folder: &Path) -> tokenizers::Result<()> {
    let config = read(&folder.join("tokenizer_config.json"))?;
    let Some(mut config) = config.filter(Value::is_object) else { return Ok(()) };
    // An older way to say the same, which is looked at only where the newer is not used.
    if config.get("added_tokens_decoder").is_none()
        && let Some(Value::Object(older)) = read(&folder.join("special_tokens_map.json"))?
        && let Some(config) = config.as_object_mut()
    {
        config.extend(older);
    }
    if is_llama(&config, read(&folder.join("config.json"))?.as_ref(), tokenizer) {
        rebuild_as_llama(tokenizer, config["add_prefix_space"].as_bool().unwrap_or(true))?;
        for (name, content) in [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")] {
            if config.get(name).is_none() {
                config[name] = content.into();
            }
        }
    }
    add_tokens(tokenizer, &config)
}

fn read(path: &Path) -> tokenizers::Result<Option<Value>> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

/// Adds what the configuration lists or names and `tokenizer.json` has not, and makes what it names special.
fn add_tokens(tokenizer: &mut Tokenizer, config: &Value) -> tokenizers::Result<()> {
    let own = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let mut listed: Vec<(u32, AddedToken)> = match config["added_tokens_decoder"].as_object() {
        Some(listed) => listed.iter().filter_map(|(id, token)| Some((id.parse().ok()?, added_token(token)?))).collect(),
        None => own.iter().map(|(id, token)| (*id, token.clone())).collect(),
    };
    listed.sort_by_key(|(id, _)| *id);
    let named = named(config);
    let is_named = |token: &AddedToken| named.iter().any(|named| named.content == token.content);
    let listed: Vec<AddedToken> = listed
        .into_iter()
        .map(|(_, token)| AddedToken { special: token.special || is_named(&token), ..token })
        .collect();

    let known = |token: &AddedToken| {
        own.values().any(|own| own.content == token.content) || listed.iter().any(|l| l.content == token.content)
    };
    let more: Vec<AddedToken> = named.iter().cloned().chain(extra(config)).filter(|token| !known(token)).collect();
    tokenizer.add_tokens(listed.into_iter().chain(more))?;
    Ok(())
}

/// The tokens that have a name: the usual ones, then the model's own.
fn named(config: &Value) -> Vec<AddedToken> {
    let usual = NAMED.iter().filter_map(|name| added_token(&config[*name]));
    let entries = config.as_object().into_iter().flatten();
    let own = entries.filter(|(name, _)| name.ends_with("_token") && !NAMED.contains(&name.as_str()));
    let extra = config["extra_special_tokens"].as_object().into_iter().flatten();
    usual.chain(own.chain(extra).filter_map(|(_, token)| added_token(token))).collect()
}

/// The tokens that are special and have no name.
fn extra(config: &Value) -> Vec<AddedToken> {
    let listed = |name: &str| config[name].as_array().filter(|tokens| !tokens.is_empty());
    let tokens = listed("extra_special_tokens").or_else(|| listed("additional_special_tokens"));
    tokens.into_iter().flatten().filter_map(added_token).collect()
}

/// A token from its content or its description; special unless that says otherwise.
fn added_token(value: &Value) -> Option<AddedToken> {
    let content = value.as_str().or_else(|| value["content"].as_str())?;
    let flag = |name: &str| value[name].as_bool();
    let special = flag("special").unwrap_or(true);
    Some(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

/// Whether transformers keeps only the vocabulary of this `tokenizer.json` and builds the rest anew.
fn is_llama(config: &Value, model: Option<&Value>, tokenizer: &Tokenizer) -> bool {
    let class = config["tokenizer_class"].as_str().unwrap_or_default();
    let model = model.and_then(|model| model["model_type"].as_str()).unwrap_or_default();
    class.trim_end_matches("Fast") == "LlamaTokenizer"
        && !NOT_LLAMA.contains(&model)
        // The class is named by tokenizers of other kinds too, where no server could use what it builds.
        && matches!(tokenizer.get_decoder(), Some(DecoderWrapper::Sequence(decoders))
            if decoders.get_decoders().iter().any(|decoder| matches!(decoder, DecoderWrapper::ByteFallback(_))))
}

fn rebuild_as_llama(tokenizer: &mut Tokenizer, add_prefix_space: bool) -> tokenizers::Result<()> {
    let scheme = if add_prefix_space { PrependScheme::First } else { PrependScheme::Never };
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new("▁", " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if add_prefix_space {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_normalizer(None::<NormalizerWrapper>)?;
    tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
    tokenizer.with_decoder(Some(Sequence::new(decoders)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Tokenizer, fixture::words_beside};

    /// Words `a` and `b` with the added tokens `<s>` (special) and `<tool>`, and `files` beside them.
    fn load(files: &[(&str, Value)]) -> Tokenizer {
        words_beside(&["a", "b"], &[("<s>", true), ("<tool>", false)], files)
    }

    #[test]
    fn without_a_configuration_the_tokenizer_is_as_its_file_says() {
        assert_eq!(load(&[]).special_tokens(), [2]);
        assert_eq!(load(&[]).added_tokens(), [2, 3]);
    }

    #[test]
    fn what_the_configuration_names_is_special_and_added_where_it_is_missing() {
        let config = json!({ "eos_token": "<tool>", "pad_token": "<pad>", "additional_special_tokens": ["a"] });
        let tokenizer = load(&[("tokenizer_config.json", config)]);
        assert_eq!(tokenizer.special_tokens(), [0, 2, 3, 4]);
        assert_eq!(tokenizer.piece(4).unwrap(), "<pad>");
    }

    #[test]
    fn the_older_map_counts_where_the_configuration_lists_no_added_tokens() {
        let map = || ("special_tokens_map.json", json!({ "eos_token": { "content": "<tool>" } }));
        assert_eq!(load(&[("tokenizer_config.json", json!({})), map()]).special_tokens(), [2, 3]);
        let listing = json!({ "added_tokens_decoder": {} });
        assert_eq!(load(&[("tokenizer_config.json", listing), map()]).special_tokens(), [2]);
    }
}
