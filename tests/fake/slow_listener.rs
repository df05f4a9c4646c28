//! A client that does not read holds up nobody, and loses nothing when it reads again.

use std::sync::Arc;

use sidedraft::api::{EngineBuilder, Readiness};
use sidedraft::rollout::{Engine, FinishRules, Rollout, TextRules};
use sidedraft::setup::Setup;
use sidedraft::speculation::Sampling;
use sidedraft::telemetry::Metrics;
use sidedraft::text::StopStrings;
use sidedraft::upstream::{Origin, SamplingFields, Upstream};
use sidedraft::verify::{PrefillWishes, Terms};

use super::rig::{Plan, Rig, endless, greedy};
use super::support::fake_vllm::FakeConfig;
use super::support::harness::settings;

const TOKENS: usize = 400;

/// An engine in front of the rig's server, which drafts n-grams or, with a burst of all, decodes plainly.
async fn engine(rig: &Rig, flags: &str) -> Engine {
    let tokenizer = rig.folder().join("tokenizer.json");
    let mut all = vec!["--tokenizer", tokenizer.to_str().unwrap()];
    all.extend(flags.split_whitespace());
    let settings = settings(&rig.fake.url(), &all);
    let upstream = Upstream::new(&settings.target.upstream_options()).unwrap();
    let setup = Setup::new(settings.target.clone(), settings.policy(), upstream, Metrics::register().unwrap());
    match setup.build().await.unwrap() {
        Readiness::Ready(engine) => engine,
        _ => panic!("the engine is not ready"),
    }
}

fn rollout(engine: &Engine) -> Rollout {
    let fields = SamplingFields { temperature: Some(0.0), ..SamplingFields::neutral() };
    Rollout {
        id: Arc::from("x"),
        prompt: vec![5, 6, 7],
        terms: Terms {
            origin: Origin::default(),
            fields: fields.clone(),
            resolved: Some(fields),
            constraints: Default::default(),
            route: Default::default(),
            logprobs: 0,
        },
        sampling: Some(Sampling::greedy()),
        rules: FinishRules {
            max_tokens: TOKENS,
            max_model_len: engine.capabilities().max_model_len,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            end_tokens: engine.capabilities().end_tokens.clone().into(),
            ignore_eos: false,
            stop: StopStrings::default(),
            include_stop_str_in_output: false,
        },
        text: TextRules { skip_special_tokens: true, spaces_between_special_tokens: true },
        prefill: PrefillWishes::default(),
    }
}

#[tokio::test]
async fn a_control_request_goes_on_while_a_client_does_not_read_and_no_token_is_lost() {
    let config = FakeConfig { language: endless(), max_model_len: 2 * TOKENS, ..FakeConfig::default() };
    let rig = Plan::new(config).start().await;
    let direct = rig.complete_directly(&greedy(TOKENS)).await;
    let expected: Vec<u32> = serde_json::from_value(direct["choices"][0]["token_ids"].clone()).unwrap();
    for flags in ["--draft-tokens 2", "--ngram-min 300 --ngram-max 300 --decode-burst 1000"] {
        let engine = engine(&rig, flags).await;
        let mut deltas = engine.start(rollout(&engine), 1).pop().unwrap();
        let mut ids = Vec::new();
        for _ in 0..3 {
            // Until as much is under way as the channel holds, and the rollout waits for its listener.
            while deltas.len() < deltas.max_capacity() && !deltas.is_closed() {
                tokio::task::yield_now().await;
            }
            drop(engine.control().hold().await);
            for _ in 0..4 {
                ids.extend(deltas.recv().await.unwrap().unwrap().tokens.iter().map(|scored| scored.token));
            }
        }
        while let Some(delta) = deltas.recv().await {
            ids.extend(delta.unwrap().tokens.iter().map(|scored| scored.token));
        }
        assert_eq!(ids, expected, "{flags}");
    }
}
