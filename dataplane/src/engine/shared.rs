//! What all lcores and the control thread share: addresses that never change, and counters and
//! marks that one of them writes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use shardgate_core::drop_reason::{DROP_REASONS, DropReason, Drops};
use shardgate_core::limits::{KEY_SLOTS, STREAMS_MAX, UNIT_LAG_MAX};
use shardgate_core::receiver::{LaneStats, ReceiverStats};
use shardgate_core::sender::SenderStats;
use shardgate_core::time::Time;
use shardgate_dpdk::Clock;

use crate::counters;
use crate::counters::{Published, Words};
use crate::lcore::unit::UnitCounters;

/// How often an lcore publishes its counters.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);

/// Whether the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Packets flow.
    Run = 0,
    /// No frame is taken from a LAN any more; what is inside goes out.
    Drain = 1,
    /// Nothing is taken from a WAN either, and what was held goes out.
    Release = 2,
    /// Lcores return.
    Stop = 3,
}

/// What an lcore leaves behind when it stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct LcoreReport {
    /// Frames and shards that were inside and could not leave any more.
    pub discarded: usize,
}

counters! {
    /// A poller's account of itself.
    pub struct LcoreCounters {
        /// Rounds of its loop.
        rounds,
        /// Rounds that moved packets.
        busy_rounds,
        /// Cycles spent in rounds that moved packets.
        busy_cycles,
        /// Packets moved from one stage to another.
        packets,
        /// Times it left packets where they were because the next stage had no room.
        backpressure,
    }
}

impl LcoreCounters {
    /// Notes a round that began at `started` cycles.
    #[inline]
    pub fn round(&mut self, started: u64, moved: usize) {
        self.rounds += 1;
        if moved > 0 {
            self.busy_rounds += 1;
            self.busy_cycles += shardgate_dpdk::tsc::now_cycles().saturating_sub(started);
            self.packets += moved as u64;
        }
    }
}

counters! {
    /// What an rx lcore has seen.
    pub struct RxCounters {
        /// Frames received from LAN ports.
        lan_frames,
        /// Their bytes.
        lan_bytes,
        /// Frames sent to LAN ports.
        lan_frames_out,
        /// Their bytes.
        lan_bytes_out,
        /// Frames received from WAN ports.
        wan_frames,
        /// Their bytes.
        wan_bytes,
        /// Frames handed to the control thread.
        exceptions,
        /// TCP SYNs whose segment size was lowered.
        mss_clamped,
        /// Feedback messages accepted.
        feedback,
    }
}

counters! {
    /// The sending side of a stream.
    pub struct StreamOut {
        frames,
        frame_bytes,
        aggregates,
        shards,
        payload_bytes,
        frames_in_place,
        numbered,
    }
}

impl From<(SenderStats, u64)> for StreamOut {
    fn from((stats, numbered): (SenderStats, u64)) -> Self {
        Self {
            frames: stats.frames,
            frame_bytes: stats.frame_bytes,
            aggregates: stats.aggregates,
            shards: stats.shards,
            payload_bytes: stats.payload_bytes,
            frames_in_place: stats.frames_in_place,
            numbered,
        }
    }
}

counters! {
    /// The receiving side of a stream.
    pub struct StreamIn {
        shards,
        payload_bytes,
        frames,
        frame_bytes,
        frames_assembled,
        frames_in_place,
        frames_held,
        frames_held_high_water,
        frames_skipped,
        frames_recovered,
        stragglers,
        holes,
        holes_by_units,
        holes_filled,
        holes_given_up,
        holes_forced,
        late_shards,
        jumps,
        kept_shards_high_water,
        resets,
        last_heard_ns,
    }
}

