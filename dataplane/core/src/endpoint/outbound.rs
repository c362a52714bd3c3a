//! The stream that is sent: its shards, the repair beside them, and what is sent again.

use core::time::Duration;
use std::collections::VecDeque;

use arrayvec::ArrayVec;
use shardgate_erasure::Coder;

use super::pacer::Pacer;
use super::path::{BadReport, Path, PathView};
use super::plan::{self, Planner};
use super::{Egress, EndpointConfig, Outbox};
use crate::buffer::{Buffer, BufferPool};
use crate::congestion::Addition;
use crate::drop_reason::{DropReason, Drops};
use crate::ecn::mark_ce;
use crate::lane::{Class, Lane};
use crate::limits::{ANSWERS_MAX, ASK_DEFAULT, BACKLOG_MAX, NOT_SENT_MAX, SHARDS_MAX};
use crate::path_mtu::{PathLimit, PathMtu};
use crate::plan::{Decisions, Figure, Limits, Plan, RepairMode};
use crate::predict::RoundTrip;
use crate::repair::{Encoder, EncoderStats, RepairPlan, Symbol, combine};
use crate::seal::{SealBudget, Unsealed};
use crate::sender::retention::{Fate, Retention};
use crate::sender::transmissions::{Cause, News};
use crate::sender::{Close, Departure, Refused, SenderStats, StreamSender};
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::feedback::{Ranges, Report};
use crate::wire::frame::FRAME_HEADER_LEN;
use crate::wire::header::{CLEAR_HEADER_LEN, TAG_LEN};
use crate::wire::shard::{RepairHeader, SOURCE_HEADER_LEN, SourceHeader};

/// How losses are made good.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryConfig {
    /// Whether what the peer asks for is sent again.
    pub retransmit: bool,
    /// How much repair is sent beforehand.
    pub repair: RepairMode,
    /// Share of what the path delivers that may be added to it: repeats, repair, probes.
    pub overhead_limit: f64,
    /// Memory for copies of what was sent, in bytes.
    pub retention_bytes: usize,
    /// Longest payload that paths will ever carry, in bytes.
    pub payload_max: usize,
    /// Whether the path's queue is kept short.
    pub queue_control: bool,
}

/// What was sent beside the stream's first transmissions, and why.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutboundStats {
    /// Bytes of first transmissions, sealed, without outer headers; as below.
    pub source_bytes: u64,
    /// Shards sent again.
    pub repeats: u64,
    /// Their bytes.
    pub repeat_bytes: u64,
    /// Repair shards of the standing plan.
    pub repairs: u64,
    /// Their bytes.
    pub repair_bytes: u64,
    /// Repair shards over the tail of a stream that fell silent.
    pub tail_repairs: u64,
    /// Their bytes.
    pub tail_bytes: u64,
    /// Additions that the budget did not allow.
    pub over_budget: u64,
    /// Shards asked for by the peer.
    pub asked: u64,
    /// Of those: answered lately or about to be, or too many are.
    pub asked_again: u64,
    /// Of those: gone from retention.
    pub asked_gone: u64,
    /// Of those: never sent, or reported as received.
    pub asked_nonsense: u64,
    /// Of those: longer than the path carries by now, and so never sent again.
    pub asked_too_long: u64,
    /// Reports taken.
    pub reports: u64,
    /// Reports refused: about what was never sent, or of another path.
    pub reports_refused: u64,
    /// Reports not looked at because they came too soon after another.
    pub reports_too_soon: u64,
    /// Datagrams that died between numbering and the wire.
    pub not_sent: u64,
    /// Frames marked with congestion experienced.
    pub signals_marked: u64,
    /// Frames let go as a signal.
    pub signals_dropped: u64,
    /// Frames that waited for the pacer.
    pub paced: u64,
    /// Changes of the plan.
    pub plan_changes: u64,
    /// Source shards per repair shard now, for a moment after a rare loss too; 0 without.
    pub plan_every: u64,
    /// Source shards that a repair shard covers; 0 without.
    pub plan_window: u64,
}

/// Source shards that the repair of a tail covers at most.
const TAIL_WINDOW: u32 = 32;

/// Repairs of a tail, the second after twice the time.
const TAIL_PROBES: u32 = 2;

/// Reports come at least this often while shards do, but for a quarter of long round trips.
const REPORT_INTERVAL: Duration = Duration::from_millis(10);

