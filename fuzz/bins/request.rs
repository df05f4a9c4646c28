//! Feeds the target of this name.
#![no_main]

#[path = "../targets/request.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
