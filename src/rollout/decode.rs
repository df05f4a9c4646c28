//! Decoding plainly: the server's own stream of tokens, left when another way becomes faster.

use futures_util::StreamExt;
use tokio::time::Instant;

use super::control::Turn;
use super::controller::{Measurement, Mode};
use super::driver::Running;
use super::types::RolloutError;
use crate::telemetry::Timer;
use crate::upstream::{About, Tokens, UpstreamError};
use crate::verify::{Prefill, StreamWishes, sampled_as_scored};

/// Tokens between two of which the time is measured.
const WINDOW: usize = 8;
/// A listener that takes longer than this to take a token holds up the measurement, too.
const PROMPT_LISTENER: f64 = 0.002;

/// What takes no longer than this was not waited for.
const AT_ONCE: f64 = 0.000_05;
/// Others' verifications may take this share of the time that is measured.
const MOST_WORK: f64 = 0.25;

/// The time from token to token, the work of others' verifications taken off.
struct Window {
    begun: Instant,
    work: f64,
    /// Rollouts that decoded then.
    decoding: f64,
    /// Rollouts that had their first token by then.
    started: usize,
    tokens: usize,
}

impl Running {
    /// Decodes up to `length` tokens, or up to a control request, or, once `at_least` have come, until speculation is
    /// expected to be faster. The tokens are those of the stream that is `opened` already, if one is.
    pub(super) async fn decode(
        &mut self,
        length: usize,
        at_least: usize,
        turn: &Turn,
        opened: Option<Tokens>,
    ) -> Result<(), RolloutError> {
        let start = self.sequence.committed();
        // Only the stream that reads the prompt tells what is asked of the prefix cache.
        let begins = start == 0;
        let metrics = self.shared.settings.metrics.speculation.clone();
        let _timer = metrics.decoding();
        let _present = self.pace.monitor.at_server();
        let (mut stream, length) = match opened {
            // The server was told of all constraints, those of the first tokens too.
            Some(tokens) => (tokens, self.sequence.room()),
            None => {
                let interval = self.shared.stream_interval(self.is_streamed);
                let wishes = StreamWishes { usage: begins, interval };
                (self.shared.sampler.decode(&self.terms, self.sequence.context(), length, wishes).await?, length)
            }
        };
        let mut wanted = std::pin::pin!(turn.is_wanted());
        let mut decoded = 0_usize;
        let mut review = at_least;
        let mut window: Option<Window> = None;
        loop {
            let asked = Timer::start();
            let chunk = tokio::select! {
                biased;
                chunk = stream.next() => chunk,
                // The tokens that came were sampled before the control request went on.
                () = &mut wanted => return Ok(()),
            };
            let was_awaited = asked.seconds() > AT_ONCE;
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                // What came is committed, so the rest can be asked for again.
                Some(Err(error)) if decoded > 0 && error.is_transient() => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => break,
            };
            if begins {
                self.learn_of(chunk.about, decoded == 0 && !chunk.tokens.is_empty());
            }
            let brought = chunk.tokens.len();
            for sampled in chunk.tokens {
                decoded += 1;
                metrics.decoded_tokens.inc();
                self.pace.decoded(sampled.token);
                let over = self.commit(sampled_as_scored(sampled, self.terms.companions()), turn.version())?;
                if over {
                    break;
                }
            }
            for span in chunk.versions {
                let version = self.version(Some(&span.version), turn);
                self.versions.stamp(start.saturating_add(span.start), &version);
            }
            self.measure(&mut window, brought, was_awaited);
            let by_server = chunk.finish_reason.is_some();
            if self.sequence.finish().is_some() || decoded >= length {
                self.close_window(&mut window);
                if begins && by_server && self.sequence.finish().is_some() {
                    // The last event tells of the prefix cache.
                    while let Some(Ok(chunk)) = stream.next().await {
                        self.learn_of(chunk.about, false);
                    }
                }
                return Ok(());
            }
            let flushing = Timer::start();
            tokio::select! {
                biased;
                goes_on = self.flush() => if !goes_on { return Ok(()) },
                // A listener that does not listen holds up nobody else.
                () = &mut wanted => return Ok(()),
            }
            if flushing.seconds() > PROMPT_LISTENER {
                window = None;
            }
            if decoded >= review {
                let decision = self.consider().await;
                if decision.choice.mode() == Mode::Speculate {
                    self.close_window(&mut window);
                    self.pace.drop_shadow();
                    self.decided = Some(decision);
                    return Ok(());
                }
                review = decoded.saturating_add(decision.choice.at_least);
                if decision.choice.prepare {
                    self.prepare();
                }
                for (drafter, proposal) in decision.ready {
                    self.pace.keep_shadow(drafter, proposal);
                }
            }
        }
        if decoded == 0 {
            let reason = "the stream brought no token".to_owned();
            return Err(UpstreamError::Protocol { path: "/v1/completions", reason }.into());
        }
        Ok(())
    }

    /// Keeps what the stream's events say of the request: with the first token, and again when the end tells more.
    fn learn_of(&mut self, about: About, is_first: bool) {
        let About { model, fingerprint, usage } = about;
        if !is_first && usage.is_none() {
            return;
        }
        let known = self.shared.fingerprint(fingerprint);
        self.prefill =
            Some(Prefill { cached_tokens: usage.flatten(), fingerprint: known, model, prompt_logprobs: None });
    }

    /// Takes in that a chunk has come. When one came that lay there already is not known, so nothing is timed by it.
    fn measure(&mut self, window: &mut Option<Window>, tokens: usize, was_awaited: bool) {
        match window {
            None if !was_awaited => {}
            None => {
                let load = self.pace.monitor.load();
                let (work, started, decoding) = (load.verification_work(), load.started(), load.decoding());
                *window = Some(Window { begun: Instant::now(), work, decoding, started, tokens: 0 });
            }
            Some(Window { tokens: seen, .. }) => {
                *seen += tokens;
                if was_awaited && *seen >= WINDOW {
                    self.close_window(window);
                    self.measure(window, 0, true);
                }
            }
        }
    }

    /// Reports what was measured.
    fn close_window(&mut self, window: &mut Option<Window>) {
        let Some(Window { begun, work, decoding, started, tokens }) = window.take().filter(|window| window.tokens > 1)
        else {
            return;
        };
        let monitor = &self.pace.monitor;
        let elapsed = begun.elapsed().as_secs_f64();
        // What others' verifications took of it is part of speculating, not of decoding. It is only known by forecast, so
        // where it is much, what is left says little.
        let work = monitor.load().verification_work() - work;
        if work > MOST_WORK * elapsed {
            return;
        }
        let interval = (elapsed - work) / tokens as f64;
        let load = decoding.max(monitor.load().decoding()) + monitor.costs().others;
        if monitor.load().was_typical(started) {
            monitor.report(Measurement::Decoded { load, interval, tokens: tokens as f64 });
        }
    }
}
