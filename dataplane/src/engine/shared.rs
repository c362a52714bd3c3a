//! What all lcores and the control thread share: addresses that never change, and counters and
//! marks that one of them writes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use shardgate_core::buffer::Buffer;
use shardgate_core::drop_reason::{DROP_REASONS, DropReason, Drops};
use shardgate_core::endpoint::Endpoint;
use shardgate_core::histogram::{BUCKETS, LogHistogram};
use shardgate_core::limits::{KEY_SLOTS, STREAMS_MAX, UNIT_LAG_MAX};
use shardgate_core::path_mtu::{MtuView, State};
use shardgate_core::plan::{Label, Plan, Reason, Repair};
use shardgate_core::predict::Engine;
use shardgate_core::receiver::{PredictiveBuffer, ReceiverHistograms};
use shardgate_core::time::Time;
use shardgate_dpdk::Clock;

use super::predictions::{Learned, Predictions};
use crate::counters;
use crate::counters::{Published, Words};
use crate::decisions::DecisionQueue;
use crate::lcore::load::{Load, SharedLoad};
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
    /// The sending side of a stream. Bytes are those of sealed datagrams, without outer headers,
    /// unless something else is said.
    pub struct StreamOut {
        frames,
        /// Bytes of the frames themselves.
        frame_bytes,
        aggregates,
        shards,
        /// Bytes of payload in them.
        payload_bytes,
        frames_in_place,
        /// Datagrams numbered: data, then feedback.
        numbered,
        source_bytes,
        /// Shards sent again because the peer asked.
        repeats_sent,
        repeat_bytes,
        /// Standing repair.
        repair_sent,
        repair_by_count,
        repair_by_time,
        repair_bytes,
        /// Repair over the tail of a stream that fell silent.
        tail_repair_sent,
        tail_repair_bytes,
        /// Reports, requests and probes.
        feedback_sent,
        feedback_bytes,
        /// Additions that `overhead_limit` did not allow.
        over_budget,
        /// Shards that the peer asked for; of those: answered just before, gone, never missing.
        asked,
        asked_again,
        asked_gone,
        asked_nonsense,
        /// Of those: longer than the path carries by now.
        asked_too_long,
        reports,
        reports_refused,
        reports_too_soon,
        /// Datagrams that died between their number and the wire.
        not_sent,
        /// Frames marked, or let go, because the path's queue stands.
        queue_signals,
        queue_marks,
        /// Frames of bursts that waited until the path could take them.
        frames_paced,
        /// The repair that stands now: one shard for `plan_every` over `plan_window`; 0 without.
        plan_every,
        plan_window,
        plan_changes,
    }
}

impl StreamOut {
    /// From an endpoint.
    pub fn new<B: Buffer>(endpoint: &Endpoint<B>) -> Self {
        let stats = endpoint.sender_stats();
        let added = endpoint.outbound_stats();
        let encoder = endpoint.encoder_stats();
        let feedback = endpoint.feedback_stats();
        let (data, messages) = endpoint.numbered();
        Self {
            frames: stats.frames,
            frame_bytes: stats.frame_bytes,
            aggregates: stats.aggregates,
            shards: stats.shards,
            payload_bytes: stats.payload_bytes,
            frames_in_place: stats.frames_in_place,
            numbered: data + messages,
            source_bytes: added.source_bytes,
            repeats_sent: added.repeats,
            repeat_bytes: added.repeat_bytes,
            repair_sent: added.repairs,
            repair_by_count: encoder.by_count,
            repair_by_time: encoder.by_time,
            repair_bytes: added.repair_bytes,
            tail_repair_sent: added.tail_repairs,
            tail_repair_bytes: added.tail_bytes,
            feedback_sent: feedback.sent,
            feedback_bytes: feedback.sent_bytes,
            over_budget: added.over_budget,
            asked: added.asked,
            asked_again: added.asked_again,
            asked_gone: added.asked_gone,
            asked_nonsense: added.asked_nonsense,
            asked_too_long: added.asked_too_long,
            reports: added.reports,
            reports_refused: added.reports_refused,
            reports_too_soon: added.reports_too_soon,
            not_sent: added.not_sent,
            queue_signals: added.signals_dropped + added.signals_marked,
            queue_marks: added.signals_marked,
            frames_paced: added.paced,
            plan_every: added.plan_every,
            plan_window: added.plan_window,
            plan_changes: added.plan_changes,
        }
    }
}

counters! {
    /// The plan of a stream that is sent, as numbers: label and reason by their places in
    /// `Label::ALL` and `Reason::ALL`.
    pub struct PlanWords {
        label,
        n,
        payload_bytes,
        standing_every,
        standing_window,
        reactive_every,
        reactive_window,
        delay_ms,
        added_permille,
        reason,
    }
}

