//! The fuzzers' targets hold for the inputs that they begin with, and for those that once broke them: `fuzz/seeds`.

#[path = "../../fuzz/targets/events.rs"]
mod events;
#[path = "../../fuzz/targets/reply.rs"]
mod reply;
#[path = "../../fuzz/targets/request.rs"]
mod request;

fn each(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() > 5, "{seeds:?}");
    for seed in seeds {
        let data = std::fs::read(&seed).unwrap();
        let ran = std::panic::catch_unwind(|| run(&data));
        assert!(ran.is_ok(), "{} breaks the target", seed.display());
    }
}

#[test]
fn streams_say_the_same_however_they_are_cut() {
    each("events", events::run);
}

#[test]
fn replies_are_judged() {
    each("reply", reply::run);
}

#[test]
fn requests_are_speculated_or_forwarded() {
    each("request", request::run);
}
