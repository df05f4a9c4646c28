//! Hundreds of rollouts, a third of whose clients vanish: the others are right, and nothing is left of any.

use futures_util::StreamExt;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sidedraft::model::{DraftModel, ModelOptions, ModelSource};
use tokio::runtime::Handle;

use super::rig::endless;
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::harness::{Harness, client};
use super::tiny_llama;
use super::trainer::{Choice, ENDPOINTS, assert_undisturbed, events_of, streamed, until};

const CLIENTS: usize = 256;
const TOKENS: usize = 24;

/// When a client vanishes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Patience {
    Endless,
    /// Its request is sent, and that is all.
    NotAtAll,
    /// After so many events.
    Events(usize),
}

/// A client that reads a stream as long as it has patience; the text that it has read.
async fn read(http: &reqwest::Client, url: &str, number: usize, patience: Patience) -> Option<String> {
    let endpoint = ENDPOINTS[number % ENDPOINTS.len()];
    let request = http.post(format!("{url}{endpoint}")).json(&streamed(endpoint, 0.0, TOKENS));
    let sending = request.send();
    if patience == Patience::NotAtAll {
        // Polled a few times, so that it is on its way.
        let given_up = async {
            for _ in 0..number % 16 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = sending => {}
            () = given_up => {}
        }
        return None;
    }
    let mut stream = sending.await.unwrap().bytes_stream();
    let mut text = String::new();
    while let Some(piece) = stream.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        if matches!(patience, Patience::Events(most) if text.matches("\n\n").count() >= most) {
            return None;
        }
    }
    Some(text)
}

fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// One request of each endpoint that is read to its end.
async fn warm_up(url: &str) {
    let http = client();
    for number in 0..ENDPOINTS.len() {
        read(&http, url, number, Patience::Endless).await.unwrap();
    }
}

#[tokio::test]
async fn a_crowd_leaves_nothing_behind() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let fake = FakeVllm::start(config.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), config.language.vocab);
    let options = ModelOptions::default();
    let model = DraftModel::load(&ModelSource::from_path(folder.path()), &options).unwrap().spawn().unwrap();
    let (kept, path) = (model.clone(), folder.path().to_str().unwrap().to_owned());
    let sidecar =
        Harness::start_with(&fake.url(), &["--tokenizer", &path], |setup| setup.with_draft_model(model)).await;
    sidecar.sidecar.ready().await;
    warm_up(&sidecar.url).await;
    // The connections that are kept open end with the server and with their client.
    fake.kill().await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let before = alive();
    fake.restart().await;
    sidecar.sidecar.ready().await;

    let mut rng = StdRng::seed_from_u64(20);
    let patience: Vec<Patience> = (0..CLIENTS)
        .map(|number| match (number % 3, rng.random_range(0..6)) {
            (0, 0) => Patience::NotAtAll,
            (0, events) => Patience::Events(events),
            _ => Patience::Endless,
        })
        .collect();
    let http = client();
    let clients = (0..CLIENTS).map(|number| read(&http, &sidecar.url, number, patience[number]));
    let texts = join_all(clients).await;
    for text in texts.iter().flatten() {
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let choice = Choice::of(&events_of(text), 0);
        assert_eq!((choice.ids.len(), choice.finish.as_deref()), (TOKENS, Some("length")));
        assert_undisturbed(&fake, &choice);
    }
    assert!(texts.iter().flatten().count() >= CLIENTS * 2 / 3);
    assert!(sidecar.metric("sidedraft_draft_duration_seconds_count", "neural") > 100.0);

    fake.wait_until_idle().await;
    until(|| sidecar.metric("sidedraft_rollouts_running", "") < 0.5).await;
    // A pause that waits for the rollouts under way finds none.
    for path in ["/pause?mode=wait", "/resume"] {
        assert!(http.post(format!("{}{path}", sidecar.url)).send().await.unwrap().status().is_success());
    }
    until(|| kept.active_sequences() == 0).await;
    drop(http);
    fake.kill().await;
    until(|| alive() <= before).await;
}