impl PlanWords {
    /// From a plan.
    pub fn new(plan: &Plan) -> Self {
        let place = |at: Option<usize>| at.unwrap_or_default() as u64;
        let every = |repair: Option<Repair>| repair.map_or(0, |repair| repair.every.into());
        let window = |repair: Option<Repair>| repair.map_or(0, |repair| repair.window.into());
        Self {
            label: place(Label::ALL.iter().position(|label| *label == plan.label)),
            n: plan.split.into(),
            payload_bytes: plan.payload.into(),
            standing_every: every(plan.standing),
            standing_window: window(plan.standing),
            reactive_every: every(plan.reactive),
            reactive_window: window(plan.reactive),
            delay_ms: plan.delay_ms.into(),
            added_permille: plan.added_permille.into(),
            reason: place(Reason::ALL.iter().position(|reason| *reason == plan.reason)),
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
        /// Missing shards that were known to be missing, and what became of them.
        holes,
        holes_by_units,
        holes_filled,
        holes_recovered,
        holes_given_up,
        holes_forced,
        holes_not_sent,
        /// Losses to a full queue that were left to those inside.
        holes_passed_on,
        holes_unnoted,
        /// Holes in a frame whose first bytes had come.
        holes_classified,
        late_shards,
        /// Requests for a shard; put off; needless because its first transmission came.
        shards_asked,
        asks_deferred,
        asked_needlessly,
        /// Missing shards that a repeat brought, and that were rebuilt from repair.
        shards_repeated,
        shards_rebuilt,
        /// Repair shards received; of those with nothing to repair, unusable, and wrong.
        repairs,
        repairs_needless,
        repairs_unusable,
        rebuilt_wrong,
        reports,
        jumps,
        kept_shards_high_water,
        resets,
        last_heard_ns,
    }
}

impl StreamIn {
    /// From a predictive buffer.
    pub fn new<B: Buffer>(buffer: &PredictiveBuffer<B, Engine>, last_heard: Time) -> Self {
        let (stats, lanes) = (buffer.stats(), buffer.lane_stats());
        let decoder = buffer.decoder_stats();
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
            holes_recovered: stats.holes_recovered,
            holes_given_up: stats.holes_given_up,
            holes_forced: stats.holes_forced,
            holes_not_sent: stats.holes_not_sent,
            holes_passed_on: stats.holes_passed_on,
            holes_unnoted: stats.holes_unnoted,
            holes_classified: stats.holes_classified,
            late_shards: stats.late,
            shards_asked: stats.asks,
            asks_deferred: stats.asks_deferred,
            asked_needlessly: stats.asked_needlessly,
            shards_repeated: stats.filled_by_repeat,
            shards_rebuilt: stats.filled_by_repair,
            repairs: stats.repairs,
            repairs_needless: decoder.needless,
            repairs_unusable: decoder.malformed
                + decoder.too_old
                + decoder.repeated
                + decoder.crowded_out,
            rebuilt_wrong: decoder.rebuilt_wrong,
            reports: stats.reports,
            jumps: stats.jumps,
            kept_shards_high_water: stats.kept_high_water,
            resets: stats.resets,
            last_heard_ns: last_heard.as_nanos(),
        }
    }
}

counters! {
    /// What an endpoint knows of a path. What is 0 although its count is, is unknown.
    pub struct PathCounters {
        /// Challenges sent.
        challenges,
        /// Echoes of them that came back.
        echoes,
        /// Challenges of the peer answered.
        answered,
        /// Feedback messages received.
        feedback_received,
        /// Round trips measured, by echoes and by reports.
        rtt_count,
        /// Smoothed round trip (RFC 6298); 0 before the first.
        rtt_smoothed_ns,
        /// Its variance.
        rtt_variance_ns,
        /// Shortest round trip of the last ten seconds; 0 before the first.
        rtt_min_ns,
        /// 95th percentile of round trips.
        rtt_q95_ns,
        /// Age of the last measurement.
        rtt_age_ns,
        /// Round trips that cannot be.
        echoes_refused,
        /// Datagrams lost; of those: arrived after all.
        lost,
        lost_late,
        /// Share of datagrams lost lately, in millionths.
        loss_ppm,
        /// Mean run of lost datagrams, in thousandths.
        loss_burst_milli,
        /// Runs of lost datagrams that no full queue explains, in thousandths a second.
        loss_events_milli_per_s,
        /// Bytes a second that arrived at the peer, at best, lately.
        delivery_bytes_per_s,
        /// Queueing delay now.
        queue_delay_ns,
        /// 1 while others hold the bottleneck's queue.
        competing,
        /// When feedback of the peer came last.
        last_heard_ns,
    }
}

