//! A client that does not read: its rollout waits for it, loses nothing by waiting, and is in nobody's way.

use std::sync::Arc;
use std::time::Duration;

use sidedraft::api::{EngineBuilder, Readiness};
use sidedraft::rollout::{Delta, Deltas, DrafterFactory, Engine, FinishRules, Rollout, TextRules};
use sidedraft::setup::Setup;
use sidedraft::speculation::{Proposal, Sampling};
use sidedraft::telemetry::Metrics;
use sidedraft::text::StopStrings;
use sidedraft::upstream::{Constraints, Route, SamplingFields, Upstream};
use sidedraft::verify::{PrefillWishes, Terms};

use super::drafters::{often_right, told};
use super::rig::endless;
use super::support::fake_vllm::{FakeConfig, FakeVllm, argmax};
use super::support::harness::settings;
use super::trainer::until;

const PROMPT: [u32; 3] = [5, 6, 7];
/// More than a rollout may be ahead of its client.
const TOKENS: usize = 400;

struct Bench {
    fake: FakeVllm,
    engine: Engine,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

/// An engine without an HTTP server before it, which would read ahead.
async fn bench(drafters: Arc<dyn DrafterFactory>) -> Bench {
    let fake = FakeVllm::start(FakeConfig { language: endless(), ..FakeConfig::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(folder.path());
    let flags = ["--tokenizer", tokenizer.to_str().unwrap(), "--decode-burst", "100"];
    let settings = settings(&fake.url(), &flags);
    let upstream = Upstream::new(&settings.target.upstream_options()).unwrap();
    let metrics = Metrics::register().unwrap();
    let setup = Setup::new(settings.target.clone(), settings.policy(), upstream, metrics.clone());
    let Ok(Readiness::Ready(engine)) = setup.with_drafters(drafters).build().await else { panic!("not ready") };
    Bench { fake, engine, metrics, _folder: folder }
}

impl Bench {
    fn start(&self) -> Deltas {
        let fields = SamplingFields { temperature: Some(0.0), ..SamplingFields::neutral() };
        let capabilities = self.engine.capabilities();
        let rollout = Rollout {
            id: Arc::from("slow"),
            prompt: PROMPT.to_vec(),
            terms: Terms {
                origin: self.engine.upstream().own_origin(None),
                fields: fields.clone(),
                resolved: Some(fields),
                constraints: Constraints::default(),
                route: Route::Generate,
                logprobs: 0,
                rows: 0,
            },
            sampling: Some(Sampling::greedy()),
            rules: FinishRules {
                max_tokens: TOKENS,
                max_model_len: capabilities.max_model_len,
                min_tokens: 0,
                stop_token_ids: Vec::new(),
                end_tokens: capabilities.end_tokens.clone().into(),
                ignore_eos: false,
                stop: StopStrings::new(Vec::new(), false),
                include_stop_str_in_output: false,
            },
            text: TextRules { skip_special_tokens: true, spaces_between_special_tokens: true },
            prefill: PrefillWishes::default(),
        };
        self.engine.start(rollout, 1).pop().unwrap()
    }

    /// Asserts that the rest of a rollout brings every token, and returns how many there are.
    async fn read(&self, mut deltas: Deltas) -> usize {
        let (mut ids, mut last) = (Vec::new(), Delta::default());
        while let Some(delta) = deltas.recv().await {
            last = delta.unwrap();
            ids.extend(last.tokens.iter().map(|scored| scored.token));
        }
        let mut context = PROMPT.to_vec();
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(*id as usize, argmax(&self.fake.language().logits(&context)), "token {at}");
            context.push(*id);
        }
        assert_eq!(last.versions.unwrap().last().unwrap().end, ids.len(), "tokens are missing");
        ids.len()
    }
}

/// A rollout whose client is so far behind that it stands still.
async fn stuck(bench: &Bench) -> Deltas {
    let deltas = bench.start();
    until(|| deltas.len() == deltas.max_capacity()).await;
    // It stands when what it asked the server for has come and it asks for nothing more.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    deltas
}

async fn ways() -> [Bench; 2] {
    let speculating = bench(often_right(&endless())).await;
    [speculating, bench(told(|_| Ok(Proposal::default()))).await]
}

#[tokio::test]
async fn an_abort_loses_no_token_that_was_decided() {
    for bench in ways().await {
        let deltas = stuck(&bench).await;
        assert_eq!(bench.engine.control().abort(None), 1);
        let count = bench.read(deltas).await;
        assert!((33..TOKENS).contains(&count), "{count}");
    }
}

#[tokio::test]
async fn a_control_request_does_not_wait_for_a_client_that_does_not_read() {
    for bench in ways().await {
        let deltas = stuck(&bench).await;
        let control = bench.engine.control().clone();
        let hold = tokio::time::timeout(Duration::from_secs(5), control.hold()).await;
        drop(hold.expect("no step is under way, only its telling"));
        assert_eq!(bench.metrics.control.broken_turns.get(), 0);
        assert_eq!(bench.read(deltas).await, TOKENS);
    }
}
