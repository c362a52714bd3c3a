//! The corpus to begin with: messages as the protocol's own code writes them, and scripts.

mod messages;
mod scripts;

/// A file of the corpus: its name and contents.
pub type Seed = (&'static str, Vec<u8>);

/// For each target what its corpus begins with.
pub fn all() -> Vec<(&'static str, Vec<Seed>)> {
    vec![
        ("outer", messages::outer()),
        ("header", messages::header()),
        ("shard", messages::shard()),
        ("feedback", messages::feedback()),
        ("handshake", messages::handshake()),
        ("classify", messages::classify()),
        ("receiver", scripts::receiver()),
        ("endpoint", scripts::endpoint()),
        ("pair", scripts::pair()),
    ]
}
