//! Says in the log when a path turns out to carry larger or smaller packets than before.

use shardgate_dataplane::config::PeerSpec;
use tracing::info;

/// What was said last of each peer's path.
pub struct PathMtuLog {
    paths: Vec<(String, String)>,
    /// Bytes of an IP packet; 0 before a path is known.
    known: Vec<u64>,
}

impl PathMtuLog {
    /// Nothing was said yet.
    pub fn new(peers: &[PeerSpec]) -> Self {
        let paths = peers
            .iter()
            .map(|peer| (peer.name.clone(), peer.path.clone()))
            .collect();
        Self {
            known: vec![0; peers.len()],
            paths,
        }
    }

    /// Says what has changed; `mtu_of` tells what is used towards a peer, by its index.
    pub fn turn(&mut self, mtu_of: impl Fn(usize) -> u64) {
        for (at, ((peer, path), known)) in self.paths.iter().zip(&mut self.known).enumerate() {
            let (from, to) = (*known, mtu_of(at));
            *known = to;
            if from != 0 && from != to {
                info!(peer, path, from, to, "path MTU changed");
            } else if from != to {
                info!(peer, path, mtu = to, "path MTU");
            }
        }
    }
}
