//! How the sidecar's own calls go over the wire.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::rig::{Plan, STRATEGIES, endless, greedy};
use super::support::fake_vllm::FakeConfig;

#[tokio::test]
async fn a_body_that_is_sent_in_pieces_says_how_long_it_is() {
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = super::drafters::often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        rig.complete(&greedy(20)).await;
        let requests = rig.fake.requests();
        assert!(requests.len() > 4, "{}", requests.len());
        for request in requests.iter().filter(|request| !request.body.is_empty()) {
            assert_eq!(request.headers[CONTENT_LENGTH].to_str().unwrap(), request.body.len().to_string());
            assert!(!request.headers.contains_key(TRANSFER_ENCODING));
        }
    }
}
