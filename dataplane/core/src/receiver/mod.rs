//! The receiving side of a stream: the predictive buffer.
//!
//! Opened shards come in any order ([`PredictiveBuffer::accept`]). Each is placed at most once; a
//! frame is complete as soon as its own bytes are there, whatever else of its aggregate is
//! missing, and leaves at once if its lane is in order. If not, it waits while a hole below it is
//! open, for as long as something can still fill it ([`PredictiveBuffer::poll`]). Holes are filled by
//! late originals, by repeats, which are asked for when the [`Predictor`] says, and by repair.

mod agenda;
mod arrivals;
mod assembly;
mod early;
mod holes;
mod lanes;
mod rebuild;
mod replay;
mod reports;
mod slots;

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use shardgate_erasure::Coder;

use self::agenda::Agenda;
use self::arrivals::Arrivals;
use self::lanes::{Complete, Gates, Lanes};
pub use self::lanes::{FrameSink, LaneStats};
use self::rebuild::RepairTiming;
pub use self::replay::ReplayWindow;
use self::slots::{FilledHole, Placed, Slots, State};
use crate::buffer::{Buffer, BufferPool};
use crate::drop_reason::{DropReason, Drops};
use crate::histogram::LogHistogram;
use crate::lane::{CLASSES, Class, Lane};
use crate::limits::{NEEDLESS_BURST, NEEDLESS_PER_SHARD, REASSEMBLY_WINDOW, WANTED_MAX};
use crate::predict::{HoldBounds, Outlook, Predictor};
use crate::repair::{Decoder, DecoderStats};
use crate::seal::Opened;
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::frame::FrameHeader;
use crate::wire::header::{CLEAR_HEADER_LEN, ClearHeader, TAG_LEN};
use crate::wire::shard::{NO_FRAME, RepairHeader, SOURCE_HEADER_LEN, SourceHeader, is_repair};

/// Bytes before the payload of an opened source shard.
const PAYLOAD_AT: usize = CLEAR_HEADER_LEN + SOURCE_HEADER_LEN;

/// Bounds and habits of a predictive buffer.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverConfig {
    /// Paths that the peer may use.
    pub paths: u8,
    /// Whether lanes are kept in order; if not, nothing is ever held.
    pub ordered: bool,
    /// Bounds of a hold, per class.
    pub hold_bounds: HoldBounds,
    /// Most frames held out of order; in one lane a quarter of that.
    pub held_frames_max: usize,
    /// Most shards kept because a frame needs bytes of them.
    pub kept_shards_max: usize,
    /// Whether the CRC-32C of shards that carry one is verified.
    pub checksum: bool,
    /// Whether missing shards are asked for.
    pub asks: bool,
    /// Whether a loss of a full queue is passed on to those inside, once in a round trip. Not where
    /// the sender keeps the queue from filling, and signals itself.
    pub passes_on: bool,
    /// Longest payload that can be rebuilt from repair shards, in bytes; 0 if none is to be.
    pub rebuilt_payload_max: usize,
}

/// How a shard came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// As it was sent first.
    Original,
    /// Sent again.
    Repeat,
    /// Rebuilt from repair shards.
    Rebuilt,
}

/// How long things took.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiverHistograms {
    /// From a hole's opening to its shard, whichever way it came.
    pub recovery: LogHistogram,
    /// The same for first transmissions only: how late they were.
    pub lateness: LogHistogram,
    /// How long holes that nothing filled have held frames of the class that waits longest.
    pub hold: LogHistogram,
}

