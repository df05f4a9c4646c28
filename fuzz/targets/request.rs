//! A client's request: it is speculated or forwarded, whatever its body says.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::json;
use sidedraft::api::fuzzing::prepare;
use sidedraft::draft::Drafter;
use sidedraft::rollout::controller::Policy;
use sidedraft::rollout::{Control, DrafterFactory, Engine, EngineSettings};
use sidedraft::speculation::Lossless;
use sidedraft::telemetry::Metrics;
use sidedraft::text::Tokenizer;
use sidedraft::upstream::{
    Capabilities, ChatSupport, EndToken, GenerateRoute, GenerateSupport, Runner, SamplingFields, TokenLimits, Upstream,
    UpstreamOptions,
};
use tokio::runtime::{Builder, Runtime};

const PATHS: [&str; 3] = ["/v1/completions", "/v1/chat/completions", "/inference/v1/generate"];

/// Engines in front of a modern server and of a bare one, neither of which is there: what the server would have to be asked
/// is forwarded.
static ENGINES: LazyLock<(Runtime, [Engine; 2])> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engines = runtime.block_on(async { [engine(true), engine(false)] });
    (runtime, engines)
});

struct NoDrafters;

impl DrafterFactory for NoDrafters {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        Vec::new()
    }
}

fn tokenizer() -> Tokenizer {
    let words: serde_json::Value = (0..64).map(|id| (format!("w{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("room for it");
    Tokenizer::load(folder.path()).expect("a tokenizer")
}

fn engine(modern: bool) -> Engine {
    let metrics = Metrics::register().expect("metrics");
    let options = UpstreamOptions { retries: 0, ..UpstreamOptions::new("http://127.0.0.1:9") };
    let capabilities = Capabilities {
        version: modern.then(|| "0.32.0".to_owned()),
        rust_frontend: false,
        model: "m".to_owned(),
        root: None,
        max_model_len: 128,
        max_logprobs: 20,
        raw_logprobs: modern,
        prompt_logprobs: true,
        generate: GenerateSupport {
            route: if modern { GenerateRoute::Available } else { GenerateRoute::Missing },
            runner: Runner::V2,
            reports_cached_tokens: modern,
            prints_badly: false,
            scores_given_ids: modern,
        },
        chat: ChatSupport { available: true, renders: modern, echoes_text: modern, ..ChatSupport::default() },
        limits: TokenLimits { most: (!modern).then_some(40), default: None },
        usage_unasked: !modern,
        tells_more_than_tokens: false,
        weight_version: "default".to_owned(),
        defaults: modern.then(SamplingFields::neutral),
        tokens_as_ids: !modern,
        end_tokens: BTreeMap::from([(63, EndToken::Primary)]),
    };
    Engine::new(EngineSettings {
        upstream: Upstream::new(&options).expect("a client"),
        capabilities: Arc::new(capabilities),
        tokenizer: tokenizer(),
        drafters: Arc::new(NoDrafters),
        policy: Policy::default(),
        rule: Arc::new(Lossless),
        past: None,
        control: Control::new(metrics.control.clone()),
        metrics,
    })
}

/// The first byte chooses the endpoint and the server.
pub fn run(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let (runtime, engines) = &*ENGINES;
    let engine = &engines[usize::from(choice / 3 % 2)];
    let prepared = runtime.block_on(prepare(engine, PATHS[usize::from(choice % 3)], body));
    // What is speculated is a request of at least one rollout.
    assert!(prepared != Ok(0));
}
