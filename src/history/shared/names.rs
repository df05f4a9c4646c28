//! What things are called in Redis: nothing can be read back from a name but whether it is the same.
//!
//! Each prompt is one hash, `PREFIX:p:DIGEST`. Its fields: a mark `g:ORIGIN:ROLLOUT` for a rollout under way, a record `r:BEGUN:ORIGIN:ROLLOUT:VERSION,…` for one that is over and was not taken, a text `t:NUMBER:ORIGIN`, and `n`,
//! which counts the texts. `PREFIX:v:ORIGIN` is the version that a sidecar has. Origins, rollouts and versions are 16 hex
//! digits, times and numbers 16 decimal ones.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use crate::history::key::Digest;
use crate::history::{Rollout, RolloutId};

/// The names that one sidecar gives.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    /// This sidecar's own.
    origin: String,
}

impl Names {
    /// Names beginning with `prefix`, of a sidecar that is called as nobody else is.
    pub(super) fn new(prefix: &str) -> Self {
        let random = uuid::Uuid::new_v4();
        Self { prefix: prefix.to_owned(), origin: hex(&random.as_bytes()[..8]) }
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) fn prompt(&self, digest: &Digest) -> String {
        format!("{}:p:{}", self.prefix, hex(digest))
    }

    /// What the names of all sidecars' versions begin with.
    pub(super) fn versions(&self) -> String {
        format!("{}:v:", self.prefix)
    }

    /// The name of this sidecar's version.
    pub(super) fn own_version(&self) -> String {
        self.versions() + &self.origin
    }

    /// The mark of a rollout under way.
    pub(super) fn mark(&self, id: RolloutId) -> String {
        format!("g:{}:{:016x}", self.origin, id.0)
    }

    /// What a record's name says of the rollout.
    pub(super) fn record(id: RolloutId, rollout: &Rollout) -> String {
        let tags: Vec<String> = rollout.versions().iter().map(|(version, _)| tag(version)).collect();
        format!("{:016x}:{}", id.0, tags.join(","))
    }

    /// Whose record this is the name of, if it is one.
    pub(super) fn author(&self, record: &[u8]) -> Option<Author> {
        let mut parts = std::str::from_utf8(record).ok()?.split(':').skip(2);
        let (origin, id) = (parts.next()?, parts.next()?);
        let id = RolloutId(u64::from_str_radix(id, 16).ok()?);
        Some(if origin == self.origin { Author::Own(id) } else { Author::Other })
    }
}

/// Whose a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// This sidecar's, of that rollout.
    Own(RolloutId),
    /// Another's.
    Other,
}

/// A policy version's: versions may hold any character, and be long.
pub(super) fn tag(version: &str) -> String {
    hex(&digest(&SHA256, version.as_bytes()).as_ref()[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::history::{PromptKey, Tenant};
    use crate::speculation::Scored;

    #[test]
    fn names_tell_no_keys_and_no_prompts() {
        let names = Names::new("job");
        let key = PromptKey::new(Tenant::new(&[Some("sk-123")]), "model-name", &[11, 22, 33]);
        let name = names.prompt(&key.digest());
        assert_eq!(name.len(), "job:p:".len() + 64);
        assert!(name.starts_with("job:p:") && !name.contains("sk-123") && !name.contains("model"), "{name}");
    }

    #[test]
    fn a_records_name_says_whose_it_is() {
        let (mine, other) = (Names::new("job"), Names::new("job"));
        assert_ne!(mine.origin(), other.origin());
        let mut rollout = Rollout::new("1".into(), None);
        let scored = Scored { token: 1, logprob: -1.0, rank: None, top: vec![] };
        rollout.extend(&Arc::from("2:,"), &[scored]);
        let rest = Names::record(RolloutId(26), &rollout);
        assert_eq!(rest, format!("{:016x}:{},{}", 26, tag("1"), tag("2:,")));
        let name = format!("r:{:016}:{}:{rest}", 5, mine.origin());
        assert_eq!(mine.author(name.as_bytes()), Some(Author::Own(RolloutId(26))));
        assert_eq!(other.author(name.as_bytes()), Some(Author::Other));
        assert_eq!(mine.author(b"r:5"), None);
        assert_eq!(mine.author(b"\xff"), None);
    }
}
