//! The trivial upstream: constant replies, one write each, and streams of a write a token.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::traffic::{DONE, MODEL, STREAMED_TOKENS, TEXT, completion, embedding, event};

/// Every reply, as it goes over the wire.
#[derive(Debug)]
pub(super) struct Replies {
    healthy: Vec<u8>,
    models: Vec<u8>,
    text: Vec<u8>,
    tokens: Vec<u8>,
    completion: Vec<u8>,
    embedding: Vec<u8>,
    missing: Vec<u8>,
    stream_head: Vec<u8>,
    stream_event: Vec<u8>,
    stream_end: Vec<u8>,
}

impl Default for Replies {
    fn default() -> Self {
        let ok = |body: &str| whole("200 OK", body);
        Self {
            healthy: ok(""),
            models: ok(&json!({"object": "list", "data": [{"id": MODEL, "max_model_len": 4096}]}).to_string()),
            text: ok(&json!({ "prompt": TEXT }).to_string()),
            tokens: ok(&json!({"count": 8, "max_model_len": 4096, "tokens": [0, 1, 0, 1, 0, 1, 0, 1]}).to_string()),
            completion: ok(&completion()),
            embedding: ok(&embedding()),
            missing: whole("404 Not Found", r#"{"detail":"Not Found"}"#),
            stream_head: head("200 OK", "text/event-stream; charset=utf-8", "transfer-encoding: chunked").into_bytes(),
            stream_event: chunk(&event()),
            stream_end: [chunk(DONE), b"0\r\n\r\n".to_vec()].concat(),
        }
    }
}

fn head(status: &str, content_type: &str, framing: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: {content_type}\r\n\
         {framing}\r\n\r\n"
    )
}

fn whole(status: &str, body: &str) -> Vec<u8> {
    let head = head(status, "application/json", &format!("content-length: {}", body.len()));
    (head + body).into_bytes()
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// Answers on `listener` for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener) {
    let replies = Arc::new(Replies::default());
    loop {
        // A connection that could not be accepted shows as a client's error.
        let Ok((stream, peer)) = listener.accept().await else { continue };
        tokio::spawn(answer(stream, peer, Arc::clone(&replies)));
    }
}

async fn answer(mut stream: TcpStream, _peer: SocketAddr, replies: Arc<Replies>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        let Some(request) = parse(&buffer[..filled])? else {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            continue;
        };
        let length = request.length;
        match request.wants {
            Wants::Reply(pick) => stream.write_all(pick(&replies)).await?,
            Wants::Stream => {
                stream.write_all(&replies.stream_head).await?;
                for _ in 0..STREAMED_TOKENS {
                    stream.write_all(&replies.stream_event).await?;
                    // The next token is written when whoever waits for this one had a chance to read it.
                    tokio::task::yield_now().await;
                }
                stream.write_all(&replies.stream_end).await?;
            }
        }
        buffer.copy_within(length..filled, 0);
        filled -= length;
    }
}

struct Request {
    /// Bytes that it takes up.
    length: usize,
    wants: Wants,
}

enum Wants {
    Reply(fn(&Replies) -> &[u8]),
    Stream,
}

/// The first request in `bytes`, once it is there whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let mut body = 0;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            body = std::str::from_utf8(header.value)?.parse()?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("the proxy made chunks of a body of known length");
        }
    }
    let Some(body) = bytes.get(head..head + body) else { return Ok(None) };
    let wants = match request.path.unwrap_or_default() {
        "/v1/embeddings" => Wants::Reply(|replies| &replies.embedding),
        "/v1/completions" if memchr::memmem::find(body, br#""stream":true"#).is_some() => Wants::Stream,
        "/v1/completions" => Wants::Reply(|replies| &replies.completion),
        "/health" => Wants::Reply(|replies| &replies.healthy),
        "/v1/models" => Wants::Reply(|replies| &replies.models),
        "/tokenize" => Wants::Reply(|replies| &replies.tokens),
        // Other ids than these two there are not.
        "/detokenize" if memchr::memmem::find(body, b"[0,1]").is_some() => Wants::Reply(|replies| &replies.text),
        _ => Wants::Reply(|replies| &replies.missing),
    };
    Ok(Some(Request { length: head + body.len(), wants }))
}

#[cfg(test)]
mod tests {
    use super::super::traffic::Kind;
    use super::*;

    #[test]
    fn a_request_is_answered_once_it_is_there_whole() {
        let to = ([127, 0, 0, 1], 80).into();
        for kind in Kind::ALL {
            let request = kind.request(to);
            assert!(parse(&request[..request.len() - 1]).unwrap().is_none());
            let two = [&request[..], &request[..]].concat();
            let parsed = parse(&two).unwrap().unwrap();
            assert_eq!(parsed.length, request.len());
            assert_eq!(matches!(parsed.wants, Wants::Stream), kind == Kind::Stream);
        }
    }
}
