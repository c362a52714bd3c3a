//! Fuzz targets for what the network reaches: each parser of the protocol core, and sender and
//! receiver as state machines.
//!
//! A target takes any bytes, and panics if an invariant of the core does not hold. Parsers take the
//! bytes as they are; state machines take them as a [`script`]. `ci/fuzz/run` replays the corpus and
//! then searches with libFuzzer; `tests/corpus.rs` replays it without.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod classify;
mod endpoint;
mod feedback;
mod handshake;
mod header;
mod outer;
mod pair;
mod planted;
mod receiver;
pub mod script;
pub mod seeds;
mod shard;
mod site;
mod world;

/// A target: its name, which is its corpus's too, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("outer", outer::fuzz),
    ("header", header::fuzz),
    ("shard", shard::fuzz),
    ("feedback", feedback::fuzz),
    ("handshake", handshake::fuzz),
    ("classify", classify::fuzz),
    ("receiver", receiver::fuzz),
    ("endpoint", endpoint::fuzz),
    ("pair", pair::fuzz),
];

/// A target with a bug that blind search does not find in a lifetime: it proves that the engine
/// sees coverage.
pub const PLANTED: Target = ("planted", planted::fuzz);

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    let all = TARGETS.iter().chain([&PLANTED]);
    all.copied().find(|(known, _)| *known == name)
}
