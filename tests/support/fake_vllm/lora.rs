//! `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter` (`vllm/entrypoints/openai/models/serving.py`). An adapter's
//! path, a number, selects the weights that compute it.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::engine::Engine;
use super::error::ApiError;
use super::reply::{self, Body};
use super::validate;

#[derive(Debug, Deserialize)]
struct Load {
    lora_name: String,
    lora_path: String,
    #[serde(default)]
    load_inplace: bool,
}

#[derive(Debug, Deserialize)]
struct Unload {
    lora_name: String,
}

/// Loads an adapter.
///
/// # Errors
/// A 400 for a name that is taken.
pub fn load(engine: &Engine, body: &Value) -> Result<Response<Body>, ApiError> {
    let Load { lora_name, lora_path, load_inplace } = validate::parse(body)?;
    let invalid = |message: String| Err(ApiError::new(StatusCode::BAD_REQUEST, "InvalidUserInput", message));
    if lora_name.is_empty() || lora_path.is_empty() {
        return invalid("Both 'lora_name' and 'lora_path' must be provided.".to_owned());
    }
    if lora_name == engine.config.model_name {
        return invalid(format!("The lora adapter '{lora_name}' conflicts with a served base model."));
    }
    if !load_inplace && engine.adapter(&lora_name).is_some() {
        return invalid(format!(
            "The lora adapter '{lora_name}' has already been loaded. If you want to load the adapter in place, set \
             'load_inplace' to True."
        ));
    }
    engine.load_adapter(&lora_name, &lora_path);
    Ok(success(format!("Success: LoRA adapter '{lora_name}' added successfully.")))
}

/// Unloads an adapter.
///
/// # Errors
/// A 404 for one that is not loaded.
pub fn unload(engine: &Engine, body: &Value) -> Result<Response<Body>, ApiError> {
    let Unload { lora_name } = validate::parse(body)?;
    if engine.adapter(&lora_name).is_none() {
        let message = format!("The lora adapter '{lora_name}' cannot be found.");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "NotFoundError", message));
    }
    engine.unload_adapter(&lora_name);
    Ok(success(format!("Success: LoRA adapter '{lora_name}' removed successfully.")))
}

fn success(message: String) -> Response<Body> {
    let mut response = reply::text(StatusCode::OK, message, "text/plain");
    // Starlette's plain Response has no type of its own.
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    response
}
