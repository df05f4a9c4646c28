//! Whether the draft model means the same by each id as the target does, by content.

use std::path::Path;

use crate::model::gguf_vocabulary;
use crate::text::Tokenizer;

/// Compares the vocabulary of the draft model at `path` with that of `target`, and returns how many ids, from 0 on, are
/// the same token to both. One may have more tokens than the other, or ids without a token, as where its embedding is
/// padded; every id that is a token to both must be the same one, whatever its place.
///
/// # Errors
/// A sentence that says where they first differ, or why that cannot be told.
pub fn compare_with_draft(target: &Tokenizer, path: &Path) -> Result<usize, String> {
    let draft = if path.is_dir() {
        pieces(&Tokenizer::load(path).map_err(|error| error.to_string())?)
    } else {
        gguf_vocabulary(path).map_err(|error| error.to_string())?
    };
    shared_ids(&pieces(target), &draft)
}

/// The token of each id.
fn pieces(tokenizer: &Tokenizer) -> Vec<Option<String>> {
    let size = u32::try_from(tokenizer.vocabulary_size()).unwrap_or(u32::MAX);
    (0..size).map(|id| tokenizer.piece(id)).collect()
}

/// How many ids, from 0 on, are the same token in both lists or in neither.
fn shared_ids(target: &[Option<String>], draft: &[Option<String>]) -> Result<usize, String> {
    let both = || target.iter().zip(draft).enumerate();
    for (id, pair) in both() {
        if let (Some(target), Some(draft)) = pair
            && target != draft
        {
            return Err(format!("id {id} is {draft:?} to the draft model and {target:?} to the target"));
        }
    }
    let alone = both().find(|(_, (target, draft))| target.is_some() != draft.is_some());
    let shared = alone.map_or(target.len().min(draft.len()), |(id, _)| id);
    if target[..shared].iter().all(Option::is_none) {
        return Err("the draft model and the target share no token from the first id on".to_owned());
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens by id; a dash stands for none.
    fn list(tokens: &str) -> Vec<Option<String>> {
        tokens.split(' ').map(|token| (token != "-").then(|| token.to_owned())).collect()
    }

    fn shared(target: &str, draft: &str) -> Result<usize, String> {
        shared_ids(&list(target), &list(draft))
    }

    #[test]
    fn equal_vocabularies_share_every_id() {
        assert_eq!(shared("a b c", "a b c"), Ok(3));
        assert_eq!(shared("a - c", "a - c"), Ok(3), "an id that neither has is no difference");
    }

    #[test]
    fn one_may_have_more_tokens_or_padding_than_the_other() {
        assert_eq!(shared("a b c d", "a b c"), Ok(3));
        assert_eq!(shared("a b c", "a b c d e"), Ok(3));
        assert_eq!(shared("a b c", "a b c - -"), Ok(3));
        assert_eq!(shared("a b c d", "a b c - -"), Ok(3), "what pads the one is a token of the other's");
    }

    #[test]
    fn only_what_comes_before_the_first_id_of_one_alone_is_shared() {
        assert_eq!(shared("a b c d", "a - c d"), Ok(1));
        assert_eq!(shared("a b - d", "a b c d"), Ok(2));
        assert!(shared("a - c d", "- b c d").is_err());
    }

    #[test]
    fn the_first_id_of_another_token_is_named_with_both_tokens() {
        let differs = Err("id 1 is \"x\" to the draft model and \"b\" to the target".to_owned());
        assert_eq!(shared("a b c", "a x y"), differs);
        let differs = Err("id 3 is \"x\" to the draft model and \"d\" to the target".to_owned());
        assert_eq!(shared("a b c d", "a - c x"), differs, "a gap hides nothing behind it");
    }

    #[test]
    fn nothing_in_common_is_no_agreement() {
        assert!(shared_ids(&list("a b"), &[]).unwrap_err().contains("share no token"));
    }
}
