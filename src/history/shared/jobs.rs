//! What a sidecar asks of Redis, and the one command that each of these is.

use std::sync::Arc;
use std::time::Instant;

use redis::Cmd;
use tokio::sync::oneshot;

use super::names::{Names, tag};
use super::{SharedOptions, record};
use crate::history::{PromptKey, Rollout, RolloutId};

const BEGIN: &str = include_str!("scripts/begin.lua");
const FINISH: &str = include_str!("scripts/finish.lua");
const CLAIM: &str = include_str!("scripts/claim.lua");
const TEXTS: &str = include_str!("scripts/texts.lua");

/// Records of a prompt, and texts, that Redis keeps.
const KEPT: usize = 256;

/// Texts that are read at once, the last.
const READ: usize = 64;

/// What is to be done, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Job {
    /// This sidecar has another version from now on.
    Moved(Arc<str>),
    /// A rollout begins.
    Began { key: PromptKey, id: RolloutId, version: Arc<str> },
    /// It is over.
    Finished { key: PromptKey, id: RolloutId, rollout: Arc<Rollout> },
    /// It is no longer known here, whatever becomes of it.
    Forgotten { key: PromptKey, id: RolloutId },
    /// So many are about to begin, and would have old ones.
    Expect { key: PromptKey, version: Arc<str>, wanted: usize, asked: Instant, waiting: oneshot::Sender<()> },
    /// What others said is to be indexed.
    Read { key: PromptKey },
}

impl Job {
    /// The command; `known` is the number of the last text of the prompt that is indexed.
    pub(super) fn command(&self, names: &Names, options: &SharedOptions, known: impl Fn(&PromptKey) -> u64) -> Cmd {
        let ttl = options.ttl.as_secs().max(1);
        match self {
            Self::Moved(version) => {
                let mut command = redis::cmd("SET");
                command.arg(names.own_version()).arg(tag(version)).arg("EX").arg(ttl);
                command
            }
            Self::Began { key, id, version } => {
                let mut command = on(BEGIN, names, key);
                command.arg(names.mark(*id)).arg(tag(version)).arg(ttl);
                command
            }
            Self::Finished { key, id, rollout } => {
                let digest = key.digest();
                let of = |is_wanted: bool, with_rows| {
                    let is_any = is_wanted && !rollout.tokens().is_empty();
                    if is_any { record::encode(rollout, &digest, with_rows) } else { Vec::new() }
                };
                let (record, text) = (of(options.replays, true), of(options.texts, false));
                let mut command = on(FINISH, names, key);
                command.arg(names.mark(*id)).arg(names.origin());
                command.arg(Names::record(*id, rollout)).arg(record).arg(text).arg(KEPT).arg(ttl);
                command
            }
            Self::Forgotten { key, id } => {
                let mut command = redis::cmd("HDEL");
                command.arg(names.prompt(&key.digest())).arg(names.mark(*id));
                command
            }
            Self::Expect { key, version, wanted, .. } => {
                let mut command = on(CLAIM, names, key);
                command.arg(*wanted).arg(tag(version)).arg(names.origin()).arg(names.versions()).arg(ttl);
                command
            }
            Self::Read { key } => {
                let mut command = on(TEXTS, names, key);
                command.arg(format!("{:016}", known(key))).arg(names.origin()).arg(READ);
                command
            }
        }
    }
}

/// A call of a script about a prompt.
fn on(script: &str, names: &Names, key: &PromptKey) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(names.prompt(&key.digest()));
    command
}
