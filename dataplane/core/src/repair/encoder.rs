//! The sender's side: repair shards over sliding windows, and over a window of choice.

use core::time::Duration;

use arrayvec::ArrayVec;
use shardgate_erasure::{Coder, coefficient};

use super::{WINDOW_MAX, coded_meta, padded};
use crate::buffer::{Buffer, BufferPool};
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::header::TAG_LEN;
use crate::wire::shard::{CODED_META_LEN, REPAIR_HEADER_LEN, RepairHeader, SourceHeader};

/// Most windows open at once: each costs one multiply-accumulate per source shard and a buffer.
pub const OPEN_MAX: usize = 16;

/// Repair indices before they come again (SPEC §4).
const INDICES: u8 = 64;

/// Longest payload whose coded length still fits the header.
const PAYLOAD_MAX: usize = u16::MAX as usize - CODED_META_LEN;

/// How much standing repair a stream sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairPlan {
    /// Source shards per repair shard: s. At least 1.
    pub every: u8,
    /// Source shards that a repair shard covers: W, rounded down to a multiple of s, from s to
    /// 192 and to 16 s.
    pub window: u8,
    /// A repair shard is due at the latest this long after the first source shard that none
    /// covers yet.
    pub delay_max: Duration,
}

impl RepairPlan {
    /// s, within its range.
    fn every(self) -> usize {
        usize::from(self.every).clamp(1, WINDOW_MAX)
    }

    /// Windows open at once: W / s, so that each covers W when its turn comes.
    fn open(self) -> usize {
        let window = usize::from(self.window).min(WINDOW_MAX);
        (window / self.every()).clamp(1, OPEN_MAX)
    }
}

/// A repair shard, ready to be numbered and sealed.
#[derive(Debug)]
pub struct Symbol<B> {
    /// Its header, which the buffer begins with.
    pub header: RepairHeader,
    /// Header and symbol; room for the outer headers before and the tag behind.
    pub buffer: B,
}

/// What an encoder has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncoderStats {
    /// Repair shards made because s source shards had passed.
    pub by_count: u64,
    /// Repair shards made because source shards had waited for one for so long.
    pub by_time: u64,
    /// Repair shards that were due and not made, because the pool had no buffer, or none that was
    /// large enough, or because the window held shards too long for the path by then.
    pub skipped: u64,
}

/// The sum over an open window so far, in the buffer that it leaves in.
struct Accumulator<B> {
    buffer: B,
    repair_index: u8,
    start: Seq,
    sources: u8,
    /// Bytes of the longest coded source shard; what follows in the buffer is padding.
    coded_len: usize,
}

impl<B: Buffer> Accumulator<B> {
    /// Makes room for a source shard of so many bytes with padding; false if there is none.
    fn grow(&mut self, padded_len: usize) -> bool {
        let missing = padded_len.saturating_sub(self.buffer.len());
        let is_full = usize::from(self.sources) >= WINDOW_MAX;
        if is_full || self.buffer.tailroom() < missing + TAG_LEN {
            return false;
        }
        if let Some(room) = self.buffer.append(missing) {
            room.fill(0);
        }
        true
    }

    /// Cuts the padding off and puts the header in front.
    fn finish(self, now: Time) -> Option<Symbol<B>> {
        let header = RepairHeader {
            repeat: false,
            repair_index: self.repair_index,
            window_len: self.sources,
            window_start: self.start,
            sent_at_us: now.as_wire_us(),
            coded_len: u16::try_from(self.coded_len).ok()?,
        };
        let mut buffer = self.buffer;
        let padding = buffer.len().checked_sub(self.coded_len)?;
        if !buffer.trim_back(padding) {
            return None;
        }
        let room = buffer.prepend(REPAIR_HEADER_LEN)?;
        room.copy_from_slice(&header.to_bytes());
        Some(Symbol { header, buffer })
    }
}

/// Makes the standing repair of one stream.
///
/// W / s windows are open at once, each a sum in a buffer of the pool; the one that was opened
/// first is due next. A source shard is added to all of them in one pass, so a repair shard is
/// ready the moment it is due, and leaves without a copy.
///
/// A thin stream's repair comes by time instead of by count, and then its windows hold fewer
/// shards; every shard is still covered by W / s repair shards.
pub struct Encoder<B> {
    coder: Coder,
    plan: Option<RepairPlan>,
    payload_max: usize,
    /// In the order in which they are due; none where nothing was added yet.
    open: ArrayVec<Option<Accumulator<B>>, OPEN_MAX>,
    /// A source shard's coded bytes and padding.
    scratch: Box<[u8]>,
    next_seq: Option<Seq>,
    next_index: u8,
    /// Source shards that no repair shard covers yet, and when the first of them was added.
    uncovered: usize,
    uncovered_since: Time,
    stats: EncoderStats,
}

