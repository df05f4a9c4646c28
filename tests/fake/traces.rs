//! What a collector gets of rollouts, and what it costs them that it does not answer.

use std::collections::HashSet;

use http::StatusCode;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use serde_json::{Value as Json, json};

use super::collector::{Collector, Seen};
use super::rig::{COMPLETIONS, endless};
use super::served::Served;
use super::support::fake_vllm::{ANY_PORT, FakeConfig, FakeVllm, listen};

/// Repeats itself, so that n-grams draft.
fn request(n: usize) -> Json {
    // The server takes several samples of a request only where they may differ.
    let temperature = i32::from(n > 1);
    json!({"prompt": [5, 6, 7, 5, 6, 7, 5, 6, 7], "temperature": temperature, "max_tokens": 60, "n": n})
}

async fn fake() -> FakeVllm {
    FakeVllm::start(FakeConfig { language: endless(), ..FakeConfig::default() }).await
}

async fn traced(fake: &FakeVllm, collector: &Collector, variables: &[(&str, &str)]) -> Served {
    let flags = ["--otlp-endpoint", &collector.url, "--speculate", "always", "--draft-tokens", "4", "--ngram-min", "1"];
    Served::start(fake, &flags, variables).await
}

fn named<'a>(spans: &'a [Seen], name: &str) -> Vec<&'a Seen> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn sum(spans: &[&Seen], attribute: &str) -> i64 {
    spans.iter().map(|span| span.number(attribute)).sum()
}

