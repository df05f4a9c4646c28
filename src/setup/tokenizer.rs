//! The server's tokenizer, found on this machine and compared with the server's own.

use std::path::{Path, PathBuf};

use http::StatusCode;

use crate::config::TargetSettings;
use crate::text::Tokenizer;
use crate::upstream::probe::ServedModel;
use crate::upstream::{Upstream, UpstreamError};

/// Ids compared in one request.
const AT_ONCE: u32 = 4096;

/// What a server may answer whose tokenizer fails at an id that it does not have.
const CRASHED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// The first tokenizer that is the server's: of the one that the settings name or, where they name none, the draft
/// model's, which may have fewer tokens or more, and the one in the served model's own folder. The inner error says why
/// there is none.
///
/// # Errors
/// When the server cannot be asked.
pub(super) async fn find(
    upstream: &Upstream,
    settings: &TargetSettings,
    model: &ServedModel,
) -> Result<Result<Tokenizer, String>, UpstreamError> {
    let mut reasons = Vec::new();
    for path in candidates(settings, model.root.as_deref()) {
        match Tokenizer::load(&path) {
            Ok(tokenizer) => match compare(&tokenizer, upstream, &model.id).await? {
                Ok(()) => return Ok(Ok(tokenizer)),
                Err(difference) => reasons.push(format!("{} is not the server's: {difference}", path.display())),
            },
            Err(error) => reasons.push(error.to_string()),
        }
    }
    if reasons.is_empty() {
        reasons.push("none found beside the draft model or in the served model's folder".to_owned());
    }
    let hint = if settings.tokenizer.is_none() { "; name one with --tokenizer" } else { "" };
    Ok(Err(reasons.join("; ") + hint))
}

/// Where a tokenizer may be, in the order in which to try.
fn candidates(settings: &TargetSettings, root: Option<&str>) -> Vec<PathBuf> {
    if let Some(path) = &settings.tokenizer {
        return vec![path.clone()];
    }
    let beside_draft = settings.draft_model.as_deref().map(|path| if path.is_dir() { path } else { parent(path) });
    let served = root.map(Path::new);
    let folders = beside_draft.into_iter().chain(served);
    folders.map(|folder| folder.join("tokenizer.json")).filter(|path| path.is_file()).collect()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Whether `tokenizer` gives every id the text that the server gives it, and has all of the server's ids; the inner
/// error says where they differ.
async fn compare(tokenizer: &Tokenizer, upstream: &Upstream, model: &str) -> Result<Result<(), String>, UpstreamError> {
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
    // The next id has no text where it only pads the model, and is refused where there is none.
    match upstream.detokenize(&origin, &[size]).await {
        Ok(text) if !text.is_empty() => Ok(Err(format!("the server has more ids: {size} is {text:?}"))),
        Ok(_) => Ok(Ok(())),
        Err(error) if error.status().is_some_and(|status| status.is_client_error() || status == CRASHED) => Ok(Ok(())),
        Err(error) => Err(error),
    }
}
