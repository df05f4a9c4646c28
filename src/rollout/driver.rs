//! The loop: propose, verify, accept, commit.

use std::sync::Arc;

use futures_util::StreamExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::controller::{self, Plan, Policy};
use super::drafters::{DrafterFactory, Drafters};
use super::sequence::{Finish, FinishRules, Sequence};
use crate::draft::DraftRequest;
use crate::speculation::{
    AcceptanceRule, Draft, Next, Observation, Proposal, Sampling, Scored, TailVerdict, TokenId, judge_tail, walk,
};
use crate::telemetry::{Metrics, Timer};
use crate::text::{TextError, Tokenizer};
use crate::upstream::{Capabilities, Upstream, UpstreamError};
use crate::verify::{
    CachedSuffix, Evidence, FanOut, Prefill, PromptLogprobs, Round, Sampler, Strategy, Terms, Verifier,
    sampled_as_scored,
};

/// Why a rollout could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The server could not be reached or refused.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A token has no text.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// What a rollout has come to since the last delta.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    /// Tokens committed.
    pub tokens: Vec<Scored>,
    /// Text that became certain.
    pub text: String,
    /// Set by the last delta.
    pub finish: Option<Finish>,
    /// Set by the first delta.
    pub prefill: Option<Prefill>,
}

/// What a rollout is to be.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Prompt tokens; not empty.
    pub prompt: Vec<TokenId>,
    /// What its calls have in common.
    pub terms: Terms,
    /// The sampling parameters in force; absent where the server's defaults are unknown.
    pub sampling: Option<Sampling>,
    /// When it ends.
    pub rules: FinishRules,
    /// Whether special tokens leave no text.
    pub skip_special_tokens: bool,
}

/// What all rollouts against one server share.
pub struct EngineSettings {
    /// The server.
    pub upstream: Upstream,
    /// What it can do.
    pub capabilities: Arc<Capabilities>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where drafters come from.
    pub drafters: Arc<dyn DrafterFactory>,
    /// When to draft how much.
    pub policy: Policy,
    /// What is kept.
    pub rule: Arc<dyn AcceptanceRule>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Runs rollouts against one server. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    settings: EngineSettings,
    sampler: Sampler,
    cached_suffix: CachedSuffix,
    prompt_logprobs: PromptLogprobs,
    fan_out: FanOut,
}

/// How many times the server may answer the draws from a position's tail with a token it was told not to draw.
const MOST_LEAKS: usize = 64;

impl Engine {
    /// An engine with these settings.
    #[must_use]
    pub fn new(settings: EngineSettings) -> Self {
        let (upstream, capabilities) = (&settings.upstream, &settings.capabilities);
        let sampler = Sampler::new(upstream.clone(), capabilities.rust_frontend);
        let cached_suffix = CachedSuffix::new(
            upstream.clone(),
            sampler.clone(),
            capabilities.generate.runner,
            capabilities.max_logprobs,
        );
        let prompt_logprobs = PromptLogprobs::new(upstream.clone());
        let fan_out = FanOut::new(sampler.clone());
        Self { shared: Arc::new(Shared { settings, sampler, cached_suffix, prompt_logprobs, fan_out }) }
    }

    /// What the server can do.
    #[must_use]
    pub fn capabilities(&self) -> &Arc<Capabilities> {
        &self.shared.settings.capabilities
    }

    /// The server's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.settings.tokenizer
    }

    /// The server.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.shared.settings.upstream
    }

    /// Runs a rollout and tells `events` of every delta, the last of which has a finish, or of the error that ended
    /// it. Stops, and drops what it was waiting for, when nobody listens any more.
    pub async fn run(&self, rollout: Rollout, events: mpsc::Sender<Result<Delta, RolloutError>>) {
        let _counted = Counted::new(&self.shared.settings.metrics.requests.rollouts_running);
        let running = Running::new(&self.shared, rollout, &events);
        tokio::select! {
            biased;
            () = events.closed() => {}
            result = running.drive() => {
                if let Err(error) = result {
                    // A listener that has gone does not need to know.
                    let _ = events.send(Err(error)).await;
                }
            }
        }
    }
}

impl Shared {
    fn verifier(&self, strategy: Strategy) -> &dyn Verifier {
        match strategy {
            Strategy::CachedSuffix => &self.cached_suffix,
            Strategy::PromptLogprobs => &self.prompt_logprobs,
            Strategy::FanOut => &self.fan_out,
        }
    }
}

