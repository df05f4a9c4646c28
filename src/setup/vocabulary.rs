//! Whether two vocabularies are the same, by content.

use std::path::Path;

use crate::model::gguf_vocabulary;
use crate::text::Tokenizer;
use crate::upstream::{Upstream, UpstreamError};

/// Ids compared in one request.
const AT_ONCE: u32 = 4096;

/// Whether `tokenizer` gives every id the text that the server gives it; the inner error says where they differ.
///
/// # Errors
/// When the server cannot be asked.
pub async fn compare_with_server(
    tokenizer: &Tokenizer,
    upstream: &Upstream,
    model: &str,
) -> Result<Result<(), String>, UpstreamError> {
    let origin = upstream.own_origin(Some(model.to_owned()));
    let size = u32::try_from(tokenizer.vocabulary_size()).unwrap_or(u32::MAX);
    for start in (0..size).step_by(AT_ONCE as usize) {
        let ids: Vec<u32> = (start..size.min(start + AT_ONCE)).collect();
        let theirs = match upstream.detokenize(&origin, &ids).await {
            Ok(text) => text,
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                return Ok(Err(format!("the server does not know ids from {start} on: {error}")));
            }
            Err(error) => return Err(error),
        };
        let ours = match tokenizer.decode(&ids, false) {
            Ok(text) => text,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if ours != theirs {
            return Ok(Err(format!("ids {start} to {} have other texts", start + AT_ONCE - 1)));
        }
    }
    Ok(Ok(()))
}

/// Whether the draft model at `path` means the same by each id as `target` does, as far as both have it.
///
/// # Errors
/// Where they first differ, or why that cannot be told.
pub fn compare_with_draft(target: &Tokenizer, path: &Path) -> Result<(), String> {
    let pieces: Vec<Option<String>> = if path.is_dir() {
        let draft = Tokenizer::load(path).map_err(|error| error.to_string())?;
        (0..id_count(&draft)).map(|id| draft.piece(id)).collect()
    } else {
        gguf_vocabulary(path).map_err(|error| error.to_string())?.into_iter().map(Some).collect()
    };
    for (id, piece) in (0..id_count(target)).zip(&pieces) {
        let wanted = target.piece(id);
        if *piece != wanted {
            return Err(format!("id {id} is {piece:?} to the draft model and {wanted:?} to the target"));
        }
    }
    Ok(())
}

fn id_count(tokenizer: &Tokenizer) -> u32 {
    u32::try_from(tokenizer.vocabulary_size()).unwrap_or(u32::MAX)
}