impl StreamIn {
    /// From the counters of a predictive buffer.
    pub fn new(stats: ReceiverStats, lanes: LaneStats, last_heard: Time) -> Self {
        Self {
            shards: stats.shards,
            payload_bytes: stats.payload_bytes,
            frames: lanes.delivered,
            frame_bytes: stats.frame_bytes,
            frames_assembled: stats.frames_assembled,
            frames_in_place: stats.frames_in_place,
            frames_held: lanes.held,
            frames_held_high_water: lanes.held_high_water,
            frames_skipped: lanes.skipped,
            frames_recovered: lanes.recovered,
            stragglers: lanes.stragglers,
            holes: stats.holes,
            holes_by_units: stats.holes_by_units,
            holes_filled: stats.holes_filled,
            holes_given_up: stats.holes_given_up,
            holes_forced: stats.holes_forced,
            late_shards: stats.late,
            jumps: stats.jumps,
            kept_shards_high_water: stats.kept_high_water,
            resets: stats.resets,
            last_heard_ns: last_heard.as_nanos(),
        }
    }
}

counters! {
    /// What probes say of a peer's path.
    pub struct PathCounters {
        /// Challenges sent.
        challenges,
        /// Echoes of them that came back.
        echoes,
        /// Challenges of the peer answered.
        answered,
        /// Feedback messages numbered.
        numbered,
        /// Round trip of the last echo; 0 before the first.
        rtt_last_ns,
        /// Smoothed round trip (RFC 6298); 0 before the first echo.
        rtt_smoothed_ns,
        /// Shortest round trip so far; 0 before the first echo.
        rtt_min_ns,
        /// When feedback of the peer came last.
        last_heard_ns,
    }
}

impl Words for Drops {
    const WORDS: usize = DROP_REASONS;

    fn for_each(&self, put: impl FnMut(u64)) {
        self.as_array().iter().copied().for_each(put);
    }

    fn collect(mut words: impl FnMut() -> u64) -> Self {
        let mut drops = Drops::default();
        for &reason in DropReason::ALL {
            drops.add(reason, words());
        }
        drops
    }
}

/// What an lcore is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LcoreKind {
    /// Polls ports; with inline crypto it is a unit as well.
    Rx,
    /// A crypto unit.
    Crypto,
}

/// One poller's marks and counters.
pub struct LcoreShared {
    /// The lcore's id.
    pub id: u32,
    /// What it is for.
    pub kind: LcoreKind,
    /// Whether it runs a crypto unit.
    pub is_unit: bool,
    /// Number of the last command carried out.
    pub carried_out: AtomicU64,
    last_round: CachePadded<AtomicU64>,
    last_published: AtomicU64,
    /// If it is a crypto lcore: how many datagrams of each rx lcore it has opened or dropped.
    pub dealt_with: Vec<CachePadded<AtomicU64>>,
    /// If it is an rx lcore: everything it received before this has been dealt with.
    pub settled: CachePadded<AtomicU64>,
    /// Its account of itself.
    pub counters: Published<LcoreCounters>,
    /// Its crypto unit's counters.
    pub unit: Published<UnitCounters>,
    /// What died on it.
    pub drops: Published<Drops>,
    /// What it received, if it is an rx lcore.
    pub rx: Published<RxCounters>,
}

impl LcoreShared {
    /// A poller that has not run yet.
    pub fn new(id: u32, kind: LcoreKind, is_unit: bool, rx_lcores: usize) -> Self {
        Self {
            id,
            kind,
            is_unit,
            carried_out: AtomicU64::new(0),
            last_round: CachePadded::new(AtomicU64::new(0)),
            last_published: AtomicU64::new(0),
            dealt_with: (0..rx_lcores).map(|_| CachePadded::default()).collect(),
            settled: CachePadded::default(),
            counters: Published::default(),
            unit: Published::default(),
            drops: Published::default(),
            rx: Published::default(),
        }
    }

    /// Says that the lcore is alive, and now and then publishes its counters. True if it did.
    #[inline]
    pub fn beat(
        &self,
        now: Time,
        counters: impl FnOnce() -> (LcoreCounters, UnitCounters, Drops),
    ) -> bool {
        self.last_round.store(now.as_nanos(), Ordering::Relaxed);
        let last = Time(self.last_published.load(Ordering::Relaxed));
        let is_due = now.since(last) >= PUBLISH_EVERY;
        if is_due {
            self.last_published.store(now.as_nanos(), Ordering::Relaxed);
            self.publish(counters());
        }
        is_due
    }

