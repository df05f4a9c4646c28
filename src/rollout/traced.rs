//! The spans of a rollout: one for all of it and one for each of its steps, which a collector gets where there is one. By the
//! first, log lines of a rollout bear the name of its request.
//!
//! Spans of steps are made at the level of debugging, so that without a collector they are not made at all.

use http::HeaderMap;
use tracing::field::Empty;
use tracing::{Level, Span};

use super::sequence::FinishReason;
use super::types::RolloutError;
use crate::telemetry::join;

/// The whole rollout's. At the level of errors, so that every log line has it, whatever is logged.
pub(super) fn rollout(request_id: &str, sample: usize, prompt: usize, client: &HeaderMap) -> Span {
    let span = tracing::error_span!(
        "rollout",
        request_id,
        sample = count(sample),
        prompt_tokens = Empty,
        tokens = Empty,
        outcome = Empty,
        error = Empty,
        otel.status_code = Empty,
    );
    join(&span, client);
    if is_wanted() {
        span.record("prompt_tokens", count(prompt));
    }
    span
}

/// Notes how a rollout ended: as it should, by an error, or because nobody listened any more.
pub(super) fn ended(span: &Span, tokens: usize, outcome: &'static str) {
    if is_wanted() {
        span.record("tokens", count(tokens)).record("outcome", outcome);
    }
}

/// The same of an error.
pub(super) fn failed(span: &Span, tokens: usize, error: &RolloutError) {
    ended(span, tokens, "failed");
    if is_wanted() {
        span.record("error", tracing::field::display(error)).record("otel.status_code", "ERROR");
    }
}

/// How an end is called.
pub(super) fn name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Abort => "abort",
    }
}

/// The reading of a prompt for so many rollouts, of which `first` is one.
pub(super) fn prefill(first: &Span, prompt: usize, rollouts: usize) -> Span {
    tracing::debug_span!(parent: first, "prefill", prompt_tokens = count(prompt), rollouts = count(rollouts))
}

/// A stretch of decoding.
pub(super) fn decode() -> Span {
    tracing::debug_span!("decode", tokens = Empty)
}

/// The making of a proposal.
pub(super) fn proposal(drafter: &str) -> Span {
    tracing::debug_span!("propose", drafter, drafts = Empty)
}

/// The judging of one, to the commit of its tokens.
pub(super) fn round(drafter: &str, drafts: usize) -> Span {
    tracing::debug_span!("speculate", drafter, drafts = count(drafts), accepted = Empty, tokens = Empty)
}

/// What the server does for it.
pub(super) fn verification(strategy: &str) -> Span {
    tracing::debug_span!("verify", strategy, lost_rows = Empty, recomputed = Empty)
}

/// Notes a number, as the collector takes numbers.
pub(super) fn note(span: &Span, field: &str, number: usize) {
    if !span.is_disabled() {
        span.record(field, count(number));
    }
}

/// Whether anybody wants more than the name of a request.
fn is_wanted() -> bool {
    tracing::enabled!(Level::DEBUG)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