impl<B: Buffer> Encoder<B> {
    /// An encoder without a plan: it makes nothing. Buffers of the pool need room for
    /// [`Encoder::<B>::room`] of `payload_max` bytes.
    pub fn new(coder: Coder, payload_max: usize) -> Self {
        let payload_max = payload_max.min(PAYLOAD_MAX);
        Self {
            coder,
            plan: None,
            payload_max,
            open: ArrayVec::new(),
            scratch: vec![0; padded(CODED_META_LEN + payload_max)].into_boxed_slice(),
            next_seq: None,
            next_index: 0,
            uncovered: 0,
            uncovered_since: Time::ZERO,
            stats: EncoderStats::default(),
        }
    }

    /// Bytes that a buffer needs behind its headroom for symbols over payloads of so many.
    pub const fn room(payload_max: usize) -> usize {
        padded(CODED_META_LEN + payload_max) + TAG_LEN
    }

    /// Sends repair by another plan from now on, or none. Open windows go on where both plans
    /// have them; if the new plan has fewer, the one due next, which covers what no other does
    /// yet, and the youngest.
    pub fn set_plan(&mut self, plan: Option<RepairPlan>) {
        let open = plan.map_or(0, RepairPlan::open);
        let surplus = self.open.len().saturating_sub(open);
        let first = open.min(1).min(self.open.len());
        self.open.drain(first..first + surplus);
        while self.open.len() < open {
            self.open.push(None);
        }
        if plan.is_none() {
            self.uncovered = 0;
            self.next_seq = None;
        }
        self.plan = plan;
    }

    /// Codes payloads of up to so many bytes from now on. Open windows over longer ones are
    /// dropped, because their repair shards would not fit the path. Allocates if the limit was
    /// never as high.
    pub fn set_payload_max(&mut self, payload_max: usize) {
        self.payload_max = payload_max.min(PAYLOAD_MAX);
        let coded_max = CODED_META_LEN + self.payload_max;
        if self.scratch.len() < padded(coded_max) {
            self.scratch = vec![0; padded(coded_max)].into_boxed_slice();
        }
        for slot in &mut self.open {
            slot.take_if(|window| window.coded_len > coded_max);
        }
    }

    /// Adds a source shard, in the order of their numbers, and hands over the repair shard that
    /// is then due by count, if one is.
    ///
    /// A gap in the numbers ends all open windows: what they cover gets its repair shard at once,
    /// if it has none yet. So does a payload above the limit, which itself is covered by nothing.
    pub fn add<P: BufferPool<Buffer = B>>(
        &mut self,
        header: &SourceHeader,
        payload: &[u8],
        now: Time,
        pool: &mut P,
        mut out: impl FnMut(Symbol<B>),
    ) {
        let Some(plan) = self.plan else {
            return;
        };
        let fits = payload.len() <= self.payload_max;
        if !fits || self.next_seq != Some(header.seq) {
            if self.uncovered > 0 && self.emit(now, &mut out) {
                self.stats.by_count += 1;
            }
            self.open.iter_mut().for_each(|slot| *slot = None);
            self.next_seq = None;
        }
        if !fits {
            return;
        }
        self.next_seq = Some(header.seq.plus(1));
        self.accumulate(header, payload, pool);
        if self.uncovered == 0 {
            self.uncovered_since = now;
        }
        self.uncovered += 1;
        let first = self.open.first().and_then(Option::as_ref);
        let full = first.is_some_and(|window| usize::from(window.sources) >= WINDOW_MAX);
        if (full || self.uncovered >= plan.every()) && self.emit(now, &mut out) {
            self.stats.by_count += 1;
        }
    }

    /// Hands over the repair shard that is due by time, if one is. Everything added so far is then
    /// covered; its buffer it has already.
    pub fn poll(&mut self, now: Time, mut out: impl FnMut(Symbol<B>)) {
        if self.poll_timeout().is_some_and(|due| due <= now) && self.emit(now, &mut out) {
            self.stats.by_time += 1;
        }
    }

    /// When [`Encoder::poll`] has something to do; nothing while every shard is covered.
    pub fn poll_timeout(&self) -> Option<Time> {
        let plan = self.plan?;
        (self.uncovered > 0).then(|| self.uncovered_since + plan.delay_max)
    }