/// One more in a gauge, also while a panic unwinds.
struct Counted<'a>(&'a prometheus::IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A rollout under way.
struct Running<'a> {
    shared: &'a Shared,
    terms: Terms,
    sampling: Option<Sampling>,
    sequence: Sequence,
    drafters: Drafters,
    rng: StdRng,
    /// Committed since the last delta.
    fresh: Vec<Scored>,
    prefill: Option<Prefill>,
    events: &'a mpsc::Sender<Result<Delta, RolloutError>>,
}

impl<'a> Running<'a> {
    fn new(shared: &'a Shared, rollout: Rollout, events: &'a mpsc::Sender<Result<Delta, RolloutError>>) -> Self {
        let settings = &shared.settings;
        let tokenizer = settings.tokenizer.clone();
        Self {
            shared,
            terms: rollout.terms,
            sampling: rollout.sampling,
            sequence: Sequence::new(rollout.prompt, rollout.rules, tokenizer, rollout.skip_special_tokens),
            drafters: Drafters::new(settings.drafters.as_ref(), settings.metrics.draft.clone()),
            rng: StdRng::from_os_rng(),
            fresh: Vec::new(),
            prefill: None,
            events,
        }
    }

    async fn drive(mut self) -> Result<(), RolloutError> {
        // The first token comes plainly: it fills the prefix cache, which every verification needs, and the draft
        // model reads the prompt meanwhile.
        self.drafters.prepare(self.sequence.tokens());
        let stop = &self.sequence.rules().stop_token_ids;
        let (first, prefill) = self.shared.sampler.prefill(&self.terms, self.sequence.tokens(), stop).await?;
        self.prefill = Some(prefill);
        self.shared.settings.metrics.speculation.decoded_tokens.inc();
        self.commit(first)?;
        while self.flush().await {
            let proposal = self.propose().await;
            if proposal.drafts.is_empty() {
                self.decode().await?;
            } else {
                self.speculate(&proposal).await?;
            }
        }
        Ok(())
    }

    /// Adds a token; `true` once the rollout is over.
    fn commit(&mut self, scored: Scored) -> Result<bool, RolloutError> {
        let finished = self.sequence.commit(&scored)?.is_some();
        self.fresh.push(scored);
        Ok(finished)
    }

    /// Tells the listener what is new; `true` while the rollout goes on and somebody listens.
    async fn flush(&mut self) -> bool {
        let finish = self.sequence.finish().cloned();
        let over = finish.is_some();
        if self.fresh.is_empty() && !over {
            return true;
        }
        let tokens = std::mem::take(&mut self.fresh);
        let delta = Delta { tokens, text: self.sequence.take_text(), finish, prefill: self.prefill.take() };
        self.events.send(Ok(delta)).await.is_ok() && !over
    }

    async fn propose(&mut self) -> Proposal {
        // Verification brings a token more than was drafted.
        let length = self.shared.settings.policy.draft_tokens.min(self.sequence.room() - 1);
        if length == 0 {
            return Proposal::default();
        }
        let request = DraftRequest {
            context: self.sequence.tokens(),
            length,
            temperature: self.sampling.map_or(1.0, |sampling| sampling.temperature()),
            top_k: self.sampling.and_then(|sampling| sampling.top_k()),
        };
        let mut proposal = self.drafters.propose(request).await;
        proposal.drafts.truncate(length);
        proposal
    }