/// How long the tail of a stream waits for its report, beyond the round trip and reports.
const TAIL_SLACK: Duration = Duration::from_millis(2);

/// The sending side of an endpoint.
pub(super) struct Outbound<B> {
    stream: StreamSender<B>,
    config: RecoveryConfig,
    paths: Vec<Path>,
    /// The path that is used, once it is open; several come later.
    open_path: Option<u8>,
    payload_max: usize,
    retention: Retention,
    coder: Coder,
    encoder: Encoder<B>,
    /// What the peer can decode.
    window_max: u16,
    shards_max: u8,
    crypto_load: (Figure, Time),
    planner: Planner,
    /// What the encoder is doing.
    repair: Option<RepairPlan>,
    symbols: ArrayVec<Symbol<B>, SHARDS_MAX>,
    answers: VecDeque<Seq>,
    pacer: Pacer,
    /// Bulk frames of a burst that the path cannot take yet, with their lanes.
    backlog: VecDeque<(B, Lane)>,
    last_source: Time,
    tail_probes: u32,
    /// What the peer is to be told: how far the stream goes, and what never left.
    pub(super) extent_due: bool,
    pub(super) untold: ArrayVec<Seq, NOT_SENT_MAX>,
    stats: OutboundStats,
    /// What died between the pacer and the aggregator.
    pub(super) drops: Drops,
}

impl<B: Buffer> Outbound<B> {
    pub(super) fn new(config: &EndpointConfig) -> Self {
        let recovery = config.recovery;
        let retention_bytes = if recovery.retransmit {
            recovery.retention_bytes
        } else {
            0
        };
        let coder = Coder::new();
        Self {
            stream: StreamSender::new(config.stream, config.sender),
            config: recovery,
            paths: (0..config.paths)
                .map(|_| Path::new(recovery.overhead_limit))
                .collect(),
            open_path: None,
            payload_max: config.sender.payload_max,
            retention: Retention::new(retention_bytes, recovery.payload_max),
            coder,
            encoder: Encoder::new(coder, recovery.payload_max),
            window_max: 0,
            shards_max: config.sender.shards_max.clamp(1, SHARDS_MAX) as u8,
            crypto_load: (Figure::UNKNOWN, Time::ZERO),
            planner: Planner::default(),
            repair: None,
            symbols: ArrayVec::new(),
            answers: VecDeque::with_capacity(ANSWERS_MAX),
            pacer: Pacer::default(),
            backlog: VecDeque::with_capacity(BACKLOG_MAX),
            last_source: Time::ZERO,
            tail_probes: TAIL_PROBES,
            extent_due: false,
            untold: ArrayVec::new(),
            stats: OutboundStats::default(),
            drops: Drops::default(),
        }
    }

    pub(super) fn set_window_max(&mut self, window: u16) {
        self.window_max = window;
    }

    pub(super) fn set_path(&mut self, path: u8, limit: Option<PathLimit>) {
        match (limit, self.paths.get_mut(usize::from(path))) {
            (Some(limit), Some(known)) => {
                known.mtu.open(limit);
                let payload_max = known.mtu.payload();
                self.open_path = Some(path);
                self.set_payload_max(payload_max);
            }
            (None, _) if self.open_path == Some(path) => self.open_path = None,
            _ => {}
        }
    }

    /// Cuts and codes for a path that carries so much payload.
    fn set_payload_max(&mut self, payload_max: usize) {
        self.payload_max = payload_max;
        self.stream.set_payload_max(payload_max);
        self.encoder.set_payload_max(payload_max);
    }

    /// The search for the MTU of the path that is used.
    pub(super) fn mtu(&mut self) -> Option<&mut PathMtu> {
        let path = self.paths.get_mut(usize::from(self.open_path?));
        path.map(|path| &mut path.mtu)
    }

    /// Goes on with that search, and cuts by what it has found.
    pub(super) fn follow_mtu(&mut self, now: Time) {
        let open_path = self.open_path;
        let path = open_path.and_then(|path| self.paths.get_mut(usize::from(path)));
        let Some(path) = path else {
            return;
        };
        let (timing, unreported) = (path.timing(), path.unreported());
        path.mtu.poll(timing, unreported, now);
        let payload_max = path.mtu.payload();
        if payload_max == self.payload_max {
            return;
        }
        // What was sent in vain the peer need not wait for.
        self.extent_due |= payload_max < self.payload_max;
        self.set_payload_max(payload_max);
        self.replan(now);
    }

