//! What `ChatCompletionRequest`'s validators refuse (`vllm/entrypoints/openai/chat_completion/protocol.py`).

use serde_json::Value;

use super::config::FakeConfig;
use super::error::ApiError;
use super::validate::{self, blame};

/// Combinations of fields that cannot be.
///
/// # Errors
/// A 400 that names the parameter.
pub fn check(config: &FakeConfig, body: &Value) -> Result<(), ApiError> {
    if body["cache_salt"] == "" {
        return blame("cache_salt", "Parameter 'cache_salt' must be a non-empty string if provided.");
    }
    let stream = body["stream"] == true;
    if body["stream_options"].as_object().is_some_and(|options| !options.is_empty()) && !stream {
        return blame("stream_options", "Stream options can only be defined when `stream=True`.");
    }
    for field in ["prompt_logprobs", "top_logprobs"] {
        if !body[field].is_null() && !body[field].is_number() {
            let value = body[field].to_string();
            return Err(ApiError::invalid(&format!("`{field}` must be an integer."), field, value));
        }
        let count = body[field].as_i64().unwrap_or(0);
        if field == "prompt_logprobs" && stream && (count > 0 || count == -1) {
            return blame(field, "`prompt_logprobs` are not available when `stream=True`.");
        }
        if count < -1 {
            let message = format!("`{field}` must be a positive value or -1.");
            return Err(ApiError::invalid(&message, field, count));
        }
        if field == "top_logprobs" && count != 0 && body["logprobs"] != true {
            return blame(field, "when using `top_logprobs`, `logprobs` must be set to true.");
        }
    }
    if body["tools"].as_array().is_some_and(Vec::is_empty) {
        let message =
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.";
        return blame("tools", message);
    }
    let choice = choice(body);
    if !matches!(choice, Value::Null) && choice != "none" {
        if body["tools"].is_null() {
            return blame("tool_choice", "When using `tool_choice`, `tools` must be set.");
        }
        if choice.as_str().is_some_and(|choice| choice != "auto" && choice != "required") {
            let message = format!(
                "Invalid value for `tool_choice`: {}! Only named tools, \"none\", \"auto\" or \"required\" are supported.",
                choice.as_str().unwrap_or_default()
            );
            return blame("tool_choice", &message);
        }
    }
    validate::priority(config, body["priority"].as_i64())
}

/// A server without `--enable-auto-tool-choice` and `--tool-call-parser` serves tools only to those who choose none.
///
/// # Errors
/// A 400.
pub fn check_tools(body: &Value) -> Result<(), ApiError> {
    let message = match choice(body) {
        Value::String(choice) if choice == "auto" => {
            "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set".to_owned()
        }
        Value::String(choice) if choice != "none" => {
            format!("tool_choice=\"{choice}\" requires --tool-call-parser to be set")
        }
        Value::Object(named) => {
            let name = named["function"]["name"].as_str().unwrap_or_default();
            format!("tool_choice=function \"{name}\" requires --tool-call-parser to be set")
        }
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(message))
}

/// `tool_choice`: "auto" where there are tools and nothing is said.
fn choice(body: &Value) -> Value {
    match body.get("tool_choice") {
        Some(choice) => choice.clone(),
        None if body["tools"].is_array() => "auto".into(),
        None => Value::Null,
    }
}
