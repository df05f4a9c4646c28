//! `POST /v1/chat/completions`: enough for a proxy that forwards it.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::activity::Running;
use super::engine::Engine;
use super::error::ApiError;
use super::faults::Faults;
use super::info::render_chat;
use super::params::ParamFields;
use super::reply::{self, Body, StreamFault};
use super::sequence::{Finish, Sequence};
use super::{validate, wire};

/// Answers a chat request, streamed or not, without logprobs.
///
/// # Errors
/// What vLLM refuses before it streams.
pub async fn complete(
    engine: &Arc<Engine>,
    faults: &Arc<Faults>,
    body: &Value,
    stream_fault: StreamFault,
    running: &mut Option<Running>,
) -> Result<Response<Body>, ApiError> {
    let config = &engine.config;
    validate::check_model(config, body["model"].as_str())?;
    if !body["messages"].is_array() {
        return Err(validate::wrong_type("messages"));
    }
    let prompt = engine.codec.encode(&render_chat(body));
    validate::check_engine_prompt(config, &prompt)?;
    // Chat's own `logprobs` is a boolean, and its replies here have none.
    let mut fields = body.clone();
    fields["logprobs"] = Value::Null;
    let mut sampling: ParamFields = validate::parse(&fields)?;
    let asked = body["max_completion_tokens"].as_i64().or(sampling.max_tokens.take());
    let room = (config.max_model_len - prompt.len()) as i64;
    let params = sampling
        .with_defaults(&config.defaults)
        .build(asked.map_or(room, |asked| asked.min(room)), |text| engine.codec.encode(text))?;
    params.verify(config)?;

    let id = format!("chatcmpl-{}", wire::request_id(body["request_id"].as_str()));
    let model = config.model_name.clone();
    let mut sequence = Sequence::start(engine, prompt, params, body["cache_salt"].as_str().map(str::to_owned));
    if body["stream"] == true {
        let faults = Arc::clone(faults);
        return Ok(reply::events(stream_fault, running.take(), move |mut events| async move {
            let chunk = |delta: Value, finish: Option<&Finish>| {
                let choice =
                    json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish.map(Finish::reason)});
                let object = "chat.completion.chunk";
                json!({"id": id, "object": object, "created": wire::now(), "model": model, "choices": [choice]})
                    .to_string()
            };
            events.send(&chunk(json!({"role": "assistant", "content": ""}), None)).await?;
            let mut sent = 0;
            while sequence.finish.is_none() {
                faults.before_token().await;
                sequence.step();
                let from = std::mem::replace(&mut sent, sequence.text.len()).min(sequence.text.len());
                let delta = json!({"content": &sequence.text[from..]});
                events.send(&chunk(delta, sequence.finish.as_ref())).await?;
            }
            events.send("[DONE]").await
        }));
    }
    while sequence.finish.is_none() {
        faults.before_token().await;
        sequence.step();
    }
    let message = json!({"role": "assistant", "content": sequence.text, "refusal": null, "tool_calls": []});
    let choice = json!({"index": 0, "message": message, "logprobs": null,
        "finish_reason": sequence.finish.as_ref().map(Finish::reason),
        "stop_reason": sequence.finish.as_ref().map(Finish::stop_reason)});
    let usage = wire::usage(config, sequence.prompt.len(), sequence.output.len(), sequence.cached, true);
    let reply = json!({"id": id, "object": "chat.completion", "created": wire::now(), "model": model,
        "choices": [choice], "usage": usage});
    Ok(reply::json(StatusCode::OK, &reply))
}
