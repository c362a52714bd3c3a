//! An rx lcore: polls ports, shards what comes from a LAN, sorts what comes from a WAN, owns the
//! predictive buffers of its streams.
//!
//! | each round | where to |
//! |---|---|
//! | commands from the control thread | keys, paths, probes |
//! | frames of the control thread and of lcores without a tx queue | tx |
//! | what the units opened | lanes, LAN tx |
//! | WAN queues | units, or the control thread |
//! | what has waited long enough | LAN tx |
//! | LAN queues | aggregates, shards, units |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shardgate_core::buffer::Buffer;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::owner;
use shardgate_core::seal::Opened;
use shardgate_core::time::Time;
use shardgate_core::wire::header::{ClearHeader, Kind};
use shardgate_dpdk::{BURST, Burst, Consumer, Mbuf, Pool, Producer, RxQueue};

use super::load::Load;
use super::peer::{LanSink, PeerStage, Surroundings};
use super::poll::Idler;
use super::tx::Tx;
use super::unit::UnitCounters;
use super::units::Units;
use super::wan::{ReceiveTable, Sorted};
use super::{Lcore, Mailbox};
use crate::engine::shared::{LcoreCounters, LcoreReport, Phase, RxCounters, Shared};

/// How often timeouts are looked at: a tenth of the shortest hold worth having.
const POLL_EVERY: Duration = Duration::from_micros(100);

/// Everything an rx lcore owns.
pub struct RxLcore {
    /// Its place among all pollers.
    pub index: usize,
    /// What all lcores share.
    pub shared: Arc<Shared>,
    /// Commands from the control thread.
    pub mailbox: Mailbox,
    /// LAN queues, with the peer joined to their port.
    pub lan_queues: Vec<(RxQueue, Option<usize>)>,
    /// WAN queues, with their port.
    pub wan_queues: Vec<(RxQueue, usize)>,
    /// Where the next round over the WAN queues begins.
    pub first_wan_queue: usize,
    /// Ways out, by port.
    pub tx: Vec<Option<Tx>>,
    /// Which ports are WAN ports.
    pub wan_ports: Vec<usize>,
    /// Packets of lcores that send through this one: the port and their ring.
    pub tx_for_others: Vec<(usize, Consumer<Mbuf>)>,
    /// The crypto units.
    pub units: Units,
    /// What units on other lcores have opened.
    pub opened: Vec<Consumer<Opened<Mbuf>>>,
    /// What units on other lcores could not send.
    pub unsent: Vec<Consumer<Mbuf>>,
    /// With inline crypto: to each other rx lcore, what was opened for it.
    pub to_owners: Vec<Option<Producer<Opened<Mbuf>>>>,
    /// Peers by index; those served elsewhere are absent.
    pub peers: Vec<Option<PeerStage>>,
    /// Per peer the rx lcores, by index, that serve it: the ith sends stream i.
    pub served_by: Vec<Vec<usize>>,
    /// Receive keys.
    pub keys: ReceiveTable,
    /// To the control thread.
    pub exceptions: Producer<Mbuf>,
    /// From the control thread: frames to send, with the port in their metadata.
    pub from_control: Consumer<Mbuf>,
    /// Where reassembled frames come from.
    pub frames: Pool,
    /// Where shards come from.
    pub shards: Pool,
    /// How it waits.
    pub idler: Idler,
    /// How busy it is.
    pub load: Load,
    /// What it has seen.
    pub rx: RxCounters,
    /// What died here.
    pub drops: Drops,
}

/// Splits off what sending needs, so that the rest of the lcore stays free to be used.
macro_rules! surroundings {
    ($self:ident, $now:expr) => {
        Surroundings {
            now: $now,
            units: &mut $self.units,
            tx: &mut $self.tx,
            wan_ports: &$self.wan_ports,
            pool: &mut $self.shards,
            counters: &mut $self.rx,
            drops: &mut $self.drops,
        }
    };
}

/// Splits off the way to a peer's LAN.
macro_rules! lan_sink {
    ($self:ident, $lan:expr) => {
        LanSink {
            tx: $self.tx.get_mut($lan).and_then(Option::as_mut),
            counters: &mut $self.rx,
            drops: &mut $self.drops,
        }
    };
}

