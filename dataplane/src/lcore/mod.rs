//! What runs on the lcores.
//!
//! | file | stage |
//! |---|---|
//! | [`rx`] | an rx lcore's loop: LAN ports in, WAN ports in, what was opened, timeouts |
//! | [`wan`] | from a WAN burst to datagrams that a unit may open |
//! | [`peer`] | a peer's endpoint between LAN, units and commands |
//! | [`crypto`] | a dedicated crypto lcore's loop |
//! | [`unit`], [`cipher`], [`units`] | sealing and opening, wherever it runs |
//! | [`hand`] | who may number under a peer's key |
//! | [`tx`], [`poll`], [`load`] | sending; waiting; how busy it is |

pub mod cipher;
pub mod crypto;
pub mod hand;
pub mod load;
pub mod peer;
pub mod poll;
pub mod rx;
pub mod tx;
pub mod unit;
pub mod units;
pub mod wan;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Receiver;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_dpdk::{BURST, Burst, Consumer, Mbuf, RingItem};

use self::tx::Tx;
use crate::command::Command;
use crate::engine::shared::{LcoreReport, LcoreShared, Shared};

/// A loop that an lcore runs until the engine stops.
pub trait Lcore: Send + 'static {
    /// Runs until the engine stops.
    fn run(self) -> LcoreReport;
}

/// Commands for one lcore, numbered in the order they were posted.
pub struct Mailbox {
    commands: Receiver<(u64, Command)>,
    shared: Arc<Shared>,
    index: usize,
}

impl Mailbox {
    /// The mailbox of the poller with this index.
    pub fn new(commands: Receiver<(u64, Command)>, shared: Arc<Shared>, index: usize) -> Self {
        Self {
            commands,
            shared,
            index,
        }
    }

    /// Carries out what was posted, and acknowledges it.
    #[inline]
    pub fn carry_out(&self, mut carry_out: impl FnMut(&Command)) {
        while let Ok((number, command)) = self.commands.try_recv() {
            carry_out(&command);
            self.me().carried_out.store(number, Ordering::Release);
        }
    }

    fn me(&self) -> &LcoreShared {
        &self.shared.lcores[self.index]
    }
}

/// Sends what lcores without a queue of their own on a port hand over.
fn forward_for_others(others: &mut [(usize, Consumer<Mbuf>)], tx: &mut [Option<Tx>]) -> usize {
    let mut moved = 0;
    let mut burst = Burst::new();
    for (port, ring) in others {
        let Some(Some(tx)) = tx.get_mut(*port) else {
            continue;
        };
        if tx.credit() >= BURST {
            moved += ring.pop(&mut burst);
            for packet in burst.drain(..) {
                tx.push(packet);
            }
        }
    }
    moved
}

/// Frees what is left in rings at the end; says how much.
fn discard_rings<'a, T: RingItem + 'a>(
    rings: impl IntoIterator<Item = &'a mut Consumer<T>>,
) -> usize {
    let mut discarded = 0;
    let mut burst = Burst::new();
    for ring in rings {
        while ring.pop(&mut burst) > 0 {
            discarded += burst.len();
            shardgate_dpdk::free_burst(&mut burst);
        }
    }
    discarded
}

/// Adds what died on the way out.
fn count_tx_drops(drops: &mut Drops, tx: &[Option<Tx>]) {
    drops.add(
        DropReason::TxFull,
        tx.iter().flatten().map(|tx| tx.dropped).sum(),
    );
}