/// What a predictive buffer has seen and done. All only grow, but for `high_water` marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Shards placed.
    pub shards: u64,
    /// Bytes of payload in them.
    pub payload_bytes: u64,
    /// Frames put together from more than one shard.
    pub frames_assembled: u64,
    /// Frames that left in the buffer they came in, without a copy.
    pub frames_in_place: u64,
    /// Bytes of all frames put together.
    pub frame_bytes: u64,
    /// Holes opened.
    pub holes: u64,
    /// Holes filled within [`UNIT_GRACE`](crate::limits::UNIT_GRACE): the crypto units' order, not the path's.
    pub holes_by_units: u64,
    /// Holes filled later than that by the first transmission: reordered on the path.
    pub holes_filled: u64,
    /// Holes filled by a repeat or by repair, in time.
    pub holes_recovered: u64,
    /// Holes given up: lost, as far as is known. Every hole ends as one of these four, or is open.
    pub holes_given_up: u64,
    /// Of those: never sent, as the sender said.
    pub holes_not_sent: u64,
    /// Of those: lost to a full queue, and left to those inside, whose sender shall slow down.
    pub holes_passed_on: u64,
    /// Holes that were neither asked for nor taught from because there were too many.
    pub holes_unnoted: u64,
    /// Holes of which it was known what is missing there: a frame whose first bytes had come.
    pub holes_classified: u64,
    /// Requests for a shard.
    pub asks: u64,
    /// Requests put off because there were too many at once, or too many needless ones.
    pub asks_deferred: u64,
    /// Shards that were asked for although their first transmission came after all.
    pub asked_needlessly: u64,
    /// Missing shards that a repeat brought, in time or not.
    pub filled_by_repeat: u64,
    /// Missing shards that were rebuilt from repair, in time or not.
    pub filled_by_repair: u64,
    /// Repair shards received.
    pub repairs: u64,
    /// Reports and requests that were written.
    pub reports: u64,
    /// Shards that came after their hole had been given up.
    pub late: u64,
    /// Holes given up early because no more frames could be held.
    pub holes_forced: u64,
    /// Jumps too far ahead to wait for.
    pub jumps: u64,
    /// Most shards kept for incomplete frames at once.
    pub kept_high_water: u64,
    /// New incarnations of the peer.
    pub resets: u64,
}

/// The receiving side of one stream, in the hands of its owner lcore.
pub struct PredictiveBuffer<B, P> {
    config: ReceiverConfig,
    predictor: P,
    replay: Box<[ReplayWindow]>,
    slots: Slots<B>,
    lanes: Lanes<B>,
    newest: Option<Seq>,
    /// Per class the lowest hole that still holds frames.
    gates: Gates,
    /// Gaps without evidence; while there are none, nothing needs attributing.
    unknown: u32,
    /// Kept shards in the order they came, with the time their frame is given up.
    kept: VecDeque<(Seq, Time)>,
    kept_now: usize,
    generation: u32,
    /// Everything received before this has been accepted.
    settled: Time,
    arrivals: Box<[Arrivals]>,
    agenda: Agenda,
    outlook: Outlook,
    repair_timing: RepairTiming,
    decoder: Option<Decoder>,
    /// Nothing below this can be sent again.
    floor: Option<Seq>,
    /// What is to be asked for.
    wanted: ArrayVec<Seq, WANTED_MAX>,
    /// What the last request asked for: the next report asks once more, should that one be lost.
    wanted_before: ArrayVec<Seq, WANTED_MAX>,
    /// When a loss was passed on last, as a signal to those inside.
    passed_on_at: Option<Time>,
    /// What is left to be asked for needlessly, in hundredths.
    needless: u32,
    histograms: ReceiverHistograms,
    stats: ReceiverStats,
    drops: Drops,
}