    /// A probe has come back, if it is one.
    pub(super) fn mtu_echoed(&mut self, path: u8, token: u64, now: Time) -> bool {
        let path = self.paths.get_mut(usize::from(path));
        path.is_some_and(|path| path.mtu.echoed(token, now))
    }

    /// When [`Self::follow_mtu`] has something to do next.
    pub(super) fn mtu_timeout(&self) -> Option<Time> {
        let path = self.paths.get(usize::from(self.open_path?))?;
        path.mtu.poll_timeout(path.timing(), path.unreported())
    }

    /// Most payload in packets of this size.
    pub(super) fn payload_of(&self, mtu: u16) -> usize {
        let path = self
            .open_path
            .and_then(|path| self.paths.get(usize::from(path)));
        path.map_or(0, |path| path.mtu.payload_of(mtu))
    }

    /// Whether the budget has room for a probe with so many bytes of plaintext.
    pub(super) fn affords_probe(&self, len: usize) -> bool {
        let path = self
            .open_path
            .and_then(|path| self.paths.get(usize::from(path)));
        let bytes = (CLEAR_HEADER_LEN + len + TAG_LEN) as u64;
        path.is_some_and(|path| path.bucket.available(Addition::Probe) >= bytes)
    }

    /// Such a probe was sent.
    pub(super) fn charge_probe(&mut self, len: usize) {
        let path = self
            .open_path
            .and_then(|path| self.paths.get_mut(usize::from(path)));
        if let Some(path) = path {
            let bytes = (CLEAR_HEADER_LEN + len + TAG_LEN) as u64;
            path.bucket.charge(bytes, Addition::Probe);
        }
    }

    /// Most bytes of a message, which passes wherever anything does.
    pub(super) fn message_max(&self) -> usize {
        let path = self
            .open_path
            .and_then(|path| self.paths.get(usize::from(path)));
        path.map_or(0, |path| path.mtu.payload_of_messages()) + SOURCE_HEADER_LEN
    }

    pub(super) fn has_path(&self) -> bool {
        self.open_path.is_some()
    }

    pub(super) fn open_path(&self) -> Option<u8> {
        self.open_path
    }

    /// Adds a frame to the open aggregate, or makes a signal of it.
    pub(super) fn offer(&mut self, mut frame: B, lane: Lane, now: Time) -> Result<(), Refused<B>> {
        if self.config.queue_control
            && lane.class() == Class::Bulk
            && let Some(path) = self.open_path
            && let Some(path) = self.paths.get_mut(usize::from(path))
            && path.control.take_signal(now)
        {
            if !mark_ce(frame.data_mut()) {
                self.stats.signals_dropped += 1;
                return Err(Refused::Dropped(frame, DropReason::QueueControl));
            }
            self.stats.signals_marked += 1;
        }
        let is_bulk = lane.class() == Class::Bulk;
        if is_bulk && !(self.backlog.is_empty() && self.pacer.permits(now)) {
            if self.backlog.len() >= BACKLOG_MAX {
                return Err(Refused::Full(frame));
            }
            self.stats.paced += 1;
            self.backlog.push_back((frame, lane));
            return Ok(());
        }
        self.stream.offer(frame, lane)
    }

    /// Sends what waits for the pacer, as far as it permits.
    fn send_backlog<P: BufferPool<Buffer = B>>(
        &mut self,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        while self.pacer.permits(egress.now)
            && egress.outbox.credit() > SHARDS_MAX
            && budget.permits(SHARDS_MAX, egress.now)
            && let Some((frame, lane)) = self.backlog.pop_front()
        {
            let mut offered = self.stream.offer(frame, lane);
            if let Err(Refused::Full(frame)) = offered {
                self.close(budget, egress);
                offered = self.stream.offer(frame, lane);
            }
            match offered {
                Ok(()) => {}
                Err(Refused::Full(frame)) => {
                    self.backlog.push_front((frame, lane));
                    return;
                }
                Err(Refused::Dropped(_, reason)) => self.drops.count(reason),
            }
            // An aggregate's bytes are spent when it closes; it must not outgrow what is permitted.
            if let Close::Dropped(reason, frames) = self.close(budget, egress) {
                // What was short for this one is short for the next: that one waits.
                self.drops.add(reason, frames as u64);
                return;
            }
        }
    }