    /// Publishes the counters.
    pub fn publish(&self, (counters, unit, drops): (LcoreCounters, UnitCounters, Drops)) {
        self.counters.store(&counters);
        self.unit.store(&unit);
        self.drops.store(&drops);
    }

    /// When its last round began.
    pub fn last_round(&self) -> Time {
        Time(self.last_round.load(Ordering::Relaxed))
    }
}

/// One peer's marks and counters.
pub struct PeerShared {
    /// Our streams to it.
    pub streams_out: Vec<Published<StreamOut>>,
    /// Its streams to us.
    pub streams_in: Vec<Published<StreamIn>>,
    /// Its path.
    pub path: Published<PathCounters>,
    /// It said that it stops.
    pub closed: AtomicBool,
}

impl PeerShared {
    /// A peer to which `streams` streams go.
    pub fn new(streams: usize) -> Self {
        Self {
            streams_out: (0..streams).map(|_| Published::default()).collect(),
            streams_in: (0..STREAMS_MAX).map(|_| Published::default()).collect(),
            path: Published::default(),
            closed: AtomicBool::new(false),
        }
    }
}

/// What lcores need to know of a port.
#[derive(Clone, Copy, Debug)]
pub struct PortShared {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The gateway's address on it, if it is a WAN port.
    pub address: Option<IpAddr>,
    /// Largest L3 packet.
    pub mtu: u16,
}

/// What all lcores and the control thread share.
pub struct Shared {
    /// The clock of all times.
    pub clock: Clock,
    phase: AtomicU8,
    /// Ports by index.
    pub ports: Vec<PortShared>,
    /// Peers by index.
    pub peers: Vec<PeerShared>,
    /// Pollers: rx lcores first, then crypto lcores.
    pub lcores: Vec<LcoreShared>,
    /// How many of them are rx lcores.
    pub rx_lcores: usize,
    /// UDP port of the gateway.
    pub listen_port: u16,
    /// UDP source ports of a path.
    pub flows: usize,
    /// Per key slot: the receiver index under which something was opened.
    confirmed: Box<[AtomicU32]>,
}

impl Shared {
    /// A running engine's shared state.
    pub fn new(
        clock: Clock,
        ports: Vec<PortShared>,
        peers: Vec<PeerShared>,
        lcores: Vec<LcoreShared>,
        listen_port: u16,
        flows: usize,
    ) -> Self {
        Self {
            clock,
            phase: AtomicU8::new(Phase::Run as u8),
            ports,
            peers,
            rx_lcores: lcores
                .iter()
                .filter(|lcore| lcore.kind == LcoreKind::Rx)
                .count(),
            lcores,
            listen_port,
            flows,
            confirmed: (0..KEY_SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Whether the engine runs.
    #[inline]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Run,
            1 => Phase::Drain,
            2 => Phase::Release,
            _ => Phase::Stop,
        }
    }

    /// Moves the engine on.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The time before which everything received on any rx lcore has been dealt with; an lcore that
    /// is stuck does not hold everybody up.
    pub fn settled(&self, now: Time) -> Time {
        let rx = self.lcores.iter().take(self.rx_lcores);
        let settled = rx.map(|lcore| lcore.settled.load(Ordering::Acquire)).min();
        Time(settled.unwrap_or(0)).max(now - UNIT_LAG_MAX)
    }

    /// Something was opened under this receiver index.
    pub fn confirm(&self, receiver_index: u32) {
        self.confirmed[receiver_index as usize % KEY_SLOTS]
            .store(receiver_index, Ordering::Release);
    }

    /// Whether something was opened under this receiver index.
    pub fn is_confirmed(&self, receiver_index: u32) -> bool {
        self.confirmed[receiver_index as usize % KEY_SLOTS].load(Ordering::Acquire)
            == receiver_index
    }
}
