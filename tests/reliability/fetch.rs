//! `GET` over a connection of its own, which is closed afterwards.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status and body of what is at `path`; nothing where nobody answers.
pub async fn fetch(url: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://")?).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Whether what is at `path` is there.
pub async fn succeeds(url: &str, path: &str) -> bool {
    fetch(url, path).await.is_some_and(|(status, _)| status == 200)
}