impl PathCounters {
    /// From an endpoint.
    pub fn new<B: Buffer>(endpoint: &Endpoint<B>, path: u8, now: Time) -> Self {
        let view = endpoint.path_view(path, now);
        let feedback = endpoint.feedback_stats();
        let nanos = |time: Option<Duration>| time.map_or(0, |time| time.as_nanos() as u64);
        let scaled = |value: Option<f64>, scale: f64| value.map_or(0, |v| (v * scale) as u64);
        Self {
            challenges: feedback.challenges,
            echoes: feedback.echoes,
            answered: feedback.answered,
            feedback_received: feedback.received,
            rtt_count: view.rtt_count,
            rtt_smoothed_ns: nanos(view.rtt_smoothed),
            rtt_variance_ns: nanos(view.rtt_variance),
            rtt_min_ns: nanos(view.rtt_min),
            rtt_q95_ns: nanos(view.rtt_q95),
            rtt_age_ns: nanos(view.rtt_age),
            echoes_refused: view.echoes_refused,
            lost: view.lost,
            lost_late: view.lost_late,
            loss_ppm: scaled(view.loss_rate, 1e6),
            loss_burst_milli: scaled(view.loss_burst, 1e3),
            loss_events_milli_per_s: scaled(view.loss_events_per_second, 1e3),
            delivery_bytes_per_s: view.delivery_rate.unwrap_or(0),
            queue_delay_ns: nanos(view.queue_delay),
            competing: view.is_competing.into(),
            last_heard_ns: 0,
        }
    }
}

counters! {
    /// How large packets an endpoint's path carries, as numbers: the state by its place in
    /// `State::ALL`.
    pub struct MtuWords {
        mtu,
        state,
        probes,
        acked,
        lost,
        black_holes,
    }
}

impl From<MtuView> for MtuWords {
    fn from(view: MtuView) -> Self {
        let state = State::ALL.iter().position(|state| *state == view.state);
        Self {
            mtu: view.mtu.into(),
            state: state.unwrap_or_default() as u64,
            probes: view.probes,
            acked: view.acked,
            lost: view.lost,
            black_holes: view.black_holes,
        }
    }
}

/// The histograms of a receiving stream.
#[derive(Clone, Copy, Default)]
pub struct ReceiverTimes(pub ReceiverHistograms);

impl Words for ReceiverTimes {
    const WORDS: usize = 3 * BUCKETS;

    fn for_each(&self, mut put: impl FnMut(u64)) {
        let ReceiverHistograms {
            recovery,
            lateness,
            hold,
        } = &self.0;
        for histogram in [recovery, lateness, hold] {
            histogram.counts().iter().copied().for_each(&mut put);
        }
    }

    fn collect(mut words: impl FnMut() -> u64) -> Self {
        let mut histogram = || LogHistogram::from_counts(std::array::from_fn(|_| words()));
        Self(ReceiverHistograms {
            recovery: histogram(),
            lateness: histogram(),
            hold: histogram(),
        })
    }
}

/// What is published of a stream that is sent.
#[derive(Default)]
pub struct StreamOutShared {
    /// Its counters.
    pub counters: Published<StreamOut>,
    /// What its endpoint knows of the path.
    pub path: Published<PathCounters>,
    /// How large packets that carries.
    pub mtu: Published<MtuWords>,
    /// What is planned for it.
    pub plan: Published<PlanWords>,
}

/// What is published of a stream that is received.
#[derive(Default)]
pub struct StreamInShared {
    /// Its counters.
    pub counters: Published<StreamIn>,
    /// How long things took.
    pub times: Published<ReceiverTimes>,
    /// What its predictor's words were worth, if it is a model.
    pub predictions: Published<Predictions>,
    /// And what that has learned.
    pub learned: Published<Learned>,
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
    /// How busy it is.
    pub load: CachePadded<SharedLoad>,
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
            load: CachePadded::default(),
            drops: Published::default(),
            rx: Published::default(),
        }
    }

    /// Takes how busy the lcore is, by its counters; about once a millisecond.
    pub fn take_load(&self, load: &mut Load, counters: &LcoreCounters, clock: &Clock, now: Time) {
        load.look(now, clock.span(counters.busy_cycles), &self.load);
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
    pub streams_out: Vec<StreamOutShared>,
    /// Its streams to us.
    pub streams_in: Vec<StreamInShared>,
    /// It said that it stops.
    pub closed: AtomicBool,
}

impl PeerShared {
    /// A peer to which `streams` streams go.
    pub fn new(streams: usize) -> Self {
        Self {
            streams_out: (0..streams).map(|_| Default::default()).collect(),
            streams_in: (0..STREAMS_MAX).map(|_| Default::default()).collect(),
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
    /// How plans changed, for the control thread.
    pub decisions: DecisionQueue,
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
            decisions: DecisionQueue::default(),
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

    /// The load of the units that seal what an rx lcore sends, and when it was taken: they are served
    /// in turn, so the busiest counts. Nothing before each of them has told.
    pub fn crypto_load(&self, rx_index: usize) -> Option<(u16, Time)> {
        let dedicated = self.lcores.get(self.rx_lcores..).unwrap_or_default();
        let own = self.lcores.get(rx_index..=rx_index).unwrap_or_default();
        let units = if dedicated.is_empty() { own } else { dedicated };
        let both = |(load, at): (u16, Time), (other, other_at)| (load.max(other), at.min(other_at));
        let mut loads = units.iter().map(|lcore| lcore.load.load());
        let first = loads.next()??;
        loads.try_fold(first, |so_far, load| Some(both(so_far, load?)))
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