    /// Cuts the open aggregate and hands its shards over, with the repair that they make due.
    pub(super) fn close<P: BufferPool<Buffer = B>>(
        &mut self,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) -> Close {
        let Some(path) = self.open_path else {
            return match self.stream.discard() {
                0 => Close::Empty,
                frames => Close::Dropped(DropReason::NoPath, frames),
            };
        };
        let mut numbered: ArrayVec<Unsealed<B>, SHARDS_MAX> = ArrayVec::new();
        let departure = Departure {
            now: egress.now,
            path,
            budget,
            credit: egress.outbox.credit(),
            pool: egress.pool,
        };
        let closed = self.stream.close(departure, |shard| numbered.push(shard));
        for shard in numbered {
            self.note_source(&shard, egress);
            egress.outbox.send(shard);
        }
        self.send_symbols(budget, egress);
        closed
    }

    /// Keeps a copy of a shard that leaves, and adds it to the open repair windows.
    fn note_source<P: BufferPool<Buffer = B>>(
        &mut self,
        shard: &Unsealed<B>,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        let now = egress.now;
        let (Some(clear), Ok((header, payload))) =
            (shard.header(), SourceHeader::parse(shard.plaintext()))
        else {
            return;
        };
        let bytes = shard.buffer().len() + TAG_LEN;
        self.stats.source_bytes += bytes as u64;
        self.pacer.spend(bytes);
        self.last_source = now;
        self.tail_probes = 0;
        self.retention.keep(header, payload, now);
        if let Some(path) = self.paths.get_mut(usize::from(clear.path)) {
            let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
            path.sent(clear.path_number, header.seq, bytes, Cause::Source, now);
        }
        let symbols = &mut self.symbols;
        let keep = |symbol| {
            // One for each shard of an aggregate at the most, and they leave with it.
            let _ = symbols.try_push(symbol);
        };
        self.encoder.add(&header, payload, now, egress.pool, keep);
    }

    /// Sends the standing repair that is due, as far as the budget allows.
    fn send_symbols<P: BufferPool<Buffer = B>>(
        &mut self,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        for Symbol { header, buffer } in self.symbols.take() {
            let bytes = self.send_added(
                buffer,
                header.window_start,
                (Cause::Repair, Addition::Standing),
                budget,
                egress,
            );
            if let Some(bytes) = bytes {
                self.stats.repairs += 1;
                self.stats.repair_bytes += bytes;
            }
        }
    }

    /// Numbers and sends what is added to the stream; says how many bytes, if there is room and
    /// the budget allows it.
    fn send_added<P: BufferPool<Buffer = B>>(
        &mut self,
        buffer: B,
        seq: Seq,
        (cause, addition): (Cause, Addition),
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) -> Option<u64> {
        let open_path = self.open_path?;
        let path = self.paths.get_mut(usize::from(open_path))?;
        let bytes = (buffer.len() + CLEAR_HEADER_LEN + TAG_LEN) as u64;
        if egress.outbox.credit() == 0 || !budget.permits(1, egress.now) {
            return None;
        }
        if path.added_permille == 0 || !path.bucket.spend(bytes, addition) {
            self.stats.over_budget += 1;
            return None;
        }
        let number = self.stream.number(open_path, budget, egress.now)?;
        let path_number = number.get();
        let Ok(unsealed) = Unsealed::new(buffer, number) else {
            // No room for a header or tag: the number is spent, and never leaves.
            return None;
        };
        let logged = u16::try_from(bytes).unwrap_or(u16::MAX);
        path.sent(path_number, seq, logged, cause, egress.now);
        self.pacer.spend(usize::from(logged));
        egress.outbox.send(unsealed);
        Some(bytes)
    }