    /// Decodes plainly: a burst of tokens, or all the rest if nobody is left to draft.
    async fn decode(&mut self) -> Result<(), RolloutError> {
        let room = self.sequence.room();
        let burst = self.shared.settings.policy.decode_burst;
        let length = if self.drafters.is_empty() { room } else { room.min(burst) };
        let rules = self.sequence.rules();
        let stream = self
            .shared
            .sampler
            .decode(&self.terms, self.sequence.tokens(), length, &rules.stop_token_ids, rules.ignore_eos)
            .await?;
        let mut stream = std::pin::pin!(stream);
        let mut decoded = 0_usize;
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // What came is committed, so the rest can be asked for again.
                Err(error) if decoded > 0 && error.is_transient() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for sampled in chunk.tokens {
                decoded += 1;
                self.shared.settings.metrics.speculation.decoded_tokens.inc();
                if self.commit(sampled_as_scored(sampled, self.terms.logprobs))? {
                    return Ok(());
                }
            }
            if decoded >= length || !self.flush().await {
                return Ok(());
            }
        }
        if decoded == 0 {
            let reason = "the stream brought no token".to_owned();
            return Err(UpstreamError::Protocol { path: "/v1/completions", reason }.into());
        }
        Ok(())
    }

    /// Has a proposal verified and commits what comes of it.
    async fn speculate(&mut self, proposal: &Proposal) -> Result<(), RolloutError> {
        let settings = &self.shared.settings;
        let Plan { strategy, row_length } = controller::plan(
            &settings.policy,
            &settings.capabilities,
            self.sampling.as_ref(),
            self.terms.logprobs,
            self.sequence.tokens().len(),
        );
        let timer = Timer::start();
        let round = Round { terms: &self.terms, context: self.sequence.tokens(), proposal, row_length };
        let metrics = &settings.metrics.speculation;
        let evidence = match self.shared.verifier(strategy).verify(round).await {
            Ok(evidence) => evidence,
            Err(error) if error.is_transient() => return Err(error.into()),
            // The server will not verify, which says nothing of the draft: the rest is decoded plainly.
            Err(error) => {
                metrics.verify_refused(strategy.name());
                tracing::warn!(strategy = strategy.name(), %error, "verification refused, decoding plainly");
                self.drafters.clear();
                return Ok(());
            }
        };
        metrics.verified(strategy.name(), timer);
        metrics.lost_rows.inc_by(evidence.lost_rows as u64);
        metrics.recomputed.inc_by(evidence.recomputed as u64);
        let accepted = self.accept(proposal, &evidence).await?;
        metrics.round(proposal.drafts.len(), accepted);
        Ok(())
    }

    /// Commits the accepted drafts and the token after them; returns how many drafts were accepted.
    async fn accept(&mut self, proposal: &Proposal, evidence: &Evidence) -> Result<usize, RolloutError> {
        let settings = &self.shared.settings;
        // Without known sampling parameters every observation is a sample, for which they do not matter.
        let sampling = self.sampling.unwrap_or(Sampling::greedy());
        let mut at = 0;
        loop {
            let walked = walk(proposal, &evidence.observations, at, &sampling, settings.rule.as_ref(), &mut self.rng);
            for scored in walked.kept {
                at += 1;
                if self.commit(scored)? {
                    return Ok(at);
                }
            }
            match walked.next {
                Next::Bonus => {
                    self.commit(evidence.bonus.clone())?;
                    return Ok(at);
                }
                Next::Token(scored) => {
                    self.commit(scored)?;
                    return Ok(at);
                }
                Next::Outside => {
                    let (draft, observation) = (&proposal.drafts[at], &evidence.observations[at]);
                    let scored = self.draw_outside(draft, observation).await?;
                    self.commit(scored)?;
                    return Ok(at);
                }
                Next::Sample => {
                    settings.metrics.speculation.unknown_rows.inc();
                    let scored = self.shared.sampler.sample(&self.terms, self.sequence.tokens()).await?;
                    let agrees = scored.token == proposal.drafts[at].token;
                    if self.commit(scored)? || !agrees {
                        return Ok(at + usize::from(agrees));
                    }
                    at += 1;
                }
            }
        }
    }

    /// The token of a position whose residual was found to lie in the tail of its row.
    async fn draw_outside(&mut self, draft: &Draft, observation: &Observation) -> Result<Scored, RolloutError> {
        let settings = &self.shared.settings;
        let Observation::Row(row) = observation else {
            return Ok(self.shared.sampler.sample(&self.terms, self.sequence.tokens()).await?);
        };
        let mut row = row.clone();
        let mut leaks = 0;
        while leaks < MOST_LEAKS {
            settings.metrics.speculation.tail_samples.inc();
            let banned: Vec<_> = row.entries().iter().map(|entry| entry.token).collect();
            let drawn = self.shared.sampler.sample_outside(&self.terms, self.sequence.tokens(), &banned).await?;
            leaks += usize::from(banned.contains(&drawn.token));
            match judge_tail(draft, &mut row, &drawn, settings.rule.as_ref(), &mut self.rng) {
                TailVerdict::Keep => return Ok(drawn),
                TailVerdict::Token(scored) => return Ok(scored),
                TailVerdict::Again => {}
            }
        }
        let reason = format!("{MOST_LEAKS} tokens came from the banned ids");
        Err(UpstreamError::Protocol { path: "/v1/completions", reason }.into())
    }
}