    /// The repair index for a symbol made by [`combine`], from the same counter as the standing
    /// repair's: no two of 64 in a row are the same.
    pub fn take_index(&mut self) -> u8 {
        let index = self.next_index;
        self.next_index = (index + 1) % INDICES;
        index
    }

    /// What it has made.
    pub fn stats(&self) -> EncoderStats {
        self.stats
    }

    /// Adds a source shard to all windows, opening those that were waiting for their first.
    fn accumulate<P>(&mut self, header: &SourceHeader, payload: &[u8], pool: &mut P)
    where
        P: BufferPool<Buffer = B>,
    {
        let coded_len = CODED_META_LEN + payload.len();
        let Some(coded) = self.scratch.get_mut(..padded(coded_len)) else {
            return;
        };
        let (meta, rest) = coded.split_at_mut(CODED_META_LEN);
        let (body, padding) = rest.split_at_mut(payload.len());
        meta.copy_from_slice(&coded_meta(header));
        body.copy_from_slice(payload);
        padding.fill(0);
        let mut coefficients: ArrayVec<u8, OPEN_MAX> = ArrayVec::new();
        let mut targets: ArrayVec<&mut [u8], OPEN_MAX> = ArrayVec::new();
        for slot in &mut self.open {
            if slot.is_none() {
                let Some(buffer) = pool.alloc() else {
                    continue;
                };
                *slot = Some(Accumulator {
                    buffer,
                    repair_index: self.next_index,
                    start: header.seq,
                    sources: 0,
                    coded_len: 0,
                });
                self.next_index = (self.next_index + 1) % INDICES;
            }
            slot.take_if(|window| !window.grow(coded.len()));
            if let Some(window) = slot {
                window.sources += 1;
                window.coded_len = window.coded_len.max(coded_len);
                coefficients.push(coefficient(header.seq.0, window.repair_index));
                targets.push(window.buffer.data_mut());
            }
        }
        // Every window has grown to the length of the source, so this cannot fail.
        let _ = self
            .coder
            .multiply_accumulate_many(&coefficients, coded, &mut targets);
    }

    /// Ends the window that is due, and makes room for one that opens with the next shard.
    fn emit(&mut self, now: Time, out: &mut impl FnMut(Symbol<B>)) -> bool {
        self.uncovered = 0;
        let due = self.open.first_mut().and_then(Option::take);
        // Every window stands until its turn comes: rotating puts the free place last.
        if !self.open.is_empty() {
            self.open.rotate_left(1);
        }
        match due.and_then(|window| window.finish(now)) {
            Some(symbol) => {
                out(symbol);
                true
            }
            None => {
                self.stats.skipped += 1;
                false
            }
        }
    }
}

/// Writes one repair shard over a window of retained source shards into an empty buffer: coded
/// repair as an answer to a request. Header and symbol then stand in the buffer as in
/// [`Symbol::buffer`].
///
/// `repair_index` comes from [`Encoder::take_index`].
///
/// `None`, and the buffer's contents are of no use, if there are no sources or more than 192, if
/// their numbers do not follow each other, or if the buffer is too small.
pub fn combine<'a, B: Buffer>(
    coder: Coder,
    repair_index: u8,
    sent_at_us: u32,
    sources: impl Iterator<Item = (SourceHeader, &'a [u8])>,
    buffer: &mut B,
) -> Option<RepairHeader> {
    if !buffer.is_empty() {
        return None;
    }
    let repair_index = repair_index % INDICES;
    let mut window_start = None;
    let mut window_len = 0u8;
    for (header, payload) in sources {
        let start = *window_start.get_or_insert(header.seq);
        if header.seq != start.plus(window_len.into()) || usize::from(window_len) >= WINDOW_MAX {
            return None;
        }
        window_len += 1;
        let missing = (CODED_META_LEN + payload.len()).saturating_sub(buffer.len());
        if buffer.tailroom() < missing + TAG_LEN {
            return None;
        }
        buffer.append(missing)?.fill(0);
        let (meta, body) = buffer.data_mut().split_at_mut_checked(CODED_META_LEN)?;
        let factor = coefficient(header.seq.0, repair_index);
        coder
            .multiply_accumulate(factor, &coded_meta(&header), meta)
            .ok()?;
        coder.multiply_accumulate(factor, payload, body).ok()?;
    }
    let header = RepairHeader {
        repeat: true,
        repair_index,
        window_len,
        window_start: window_start?,
        sent_at_us,
        coded_len: u16::try_from(buffer.len()).ok()?,
    };
    let room = buffer.prepend(REPAIR_HEADER_LEN)?;
    room.copy_from_slice(&header.to_bytes());
    Some(header)
}
