//! The receiving side of a stream: the predictive buffer.
//!
//! Opened shards come in any order ([`PredictiveBuffer::accept`]). Each is placed at most once; a
//! frame is complete as soon as its own bytes are there, whatever else of its aggregate is
//! missing, and leaves at once if its lane is in order. If not, it waits while a hole below it is
//! open, for as long as the [`Predictor`] says ([`PredictiveBuffer::poll`]).

mod lanes;
mod replay;
mod slots;

use core::time::Duration;
use std::collections::VecDeque;

use arrayvec::ArrayVec;

use self::lanes::{Complete, Gates, Lanes};
pub use self::lanes::{FrameSink, LaneStats};
pub use self::replay::ReplayWindow;
use self::slots::{Forgotten, OpenHole, Placed, Slots, State};
use crate::buffer::{Buffer, BufferPool};
use crate::drop_reason::{DropReason, Drops};
use crate::lane::{CLASSES, Class, Lane};
use crate::limits::{REASSEMBLY_GRACE, REASSEMBLY_WINDOW, SHARDS_MAX, UNIT_GRACE};
use crate::predict::{HoldBounds, Hole, Outcome, Predictor};
use crate::seal::Opened;
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::frame::{FRAME_HEADER_LEN, FrameHeader};
use crate::wire::header::CLEAR_HEADER_LEN;
use crate::wire::shard::{NO_FRAME, SOURCE_HEADER_LEN, SourceHeader, is_repair};

/// Bytes before the payload of an opened source shard.
const PAYLOAD_AT: usize = CLEAR_HEADER_LEN + SOURCE_HEADER_LEN;

/// How many sequence numbers a shard's `same_path` speaks of.
const SAME_PATH_BITS: u32 = u32::BITS;

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
}

/// What a predictive buffer has seen and done. All only grow, but for `high_water` marks.
#[derive(Clone, Copy, Debug, Default)]
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
    /// Holes filled within [`UNIT_GRACE`]: the crypto units' order, not the path's.
    pub holes_by_units: u64,
    /// Holes filled later than that: reordered on the path.
    pub holes_filled: u64,
    /// Holes given up: lost, as far as is known. Every hole ends as one of these three, or is open.
    pub holes_given_up: u64,
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
    stats: ReceiverStats,
    drops: Drops,
}

