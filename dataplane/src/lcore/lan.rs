//! From a LAN burst to numbered shards: classify, clamp, aggregate, cut, hand to the units.

use std::collections::VecDeque;

use shardgate_core::buffer::Buffer;
use shardgate_core::classify::classify;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::mss::clamp_mss;
use shardgate_core::sender::{Close, Departure, Refused, SenderConfig, StreamSender};
use shardgate_core::time::Time;
use shardgate_core::wire::payload_max;
use shardgate_dpdk::{BURST, Burst, Mbuf, Pool};

use super::hand::Hand;
use super::tx::Tx;
use super::units::Units;
use crate::command::Command;
use crate::engine::shared::{RxCounters, Shared, StreamOut};

/// The path that is used; several come later.
pub const PATH: u8 = 0;

/// One peer's stream, as far as this lcore sends it.
pub struct PeerSender {
    peer: u16,
    stream: u8,
    mss_clamp: bool,
    sender: StreamSender<Mbuf>,
    /// Frames of the last burst that no aggregate has taken yet.
    pending: VecDeque<Mbuf>,
    hand: Hand,
    has_path: bool,
}

/// What sending needs from the lcore it happens on.
pub struct Surroundings<'a> {
    /// The round's time.
    pub now: Time,
    /// The crypto units.
    pub units: &'a mut Units,
    /// Ways out, by port.
    pub tx: &'a mut [Option<Tx>],
    /// Which ports are WAN ports.
    pub wan_ports: &'a [usize],
    /// Where buffers for shards come from.
    pub pool: &'a mut Pool,
    /// What died on this lcore.
    pub drops: &'a mut Drops,
}

impl PeerSender {
    /// The `stream`th stream to a peer; it leaves by the `flow`th source port.
    pub fn new(peer: u16, stream: u8, flow: u16, mss_clamp: bool, config: SenderConfig) -> Self {
        Self {
            peer,
            stream,
            mss_clamp,
            sender: StreamSender::new(stream, config),
            pending: VecDeque::with_capacity(BURST),
            hand: Hand::new(peer, flow),
            has_path: false,
        }
    }

    /// Carries out what a command asks of a sender.
    pub fn command(&mut self, command: &Command, shared: &Shared, drops: &mut Drops) {
        self.hand.command(command);
        if let Command::SetPath {
            peer,
            path: PATH,
            address,
        } = command
            && *peer == self.peer
        {
            self.has_path = address.is_some();
            if let Some(address) = address {
                let mtu = shared.ports[address.port].mtu;
                // What was gathered for another payload size cannot be cut any more.
                drops.add(DropReason::NoPath, self.sender.discard() as u64);
                self.sender
                    .set_payload_max(payload_max(mtu, address.remote.ip()));
            }
        }
    }

    /// Takes the frames of one LAN burst; only when the last one is through.
    pub fn take(&mut self, burst: &mut Burst) {
        debug_assert!(!self.is_blocked());
        self.pending.extend(burst.drain(..));
    }

    /// True while frames wait for room in the units.
    pub fn is_blocked(&self) -> bool {
        !self.pending.is_empty() || self.sender.waiting() > 0
    }

    /// Sends what waits, as far as the units have room.
    pub fn send(&mut self, counters: &mut RxCounters, around: &mut Surroundings<'_>) {
        let refusal = match (&self.hand.budget, self.has_path) {
            (None, _) => Some(DropReason::NoSession),
            (_, false) => Some(DropReason::NoPath),
            _ => None,
        };
        if let Some(reason) = refusal {
            around.drops.add(reason, self.discard() as u64);
            return;
        }
        let frame_max = self.sender.frame_max_in_shard();
        while let Some(mut frame) = self.pending.pop_front() {
            let classified = classify(frame.data());
            if self.mss_clamp
                && let Some(at) = classified.tcp
                && clamp_mss(frame.data_mut(), at, frame_max)
            {
                counters.mss_clamped += 1;
            }
            let mut offered = self.sender.offer(frame, classified.lane);
            if let Err(Refused::Full(frame)) = offered {
                self.close(around);
                offered = self.sender.offer(frame, classified.lane);
            }
            match offered {
                Ok(()) => {}
                Err(Refused::Dropped(_, reason)) => around.drops.count(reason),
                Err(Refused::Full(frame)) => {
                    // No room in the units: the frame waits, and its LAN queue is not read.
                    self.pending.push_front(frame);
                    return;
                }
            }
        }
        self.close(around);
    }

    /// Cuts and hands over what is gathered.
    fn close(&mut self, around: &mut Surroundings<'_>) {
        let Some(budget) = &mut self.hand.budget else {
            return;
        };
        let Surroundings {
            now,
            units,
            tx,
            wan_ports,
            pool,
            drops,
        } = around;
        let departure = Departure {
            now: *now,
            path: PATH,
            budget,
            credit: units.seal_credit(tx, wan_ports),
            pool: *pool,
        };
        let closed = self.sender.close(departure, |shard| units.seal(shard, tx));
        if let Close::Dropped(reason, frames) = closed {
            drops.add(reason, frames as u64);
        }
    }

    /// Drops what waits; says how many frames.
    pub fn discard(&mut self) -> usize {
        self.sender.discard() + self.pending.drain(..).count()
    }

    /// Publishes the stream's counters.
    pub fn publish(&self, shared: &Shared) {
        let streams = &shared.peers[usize::from(self.peer)].streams_out;
        if let Some(stream) = streams.get(usize::from(self.stream)) {
            stream.store(&StreamOut::from((
                self.sender.stats(),
                self.sender.numbered(),
            )));
        }
    }
}