/// Where frames come from and go to.
struct Outlet<'a, P, S> {
    pool: &'a mut P,
    sink: &'a mut S,
}

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// A stream of which nothing has arrived.
    pub fn new(config: ReceiverConfig, predictor: P) -> Self {
        Self {
            config,
            predictor,
            replay: (0..config.paths).map(|_| ReplayWindow::default()).collect(),
            slots: Slots::new(),
            lanes: Lanes::new(config.held_frames_max),
            newest: None,
            gates: [None; CLASSES],
            unknown: 0,
            kept: VecDeque::with_capacity(2 * config.kept_shards_max + 1),
            kept_now: 0,
            generation: 0,
            settled: Time::ZERO,
            arrivals: (0..config.paths).map(|_| Arrivals::new()).collect(),
            agenda: Agenda::new(),
            outlook: Outlook {
                asks: config.asks,
                ..Outlook::default()
            },
            repair_timing: RepairTiming::default(),
            decoder: (config.rebuilt_payload_max > 0)
                .then(|| Decoder::new(Coder::new(), config.rebuilt_payload_max)),
            floor: None,
            wanted: ArrayVec::new(),
            wanted_before: ArrayVec::new(),
            passed_on_at: None,
            needless: NEEDLESS_BURST * NEEDLESS_PER_SHARD,
            histograms: ReceiverHistograms::default(),
            stats: ReceiverStats::default(),
            drops: Drops::default(),
        }
    }

    /// Takes an opened data shard that came under a key of the peer's `generation`th incarnation and
    /// was `received_at` that time, however long a unit took to open it.
    ///
    /// Complete frames go to `sink`, at once or later; `pool` gives buffers for frames that do not
    /// leave in the shard's own. True if the shard was new: neither replayed nor of an earlier
    /// incarnation, so that it says that the peer is alive.
    pub fn accept(
        &mut self,
        shard: Opened<B>,
        generation: u32,
        received_at: Time,
        pool: &mut impl BufferPool<Buffer = B>,
        sink: &mut impl FrameSink<B>,
    ) -> bool {
        if let Err(reason) = self.is_new(&shard, generation, sink) {
            self.drops.count(reason);
            return false;
        }
        let outlet = &mut Outlet { pool, sink };
        if let Err(reason) = self.try_accept(shard, received_at, outlet) {
            self.drops.count(reason);
        }
        true
    }

    /// Checks incarnation and replay window.
    fn is_new(
        &mut self,
        shard: &Opened<B>,
        generation: u32,
        sink: &mut impl FrameSink<B>,
    ) -> Result<(), DropReason> {
        let clear = shard.header().ok_or(DropReason::ShardMalformed)?;
        if generation < self.generation {
            return Err(DropReason::OldIncarnation);
        }
        if generation > self.generation {
            // Before the first there is nothing to forget.
            if self.generation > 0 {
                self.reset(sink);
            }
            self.generation = generation;
        }
        let window = self.replay.get_mut(usize::from(clear.path));
        window
            .ok_or(DropReason::NotNegotiated)?
            .accept(clear.path_number)
    }

    fn try_accept<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        shard: Opened<B>,
        received_at: Time,
        outlet: &mut Outlet<'_, Q, S>,
    ) -> Result<(), DropReason> {
        let clear = shard.header().ok_or(DropReason::ShardMalformed)?;
        let bytes = shard.buffer().len() + TAG_LEN;
        if is_repair(shard.plaintext()) == Some(true) {
            let (header, symbol) = RepairHeader::parse(shard.plaintext())?;
            self.note_arrival(clear, bytes, header.sent_at_us, received_at);
            return self.take_repair(&header, symbol, clear.path, received_at, outlet);
        }
        let (header, payload) = SourceHeader::parse(shard.plaintext())?;
        self.note_arrival(clear, bytes, header.sent_at_us, received_at);
        // Zero: the sender runs without.
        let is_checked = self.config.checksum && header.crc32c != 0;
        if is_checked && header.crc32c != header.checksum(payload) {
            return Err(DropReason::ShardChecksum);
        }
        let arrival = if header.repeat {
            Arrival::Repeat
        } else {
            Arrival::Original
        };
        self.needless = (self.needless + 1).min(NEEDLESS_BURST * NEEDLESS_PER_SHARD);
        let filled = self.place(&header, clear.path, arrival, received_at, outlet.sink)?;
        let rebuilt = self.rebuild_with(&header, payload, outlet.pool);
        let result = self.take_placed(header, shard.into_buffer(), received_at, filled, outlet);
        self.take_rebuilt(rebuilt, clear.path, received_at, outlet);
        result
    }

    /// Counts a placed shard, and hands on what it completes.
    fn take_placed<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        header: SourceHeader,
        buffer: B,
        now: Time,
        filled: bool,
        outlet: &mut Outlet<'_, Q, S>,
    ) -> Result<(), DropReason> {
        self.stats.shards += 1;
        self.stats.payload_bytes += u64::from(header.payload_len);
        let result = self.take_frames(header, buffer, now, outlet);
        if filled {
            self.advance_gates(self.settled, outlet.sink);
        }
        result
    }

    fn note_arrival(&mut self, clear: ClearHeader, bytes: usize, sent_at_us: u32, at: Time) {
        if let Some(arrivals) = self.arrivals.get_mut(usize::from(clear.path)) {
            arrivals.note(clear.path_number, bytes, sent_at_us, at);
            self.predictor.arrived(clear.path, sent_at_us, at);
        }
    }

    /// Notes that a shard arrived; says whether a hole was filled.
    fn place(
        &mut self,
        header: &SourceHeader,
        path: u8,
        arrival: Arrival,
        now: Time,
        sink: &mut impl FrameSink<B>,
    ) -> Result<bool, DropReason> {
        let seq = header.seq;
        let newest = *self.newest.get_or_insert(seq.minus(1));
        let ahead = seq.distance_from(newest);
        if ahead <= -(REASSEMBLY_WINDOW as i32) {
            return Err(DropReason::TooOld);
        }
        let mut filled = false;
        let mut filled_hole = None;
        let is_original = arrival == Arrival::Original;
        if ahead > 0 {
            self.newest = Some(seq);
            if ahead as usize > REASSEMBLY_WINDOW / 2 {
                self.jump(sink);
            } else {
                self.open_gap(newest, ahead as u32 - 1, header, path, now);
                self.age_floor(seq);
            }
        } else {
            match self.slots.get(seq).map(|slot| &slot.state) {
                Some(State::Placed(_)) => {
                    if is_original {
                        self.original_after_all(seq, now);
                    }
                    return Err(DropReason::Duplicate);
                }
                Some(State::Hole(hole)) if hole.passed_on && !is_original => {
                    return Err(DropReason::QueueControl);
                }
                Some(State::Hole(hole)) => {
                    let hole = *hole;
                    self.fill(&hole, arrival, now);
                    filled = true;
                    filled_hole = (!is_original).then_some(FilledHole {
                        known: hole.known,
                        asked: hole.asks > 0,
                        judged: hole.judged,
                    });
                }
                Some(State::Unknown) => self.unknown = self.unknown.saturating_sub(1),
                // Below the first shard that ever came, or jumped over.
                Some(State::Free) | None => {}
            }
        }
        // What was sent again says nothing about the order of what it was first sent with. The newest
        // shard too speaks of gaps before its own: on paths that take turns, only of such.
        if self.unknown > 0 && is_original {
            self.attribute(header, path, now);
        }
        let (slot, forgotten) = self.slots.claim(seq);
        slot.state = State::Placed(Placed {
            shard_id: header.shard_id,
            shard_count: header.shard_count,
            first_frame: (header.first_frame != NO_FRAME).then_some(header.first_frame),
            open_tail: None,
            open_head: false,
            unread: false,
            filled: filled_hole,
        });
        self.forget(forgotten);
        Ok(filled)
    }

    /// The first transmission of a shard that a repeat or repair had brought already.
    fn original_after_all(&mut self, seq: Seq, now: Time) {
        if let Some(slot) = self.slots.get_mut(seq)
            && let State::Placed(placed) = &mut slot.state
            && let Some(filled) = placed.filled.take()
        {
            self.learn_late(filled.known, filled.asked, now);
        }
    }

    /// Gives up whatever is missing: the newest shard is too far ahead to wait.
    fn jump(&mut self, sink: &mut impl FrameSink<B>) {
        self.stats.jumps += 1;
        self.floor = None;
        self.gates = [None; CLASSES];
        self.lanes.release_all(&self.gates, sink);
    }

    /// A new incarnation of the peer: what was received so far means nothing any more.
    fn reset(&mut self, sink: &mut impl FrameSink<B>) {
        self.stats.resets += 1;
        self.lanes.reset(sink);
        self.replay.iter_mut().for_each(ReplayWindow::reset);
        self.drops.add(DropReason::Incomplete, self.kept_now as u64);
        self.slots.reset();
        let ended =
            self.stats.holes_by_units + self.stats.holes_filled + self.stats.holes_recovered;
        self.stats.holes_given_up = self.stats.holes - ended;
        self.kept.clear();
        self.kept_now = 0;
        self.newest = None;
        self.gates = [None; CLASSES];
        self.unknown = 0;
        self.arrivals.iter_mut().for_each(Arrivals::reset);
        self.agenda.clear();
        self.repair_timing = RepairTiming::default();
        if let Some(decoder) = &mut self.decoder {
            decoder.reset();
        }
        self.floor = None;
        self.wanted.clear();
        self.wanted_before.clear();
    }

    /// Hands a complete frame to its lane.
    fn complete<Q, S: FrameSink<B>>(
        &mut self,
        buffer: B,
        header: FrameHeader,
        seq: Seq,
        outlet: &mut Outlet<'_, Q, S>,
    ) {
        self.stats.frame_bytes += u64::from(header.len);
        let FrameHeader { lane, lane_seq, .. } = header;
        let complete = Complete {
            frame: buffer,
            lane,
            lane_seq,
            seq,
        };
        if !self.config.ordered {
            self.lanes.accept(complete, &[None; CLASSES], outlet.sink);
            return;
        }
        if self.lanes.must_hold(lane, lane_seq) && self.lanes.is_full(lane) {
            self.make_room(lane, outlet.sink);
        }
        self.lanes.accept(complete, &self.gates, outlet.sink);
    }

    /// Too many frames are held: gives up the oldest holes until `lane` has room.
    fn make_room(&mut self, lane: Lane, sink: &mut impl FrameSink<B>) {
        while self.lanes.is_full(lane) {
            let oldest = self
                .gates
                .iter()
                .flatten()
                .copied()
                .reduce(|a, b| if b.is_before(a) { b } else { a });
            let Some(oldest) = oldest else {
                self.lanes.release_all(&[None; CLASSES], sink);
                return;
            };
            if let Some(slot) = self.slots.get_mut(oldest)
                && let State::Hole(hole) = &mut slot.state
            {
                hole.release_at = [Time::ZERO; CLASSES];
            }
            self.stats.holes_forced += 1;
            self.advance_gates(Time::ZERO, sink);
        }
    }

    /// Lets go what has waited long enough, now that everything received before `settled` has been
    /// accepted. That is behind the clock by what the crypto units still have in hand, so that a
    /// slow unit delays holds and does not end them. To be called when [`Self::poll_timeout`] says
    /// so, or more often.
    pub fn poll(&mut self, settled: Time, sink: &mut impl FrameSink<B>) {
        self.settled = self.settled.max(settled);
        self.keep_appointments(self.settled);
        if self.gates.iter().any(Option::is_some) {
            self.advance_gates(self.settled, sink);
        }
        while let Some(&(_, give_up_at)) = self.kept.front()
            && give_up_at <= self.settled
        {
            self.give_up_oldest_kept(DropReason::Incomplete);
        }
    }

    /// When [`Self::poll`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let holds = Class::ALL.iter().filter_map(|class| {
            match self.slots.get(self.gates[class.index()]?)?.state {
                State::Hole(hole) => Some(hole.release_at[class.index()]),
                _ => None,
            }
        });
        let kept = self.kept.front().map(|&(_, at)| at);
        holds.chain(kept).chain(self.agenda.next_at()).min()
    }

    /// Delivers everything that is held and frees everything that is kept: the gateway stops.
    pub fn drain(&mut self, sink: &mut impl FrameSink<B>) {
        self.gates = [None; CLASSES];
        self.lanes.release_all(&self.gates, sink);
        while !self.kept.is_empty() {
            self.give_up_oldest_kept(DropReason::Stopping);
        }
    }

    /// What it has seen and done.
    pub fn stats(&self) -> ReceiverStats {
        self.stats
    }

    /// How long things took.
    pub fn histograms(&self) -> &ReceiverHistograms {
        &self.histograms
    }

    /// What became of repair shards.
    pub fn decoder_stats(&self) -> DecoderStats {
        self.decoder
            .as_ref()
            .map(Decoder::stats)
            .unwrap_or_default()
    }

    /// What its lanes have done.
    pub fn lane_stats(&self) -> LaneStats {
        self.lanes.stats()
    }

    /// What died here, by reason.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// What says when holes are asked for.
    pub fn predictor(&self) -> &P {
        &self.predictor
    }

    /// The same, to give it what an earlier one has learned.
    pub fn predictor_mut(&mut self) -> &mut P {
        &mut self.predictor
    }

    /// Frames held out of order now.
    pub fn held(&self) -> usize {
        self.lanes.held()
    }

    /// Shards kept for incomplete frames now.
    pub fn kept(&self) -> usize {
        self.kept_now
    }
}

#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod tests;
