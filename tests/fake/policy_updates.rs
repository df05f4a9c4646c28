//! Weights that change in the middle of a rollout: every token is of one version, says which, and no step is of two.

use serde_json::{Value, json};
use sidedraft::speculation::{Draft, Proposal};

use super::drafters::{often_right, told};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, STRATEGIES, endless};
use super::support::fake_vllm::{FIRST_WEIGHTS, FakeConfig, LanguageModel, Received};
use super::trainer::{
    CHAT, ENDPOINTS, Pending, ask, choice, generates, hung_in, request, sampling_path, send, tell, verifying_path,
};

const TOKENS: usize = 12;
const NEW: &str = "7";

/// Where the control request finds the rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    FirstCall,
    Verification,
    /// The rows have come, and a token is drawn from the tail of one.
    TailDraw,
    /// Two tokens of a stream have come.
    Decoding,
}

/// How new weights come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Update {
    Sent,
    Finished,
    Reloaded,
    Adapter,
}

impl Update {
    fn requests(self) -> Vec<(&'static str, Value)> {
        let sent = ("/update_weights", json!({"update_info": {"weights": 7}}));
        let named = ("/update_weight_version", json!({"new_version": NEW}));
        match self {
            Self::Sent => vec![sent, named],
            Self::Finished => vec![
                ("/start_weight_update", json!({})),
                sent,
                ("/finish_weight_update", json!({"weight_version": NEW})),
            ],
            Self::Reloaded => {
                let reload = json!({"method": "reload_weights", "kwargs": {"weights_path": NEW}});
                vec![("/collective_rpc", reload), named]
            }
            Self::Adapter => {
                let load = json!({"lora_name": "a", "lora_path": NEW, "load_inplace": true});
                vec![("/v1/load_lora_adapter", load), named]
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Scene {
    endpoint: &'static str,
    strategy: &'static str,
    moment: Moment,
}

fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for endpoint in ENDPOINTS {
        for strategy in STRATEGIES {
            for moment in [Moment::FirstCall, Moment::Verification] {
                scenes.push(Scene { endpoint, strategy, moment });
            }
        }
        scenes.push(Scene { endpoint, strategy: "auto", moment: Moment::Decoding });
    }
    // Where the draws go another way than the verifications, so that they can be told apart.
    for (endpoint, strategy) in [(COMPLETIONS, "cached-suffix"), (CHAT, "cached-suffix"), (GENERATE, "prompt-logprobs")]
    {
        scenes.push(Scene { endpoint, strategy, moment: Moment::TailDraw });
    }
    scenes
}

/// Drafts the unlikeliest token, so that the position's token is drawn from the tail of a short row.
fn unlikeliest(language: &LanguageModel, context: &[u32]) -> Proposal {
    let p = language.raw(context);
    let ids = 0..language.eos();
    let token = ids.min_by(|a, b| p[*a as usize].total_cmp(&p[*b as usize])).unwrap();
    Proposal { drafts: vec![Draft::certain(token)] }
}

async fn rig(scene: Scene) -> Rig {
    let language = match scene.moment {
        Moment::TailDraw => LanguageModel { sharpness: 0.5, ..endless() },
        _ => endless(),
    };
    let drafters = match scene.moment {
        Moment::Decoding => told(|_| Ok(Proposal::default())),
        Moment::TailDraw => {
            let language = language.clone();
            told(move |request| Ok(unlikeliest(&language, request.context)))
        }
        _ => often_right(&language),
    };
    let max_logprobs = if scene.moment == Moment::TailDraw { 2 } else { 20 };
    let config = FakeConfig { language, max_logprobs, ..FakeConfig::default() };
    Plan::new(config).strategy(scene.strategy).drafters(drafters).start().await
}

/// The tokens after which a request to the server samples, and the drafts that it scores.
fn tokens(request: &Received) -> Vec<u32> {
    let body = request.json();
    let list = if body["token_ids"].is_array() { &body["token_ids"] } else { &body["prompt"] };
    let list = if list[0].is_array() { &list[0] } else { list };
    serde_json::from_value(list.clone()).unwrap()
}

async fn succeeds(pending: Pending) {
    let (status, text) = pending.await.unwrap();
    assert!(status.is_success(), "{text}");
}

async fn play(scene: Scene, update: Update, paused: bool) {
    let rig = rig(scene).await;
    let temperature = if scene.moment == Moment::TailDraw { 1.0 } else { 0.0 };
    let mut body = request(scene.endpoint, temperature, TOKENS);
    let mut old = rig.fake.language_of(FIRST_WEIGHTS);
    if update == Update::Adapter {
        tell(&rig, "/v1/load_lora_adapter", &json!({"lora_name": "a", "lora_path": "3"})).await;
        body["model"] = json!("a");
        old = rig.fake.language_of("3");
        rig.fake.forget_requests();
    }
    let (sample, verify) = (sampling_path(scene.endpoint), verifying_path(scene.endpoint, scene.strategy));
    let way = match scene.moment {
        Moment::FirstCall | Moment::Decoding => vec![sample],
        Moment::Verification => vec![sample, verify, verify],
        Moment::TailDraw => vec![sample, verify, sample],
    };
    let (rollout, mut hang) = hung_in(&rig, &way, || send(&rig, scene.endpoint, &body)).await;
    if scene.moment == Moment::Decoding {
        let stream = rig.fake.hang_stream_after(sample, 2);
        hang.release();
        stream.reached().await;
        hang = stream;
    }
    if scene.moment == Moment::TailDraw {
        let last = rig.fake.requests().pop().unwrap().json();
        assert!(last.get("logit_bias").or(last["sampling_params"].get("logit_bias")).is_some(), "{last}");
    }

    let mut asked = Vec::new();
    let first = if paused { vec![("/pause?mode=keep", json!({}))] } else { update.requests() };
    for (path, body) in &first {
        asked.push(ask(&rig, path, body).await);
    }
    if scene.moment != Moment::Decoding {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(rig.fake.requests().iter().all(is_call), "sent before the step had ended");
        hang.release();
    }
    for pending in asked {
        succeeds(pending).await;
    }
    if paused {
        assert!((rig.metric("sidedraft_paused", "") - 1.0).abs() < 1e-9);
        for (path, body) in update.requests() {
            tell(&rig, path, &body).await;
        }
        tell(&rig, "/resume", &json!({})).await;
    }
    let choice = choice(rollout).await;
    assert_eq!((choice.ids.len(), choice.finish.as_deref()), (TOKENS, Some("length")));

    let new = rig.fake.language_of(NEW);
    let versions = [(FIRST_WEIGHTS, &old), (NEW, &new)];
    let labels = choice.scored_by(&versions);
    let border = labels.iter().take_while(|label| **label == FIRST_WEIGHTS).count();
    assert!(labels[border..].iter().all(|label| *label == NEW), "{labels:?}");
    assert!(border > 0 && border < TOKENS && (scene.moment != Moment::FirstCall || border == 1), "{labels:?}");
    if scene.endpoint == GENERATE {
        choice.assert_spans(&labels);
    }
    if temperature == 0.0 {
        choice.assert_greedy(&versions);
    }
    assert_order(&rig, &[&choice.prompt, &choice.ids[..border]].concat());
    for count in ["unannounced_versions", "stale_rounds", "broken_turns"] {
        assert!(rig.metric(&format!("sidedraft_{count}_total"), "") < 1e-9, "{count}");
    }
}

/// Whether a request to the server is not the trainer's.
fn is_call(request: &Received) -> bool {
    generates(request) || request.path.ends_with("/render") || request.path == "/tokenize"
}

/// Asserts that the server was asked for nothing between the trainer's first request and its last, and that the first
/// call after them goes on from `decided`.
fn assert_order(rig: &Rig, decided: &[u32]) {
    let requests = rig.fake.requests();
    let trainers: Vec<usize> = (0..requests.len()).filter(|at| !is_call(&requests[*at])).collect();
    let (first, last) = (trainers[0], trainers[trainers.len() - 1]);
    assert_eq!(trainers.len(), last - first + 1, "a step was taken while the policy was updated");
    let next = requests[last..].iter().find(|request| generates(request)).unwrap();
    assert_eq!(&tokens(next)[..decided.len()], decided);
}

/// Plays every scene, with the update between a pause and a resumption and without.
async fn everywhere(update: Update) {
    for scene in scenes() {
        for paused in [false, true] {
            let played = tokio::spawn(play(scene, update, paused)).await;
            assert!(played.is_ok(), "{scene:?} {update:?}, paused: {paused}");
        }
    }
}

#[tokio::test]
async fn weights_that_are_sent_begin_between_two_steps() {
    everywhere(Update::Sent).await;
}

#[tokio::test]
async fn weights_whose_update_is_finished_under_a_name_begin_between_two_steps() {
    everywhere(Update::Finished).await;
}

#[tokio::test]
async fn weights_that_the_server_reloads_begin_between_two_steps() {
    everywhere(Update::Reloaded).await;
}

#[tokio::test]
async fn an_adapter_that_is_loaded_in_place_begins_between_two_steps() {
    everywhere(Update::Adapter).await;
}
