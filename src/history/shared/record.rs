//! Rollouts as bytes.
//!
//! `SDR1`, then in variable-length integers unless said otherwise: sampling (a byte that tells whether it is known, then
//! temperature as f64, top-k or 0, top-p and min-p as f64), finish (a byte), versions (count, then length, text and first
//! token of each), tokens (count, then each), and for each token its row (count, then ids, then log-probabilities as
//! f32). Fixed widths are little-endian. At the end stand the first 16 bytes of SHA-256 of the prompt's digest and all
//! before: what was damaged, or belongs to another prompt, is not read.

use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::history::key::Digest;
use crate::history::rows::Rows;
use crate::history::{Finish, Rollout};
use crate::speculation::{Entry, Sampling, TokenId};

const MAGIC: &[u8; 4] = b"SDR1";
const SEAL: usize = 16;

/// Why bytes are no rollout of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They begin otherwise.
    #[error("of another format")]
    Format,
    /// Something in them was changed, or they are another prompt's.
    #[error("damaged, or of another prompt")]
    Seal,
    /// They were sealed, and make no sense all the same.
    #[error("without sense")]
    Content,
}

impl RecordError {
    /// Its name among the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Seal => "seal",
            Self::Content => "content",
        }
    }
}

/// The bytes of a rollout of the prompt with this digest, with or without its rows.
pub(super) fn encode(rollout: &Rollout, prompt: &Digest, with_rows: bool) -> Vec<u8> {
    let mut writer = Writer(MAGIC.to_vec());
    writer.sampling(rollout.sampling().filter(|_| with_rows));
    writer.0.push(match rollout.ended() {
        Some(Finish::Stop) => 0,
        Some(Finish::Length) => 1,
        Some(Finish::Abort) | None => 2,
    });
    writer.integer(rollout.versions().len() as u64);
    for (version, start) in rollout.versions() {
        writer.integer(version.len() as u64);
        writer.0.extend(version.as_bytes());
        writer.integer(u64::from(*start));
    }
    writer.integer(rollout.tokens().len() as u64);
    rollout.tokens().iter().for_each(|token| writer.integer(u64::from(*token)));
    for index in 0..rollout.tokens().len() {
        let (ids, logprobs) = if with_rows { rollout.rows().columns(index) } else { Default::default() };
        writer.integer(ids.len() as u64);
        ids.iter().for_each(|id| writer.integer(u64::from(*id)));
        logprobs.iter().for_each(|logprob| writer.0.extend(logprob.to_le_bytes()));
    }
    let seal = seal(&writer.0, prompt);
    writer.0.extend(seal);
    writer.0
}

/// The rollout of the prompt with this digest that was encoded.
///
/// # Errors
/// When these bytes are none.
pub(super) fn decode(bytes: &[u8], prompt: &Digest) -> Result<Rollout, RecordError> {
    if !bytes.starts_with(MAGIC) {
        return Err(RecordError::Format);
    }
    let (content, sealed) = bytes.split_at_checked(bytes.len().saturating_sub(SEAL)).ok_or(RecordError::Seal)?;
    if content.len() < MAGIC.len() || seal(content, prompt) != *sealed {
        return Err(RecordError::Seal);
    }
    let mut reader = Reader(&content[MAGIC.len()..]);
    reader.rollout().filter(|_| reader.0.is_empty()).ok_or(RecordError::Content)
}

fn seal(content: &[u8], prompt: &Digest) -> [u8; SEAL] {
    let mut context = Context::new(&SHA256);
    context.update(prompt);
    context.update(content);
    let mut seal = [0; SEAL];
    seal.copy_from_slice(&context.finish().as_ref()[..SEAL]);
    seal
}

struct Writer(Vec<u8>);