impl Lcore for RxLcore {
    fn run(mut self) -> LcoreReport {
        let mut counters = LcoreCounters::default();
        let mut polled = Time::ZERO;
        loop {
            let phase = self.shared.phase();
            if phase == Phase::Stop {
                break;
            }
            let started = shardgate_dpdk::tsc::now_cycles();
            let mut now = self.shared.clock.time(started);
            self.carry_out_commands(now);
            // Before the rings are emptied: what the units had dealt with is in them by now.
            let settled = self.units.settled(now, &self.shared, self.index);
            self.shared.lcores[self.index]
                .settled
                .store(settled.as_nanos(), Ordering::Release);
            let all_settled = self.shared.settled(now);
            let mut moved = super::forward_for_others(&mut self.tx_for_others, &mut self.tx);
            moved += self.send_for_control();
            moved += self.take_opened(now);
            self.take_unsent();
            match phase {
                Phase::Release => self.release_held(),
                _ => moved += self.poll_wan(&mut now, &mut counters),
            }
            if now.since(polled) >= POLL_EVERY {
                polled = now;
                self.poll_peers(now, all_settled);
            }
            if phase == Phase::Run {
                moved += self.poll_lan(now, &mut counters);
            }
            self.units.flush();
            self.tx.iter_mut().flatten().for_each(Tx::flush);
            counters.round(started, moved);
            if self.shared.lcores[self.index].beat(now, || self.account(counters)) {
                self.publish(now);
                self.weigh(now, &counters);
            }
            self.idler.after_round(now, moved > 0);
        }
        let discarded = self.discard_rest();
        self.shared.lcores[self.index].publish(self.account(counters));
        self.publish(self.shared.clock.now());
        LcoreReport { discarded }
    }
}

impl RxLcore {
    fn carry_out_commands(&mut self, now: Time) {
        let Self {
            mailbox,
            units,
            tx,
            wan_ports,
            shards,
            rx,
            drops,
            keys,
            peers,
            shared,
            ..
        } = self;
        mailbox.carry_out(|command| {
            keys.command(command);
            if let Units::Inline(unit) = units {
                unit.command(command);
            }
            for stage in peers.iter_mut().flatten() {
                let mut around = Surroundings {
                    now,
                    units,
                    tx,
                    wan_ports,
                    pool: shards,
                    counters: rx,
                    drops,
                };
                stage.command(command, shared, &mut around);
            }
        });
    }

    fn send_for_control(&mut self) -> usize {
        let mut burst = Burst::new();
        let moved = self.from_control.pop(&mut burst);
        for frame in burst.drain(..) {
            let port = usize::from(frame.meta().port);
            match self.tx.get_mut(port) {
                Some(Some(tx)) => {
                    tx.push(frame);
                }
                _ => self.drops.count(DropReason::TxFull),
            }
        }
        moved
    }

    /// Takes what the units have opened: all that is there, before any hole is judged, but no more,
    /// or a busy unit would keep this lcore from everything else.
    fn take_opened(&mut self, now: Time) -> usize {
        let mut moved = 0;
        let mut burst = Burst::new();
        for ring in 0..self.opened.len() {
            let mut left = self.opened[ring].len();
            while left > 0 && self.opened[ring].pop(&mut burst) > 0 {
                moved += burst.len();
                left = left.saturating_sub(burst.len());
                for opened in burst.drain(..) {
                    self.accept(opened, now);
                }
            }
        }
        moved
    }

    /// Takes back what was numbered here and never left.
    fn take_unsent(&mut self) {
        while let Some(datagram) = self.units.take_unsent() {
            self.not_sent(&datagram);
        }
        let mut burst = Burst::new();
        for ring in 0..self.unsent.len() {
            self.unsent[ring].pop(&mut burst);
            for datagram in burst.drain(..) {
                self.not_sent(&datagram);
            }
        }
    }

    fn not_sent(&mut self, datagram: &Mbuf) {
        let peer = usize::from(datagram.meta().peer);
        if let Ok(header) = ClearHeader::parse(datagram.data())
            && let Some(Some(stage)) = self.peers.get_mut(peer)
        {
            stage.not_sent(header);
        }
    }

