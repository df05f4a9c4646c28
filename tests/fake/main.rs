//! The sidecar in front of a server whose every probability is known: what comes out is the server's, whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod aborts;
mod bench;
mod bench_proxy;
mod binary;
mod cancellation;
mod chat;
mod compare;
mod constrained_sampling;
mod constraints;
mod crowd;
mod decode_streams;
mod draft_failures;
mod drafters;
mod end_tokens;
mod exact_parameters;
mod exact_strategies;
mod exactness;
mod finish_rules;
mod forward_fields;
mod forward_wire;
mod generate;
mod generate_by_completions;
mod greedy;
mod groups;
mod held_back;
mod held_steps;
mod invalid;
mod limits;
mod lost_rows;
mod metrics;
mod outages;
mod own_routes;
mod pauses;
mod policy_updates;
mod replies;
mod retries;
mod reuse;
mod rig;
mod second_thoughts;
mod secrets;
mod session_fields;
mod slow_readers;
mod slow_writers;
mod streams;
mod tiny_llama;
mod tls;
mod trainer;
mod turned_away;
mod unannounced;
mod upstream_calls;
mod versions;
mod vocabularies;
