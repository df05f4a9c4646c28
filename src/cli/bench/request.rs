//! The request for a rollout, and what its reply says.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::record::Outcome;
use super::workload::{Line, Prompt};

/// How rollouts are asked for, besides what their line says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    pub model: &'a str,
    /// Instead of the line's own.
    pub temperature: Option<f64>,
    /// Instead of the line's own.
    pub max_tokens: Option<u64>,
    pub stream: bool,
    /// Whether to ask for log-probabilities.
    pub logprobs: bool,
    pub cache_salt: Option<&'a str>,
}

/// A request as it will go out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prepared {
    /// Index into the workload's lines.
    pub line: usize,
    pub path: &'static str,
    pub body: Bytes,
}

/// The request for one rollout of `line`.
pub(super) fn prepare(index: usize, line: &Line, manner: &Manner<'_>) -> Prepared {
    // The ids are asked for so that nobody has to be believed on how many tokens there are.
    let mut body = json!({"model": manner.model, "return_token_ids": true});
    let path = match &line.prompt {
        Prompt::Messages(messages) => {
            body["messages"] = Value::Array(messages.clone());
            "/v1/chat/completions"
        }
        Prompt::Plain(prompt) => {
            body["prompt"] = prompt.clone();
            "/v1/completions"
        }
    };
    if let Some(temperature) = manner.temperature.or(line.temperature) {
        body["temperature"] = json!(temperature);
    }
    if let Some(max_tokens) = manner.max_tokens.or(line.max_tokens) {
        body["max_tokens"] = json!(max_tokens);
    }
    if let Some(salt) = manner.cache_salt {
        body["cache_salt"] = json!(salt);
    }
    if manner.stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    if manner.logprobs {
        body["logprobs"] = if path == "/v1/completions" { json!(0) } else { json!(true) };
    }
    Prepared { line: index, path, body: body.to_string().into() }
}

/// A reply, or a piece of one.
#[derive(Debug, Deserialize)]
struct Reply {
    usage: Option<Usage>,
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Message>,
    delta: Option<Message>,
    token_ids: Option<Vec<u32>>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<String>,
}

impl Choice {
    fn text(&self) -> &str {
        let message = self.message.as_ref().or(self.delta.as_ref());
        self.text.as_deref().or_else(|| message?.content.as_deref()).unwrap_or_default()
    }
}

/// What a reply of `status` with `body` amounts to, and the text of it.
pub(super) fn outcome(status: u16, body: &[u8], stream: bool) -> (Outcome, String) {
    let pieces = match (200..300).contains(&status) {
        false => Err(format!("status {status}: {}", excerpt(body))),
        true if stream => events(body),
        true => piece(body).map(|piece| vec![piece]),
    };
    let text = |pieces: &[Reply]| pieces.iter().flat_map(|piece| &piece.choices).map(Choice::text).collect();
    match pieces.and_then(|pieces| Ok((read(&pieces)?, text(&pieces)))) {
        Ok(done) => done,
        Err(error) => (Outcome::Failed { error }, String::new()),
    }
}

fn piece(body: &[u8]) -> Result<Reply, String> {
    serde_json::from_slice(body).map_err(|error| format!("a reply that makes no sense ({error}): {}", excerpt(body)))
}

/// The events of a stream that came to its end.
fn events(body: &[u8]) -> Result<Vec<Reply>, String> {
    let mut pieces = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { continue };
        if data == b"[DONE]" {
            return Ok(pieces);
        }
        pieces.push(piece(data)?);
    }
    Err("a stream that was cut short".to_owned())
}

fn read(pieces: &[Reply]) -> Result<Outcome, String> {
    if let Some(error) = pieces.iter().find_map(|piece| piece.error.as_ref()) {
        return Err(excerpt(error.to_string().as_bytes()));
    }
    let choices = || pieces.iter().flat_map(|piece| &piece.choices);
    let usage = pieces.iter().rev().find_map(|piece| piece.usage.as_ref());
    let listed = choices().any(|choice| choice.token_ids.is_some());
    let ids: u64 = choices().filter_map(|choice| choice.token_ids.as_ref()).map(|ids| ids.len() as u64).sum();
    let tokens = match (usage.and_then(|usage| usage.completion_tokens), listed.then_some(ids)) {
        (Some(told), Some(ids)) if told != ids => {
            return Err(format!("a reply that tells {told} tokens and lists {ids}"));
        }
        (told, ids) => told.or(ids).ok_or("a reply that does not tell how many tokens it has")?,
    };
    Ok(Outcome::Done {
        tokens,
        prompt_tokens: usage.and_then(|usage| usage.prompt_tokens),
        finish: choices().filter_map(|choice| choice.finish_reason.clone()).next_back(),
    })
}

