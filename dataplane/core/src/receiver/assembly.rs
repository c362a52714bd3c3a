//! From shards to frames: whole ones are handed on at once, and what spans several shards is kept
//! until the last of them is there, or the first has waited too long.

use arrayvec::ArrayVec;

use super::slots::{Forgotten, Placed, State};
use super::{FrameSink, Outlet, PAYLOAD_AT, PredictiveBuffer};
use crate::buffer::{Buffer, BufferPool};
use crate::drop_reason::DropReason;
use crate::limits::{REASSEMBLY_GRACE, SHARDS_MAX};
use crate::predict::Predictor;
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::frame::{FRAME_HEADER_LEN, FrameHeader};
use crate::wire::shard::{NO_FRAME, SourceHeader};

/// What became of the bytes of a frame that spans several shards.
enum Gathered<B> {
    NotYet,
    Frame(B),
    Dropped(DropReason),
}

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// Hands on every frame that this shard completes, and keeps the shard if one is left open.
    pub(super) fn take_frames<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
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
                self.classify_after(header.seq, now);
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

    pub(super) fn placed(&self, seq: Seq) -> Option<Placed> {
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

    pub(super) fn kept_payload(&self, seq: Seq) -> Option<&[u8]> {
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
    pub(super) fn forget(&mut self, forgotten: Option<Forgotten<B>>) {
        let Some(Forgotten { state, kept }) = forgotten else {
            return;
        };
        match state {
            State::Unknown => self.unknown = self.unknown.saturating_sub(1),
            State::Hole(hole) => {
                self.stats.holes_given_up += u64::from(!hole.given_up);
                if !hole.judged && !hole.not_sent {
                    self.learn_lost(&hole.known, self.settled);
                }
            }
            State::Placed(placed) => {
                if let Some(filled) = placed.filled.filter(|filled| !filled.judged) {
                    self.learn_lost(&filled.known, self.settled);
                }
            }
            State::Free => {}
        }
        if kept.is_some() {
            self.kept_now -= 1;
            self.drops.count(DropReason::Incomplete);
        }
    }

    /// Frees the shard that was kept first.
    pub(super) fn give_up_oldest_kept(&mut self, reason: DropReason) {
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