impl Writer {
    /// Seven bits a byte, the lowest first; the high bit says that more follow.
    fn integer(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn sampling(&mut self, sampling: Option<&Sampling>) {
        self.0.push(u8::from(sampling.is_some()));
        if let Some(sampling) = sampling {
            self.0.extend(sampling.temperature().to_le_bytes());
            self.integer(sampling.top_k().unwrap_or(0) as u64);
            self.0.extend(sampling.top_p().to_le_bytes());
            self.0.extend(sampling.min_p().to_le_bytes());
        }
    }
}

/// Reads what is left; `None` where it is not what it should be.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn float(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    fn integer(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number of things of at least a byte each.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.integer()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn token(&mut self) -> Option<TokenId> {
        TokenId::try_from(self.integer()?).ok()
    }

    fn sampling(&mut self) -> Option<Option<Sampling>> {
        match self.byte()? {
            0 => Some(None),
            1 => {
                let temperature = self.float()?;
                let top_k = usize::try_from(self.integer()?).ok()?;
                Sampling::new(temperature, (top_k > 0).then_some(top_k), self.float()?, self.float()?).map(Some)
            }
            _ => None,
        }
    }

    fn rollout(&mut self) -> Option<Rollout> {
        let sampling = self.sampling()?;
        let finish = match self.byte()? {
            0 => Finish::Stop,
            1 => Finish::Length,
            2 => Finish::Abort,
            _ => return None,
        };
        let mut versions: Vec<(Arc<str>, u32)> = Vec::new();
        for _ in 0..self.count()? {
            let length = self.count()?;
            let version = std::str::from_utf8(self.take(length)?).ok()?;
            versions.push((version.into(), u32::try_from(self.integer()?).ok()?));
        }
        let count = self.count()?;
        let tokens: Vec<TokenId> = (0..count).map(|_| self.token()).collect::<Option<_>>()?;
        let mut rows = Rows::default();
        let mut row: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let length = self.count()?;
            row.clear();
            for _ in 0..length {
                row.push(Entry { token: self.token()?, logprob: 0.0 });
            }
            for entry in &mut row {
                entry.logprob = f64::from(f32::from_le_bytes(self.array()?));
            }
            rows.push(row.iter());
        }
        Rollout::of_parts(tokens, rows, versions, sampling, finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculation::Scored;

    const PROMPT: Digest = [7; 32];

    fn rollout(sampling: Option<Sampling>) -> Rollout {
        let (one, two): (Arc<str>, Arc<str>) = ("step-1".into(), "2".into());
        let entry = |token, p: f64| Entry { token, logprob: p.ln() };
        let scored = |token| Scored {
            token,
            logprob: -1.0,
            rank: None,
            top: vec![entry(token, 0.6), entry(151_000, 0.25), entry(3, 0.1)],
        };
        let mut rollout = Rollout::new(Arc::clone(&one), sampling);
        rollout.extend(&one, &[scored(5), Scored { top: vec![], ..scored(300) }]);
        rollout.extend(&two, &[scored(90_000)]);
        rollout.finish(Finish::Length);
        rollout
    }

    fn drafts(rollout: &Rollout) -> Vec<crate::speculation::Draft> {
        (0..).map_while(|index| rollout.draft(index)).collect()
    }

    #[test]
    fn a_rollout_comes_back_as_it_was() {
        let samplings = [None, Sampling::new(1.0, None, 1.0, 0.0), Sampling::new(0.7, Some(2), 0.9, 0.01)];
        for sampling in samplings {
            let rollout = rollout(sampling);
            let back = decode(&encode(&rollout, &PROMPT, true), &PROMPT).unwrap();
            assert_eq!(drafts(&back), drafts(&rollout));
            assert_eq!((back.versions(), back.ended()), (rollout.versions(), rollout.ended()));
            assert_eq!(back.sampling(), rollout.sampling());
            let text = decode(&encode(&rollout, &PROMPT, false), &PROMPT).unwrap();
            assert_eq!(text.tokens(), rollout.tokens());
            assert!((0..3).all(|index| text.rows().columns(index) == (&[], &[])) && text.sampling().is_none());
        }
    }

    #[test]
    fn what_is_changed_or_cut_or_of_another_prompt_is_refused() {
        let bytes = encode(&rollout(Sampling::new(1.0, None, 1.0, 0.0)), &PROMPT, true);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let expected = if at < MAGIC.len() { RecordError::Format } else { RecordError::Seal };
            assert_eq!(decode(&changed, &PROMPT).unwrap_err(), expected);
            let expected = if at < MAGIC.len() { RecordError::Format } else { RecordError::Seal };
            assert_eq!(decode(&bytes[..at], &PROMPT).unwrap_err(), expected);
        }
        assert_eq!(decode(&bytes, &[8; 32]).unwrap_err(), RecordError::Seal);
        assert!(decode(&bytes, &PROMPT).is_ok());
    }

    #[test]
    fn what_was_sealed_without_sense_is_refused() {
        let sealed = |content: &[u8]| {
            let content = [MAGIC.as_slice(), content].concat();
            let seal = seal(&content, &PROMPT);
            [content, seal.to_vec()].concat()
        };
        let unknown_sampling_stop = [0, 0];
        let version_1_from_0 = [1, 1, b'1', 0];
        let good = [&unknown_sampling_stop[..], &version_1_from_0, &[1, 42, 0]].concat();
        assert_eq!(decode(&sealed(&good), &PROMPT).unwrap().tokens(), [42]);
        let bad: [&[u8]; 9] = [
            &[],
            &[2, 0, 1, 1, b'1', 0, 0],
            &[0, 3, 1, 1, b'1', 0, 0],
            &[0, 0, 0, 0],
            &[0, 0, 1, 1, 0xff, 0, 0],
            &[0, 0, 1, 1, b'1', 1, 0],
            &[0, 0, 1, 1, b'1', 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 1, 1, b'1', 0, 1, 42, 9],
            &[0, 0, 1, 1, b'1', 0, 1, 42, 0, 0],
        ];
        for content in bad {
            assert_eq!(decode(&sealed(content), &PROMPT).unwrap_err(), RecordError::Content, "{content:?}");
        }
    }
}