    /// Takes one opened datagram, which is for this lcore.
    #[inline]
    fn accept(&mut self, opened: Opened<Mbuf>, now: Time) {
        let (Some(header), peer) = (opened.header(), opened.buffer().meta().peer) else {
            self.drops.count(DropReason::ShardMalformed);
            return;
        };
        let Some(key) = self.keys.find(header.receiver_index).copied() else {
            self.drops.count(DropReason::UnknownReceiver);
            return;
        };
        let Some(Some(stage)) = self.peers.get_mut(usize::from(peer)) else {
            self.drops.count(DropReason::NotNegotiated);
            return;
        };
        if header.kind == Kind::Feedback {
            self.rx.feedback += 1;
            let mut around = surroundings!(self, now);
            stage.accept_feedback(&opened, &key, &self.shared, &mut around);
        } else {
            let mut sink = lan_sink!(self, stage.lan);
            stage.accept(opened, header, &key, &mut self.frames, &mut sink, now);
        }
    }

    /// Takes what has arrived, and moves `now` on to after it was there: a time from before the poll
    /// would, on a lcore that was kept from its CPU in between, be earlier than the arrival, and the
    /// base of all queue delays too small.
    fn poll_wan(&mut self, now: &mut Time, counters: &mut LcoreCounters) -> usize {
        let mut moved = 0;
        let mut burst = Burst::new();
        // Each queue is first in its turn, or the last would starve when the units are busy.
        let queues = self.wan_queues.len();
        self.first_wan_queue = (self.first_wan_queue + 1) % queues.max(1);
        for step in 0..queues {
            let queue = (self.first_wan_queue + step) % queues;
            if !self.units.can_open_burst() || !self.owners_have_room() {
                counters.backpressure += 1;
                break;
            }
            let (rx, port) = &mut self.wan_queues[queue];
            let port = *port;
            rx.burst(&mut burst);
            if burst.is_empty() {
                continue;
            }
            moved += burst.len();
            *now = self.shared.clock.now();
            let Some(address) = self.shared.ports[port].address else {
                burst.clear();
                continue;
            };
            self.rx.wan_frames += burst.len() as u64;
            for mut frame in burst.drain(..) {
                self.rx.wan_bytes += frame.len() as u64;
                let mut meta = frame.meta();
                meta.rx_time = *now;
                meta.port = port as u8;
                frame.set_meta(meta);
                let served_by = &self.served_by;
                let streams = |peer: u16| served_by.get(usize::from(peer)).map_or(0, Vec::len);
                match self
                    .keys
                    .sort(frame, address, self.shared.listen_port, *now, streams)
                {
                    Sorted::ForUnit(mut datagram, header, key) => {
                        let owner = self.owner_of(&header, key.peer);
                        let slot = key.receiver_index as usize % shardgate_core::limits::KEY_SLOTS;
                        datagram.assign(slot as u16, key.peer, owner as u16);
                        if let Some((owner, opened)) = self.units.open(datagram) {
                            self.hand_over(owner, opened, *now);
                        }
                    }
                    Sorted::ForControl(frame) => self.hand_to_control(frame),
                    Sorted::Dropped(reason) => self.drops.count(reason),
                }
            }
        }
        moved
    }

    /// Which rx lcore a datagram goes to once it is open: the owner of its stream. For feedback
    /// about a stream of ours that is the lcore that sends it.
    #[inline]
    fn owner_of(&self, header: &ClearHeader, peer: u16) -> usize {
        let served_by = &self.served_by[usize::from(peer)];
        let place = owner(header.stream, served_by.len());
        served_by.get(place).copied().unwrap_or(self.index)
    }

    #[inline]
    fn hand_over(&mut self, owner: usize, opened: Opened<Mbuf>, now: Time) {
        if owner == self.index {
            self.accept(opened, now);
            return;
        }
        if let Some(Some(ring)) = self.to_owners.get_mut(owner) {
            let mut burst = Burst::new();
            burst.push(opened);
            ring.push(&mut burst);
            self.drops.add(DropReason::RingFull, burst.len() as u64);
        }
    }

    #[inline]
    fn owners_have_room(&self) -> bool {
        self.to_owners
            .iter()
            .flatten()
            .all(|ring| ring.free() >= BURST)
    }

