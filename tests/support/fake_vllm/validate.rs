//! What the API server refuses before the engine sees a request.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::completions::CompletionFields;
use super::config::FakeConfig;
use super::engine::{Adapter, Engine};
use super::error::ApiError;
use super::params::ParamFields;

/// Reads the fields of `T` from a request body, ignoring the others.
///
/// # Errors
/// A 400 in the manner of FastAPI's validation errors.
pub fn parse<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    T::deserialize(body).map_err(|error| ApiError {
        kind: "Bad Request".to_owned(),
        ..ApiError::bad_request(format!("1 validation error:\n  {error}"))
    })
}

/// The 400 of a field that has the wrong type.
#[must_use]
pub fn wrong_type(field: &str) -> ApiError {
    let message = format!("1 validation error:\n  {{'loc': 'body.{field}', 'msg': 'Input should be valid'}}");
    ApiError { kind: "Bad Request".to_owned(), param: Some(format!("body.{field}")), ..ApiError::bad_request(message) }
}

/// Combinations that `CompletionRequest`'s validators refuse.
///
/// # Errors
/// A 400 that names the parameter.
pub fn completion(config: &FakeConfig, fields: &CompletionFields, params: &ParamFields) -> Result<(), ApiError> {
    let empty = fields.prompt.is_null() || fields.prompt.as_str().is_some_and(str::is_empty);
    if empty {
        return blame("prompt", "Either prompt or prompt_embeds must be provided and non-empty.");
    }
    let stream = fields.stream == Some(true);
    if stream && params.prompt_logprobs.is_some_and(|count| count != 0) {
        return blame("prompt_logprobs", "`prompt_logprobs` are not available when `stream=True`.");
    }
    if fields.stream_options.is_some() && !stream {
        return blame("stream_options", "Stream options can only be defined when `stream=True`.");
    }
    if fields.cache_salt.as_ref().is_some_and(String::is_empty) {
        return blame("cache_salt", "Parameter 'cache_salt' must be a non-empty string if provided.");
    }
    priority(config, fields.priority)?;
    check_asked(config, "max_tokens", params.max_tokens)
}

/// The name and the adapter of the model that a request means.
///
/// # Errors
/// A 404 for one that is not served.
pub fn model(engine: &Engine, model: Option<&str>) -> Result<(String, Option<Adapter>), ApiError> {
    let base = &engine.config.model_name;
    match model {
        Some(name) if !name.is_empty() && name != base => {
            let adapter = engine.adapter(name).ok_or_else(|| {
                let message = format!("The model `{name}` does not exist. Valid aliases: {base}.");
                let error = ApiError::new(http::StatusCode::NOT_FOUND, "NotFoundError", message);
                ApiError { param: Some("model".to_owned()), ..error }
            })?;
            Ok((adapter.name.clone(), Some(adapter)))
        }
        _ => Ok((base.clone(), None)),
    }
}

/// Refuses a priority where the server has no use for one.
///
/// # Errors
/// A 400.
pub fn priority(config: &FakeConfig, priority: Option<i64>) -> Result<(), ApiError> {
    match priority {
        Some(priority) if priority != 0 && config.refuse_priority => {
            Err(ApiError::bad_request(format!("Got priority {priority} but Priority scheduling is not enabled.")))
        }
        _ => Ok(()),
    }
}

/// The 400 that blames a parameter, as `VLLMValidationError` prints it without a value.
///
/// # Errors
/// Always.
pub fn blame<T>(param: &str, message: &str) -> Result<T, ApiError> {
    let message = format!("{message} (parameter={param})");
    Err(ApiError { param: Some(param.to_owned()), ..ApiError::bad_request(message) })
}

/// Refuses more tokens than the context could ever hold.
///
/// # Errors
/// A 400 that names the field as the request did.
pub fn check_asked(config: &FakeConfig, param: &str, asked: Option<i64>) -> Result<(), ApiError> {
    let limit = config.max_model_len as i64;
    match asked {
        Some(asked) if asked > limit => {
            let message = format!(
                "{param}={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
            );
            Err(ApiError::invalid(&message, param, asked))
        }
        _ => Ok(()),
    }
}

/// Refuses a completion's prompt that is empty, has ids that do not exist, or is longer than the context. One that fills it
/// is refused for the tokens it leaves no room for.
///
/// # Errors
/// A 400.
pub fn check_ids(config: &FakeConfig, ids: &[u32]) -> Result<(), ApiError> {
    let (len, limit) = (ids.len(), config.max_model_len);
    if ids.is_empty() {
        return Err(ApiError::bad_request("The decoder prompt cannot be empty"));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= config.language.vocab) {
        return Err(ApiError::bad_request(format!("Token id {id} is out of vocabulary")));
    }
    if len > limit {
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, your prompt contains {len} input tokens, \
             which exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
        );
        return Err(ApiError::invalid(&message, "input_tokens", len));
    }
    Ok(())
}

/// As [`check_ids`], where no API server has looked before the engine: it refuses a prompt without room for one token.
///
/// # Errors
/// A 400.
pub fn check_engine_prompt(config: &FakeConfig, ids: &[u32]) -> Result<(), ApiError> {
    let (len, limit) = (ids.len(), config.max_model_len);
    if len > limit {
        return Err(ApiError::bad_request(format!(
            "The decoder prompt (length {len}) is longer than the maximum model length of {limit}. Make sure that \
             `max_model_len` is no smaller than the number of text tokens."
        )));
    }
    if len == limit {
        return Err(ApiError::bad_request(format!(
            "The decoder prompt (length {len}) plus the number of requested output tokens (at least 1) is longer than \
             the maximum model length of {limit}. Make sure that `max_model_len` is no smaller than the number of text \
             tokens (prompt + requested output tokens)."
        )));
    }
    check_ids(config, ids)
}