/// What became of the bytes of a frame that spans several shards.
enum Gathered<B> {
    NotYet,
    Frame(B),
    Dropped(DropReason),
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
        if is_repair(shard.plaintext()) != Some(false) {
            // A window of zero was negotiated.
            return Err(DropReason::NotNegotiated);
        }
        let (header, payload) = SourceHeader::parse(shard.plaintext())?;
        // Zero: the sender runs without.
        let is_checked = self.config.checksum && header.crc32c != 0;
        if is_checked && header.crc32c != header.checksum(payload) {
            return Err(DropReason::ShardChecksum);
        }
        let filled = self.place(&header, clear.path, received_at, outlet.sink)?;
        self.stats.shards += 1;
        self.stats.payload_bytes += u64::from(header.payload_len);
        let result = self.take_frames(header, shard.into_buffer(), received_at, outlet);
        if filled {
            self.advance_gates(self.settled, outlet.sink);
        }
        result
    }

    /// Notes that a shard arrived; says whether a hole was filled.
    fn place(
        &mut self,
        header: &SourceHeader,
        path: u8,
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
        if ahead > 0 {
            self.newest = Some(seq);
            if ahead as usize > REASSEMBLY_WINDOW / 2 {
                self.jump(sink);
            } else {
                self.open_gap(newest, ahead as u32 - 1, header, path, now);
            }
        } else {
            match self.slots.get(seq).map(|slot| &slot.state) {
                Some(State::Placed(_)) => return Err(DropReason::Duplicate),
                Some(State::Hole(hole)) => {
                    let hole = *hole;
                    self.fill(&hole, now);
                    filled = true;
                }
                Some(State::Unknown) => self.unknown = self.unknown.saturating_sub(1),
                // Below the first shard that ever came, or jumped over.
                Some(State::Free) | None => {}
            }
            if self.unknown > 0 {
                self.attribute(header, path, now);
            }
        }
        let (slot, forgotten) = self.slots.claim(seq);
        slot.state = State::Placed(Placed {
            shard_id: header.shard_id,
            shard_count: header.shard_count,
            first_frame: (header.first_frame != NO_FRAME).then_some(header.first_frame),
            open_tail: None,
            open_head: false,
            unread: false,
        });
        self.forget(forgotten);
        Ok(filled)
    }

    /// Claims the slots of `missing` shards after `newest`, as holes where there is evidence: the
    /// shard that just came says which of the last 32 were first sent on its own path, and is
    /// itself evidence for its own aggregate. What lies further back than its word reaches is a
    /// hole if all it speaks of went the same way.
    fn open_gap(&mut self, newest: Seq, missing: u32, header: &SourceHeader, path: u8, now: Time) {
        for step in 1..=missing {
            let seq = newest.plus(step);
            let back = missing - step;
            let is_sibling = back < u32::from(header.shard_id);
            let on_path = if back < SAME_PATH_BITS {
                header.same_path >> back & 1 == 1
            } else {
                header.same_path == u32::MAX
            };
            let (slot, forgotten) = self.slots.claim(seq);
            slot.state = State::Unknown;
            self.forget(forgotten);
            self.unknown += 1;
            if on_path || is_sibling {
                self.open_hole(seq, missing, path, now);
            }
        }
    }

    /// Opens holes that were gaps without evidence until this shard spoke of them.
    fn attribute(&mut self, header: &SourceHeader, path: u8, now: Time) {
        for back in 0..SAME_PATH_BITS {
            let is_sibling = back < u32::from(header.shard_id);
            if header.same_path >> back & 1 == 1 || is_sibling {
                self.open_hole(header.seq.minus(back + 1), 1, path, now);
            }
        }
    }

    fn open_hole(&mut self, seq: Seq, gap: u32, path: u8, now: Time) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        if !matches!(slot.state, State::Unknown) {
            return;
        }
        let hole = Hole {
            opened_at: now,
            gap,
            path,
        };
        let hold = self.config.hold_bounds.clamp(self.predictor.hold(&hole));
        slot.state = State::Hole(OpenHole {
            opened_at: now,
            gap,
            path,
            release_at: hold.map(|hold| now + hold),
            given_up: false,
        });
        self.unknown = self.unknown.saturating_sub(1);
        self.stats.holes += 1;
        for gate in &mut self.gates {
            if gate.is_none_or(|gate| seq.is_before(gate)) {
                *gate = Some(seq);
            }
        }
    }

    fn fill(&mut self, hole: &OpenHole, now: Time) {
        // By the times they were received: a shard that only its unit was late with has no age.
        let age = now.since(hole.opened_at);
        if hole.given_up {
            self.stats.late += 1;
        } else if age <= UNIT_GRACE {
            self.stats.holes_by_units += 1;
        } else {
            self.stats.holes_filled += 1;
        }
        let known = Hole {
            opened_at: hole.opened_at,
            gap: hole.gap,
            path: hole.path,
        };
        self.predictor.learn(&known, Outcome::Late(age));
    }

    /// Moves each gate past holes that were filled or have held for long enough, and lets go what
    /// waited for them.
    fn advance_gates(&mut self, now: Time, sink: &mut impl FrameSink<B>) {
        let Some(newest) = self.newest else {
            return;
        };
        let mut moved = false;
        for class in Class::ALL.map(Class::index) {
            let Some(mut seq) = self.gates[class] else {
                continue;
            };
            let from = seq;
            loop {
                if !seq.is_before(newest) {
                    self.gates[class] = None;
                    break;
                }
                if let Some(slot) = self.slots.get_mut(seq)
                    && let State::Hole(hole) = &mut slot.state
                {
                    if now < hole.release_at[class] {
                        self.gates[class] = Some(seq);
                        break;
                    }
                    if hole.release_at.iter().all(|&at| at <= now) && !hole.given_up {
                        hole.given_up = true;
                        self.stats.holes_given_up += 1;
                    }
                }
                seq = seq.plus(1);
            }
            moved |= self.gates[class] != Some(from);
        }
        if moved {
            self.lanes.release_all(&self.gates, sink);
        }
    }

    /// Gives up whatever is missing: the newest shard is too far ahead to wait.
    fn jump(&mut self, sink: &mut impl FrameSink<B>) {
        self.stats.jumps += 1;
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
        let ended = self.stats.holes_by_units + self.stats.holes_filled;
        self.stats.holes_given_up = self.stats.holes - ended;
        self.kept.clear();
        self.kept_now = 0;
        self.newest = None;
        self.gates = [None; CLASSES];
        self.unknown = 0;
    }

    /// Hands on every frame that this shard completes, and keeps the shard if one is left open.
    fn take_frames<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        header: SourceHeader,
        mut buffer: B,
        now: Time,
        outlet: &mut Outlet<'_, Q, S>,
    ) -> Result<(), DropReason> {
        let payload = buffer.data().get(PAYLOAD_AT..).unwrap_or_default();
        if let Some(frame) = lone_frame(&header, payload) {
            if !buffer.trim_front(PAYLOAD_AT + FRAME_HEADER_LEN) {
                return Err(DropReason::ShardMalformed);
            }
            self.stats.frames_in_place += 1;
            self.complete(buffer, frame, header.seq, outlet);
            return Ok(());
        }
        let open_head = header.first_frame != 0;
        let (whole, tail) = split_frames(&header, payload)?;
        if open_head || tail.is_some() {
            self.keep(&header, buffer, open_head, tail, now);
            if open_head {
                self.assemble_before(header.seq, outlet);
            }
            self.copy_kept_frames(header.seq, whole, outlet);
            if tail.is_some() {
                self.assemble_from(header.seq, outlet);
            }
            self.let_go(header.seq);
        } else {
            let mut at = usize::from(header.first_frame);
            while let Some((frame, bytes)) = frame_at(payload, at) {
                at += FRAME_HEADER_LEN + bytes.len();
                self.complete_copy(&[bytes], frame, header.seq, outlet);
            }
        }
        Ok(())
    }

    /// Copies the whole frames out of a shard that was kept.
    fn copy_kept_frames<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        seq: Seq,
        whole: core::ops::Range<usize>,
        outlet: &mut Outlet<'_, Q, S>,
    ) {
        // Out of its slot while frames are copied, so that the rest of `self` is free to be used.
        let Some(kept) = self.slots.get_mut(seq).and_then(|slot| slot.kept.take()) else {
            return;
        };
        let payload = kept.data().get(PAYLOAD_AT..).unwrap_or_default();
        let mut at = whole.start;
        while at < whole.end {
            let Some((frame, bytes)) = frame_at(payload, at) else {
                break;
            };
            at += FRAME_HEADER_LEN + bytes.len();
            self.complete_copy(&[bytes], frame, seq, outlet);
        }
        if let Some(slot) = self.slots.get_mut(seq) {
            slot.kept = Some(kept);
        }
        if let Some(placed) = self.placed_mut(seq) {
            placed.unread = false;
        }
    }

    /// Puts together the frame that ends in, or goes through, the shard at `seq`.
    fn assemble_before<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        seq: Seq,
        outlet: &mut Outlet<'_, Q, S>,
    ) {
        let Some(own) = self.placed(seq) else {
            return;
        };
        for back in 1..=u32::from(own.shard_id) {
            let start = seq.minus(back);
            match self.placed(start) {
                Some(placed) if u32::from(placed.shard_id) + back == u32::from(own.shard_id) => {
                    if placed.first_frame.is_some() {
                        self.assemble_from(start, outlet);
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Puts together the frame whose header stands at the tail of the shard at `start`, if all of
    /// its shards are there.
    fn assemble_from<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        start: Seq,
        outlet: &mut Outlet<'_, Q, S>,
    ) {
        let Some((first, tail)) = self.placed(start).and_then(|p| Some((p, p.open_tail?))) else {
            return;
        };
        let Some(header) = self
            .kept_payload(start)
            .and_then(|payload| FrameHeader::parse(payload.get(usize::from(tail)..)?))
        else {
            return;
        };
        let (gathered, end) = self.gather(start, first, header, outlet.pool);
        match gathered {
            Gathered::NotYet => return,
            Gathered::Frame(frame) => {
                self.stats.frames_assembled += 1;
                self.complete(frame, header, start, outlet);
            }
            Gathered::Dropped(reason) => self.drops.count(reason),
        }
        // Whole or unsound, nobody needs these bytes again.
        if let Some(placed) = self.placed_mut(start) {
            placed.open_tail = None;
        }
        let mut seq = start;
        while seq.is_before(end) {
            self.let_go(seq);
            seq = seq.plus(1);
            if let Some(placed) = self.placed_mut(seq) {
                placed.open_head = false;
            }
        }
        self.let_go(end);
    }

    /// Copies the bytes of the frame that begins at the tail of `start` out of its shards; also
    /// says which is the last of them.
    fn gather<Q: BufferPool<Buffer = B>>(
        &self,
        start: Seq,
        first: Placed,
        header: FrameHeader,
        pool: &mut Q,
    ) -> (Gathered<B>, Seq) {
        let mut parts: ArrayVec<&[u8], SHARDS_MAX> = ArrayVec::new();
        let mut missing = usize::from(header.len);
        let mut end = start;
        for shard_id in first.shard_id..first.shard_count {
            let seq = start.plus(u32::from(shard_id - first.shard_id));
            let (Some(placed), Some(payload)) = (self.placed(seq), self.kept_payload(seq)) else {
                return (Gathered::NotYet, end);
            };
            let is_first = shard_id == first.shard_id;
            let part = match (is_first, placed.first_frame) {
                (true, _) => first
                    .open_tail
                    .and_then(|tail| payload.get(usize::from(tail) + FRAME_HEADER_LEN..)),
                (false, Some(next_frame)) => payload.get(..usize::from(next_frame)),
                (false, None) => Some(payload),
            };
            let is_sibling = placed.shard_id == shard_id && placed.shard_count == first.shard_count;
            let Some(part) = part.filter(|part| is_sibling && part.len() <= missing) else {
                break;
            };
            missing -= part.len();
            parts.push(part);
            end = seq;
            if missing == 0 || (!is_first && placed.first_frame.is_some()) {
                break;
            }
        }
        let gathered = if missing > 0 {
            Gathered::Dropped(DropReason::ShardMalformed)
        } else {
            copy_parts(pool, &parts)
                .map_or(Gathered::Dropped(DropReason::NoBuffer), Gathered::Frame)
        };
        (gathered, end)
    }

    fn placed(&self, seq: Seq) -> Option<Placed> {
        match self.slots.get(seq)?.state {
            State::Placed(placed) => Some(placed),
            _ => None,
        }
    }

    fn placed_mut(&mut self, seq: Seq) -> Option<&mut Placed> {
        match &mut self.slots.get_mut(seq)?.state {
            State::Placed(placed) => Some(placed),
            _ => None,
        }
    }

    fn kept_payload(&self, seq: Seq) -> Option<&[u8]> {
        self.slots.get(seq)?.kept.as_ref()?.data().get(PAYLOAD_AT..)
    }

    /// Keeps a shard for the frames that are open at its ends.
    fn keep(
        &mut self,
        header: &SourceHeader,
        buffer: B,
        open_head: bool,
        open_tail: Option<u16>,
        now: Time,
    ) {
        while self
            .kept
            .front()
            .is_some_and(|&(seq, _)| self.kept_payload(seq).is_none())
        {
            self.kept.pop_front();
        }
        while self.kept_now >= self.config.kept_shards_max && !self.kept.is_empty() {
            self.give_up_oldest_kept(DropReason::MemoryLimit);
        }
        // Entries of shards that were let go long ago stand behind one that was not.
        if self.kept.len() >= 2 * self.config.kept_shards_max {
            let slots = &self.slots;
            self.kept
                .retain(|&(seq, _)| slots.get(seq).is_some_and(|slot| slot.kept.is_some()));
        }
        let Some(slot) = self.slots.get_mut(header.seq) else {
            return;
        };
        if let State::Placed(placed) = &mut slot.state {
            placed.open_head = open_head;
            placed.open_tail = open_tail;
            placed.unread = true;
        }
        slot.kept = Some(buffer);
        let give_up_at = now + self.config.hold_bounds.longest() + REASSEMBLY_GRACE;
        self.kept.push_back((header.seq, give_up_at));
        self.kept_now += 1;
        self.stats.kept_high_water = self.stats.kept_high_water.max(self.kept_now as u64);
    }

    /// Frees a kept shard that no open frame needs.
    fn let_go(&mut self, seq: Seq) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        if let State::Placed(placed) = slot.state
            && !placed.open_head
            && !placed.unread
            && placed.open_tail.is_none()
            && slot.kept.take().is_some()
        {
            self.kept_now -= 1;
        }
    }

    /// A slot was claimed for another sequence number.
    fn forget(&mut self, forgotten: Option<Forgotten<B>>) {
        let Some(Forgotten { state, kept }) = forgotten else {
            return;
        };
        match state {
            State::Unknown => self.unknown = self.unknown.saturating_sub(1),
            State::Hole(hole) if !hole.given_up => self.stats.holes_given_up += 1,
            _ => {}
        }
        if kept.is_some() {
            self.kept_now -= 1;
            self.drops.count(DropReason::Incomplete);
        }
    }

    /// Frees the shard that was kept first.
    fn give_up_oldest_kept(&mut self, reason: DropReason) {
        let Some((seq, _)) = self.kept.pop_front() else {
            return;
        };
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        if slot.kept.take().is_some() {
            self.kept_now -= 1;
            self.drops.count(reason);
        }
    }

    fn complete_copy<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        parts: &[&[u8]],
        frame: FrameHeader,
        seq: Seq,
        outlet: &mut Outlet<'_, Q, S>,
    ) {
        match copy_parts(outlet.pool, parts) {
            Some(buffer) => self.complete(buffer, frame, seq, outlet),
            None => self.drops.count(DropReason::NoBuffer),
        }
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
        holds.chain(self.kept.front().map(|&(_, at)| at)).min()
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

    /// What its lanes have done.
    pub fn lane_stats(&self) -> LaneStats {
        self.lanes.stats()
    }

    /// What died here, by reason.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Frames held out of order now.
    pub fn held(&self) -> usize {
        self.lanes.held()
    }

    /// Shards kept for incomplete frames now.
    pub fn kept(&self) -> usize {
        self.kept_now
    }

    /// How long a hole may hold frames at most.
    pub fn longest_hold(&self) -> Duration {
        self.config.hold_bounds.longest()
    }
}

/// The header of the frame that is all there is in this payload.
#[inline]
fn lone_frame(header: &SourceHeader, payload: &[u8]) -> Option<FrameHeader> {
    let frame = FrameHeader::parse(payload)?;
    let is_alone =
        header.first_frame == 0 && payload.len() == FRAME_HEADER_LEN + usize::from(frame.len);
    is_alone.then_some(frame)
}

/// The whole frame whose header stands at `at`.
#[inline]
fn frame_at(payload: &[u8], at: usize) -> Option<(FrameHeader, &[u8])> {
    let rest = payload.get(at..)?;
    let frame = FrameHeader::parse(rest)?;
    let bytes = rest.get(FRAME_HEADER_LEN..FRAME_HEADER_LEN + usize::from(frame.len))?;
    Some((frame, bytes))
}

/// Where the whole frames of a payload begin and end, and where the header of one stands that
/// goes on in the next shard.
///
/// # Errors
/// [`DropReason::ShardMalformed`] if the framing cannot be; then nothing of the shard is used.
fn split_frames(
    header: &SourceHeader,
    payload: &[u8],
) -> Result<(core::ops::Range<usize>, Option<u16>), DropReason> {
    if header.first_frame == NO_FRAME {
        return Ok((0..0, None));
    }
    let start = usize::from(header.first_frame);
    let mut at = start;
    while at < payload.len() {
        let frame = payload
            .get(at..)
            .and_then(FrameHeader::parse)
            .ok_or(DropReason::ShardMalformed)?;
        let end = at + FRAME_HEADER_LEN + usize::from(frame.len);
        if end > payload.len() {
            if header.shard_id + 1 == header.shard_count {
                return Err(DropReason::ShardMalformed);
            }
            return Ok((start..at, Some(at as u16)));
        }
        at = end;
    }
    Ok((start..at, None))
}

/// A fresh buffer that holds `parts`, one after the other.
fn copy_parts<Q: BufferPool>(pool: &mut Q, parts: &[&[u8]]) -> Option<Q::Buffer> {
    let mut buffer = pool.alloc()?;
    for part in parts {
        buffer.append(part.len())?.copy_from_slice(part);
    }
    Some(buffer)
}

#[cfg(test)]
mod tests;
