//! A hand that numbers what is sealed for a peer: one per stream, and one for feedback.

use shardgate_core::seal::{Origin, SealBudget};

use super::unit::send_key_slot;
use crate::command::Command;

/// One hand's part of a peer's send key.
pub struct Hand {
    peer: u16,
    flow: u16,
    keys_installed: usize,
    /// What it may still seal; nothing without a key.
    pub budget: Option<SealBudget>,
}

impl Hand {
    /// A hand without a key, whose datagrams leave by the `flow`th source port.
    pub fn new(peer: u16, flow: u16) -> Self {
        Self {
            peer,
            flow,
            keys_installed: 0,
            budget: None,
        }
    }

    /// Carries out what a command says about the peer's send key.
    pub fn command(&mut self, command: &Command) {
        match command {
            Command::InstallSendKey(key) if key.peer == self.peer => {
                self.keys_installed += 1;
                let origin = Origin {
                    key_slot: send_key_slot(self.peer, self.keys_installed),
                    peer: self.peer,
                    flow: self.flow,
                };
                // One hand per stream, and one for feedback.
                let hands = key.streams.saturating_add(1);
                let budget = SealBudget::new(key.receiver_index, origin, hands, key.created);
                self.budget = Some(budget);
            }
            Command::RetireSendKey { peer } if *peer == self.peer => self.budget = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use shardgate_core::seal::PathNumbers;
    use shardgate_core::time::Time;
    use shardgate_core::wire::header::Kind;

    use super::*;
    use crate::command::{SecretKey, SendKey};

    #[test]
    fn a_hand_seals_only_between_install_and_retirement_of_its_own_peers_key() {
        let mut hand = Hand::new(3, 0);
        let install = |peer| {
            Command::InstallSendKey(SendKey {
                peer,
                receiver_index: 7,
                key: SecretKey::new([1; 32]),
                created: Time::ZERO,
                generation: 1,
                streams: 1,
            })
        };
        hand.command(&install(2));
        assert!(hand.budget.is_none());
        hand.command(&install(3));
        let mut numbers = PathNumbers::new(Kind::Data, 0);
        let budget = hand.budget.as_mut().expect("installed");
        assert!(numbers.take(0, budget, Time::ZERO).is_some());
        hand.command(&Command::RetireSendKey { peer: 2 });
        assert!(hand.budget.is_some());
        hand.command(&Command::RetireSendKey { peer: 3 });
        assert!(hand.budget.is_none());
    }
}
