//! What clients ask and what the upstream answers: requests and replies of the size and shape of a trainer's.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// Tokens of a streamed reply.
pub(super) const STREAMED_TOKENS: usize = 256;
/// Tokens of a request's prompt.
const PROMPT_TOKENS: u32 = 128;

/// A kind of request, each of which the sidecar forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a route that the sidecar does not know.
    Route,
    /// A completion that the sidecar parses, to find a field that it does not speculate with.
    Completion,
    /// The same, whose reply is streamed.
    Stream,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Route, Self::Completion, Self::Stream];

    /// What the kind is called in results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Completion => "completion",
            Self::Stream => "stream",
        }
    }

    /// The reason that the sidecar counts such requests under.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Completion => "presence_penalty",
            Self::Stream => "frequency_penalty",
        }
    }

    /// The request, as a client writes it.
    pub(super) fn request(self, to: SocketAddr) -> Vec<u8> {
        let path = match self {
            Self::Route => "/v1/embeddings",
            Self::Completion | Self::Stream => "/v1/completions",
        };
        let prompt: Vec<u32> = (1000..1000 + PROMPT_TOKENS).collect();
        let mut body = match self {
            Self::Route => json!({"model": MODEL, "input": prompt}),
            Self::Completion | Self::Stream => {
                json!({"model": MODEL, "prompt": prompt, "max_tokens": STREAMED_TOKENS, "temperature": 1.0, "logprobs": 0})
            }
        };
        match self {
            Self::Route => {}
            Self::Completion => body["presence_penalty"] = json!(0.5),
            Self::Stream => {
                body["frequency_penalty"] = json!(0.5);
                body["stream"] = json!(true);
            }
        }
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {to}\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n\
             User-Agent: sidedraft-bench\r\nAuthorization: Bearer EMPTY\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }

    /// The bytes of the reply's body, framing aside.
    pub(super) fn payload(self) -> usize {
        match self {
            Self::Route => embedding().len(),
            Self::Completion => completion().len(),
            Self::Stream => STREAMED_TOKENS * event().len() + DONE.len(),
        }
    }
}

pub(super) const MODEL: &str = "trivial";
/// The end of a stream of events.
pub(super) const DONE: &str = "data: [DONE]\n\n";

/// The only completion that the upstream knows, in vLLM's shape.
pub(super) fn completion() -> String {
    json!({
        "id": "cmpl-0123456789abcdef0123456789abcdef", "object": "text_completion", "created": 1_750_000_000,
        "model": MODEL,
        "choices": [{
            "index": 0, "text": "a",
            "logprobs": {
                "text_offset": [0], "token_logprobs": [-0.5], "tokens": ["token_id:0"],
                "top_logprobs": [{"token_id:0": -0.5}],
            },
            "finish_reason": "length", "stop_reason": null, "token_ids": null, "prompt_logprobs": null,
            "prompt_token_ids": null,
        }],
        "service_tier": null, "system_fingerprint": null,
        "usage": {"prompt_tokens": 128, "total_tokens": 129, "completion_tokens": 1, "prompt_tokens_details": null},
        "kv_transfer_params": null,
    })
    .to_string()
}

/// An event of a stream: one token, in vLLM's shape.
pub(super) fn event() -> String {
    let chunk = json!({
        "id": "cmpl-0123456789abcdef0123456789abcdef", "object": "text_completion", "created": 1_750_000_000,
        "model": MODEL,
        "choices": [{
            "index": 0, "text": "a",
            "logprobs": {
                "text_offset": [0], "token_logprobs": [-0.5], "tokens": ["token_id:0"],
                "top_logprobs": [{"token_id:0": -0.5}],
            },
            "finish_reason": null, "stop_reason": null,
        }],
    });
    format!("data: {chunk}\n\n")
}

/// What the route that the sidecar does not know answers.
pub(super) fn embedding() -> String {
    json!({
        "id": "embd-0123456789abcdef", "object": "list", "created": 1_750_000_000, "model": MODEL,
        "data": [{"index": 0, "object": "embedding", "embedding": vec![0.125; 64]}],
        "usage": {"prompt_tokens": 128, "total_tokens": 128, "completion_tokens": 0, "prompt_tokens_details": null},
    })
    .to_string()
}

/// The smallest tokenizer with which the sidecar, having compared it with [`TEXT`], goes to work.
pub(super) fn tokenizer() -> Value {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [], "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"a": 0, "b": 1},
            "merges": []},
    })
}

/// The text of all ids of the [`tokenizer`].
pub(super) const TEXT: &str = "ab";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_its_body_is() {
        for kind in Kind::ALL {
            let request = String::from_utf8(kind.request(([127, 0, 0, 1], 80).into())).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            assert!(serde_json::from_str::<Value>(body).is_ok());
        }
    }
}
