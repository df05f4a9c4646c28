//! The sidecar's page as a browser shows it while there is something to show.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::browser::Browser;
use super::drafters::often_right;
use super::replies::CHAT;
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, endless};
use super::support::fake_vllm::FakeConfig;

/// Where pictures are put, if anywhere.
const PICTURES: &str = "SIDEDRAFT_PICTURES";
const CLIENTS: u32 = 12;

/// A server that takes some time, and a sidecar that has room for a little fewer rollouts than are wanted.
async fn busy() -> Rig {
    let latencies = (Duration::from_millis(3), Duration::from_millis(30));
    let (request_latency, token_latency) = latencies;
    let config =
        FakeConfig { language: endless(), request_latency, token_latency, records: false, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).flags("--speculate auto --max-rollouts 8").start().await;
    rig.sidecar.update_weights(3).await;
    rig
}

/// What the `at`th request of a client asks for: mostly rollouts, and some of what is not speculated.
fn request(client: u32, at: u32) -> (&'static str, Value) {
    let prompt = [5 + client, 6, 7 + at % 40, 8, 9];
    let text = json!({"prompt": prompt, "max_tokens": 40 + client * 5, "temperature": 0});
    match (client + at) % 12 {
        0 => (CHAT, json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 20, "presence_penalty": 0.5})),
        1 | 2 => (CHAT, json!({"messages": [{"role": "user", "content": "ab"}], "max_tokens": 60, "temperature": 0})),
        3 => (COMPLETIONS, json!({"prompt": prompt, "max_tokens": 10, "seed": 4})),
        4 => ("/tokenize", json!({"prompt": "ab"})),
        5 | 6 => (GENERATE, json!({"token_ids": prompt, "sampling_params": {"max_tokens": 70, "temperature": 0.0}})),
        _ => (COMPLETIONS, text),
    }
}

/// Clients that ask for ever.
fn load(rig: &Rig) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (http, url) = (rig.sidecar.http.clone(), rig.sidecar.url.clone());
        clients.spawn(async move {
            for at in 0.. {
                let (path, body) = request(client, at);
                http.post(format!("{url}{path}")).json(&body).send().await.unwrap().bytes().await.unwrap();
            }
        });
    }
    clients
}

/// How the boxes of the page are called that show nothing.
const EMPTY: &str = "[...document.querySelectorAll('section')]
    .filter(box => box.innerText.split('\\n').slice(1).join('').match(/^(–|none)?$/)).map(box => box.querySelector('h2').innerText)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium: make page-check"]
async fn under_load_every_box_has_something_to_show_and_fits_a_phone() {
    let rig = busy().await;
    let _clients = load(&rig);
    let url = format!("{}/sidedraft/", rig.sidecar.url);
    let pictures = std::env::var_os(PICTURES);
    let updates = if pictures.is_some() { 40 } else { 5 };
    let screens = [("page.png", 1180, 900, false), ("page-phone.png", 390, 844, true)];
    // Both look at the same time: a picture takes as long as its curve.
    let opened = screens.map(|(name, width, height, is_phone)| {
        let browser = Browser::open(&url, width, height, is_phone);
        async move { (name, width, browser.await) }
    });
    for (name, width, mut browser) in futures_util::future::join_all(opened).await {
        browser.until(&format!("Number(document.body?.dataset.updates) >= {updates}")).await;
        assert_eq!(browser.evaluate("document.getElementById('state').innerText").await, "vLLM is ready");
        assert_eq!(browser.evaluate("document.getElementById('policy').innerText").await, "policy version 3");
        assert_eq!(browser.evaluate(EMPTY).await, json!(["Errors by source"]));
        let scrolled = browser.evaluate("document.scrollingElement.scrollWidth").await.as_u64().unwrap();
        assert!(scrolled <= u64::from(width), "{name} is {scrolled} wide");
        let small = "[...document.querySelectorAll('section *')].filter(each => parseFloat(getComputedStyle(each).fontSize) < 11).length";
        assert_eq!(browser.evaluate(small).await, 0, "text that nobody can read");
        if let Some(folder) = &pictures {
            let picture = browser.picture().await;
            assert!(picture.len() < 300_000, "{name} has {} bytes", picture.len());
            std::fs::write(Path::new(folder).join(name), picture).unwrap();
        }
    }
}