    fn hand_to_control(&mut self, frame: Mbuf) {
        let mut burst = Burst::new();
        burst.push(frame);
        if self.exceptions.push(&mut burst) == 1 {
            self.rx.exceptions += 1;
        } else {
            self.drops.count(DropReason::RingFull);
        }
    }

    fn poll_peers(&mut self, now: Time, settled: Time) {
        for stage in self.peers.iter_mut().flatten() {
            let mut around = surroundings!(self, now);
            stage.poll(settled, &mut around);
        }
    }

    fn poll_lan(&mut self, now: Time, counters: &mut LcoreCounters) -> usize {
        let mut moved = 0;
        let mut burst = Burst::new();
        for (rx, peer) in &mut self.lan_queues {
            let stage = peer
                .and_then(|peer| self.peers.get_mut(peer))
                .and_then(Option::as_mut);
            if stage.as_ref().is_some_and(|stage| stage.is_blocked()) {
                counters.backpressure += 1;
            } else {
                rx.burst(&mut burst);
                moved += burst.len();
                self.rx.lan_frames += burst.len() as u64;
                self.rx.lan_bytes += burst.iter().map(|frame| frame.len() as u64).sum::<u64>();
            }
            match stage {
                Some(stage) => {
                    if !burst.is_empty() {
                        stage.take(&mut burst);
                    }
                    if stage.is_blocked() {
                        stage.send(&mut surroundings!(self, now));
                    }
                }
                None => {
                    self.drops.add(DropReason::NoPeer, burst.len() as u64);
                    burst.clear();
                }
            }
        }
        moved
    }

    fn account(&self, counters: LcoreCounters) -> (LcoreCounters, UnitCounters, Drops) {
        let mut drops = self.drops;
        super::count_tx_drops(&mut drops, &self.tx);
        let mut unit_counters = UnitCounters::default();
        if let Units::Inline(unit) = &self.units {
            unit_counters = unit.counters;
            drops.merge(&unit.drops);
        }
        for (queue, _) in &self.lan_queues {
            drops.add(DropReason::NotLinear, queue.dropped());
        }
        for (queue, _) in &self.wan_queues {
            drops.add(DropReason::NotLinear, queue.dropped());
        }
        for stage in self.peers.iter().flatten() {
            stage.add_drops(&mut drops);
        }
        (counters, unit_counters, drops)
    }

    fn publish(&mut self, now: Time) {
        self.shared.lcores[self.index].rx.store(&self.rx);
        for stage in self.peers.iter_mut().flatten() {
            stage.publish(&self.shared, now);
        }
    }

    /// Takes how busy this lcore is, and tells its peers how busy their units are.
    fn weigh(&mut self, now: Time, counters: &LcoreCounters) {
        let shared = &self.shared;
        shared.lcores[self.index].take_load(&mut self.load, counters, &shared.clock, now);
        if matches!(self.units, Units::Inline(_)) && !self.load.has_own_cpu() {
            // On a small machine whoever sends fast fills this lcore, mostly with what ports and the
            // kernel cost: of the unit in it that says nothing.
            return;
        }
        if let Some((permille, taken_at)) = shared.crypto_load(self.index) {
            for stage in self.peers.iter_mut().flatten() {
                stage.set_crypto_load(permille, taken_at);
            }
        }
    }

    /// Delivers what is held, whatever it waits for: the gateway stops.
    fn release_held(&mut self) {
        for stage in self.peers.iter_mut().flatten() {
            let mut sink = lan_sink!(self, stage.lan);
            stage.drain(&mut sink);
        }
    }

    /// The end: sends what is pending, and counts what cannot leave any more.
    fn discard_rest(&mut self) -> usize {
        let waiting = self.peers.iter_mut().flatten().map(|stage| stage.discard());
        let stopped = waiting.sum::<usize>()
            + super::discard_rings(&mut self.opened)
            + super::discard_rings(&mut self.unsent)
            + super::discard_rings([&mut self.from_control])
            + super::discard_rings(self.tx_for_others.iter_mut().map(|(_, ring)| ring));
        self.drops.add(DropReason::Stopping, stopped as u64);
        let mut discarded = stopped;
        for tx in self.tx.iter_mut().flatten() {
            tx.flush();
            discarded += tx.discard();
        }
        discarded
    }
}
