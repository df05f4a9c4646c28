//! Errors as vLLM words them, in the three shapes it has had.

use http::StatusCode;
use serde_json::{Value, json};

use super::config::{FakeConfig, Version};

/// The kind of error whose body is the web framework's own.
const NO_ROUTE: &str = "no route";

/// A request the server refuses.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status of the reply.
    pub status: StatusCode,
    /// vLLM's name for the kind of error.
    pub kind: String,
    /// What it says.
    pub message: String,
    /// The parameter it blames.
    pub param: Option<String>,
}

impl ApiError {
    /// An error of `status` and `kind`.
    pub fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        Self { status, kind: kind.to_owned(), message: message.into(), param: None }
    }

    /// A 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestError", message)
    }

    /// A 400 that blames the value of a parameter, as `VLLMValidationError` prints it.
    pub fn invalid(message: &str, param: &str, value: impl std::fmt::Display) -> Self {
        let error = Self::bad_request(format!("{message} (parameter={param}, value={value})"));
        Self { param: Some(param.to_owned()), ..error }
    }

    /// A route that does not exist.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, NO_ROUTE, "Not Found")
    }

    /// The JSON body, in the shape of the server's version and frontend.
    #[must_use]
    pub fn body(&self, config: &FakeConfig) -> Value {
        let Self { status, kind, message, param } = self;
        let code = status.as_u16();
        if self.kind == NO_ROUTE {
            return json!({"detail": message});
        }
        if config.is_rust_frontend() {
            let kind = match code {
                404 => "model_not_found",
                500.. => "server_error",
                _ => "invalid_request_error",
            };
            return json!({"error": {"message": message, "type": kind, "param": param, "code": kind}});
        }
        if config.version < Version(0, 10, 1) {
            return json!({"object": "error", "message": message, "type": kind, "param": param, "code": code});
        }
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}
