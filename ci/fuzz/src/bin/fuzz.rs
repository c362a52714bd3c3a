//! libFuzzer around the targets: one binary, and `FUZZ_TARGET` says which of them.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

/// Reads the environment, once.
fn choose() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = shardgate_fuzz::target(&name) else {
        eprintln!("fuzz: FUZZ_TARGET names no target: {name:?}");
        std::process::exit(2);
    };
    TARGET.get_or_init(|| target);
}

fuzz_target!(init: choose(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        target(input);
    }
});