/// Enough of `body` to recognise it.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(prompt: Prompt) -> Line {
        Line { number: 1, prompt, group: None, n: 1, max_tokens: Some(7), temperature: Some(0.5), answer: None }
    }

    const PLAIN: Manner<'_> =
        Manner { model: "m", temperature: None, max_tokens: None, stream: false, logprobs: false, cache_salt: None };

    fn body(line: &Line, manner: &Manner<'_>) -> (&'static str, Value) {
        let prepared = prepare(0, line, manner);
        (prepared.path, serde_json::from_slice(&prepared.body).unwrap())
    }

    fn done(tokens: u64, prompt_tokens: Option<u64>, finish: Option<&str>) -> Outcome {
        Outcome::Done { tokens, prompt_tokens, finish: finish.map(str::to_owned) }
    }

    #[test]
    fn a_line_is_asked_for_as_it_says() {
        let chat = line(Prompt::Messages(vec![json!({"role": "user", "content": "hi"})]));
        let expected = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5,
            "max_tokens": 7, "return_token_ids": true});
        assert_eq!(body(&chat, &PLAIN), ("/v1/chat/completions", expected));
        let ids = line(Prompt::Plain(json!([1, 2])));
        let expected =
            json!({"model": "m", "prompt": [1, 2], "temperature": 0.5, "max_tokens": 7, "return_token_ids": true});
        assert_eq!(body(&ids, &PLAIN), ("/v1/completions", expected));
    }

    #[test]
    fn flags_go_before_the_line() {
        let manner = Manner {
            temperature: Some(0.0),
            max_tokens: Some(9),
            stream: true,
            logprobs: true,
            cache_salt: Some("s"),
            ..PLAIN
        };
        let expected = json!({"model": "m", "prompt": "hi", "temperature": 0.0, "max_tokens": 9, "cache_salt": "s",
            "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true, "logprobs": 0});
        assert_eq!(body(&line(Prompt::Plain("hi".into())), &manner), ("/v1/completions", expected));
    }

    #[test]
    fn tokens_are_the_usages_or_those_listed() {
        let usage =
            br#"{"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}"#;
        assert_eq!(outcome(200, usage, false).0, done(5, Some(3), Some("stop")));
        let listed = br#"{"choices": [{"token_ids": [1, 2]}]}"#;
        assert_eq!(outcome(200, listed, false).0, done(2, None, None));
    }

    #[test]
    fn a_stream_is_read_to_its_end() {
        let stream = b"data: {\"choices\": [{\"token_ids\": [1, 2, 3, 4]}]}\n\ndata: {\"choices\": [{\"finish_reason\": \"length\"}]}\n\n\
            data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 1, \"completion_tokens\": 4}}\n\ndata: [DONE]\n\n";
        assert_eq!(outcome(200, stream, true).0, done(4, Some(1), Some("length")));
    }

    #[test]
    fn the_text_is_told_by_either_route_whole_or_in_pieces() {
        for (body, stream) in [
            (r#"{"choices": [{"text": "a b", "token_ids": [1]}]}"#, false),
            (r#"{"choices": [{"message": {"content": "a b"}, "token_ids": [1]}]}"#, false),
            (
                "data: {\"choices\": [{\"delta\": {\"content\": \"a\"}, \"token_ids\": [1]}]}\n\n\
                 data: {\"choices\": [{\"delta\": {\"content\": \" b\"}, \"token_ids\": [2]}]}\n\ndata: [DONE]\n\n",
                true,
            ),
        ] {
            assert_eq!(outcome(200, body.as_bytes(), stream).1, "a b", "{body}");
        }
    }

    #[test]
    fn whatever_does_not_tell_its_tokens_has_failed() {
        for (status, body, stream, said) in [
            (500, "boom", false, "status 500: boom"),
            (200, "<html>", false, "a reply that makes no sense"),
            (200, r#"{"choices": []}"#, false, "does not tell how many tokens"),
            (
                200,
                r#"{"choices": [{"token_ids": [1]}], "usage": {"completion_tokens": 2}}"#,
                false,
                "2 tokens and lists 1",
            ),
            (200, r#"{"error": {"message": "no"}}"#, false, r#"{"message":"no"}"#),
            (200, "data: {\"usage\": {\"completion_tokens\": 4}}\n\n", true, "cut short"),
            (200, "data: {\"error\": \"bad\"}\n\ndata: [DONE]\n\n", true, "bad"),
        ] {
            let (Outcome::Failed { error }, _) = outcome(status, body.as_bytes(), stream) else { panic!("{body}") };
            assert!(error.contains(said), "{error}");
        }
    }
}
