//! The chat template: a line for each message, and a line begun for the answer.

use serde_json::Value;

use super::error::ApiError;
use super::validate;

/// What is said about the prompt of a chat, in a request to generate, to render or to tokenize.
pub struct Conversation {
    /// The prompt.
    pub text: String,
    /// The role of the last message.
    pub last_role: String,
    /// The text of the last message.
    pub last_content: String,
}

/// Renders the messages of `body`: `role content\n` for each, then `assistant ` unless `add_generation_prompt` is false;
/// with `continue_final_message` the last line stays open. Tools become a first line of their names.
/// `chat_template_kwargs` have no influence.
///
/// # Errors
/// A 400 for messages that are none, for media, and for options that exclude each other.
pub fn render(body: &Value) -> Result<Conversation, ApiError> {
    let generation_prompt = body["add_generation_prompt"] != false;
    let open = body["continue_final_message"] == true;
    if open && body["add_generation_prompt"] == true {
        let message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True.";
        return Err(ApiError::bad_request(message));
    }
    if open && generation_prompt {
        return Err(ApiError::bad_request(
            "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you \
             want the model to continue the final message, and add_generation_prompt when you want to add a header \
             that will prompt it to start a new assistant message instead.",
        ));
    }
    if body["chat_template"].is_string() {
        return Err(ApiError::bad_request(
            "Chat template is passed with request, but --trust-request-chat-template is not set. Refused request with \
             untrusted chat template.",
        ));
    }
    let messages = body["messages"].as_array().ok_or_else(|| validate::wrong_type("messages"))?;
    let mut text = tools(body);
    let (mut last_role, mut last_content) = (String::new(), String::new());
    for (index, message) in messages.iter().enumerate() {
        last_role = message["role"].as_str().ok_or_else(|| validate::wrong_type("messages"))?.to_owned();
        last_content = content(&message["content"])?;
        let end = if open && index + 1 == messages.len() { "" } else { "\n" };
        text.push_str(&format!("{last_role} {last_content}{end}"));
    }
    if generation_prompt {
        text.push_str("assistant ");
    }
    Ok(Conversation { text, last_role, last_content })
}

/// The text of a message: as it is, or its parts line by line.
fn content(content: &Value) -> Result<String, ApiError> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| part["text"].as_str().map(str::to_owned);
            let lines: Option<Vec<String>> = parts.iter().map(text).collect();
            lines.map(|lines| lines.join("\n")).ok_or_else(|| ApiError::bad_request("fake-model is not multimodal"))
        }
        _ => Err(validate::wrong_type("messages")),
    }
}

fn tools(body: &Value) -> String {
    let name = |tool: &Value| tool["function"]["name"].as_str().unwrap_or_default().to_owned();
    match body["tools"].as_array() {
        Some(tools) => format!("tools {}\n", tools.iter().map(name).collect::<Vec<_>>().join(" ")),
        None => String::new(),
    }
}