    /// The peer asks for shards again. Answers leave with the next [`Self::poll`] or at once.
    pub(super) fn wanted(&mut self, seqs: impl Iterator<Item = Seq>, now: Time) {
        if !self.config.retransmit {
            // The peer waits for what will not come, unless it is told.
            self.extent_due |= seqs.count() > 0;
            return;
        }
        let half_round = self
            .round_trip(now)
            .map_or(ASK_DEFAULT, |rtt| rtt.smoothed / 2);
        let oldest = self
            .stream
            .next_seq()
            .minus(self.retention.capacity() as u32);
        for seq in seqs {
            self.stats.asked += 1;
            if !seq.is_before(self.stream.next_seq()) {
                self.stats.asked_nonsense += 1;
                continue;
            }
            match self.retention.get_mut(seq) {
                Some(shard) if shard.fate == Fate::Arrived => self.stats.asked_nonsense += 1,
                // Whoever asks has not heard of it.
                Some(shard) if shard.fate == Fate::NotSent => tell(&mut self.untold, seq),
                // Its number is sealed over a payload that the path does not carry any more.
                Some(shard) if usize::from(shard.header.payload_len) > self.payload_max => {
                    self.stats.asked_too_long += 1;
                    tell(&mut self.untold, seq);
                }
                Some(shard) => {
                    let is_under_way = shard.queued || now.since(shard.last_sent) < half_round;
                    if is_under_way || self.answers.len() >= ANSWERS_MAX {
                        self.stats.asked_again += 1;
                        continue;
                    }
                    shard.queued = true;
                    self.answers.push_back(seq);
                }
                None => {
                    self.stats.asked_gone += 1;
                    self.extent_due |= seq.is_before(oldest);
                }
            }
        }
    }

    /// Sends what was asked for, as far as there is room.
    pub(super) fn answer<P: BufferPool<Buffer = B>>(
        &mut self,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        while let Some(&seq) = self.answers.front() {
            if egress.outbox.credit() == 0 || self.open_path.is_none() {
                return;
            }
            self.answers.pop_front();
            let Some(shard) = self.retention.get_mut(seq) else {
                continue;
            };
            shard.queued = false;
            if shard.fate != Fate::Unknown {
                continue;
            }
            if usize::from(shard.header.payload_len) > self.payload_max {
                self.stats.asked_too_long += 1;
                tell(&mut self.untold, seq);
                continue;
            }
            // What is asked for once more was lost twice: two copies go.
            let copies = 1 + u8::from(shard.answers > 0);
            let sent = (0..copies)
                .filter(|_| self.repeat(seq, budget, egress))
                .count();
            // One that could not be sent is no answer: the next request is taken as the first.
            if sent > 0
                && let Some(shard) = self.retention.get_mut(seq)
            {
                shard.answers = shard.answers.saturating_add(1);
                shard.last_sent = egress.now;
            }
        }
    }

    /// Sends a retained shard again; false if that is not possible now.
    fn repeat<P: BufferPool<Buffer = B>>(
        &mut self,
        seq: Seq,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) -> bool {
        let (Some(shard), Some(payload)) = (self.retention.get(seq), self.retention.payload(seq))
        else {
            return false;
        };
        let header = SourceHeader {
            repeat: true,
            sent_at_us: egress.now.as_wire_us(),
            ..shard.header
        };
        let Some(buffer) = egress.pool.alloc().and_then(|mut buffer| {
            let room = buffer.append(SOURCE_HEADER_LEN + payload.len())?;
            let (head, body) = room.split_at_mut(SOURCE_HEADER_LEN);
            head.copy_from_slice(&header.to_bytes());
            body.copy_from_slice(payload);
            Some(buffer)
        }) else {
            return false;
        };
        let why = (Cause::Repeat, Addition::Repeat);
        let Some(bytes) = self.send_added(buffer, seq, why, budget, egress) else {
            return false;
        };
        self.stats.repeats += 1;
        self.stats.repeat_bytes += bytes;
        true
    }

    /// Does what time brings.
    pub(super) fn poll<P: BufferPool<Buffer = B>>(
        &mut self,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        let now = egress.now;
        if self.planner.is_due(now) {
            self.replan(now);
        }
        self.answer(budget, egress);
        if !self.backlog.is_empty() {
            self.send_backlog(budget, egress);
        }
        let symbols = &mut self.symbols;
        self.encoder.poll(now, |symbol| {
            let _ = symbols.try_push(symbol);
        });
        self.send_symbols(budget, egress);
        if self.tail_at(now).is_some_and(|due| due <= now) {
            self.tail_probes += 1;
            self.repair_tail(budget, egress);
        }
    }

