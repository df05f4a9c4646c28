//! Reads a reply in whatever pieces it comes, without keeping it: all that counts is that it is complete.

use anyhow::{Context, bail, ensure};

/// A reply that is being read.
#[derive(Debug, Default)]
pub(super) struct Reply {
    state: State,
    /// Bytes of the body so far, framing aside.
    pub payload: usize,
}

#[derive(Debug)]
enum State {
    /// What there is of the head.
    Head(Vec<u8>),
    /// The rest of a body of known length.
    Body(usize),
    /// The size of the next chunk, as far as it was read.
    Size(usize),
    /// The rest of a chunk and of the line end after it.
    Chunk(usize),
    /// The empty line after the last chunk, as far as it was read.
    End(usize),
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Reply {
    /// Takes the next piece; true once the reply is complete.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> anyhow::Result<bool> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Head(begun) => {
                    let before = begun.len();
                    begun.extend_from_slice(piece);
                    let Some((length, body)) = head(begun)? else { return Ok(false) };
                    piece = &piece[length - before..];
                    self.state = body;
                }
                State::Body(left) => {
                    ensure!(piece.len() <= *left, "the reply is longer than it says");
                    self.payload += piece.len();
                    *left -= piece.len();
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(self.is_done());
                }
                State::Size(size) => {
                    let byte = piece[0];
                    piece = &piece[1..];
                    match char::from(byte).to_digit(16) {
                        Some(digit) => *size = (*size << 4) | digit as usize,
                        None if byte == b'\r' => {}
                        None if byte == b'\n' && *size == 0 => self.state = State::End(0),
                        // The chunk and the line end after it.
                        None if byte == b'\n' => self.state = State::Chunk(*size + 2),
                        None => bail!("a chunk without its size"),
                    }
                }
                State::Chunk(left) => {
                    let taken = piece.len().min(*left);
                    self.payload += taken.min(left.saturating_sub(2));
                    *left -= taken;
                    piece = &piece[taken..];
                    if *left == 0 {
                        self.state = State::Size(0);
                    }
                }
                State::End(read) => {
                    ensure!(b"\r\n".get(*read) == Some(&piece[0]), "trailers were not asked for");
                    *read += 1;
                    piece = &piece[1..];
                    if *read == 2 {
                        self.state = State::Done;
                    }
                }
                State::Done => bail!("more than a reply"),
            }
        }
        Ok(self.is_done())
    }

    fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

/// The length of a successful reply's head, and how its body comes.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, State)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut reply = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = reply.parse(bytes)? else { return Ok(None) };
    ensure!(reply.code == Some(200), "status {}: {}", reply.code.unwrap_or(0), String::from_utf8_lossy(bytes));
    let value = |name: &str| reply.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let body = match value("content-length") {
        Some(header) => State::Body(std::str::from_utf8(header.value)?.parse().context("content-length")?),
        None => {
            ensure!(value("transfer-encoding").is_some(), "a reply that does not say how long it is");
            State::Size(0)
        }
    };
    Ok(Some((length, if matches!(body, State::Body(0)) { State::Done } else { body })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n";

    #[test]
    fn pieces_of_any_size_make_the_same_reply() {
        for (text, payload) in [(WHOLE, 5), (CHUNKED, 20)] {
            for size in 1..=text.len() {
                let mut reply = Reply::default();
                let done: Vec<bool> = text.as_bytes().chunks(size).map(|piece| reply.feed(piece).unwrap()).collect();
                assert_eq!(done.iter().filter(|done| **done).count(), 1, "in pieces of {size}");
                assert!(done[done.len() - 1]);
                assert_eq!(reply.payload, payload);
            }
        }
    }

    #[test]
    fn what_is_no_success_or_too_long_is_an_error() {
        assert!(Reply::default().feed(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(Reply::default().feed(format!("{WHOLE}x").as_bytes()).is_err());
        assert!(Reply::default().feed(format!("{CHUNKED}x").as_bytes()).is_err());
    }
}
