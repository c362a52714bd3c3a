//! A hand that numbers what is sealed for a peer: one per endpoint, for its stream and its feedback.

use shardgate_core::seal::{Origin, SealBudget};

use super::unit::send_key_slot;
use crate::command::SendKey;

/// Turns a peer's send keys into what one endpoint may seal.
pub struct Hand {
    peer: u16,
    flow: u16,
    keys_installed: usize,
}

impl Hand {
    /// A hand whose datagrams leave by the `flow`th source port.
    pub fn new(peer: u16, flow: u16) -> Self {
        Self {
            peer,
            flow,
            keys_installed: 0,
        }
    }

    /// This hand's part of a key, in the slot where the units have it: they count keys alike.
    pub fn budget(&mut self, key: &SendKey) -> SealBudget {
        self.keys_installed += 1;
        let origin = Origin {
            key_slot: send_key_slot(self.peer, self.keys_installed),
            peer: self.peer,
            flow: self.flow,
        };
        SealBudget::new(key.receiver_index, origin, key.streams, key.created)
    }
}