    /// When [`Self::poll`] has something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let answers = (!self.answers.is_empty()).then_some(self.last_source);
        let tail = self.tail_at(self.last_source);
        let backlog = (!self.backlog.is_empty()).then(|| self.pacer.next_at());
        let timeouts = [answers, backlog, self.encoder.poll_timeout(), tail];
        timeouts.into_iter().flatten().min()
    }

    fn replan(&mut self, now: Time) {
        let Some(open_path) = self.open_path else {
            return;
        };
        let Some(path) = self.paths.get_mut(usize::from(open_path)) else {
            return;
        };
        let limits = Limits {
            repair: self.config.repair,
            asks: self.config.retransmit,
            payload_max: u16::try_from(self.payload_max).unwrap_or(u16::MAX),
            window_max: self.window_max,
            shards_max: self.shards_max,
        };
        let (load, at) = self.crypto_load;
        let crypto = Figure::new(load.known(), load.count, Some(now.since(at)));
        let inputs = plan::inputs(path, limits, crypto, now);
        self.stats.plan_changes += u64::from(self.planner.decide(&inputs, now));
        let plan = self.planner.plan();
        path.added_permille = plan.added_permille;
        self.stream.set_payload(plan.payload.into());
        let repair = self.planner.repair(path, now);
        if repair != self.repair {
            self.repair = repair;
            self.encoder.set_plan(repair);
            self.stats.plan_every = repair.map_or(0, |repair| repair.every.into());
            self.stats.plan_window = repair.map_or(0, |repair| repair.window.into());
        }
    }

    /// The share of their time for which this machine's crypto units are busy, in thousandths.
    pub(super) fn set_crypto_load(&mut self, permille: u16, now: Time) {
        let (load, at) = &mut self.crypto_load;
        load.value = permille.into();
        load.count += 1;
        *at = now;
    }

    /// What is planned.
    pub(super) fn plan(&self) -> &Plan {
        self.planner.plan()
    }

    /// How that came about.
    pub(super) fn decisions(&self) -> &Decisions {
        self.planner.decisions()
    }

    /// When the tail of a stream that fell silent is repaired, should no report have come: soon on
    /// a path that loses, else when the report is overdue.
    fn tail_at(&self, now: Time) -> Option<Time> {
        let path = self.paths.get(usize::from(self.open_path?))?;
        if self.tail_probes >= TAIL_PROBES || !path.log.has_unreported() {
            return None;
        }
        let smoothed = path.rtt.smoothed()?;
        let wait = if path.is_lossy(now) {
            (smoothed / 4).max(TAIL_SLACK)
        } else {
            smoothed + 2 * (smoothed / 4).max(REPORT_INTERVAL) + TAIL_SLACK
        };
        Some(self.last_source + wait * (1 << self.tail_probes))
    }

    /// Sends repair over the newest shards that no report speaks of.
    fn repair_tail<P: BufferPool<Buffer = B>>(
        &mut self,
        budget: &mut SealBudget,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        let end = self.stream.next_seq();
        let window_max = TAIL_WINDOW.min(self.window_max.into());
        let unknown = |back: &u32| {
            let shard = self.retention.get(end.minus(*back));
            shard.is_some_and(|shard| {
                let fits = usize::from(shard.header.payload_len) <= self.payload_max;
                shard.fate == Fate::Unknown && fits
            })
        };
        let count = (1..=window_max).take_while(unknown).count() as u32;
        let index = self.encoder.take_index();
        let symbol = egress
            .pool
            .alloc()
            .filter(|_| count > 0)
            .and_then(|mut buffer| {
                let seqs = (1..=count).rev().map(|back| end.minus(back));
                let sources = seqs.filter_map(|seq| {
                    let header = self.retention.get(seq)?.header;
                    Some((header, self.retention.payload(seq)?))
                });
                let sent_at_us = egress.now.as_wire_us();
                let header: RepairHeader =
                    combine(self.coder, index, sent_at_us, sources, &mut buffer)?;
                Some((header, buffer))
            });
        let Some((header, buffer)) = symbol else {
            // Nothing to combine, or no room: at least the peer learns how far the stream goes.
            self.extent_due = true;
            return;
        };
        let why = (Cause::Repair, Addition::Reactive);
        if let Some(bytes) = self.send_added(buffer, header.window_start, why, budget, egress) {
            self.stats.tail_repairs += 1;
            self.stats.tail_bytes += bytes;
        } else {
            self.extent_due = true;
        }
    }

    /// Takes a report of the peer about this stream.
    pub(super) fn report(&mut self, report: &Report, ranges: Ranges<'_>, received_at: Time) {
        let Self {
            paths,
            retention,
            stats,
            ..
        } = self;
        let Some(path) = paths.get_mut(usize::from(report.path)) else {
            stats.reports_refused += 1;
            return;
        };
        let taken = path.report(report, ranges, received_at, |what, news| {
            let arrived = matches!(news, News::Arrived | News::LateArrival);
            if arrived
                && what.cause != Cause::Repair
                && let Some(shard) = retention.get_mut(what.seq)
            {
                shard.fate = Fate::Arrived;
            }
        });
        match taken {
            Ok(()) => {
                stats.reports += 1;
                self.pacer.follow(path, received_at);
            }
            Err(BadReport::TooSoon) => stats.reports_too_soon += 1,
            Err(BadReport::NeverSent) => stats.reports_refused += 1,
        }
    }

    /// A round trip was measured by a probe on a path.
    pub(super) fn echo(&mut self, path: u8, sent_at_us: u32, held_us: u32, received_at: Time) {
        if let Some(path) = self.paths.get_mut(usize::from(path)) {
            path.echo(sent_at_us, held_us, received_at);
        }
    }

    /// The peer has begun anew: what was sent to it before says nothing of the path.
    pub(super) fn peer_restarted(&mut self) {
        for path in self.paths.iter_mut() {
            path.forget();
        }
        for seq in self.answers.drain(..) {
            if let Some(shard) = self.retention.get_mut(seq) {
                shard.queued = false;
            }
        }
    }

    /// A numbered datagram died before the wire.
    pub(super) fn not_sent(&mut self, path: u8, path_number: u64) {
        self.stats.not_sent += 1;
        let path = self.paths.get_mut(usize::from(path));
        let Some(what) = path.and_then(|path| path.log.not_sent(path_number)) else {
            return;
        };
        if what.cause == Cause::Source {
            if let Some(shard) = self.retention.get_mut(what.seq) {
                shard.fate = Fate::NotSent;
            }
            tell(&mut self.untold, what.seq);
        }
    }

    /// The newest sequence number sent, and the oldest that can be sent again.
    pub(super) fn extent(&self) -> (Seq, Seq) {
        let next = self.stream.next_seq();
        (next.minus(1), next.minus(self.retention.capacity() as u32))
    }

    pub(super) fn round_trip(&self, now: Time) -> Option<RoundTrip> {
        self.paths.first()?.round_trip(now)
    }

    /// Age of the last measured round trip.
    pub(super) fn round_trip_age(&self, now: Time) -> Option<Duration> {
        self.paths.first()?.rtt.age(now)
    }

    pub(super) fn waiting(&self) -> usize {
        self.stream.waiting()
    }

    pub(super) fn discard(&mut self) -> usize {
        self.stream.discard() + self.backlog.drain(..).count()
    }

    pub(super) fn frame_max_in_shard(&self) -> usize {
        let path = self
            .open_path
            .and_then(|path| self.paths.get(usize::from(path)));
        let payload = path.map_or(self.payload_max, |path| path.mtu.payload_to_tell());
        payload.saturating_sub(FRAME_HEADER_LEN)
    }

    pub(super) fn sender_stats(&self) -> SenderStats {
        self.stream.stats()
    }

    pub(super) fn stats(&self) -> OutboundStats {
        self.stats
    }

    pub(super) fn encoder_stats(&self) -> EncoderStats {
        self.encoder.stats()
    }

    pub(super) fn path_view(&self, path: u8, now: Time) -> PathView {
        let path = self.paths.get(usize::from(path));
        path.map(|path| path.view(now)).unwrap_or_default()
    }

    pub(super) fn numbered(&self) -> u64 {
        self.stream.numbered()
    }

    /// Everything offered from now on waits until so many bytes a second permit it.
    #[cfg(test)]
    pub(super) fn pace(&mut self, rate: u64, now: Time) {
        self.pacer.set(rate, now);
    }

    /// Frames that wait for the pacer.
    #[cfg(test)]
    pub(super) fn paced(&self) -> usize {
        self.backlog.len()
    }

    /// Leaves so many bytes to be added.
    #[cfg(test)]
    pub(super) fn leave_to_add(&mut self, bytes: u64) {
        let bucket = &mut self.paths[0].bucket;
        let spent = bucket.available(Addition::Repeat).saturating_sub(bytes);
        assert!(bucket.spend(spent, Addition::Repeat));
    }
}

/// Has the peer told of what never left. What finds no room is told when it is asked for.
fn tell(untold: &mut ArrayVec<Seq, NOT_SENT_MAX>, seq: Seq) {
    if !untold.contains(&seq) {
        let _ = untold.try_push(seq);
    }
}