#[tokio::test]
async fn a_rollout_is_a_span_and_its_steps_are_children() {
    let (fake, collector) = (fake().await, Collector::start().await);
    let served = traced(&fake, &collector, &[]).await;
    let reply = served.http.post(format!("{}{COMPLETIONS}", served.url)).header("x-request-id", "mine");
    let reply = reply.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(reply.json(&request(1)).send().await.unwrap().status(), StatusCode::OK);
    let accepted = served.metric("vllm:spec_decode_num_accepted_tokens_total", "").await as i64;
    let drafted = served.metric("vllm:spec_decode_num_draft_tokens_total", "").await as i64;
    let verified = served.metric("sidedraft_verify_calls_total", "cached_suffix").await as usize;
    let decoded = served.metric("sidedraft_decoded_tokens_total", "").await as i64;
    served.stop().await;

    let spans = collector.spans();
    let [rollout] = named(&spans, "rollout")[..] else { panic!("{spans:?}") };
    assert_eq!((rollout.text("request_id"), rollout.text("outcome")), ("cmpl-mine-0", "length"));
    assert_eq!(["sample", "prompt_tokens", "tokens"].map(|name| rollout.number(name)), [0, 9, 60]);
    assert!(!rollout.failed);
    // The client's own span is the rollout's parent.
    assert_eq!(rollout.parent, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(rollout.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
    assert_eq!(rollout.resource["service.name"], Value::StringValue("sidedraft".into()));

    let rounds = named(&spans, "speculate");
    assert!(accepted > 0 && rounds.len() == verified, "{spans:?}");
    assert_eq!((sum(&rounds, "accepted"), sum(&rounds, "drafts")), (accepted, drafted));
    assert!(rounds.iter().all(|round| round.text("drafter") == "ngram"));
    let [prefill] = named(&spans, "prefill")[..] else { panic!("{spans:?}") };
    assert_eq!((prefill.number("prompt_tokens"), prefill.number("rollouts")), (9, 1));
    let stretches = named(&spans, "decode");
    assert_eq!(1 + sum(&stretches, "tokens"), decoded, "the first token comes with the prompt");
    assert_eq!(1 + sum(&stretches, "tokens") + sum(&rounds, "tokens"), 60);

    let ids: HashSet<&[u8]> = rounds.iter().map(|round| round.id.as_slice()).collect();
    let verifications = named(&spans, "verify");
    assert_eq!(verifications.len(), verified);
    for verification in verifications {
        assert_eq!(verification.text("strategy"), "cached_suffix");
        assert!(ids.contains(verification.parent.as_slice()), "{verification:?}");
    }
    let proposals = named(&spans, "propose");
    assert!(proposals.len() >= rounds.len() && sum(&proposals, "drafts") >= drafted);
    for step in [rounds, stretches, proposals, vec![prefill]].concat() {
        assert_eq!((&step.parent, &step.trace), (&rollout.id, &rollout.trace), "{step:?}");
        let (whole, part) = (&rollout.nanoseconds, &step.nanoseconds);
        assert!(whole.start <= part.start && part.start < part.end && part.end <= whole.end, "{step:?}");
    }
}

#[tokio::test]
async fn each_sample_of_a_request_is_a_span_and_a_failure_says_so() {
    let (fake, collector) = (fake().await, Collector::start().await);
    let name = [("OTEL_SERVICE_NAME", "policy"), ("OTEL_RESOURCE_ATTRIBUTES", "pod=p-0")];
    let served = traced(&fake, &collector, &name).await;
    let post = |body: Json| served.http.post(format!("{}{COMPLETIONS}", served.url)).json(&body).send();
    assert_eq!(post(request(3)).await.unwrap().status(), StatusCode::OK);
    fake.fail_next(COMPLETIONS, 10, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(post(request(1)).await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    served.stop().await;

    let spans = collector.spans();
    let rollouts = named(&spans, "rollout");
    let (failed, fine): (Vec<&Seen>, Vec<&Seen>) = rollouts.into_iter().partition(|rollout| rollout.failed);
    let mut samples: Vec<i64> = fine.iter().map(|rollout| rollout.number("sample")).collect();
    samples.sort_unstable();
    assert_eq!(samples, [0, 1, 2]);
    assert!(fine.iter().all(|rollout| rollout.parent.is_empty() && rollout.number("tokens") == 60));
    let [failed] = failed[..] else { panic!("{spans:?}") };
    assert_eq!((failed.text("outcome"), failed.number("tokens")), ("failed", 0));
    assert!(failed.text("error").contains("500"), "{failed:?}");
    assert_eq!(failed.resource["service.name"], Value::StringValue("policy".into()));
    assert_eq!(failed.resource["pod"], Value::StringValue("p-0".into()));
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_counted_and_holds_up_nobody() {
    let fake = fake().await;
    let soon = [("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "200")];
    let flags = ["--otlp-endpoint", "http://127.0.0.1:9", "--log-format", "json"];
    let served = Served::start(&fake, &flags, &soon).await;
    for _ in 0..3 {
        let reply = served.http.post(format!("{}{COMPLETIONS}", served.url)).json(&request(2)).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
    }
    served.until("sidedraft_spans_lost_total", |lost| lost >= 6.0).await;
    assert_eq!(served.metric("sidedraft_spans_exported_total", "").await, 0.0);
    assert!(served.metric("sidedraft_spans_lost_total", "collector").await >= 6.0);
    let log = served.stop().await;
    assert_eq!(log.matches("the collector takes no spans").count(), 1, "{log}");
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_keep_it_from_ending() {
    let (fake, silent) = (fake().await, listen(ANY_PORT));
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let served = Served::start(&fake, &["--otlp-endpoint", &endpoint], &[("OTEL_BSP_SCHEDULE_DELAY", "10")]).await;
    let reply = served.http.post(format!("{}{COMPLETIONS}", served.url)).json(&request(2)).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    // The spans of the first request are with the collector.
    let _held = silent.accept().await.unwrap();
    let log = served.stop().await;
    assert!(log.contains("the last spans were not sent"), "{log}");
}

#[tokio::test]
async fn without_an_endpoint_there_are_no_spans() {
    let (fake, collector) = (fake().await, Collector::start().await);
    // The standard variable alone is not the flag.
    let served = Served::start(&fake, &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let reply = served.http.post(format!("{}{COMPLETIONS}", served.url)).json(&request(1)).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    served.stop().await;
    assert!(collector.spans().is_empty());
}
