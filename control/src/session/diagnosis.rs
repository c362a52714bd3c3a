//! What an operator is told when keys do not fit.

use std::net::SocketAddr;
use std::time::Duration;

use shardgate_core::time::Time;
use tracing::warn;

use super::Reject;
use crate::keys;

/// Time between two lines for the same reason: anybody can cause them.
const INTERVAL: Duration = Duration::from_secs(10);

/// Names the likely cause of refusals that come from wrong keys, seldom enough for any flood.
#[derive(Default)]
pub struct Diagnosis {
    mac1: Option<Time>,
    authentication: Option<Time>,
    unknown_peer: Option<Time>,
}

impl Diagnosis {
    /// A message from `source` was refused.
    pub fn refused(&mut self, now: Time, source: SocketAddr, reason: Reject) {
        let (last, cause) = match reason {
            Reject::Mac1 => (
                &mut self.mac1,
                "the peer has another public key for this gateway, or it is not for us",
            ),
            Reject::Authentication => (
                &mut self.authentication,
                "wrong preshared key or private key",
            ),
            _ => return,
        };
        if due(last, now) {
            warn!(%source, reason = reason.name(), "handshake refused: {cause}");
        }
    }

    /// An init from `source` was refused because its static key belongs to no peer.
    pub fn unknown_peer(&mut self, now: Time, source: SocketAddr, public_key: &[u8; 32]) {
        if due(&mut self.unknown_peer, now) {
            warn!(
                %source,
                reason = Reject::UnknownPeer.name(),
                public_key = keys::to_text(public_key),
                "handshake refused: no peer is configured with this public key"
            );
        }
    }
}

fn due(last: &mut Option<Time>, now: Time) -> bool {
    let due = last.is_none_or(|last| now.since(last) >= INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}
