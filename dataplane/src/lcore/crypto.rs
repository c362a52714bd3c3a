//! A dedicated crypto lcore: SPSC rings in from every rx lcore, its own way out on each WAN port,
//! SPSC rings of opened shards back to every rx lcore.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shardgate_core::drop_reason::DropReason;
use shardgate_core::seal::{Opened, Received, Unsealed};
use shardgate_dpdk::{BURST, Burst, Consumer, Mbuf, Producer};

use super::load::Load;
use super::poll::Idler;
use super::tx::Tx;
use super::unit::Unit;
use super::{Lcore, Mailbox};
use crate::engine::shared::{LcoreCounters, LcoreReport, Phase, Shared};

/// Everything a crypto lcore owns.
pub struct CryptoLcore {
    /// Its place among all pollers.
    pub index: usize,
    /// What all lcores share.
    pub shared: Arc<Shared>,
    /// Commands from the control thread.
    pub mailbox: Mailbox,
    /// The unit that it runs.
    pub unit: Unit,
    /// From each rx lcore: shards to seal.
    pub to_seal: Vec<Consumer<Unsealed<Mbuf>>>,
    /// From each rx lcore: datagrams to open.
    pub to_open: Vec<Consumer<Received<Mbuf>>>,
    /// To each rx lcore: what was opened.
    pub opened: Vec<Producer<Opened<Mbuf>>>,
    /// To each rx lcore: what was numbered there and never leaves.
    pub unsent: Vec<Producer<Mbuf>>,
    /// Per port: the way out, if it is a WAN port.
    pub tx: Vec<Option<Tx>>,
    /// Packets of lcores that send through this one: the port and their ring.
    pub tx_for_others: Vec<(usize, Consumer<Mbuf>)>,
    /// How it waits.
    pub idler: Idler,
    /// How busy it is.
    pub load: Load,
}

impl Lcore for CryptoLcore {
    fn run(mut self) -> LcoreReport {
        let mut counters = LcoreCounters::default();
        let mut outgoing: Vec<Burst<Opened<Mbuf>>> =
            self.opened.iter().map(|_| Burst::new()).collect();
        let shared = Arc::clone(&self.shared);
        let me = &shared.lcores[self.index];
        let mut first = 0;
        let mut to_seal = Burst::new();
        let mut to_open = Burst::new();
        while self.shared.phase() != Phase::Stop {
            let started = shardgate_dpdk::tsc::now_cycles();
            let now = self.shared.clock.time(started);
            let unit = &mut self.unit;
            self.mailbox.carry_out(|command| unit.command(command));
            let mut moved = super::forward_for_others(&mut self.tx_for_others, &mut self.tx);
            // Each rx lcore is first in its turn, or the last would starve behind the others.
            first = (first + 1) % self.to_seal.len().max(1);
            for step in 0..self.to_seal.len() {
                let rx = (first + step) % self.to_seal.len();
                let ring = &mut self.to_seal[rx];
                // What the ports have no room for stays in the ring, and is felt at the entrance.
                if self.tx.iter().flatten().any(|tx| tx.credit() < BURST) {
                    counters.backpressure += 1;
                    break;
                }
                moved += ring.pop(&mut to_seal);
                for shard in to_seal.drain(..) {
                    if let Some((port, datagram)) = self.unit.seal(shard)
                        && let Some(Some(tx)) = self.tx.get_mut(port)
                    {
                        tx.push(datagram);
                    }
                }
                if !self.unit.unsent.is_empty() {
                    // What finds no room is freed: to the peer it is lost then, like any other.
                    self.unsent[rx].push(&mut self.unit.unsent);
                    self.unit.unsent.clear();
                }
            }
            self.tx.iter_mut().flatten().for_each(Tx::flush);
            for step in 0..self.to_open.len() {
                let rx = (first + step) % self.to_open.len();
                let ring = &mut self.to_open[rx];
                if self.opened.iter().any(|owner| owner.free() < BURST) {
                    counters.backpressure += 1;
                    break;
                }
                let taken = ring.pop(&mut to_open);
                moved += taken;
                for datagram in to_open.drain(..) {
                    if let Some((owner, opened)) = self.unit.open(datagram)
                        && let Some(burst) = outgoing.get_mut(owner)
                    {
                        burst.push(opened);
                    }
                }
                for (owner, burst) in self.opened.iter_mut().zip(&mut outgoing) {
                    owner.push(burst);
                }
                // Once what came of them can be found in the owners' rings.
                me.dealt_with[rx].fetch_add(taken as u64, Ordering::Release);
            }
            counters.round(started, moved);
            if me.beat(now, || (counters, self.unit.counters, self.drops())) {
                me.take_load(&mut self.load, &counters, &shared.clock, now);
            }
            self.idler.after_round(now, moved > 0);
        }
        let discarded = self.discard_rest();
        self.shared.lcores[self.index].publish((counters, self.unit.counters, self.drops()));
        LcoreReport { discarded }
    }
}

impl CryptoLcore {
    /// The end: sends what is pending, and counts what cannot leave any more.
    fn discard_rest(&mut self) -> usize {
        let in_rings = super::discard_rings(&mut self.to_seal)
            + super::discard_rings(&mut self.to_open)
            + super::discard_rings(self.tx_for_others.iter_mut().map(|(_, ring)| ring));
        self.unit.drops.add(DropReason::Stopping, in_rings as u64);
        let mut discarded = in_rings;
        for tx in self.tx.iter_mut().flatten() {
            tx.flush();
            discarded += tx.discard();
        }
        discarded
    }

    fn drops(&self) -> shardgate_core::drop_reason::Drops {
        let mut drops = self.unit.drops;
        super::count_tx_drops(&mut drops, &self.tx);
        drops
    }
}
