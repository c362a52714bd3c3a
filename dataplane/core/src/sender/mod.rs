//! The sending side of a stream: the packet aggregator and the sharding of its aggregates.
//!
//! Frames of one rx burst gather in the open aggregate ([`StreamSender::offer`]); at the burst's
//! end, or when it is full, [`StreamSender::close`] cuts it into n shards and hands them over.
//! Admission comes first: nothing is numbered before the key, the units' rings and the pool have
//! room for all of it, so what is numbered is handed over.

mod layout;
pub(crate) mod retention;
pub(crate) mod transmissions;

use arrayvec::ArrayVec;

use self::layout::{Cutter, choose_payload};
use crate::buffer::{Buffer, BufferPool};
use crate::drop_reason::DropReason;
use crate::lane::{LANES, Lane};
use crate::limits::{
    AGGREGATE_FRAMES_MAX, FRAME_MAX, FRAME_MIN, PATHS_MAX, SHARD_PAYLOAD_MIN, SHARDS_MAX,
};
use crate::seal::{PathNumber, PathNumbers, SealBudget, Unsealed};
use crate::seq::{LaneSeq, Seq};
use crate::time::Time;
use crate::wire::frame::{FRAME_HEADER_LEN, FrameHeader};
use crate::wire::header::{CLEAR_HEADER_LEN, Kind, TAG_LEN};
use crate::wire::outer::{ETHERNET_LEN, IPV6_LEN, UDP_LEN};
use crate::wire::shard::{NO_FRAME, SOURCE_HEADER_LEN, SourceHeader};

/// Headroom a frame needs to leave in its own buffer, all headers counted.
const HEADERS_LEN: usize =
    ETHERNET_LEN + IPV6_LEN + UDP_LEN + CLEAR_HEADER_LEN + SOURCE_HEADER_LEN + FRAME_HEADER_LEN;

/// How a stream shards, by configuration or plan.
#[derive(Clone, Copy, Debug)]
pub struct SenderConfig {
    /// Fewest shards of an aggregate whose bytes suffice for them.
    pub shards_min: usize,
    /// Most shards of an aggregate; a single frame may need more, up to [`SHARDS_MAX`].
    pub shards_max: usize,
    /// Most payload of a shard, in bytes.
    pub payload_max: usize,
    /// Whether shards carry a CRC-32C.
    pub checksum: bool,
}

/// What a stream has sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderStats {
    /// Frames handed over inside shards.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// Aggregates closed.
    pub aggregates: u64,
    /// Shards handed over.
    pub shards: u64,
    /// Bytes of payload in them: frames and frame headers.
    pub payload_bytes: u64,
    /// Frames that became a shard in their own buffer, without a copy.
    pub frames_in_place: u64,
}

/// What became of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// There was none.
    Empty,
    /// So many shards were handed over.
    Sent(usize),
    /// The units have no room for so many shards; the frames wait.
    Busy(usize),
    /// So many frames died, for this reason; nothing was numbered.
    Dropped(DropReason, usize),
}

/// What closing an aggregate needs from its surroundings.
pub struct Departure<'a, P: BufferPool> {
    /// The burst's time.
    pub now: Time,
    /// The path that the shards take.
    pub path: u8,
    /// The key's budget in this hand.
    pub budget: &'a mut SealBudget,
    /// Shards for which the units have room.
    pub credit: usize,
    /// Where buffers for shards come from.
    pub pool: &'a mut P,
}

/// The sending side of one stream, in the hands of one rx lcore.
pub struct StreamSender<B> {
    config: SenderConfig,
    frames: ArrayVec<(B, Lane), AGGREGATE_FRAMES_MAX>,
    /// Payload that shards are cut to: of the open aggregate, and of those after it.
    payload: usize,
    payload_next: usize,
    cutter: Cutter,
    numbers: PathNumbers,
    seq: Seq,
    lane_seqs: Box<[LaneSeq; LANES]>,
    /// Per path: bit i is set if the shard i + 1 before the next one was first sent on it.
    sent_on: [u32; PATHS_MAX],
    stats: SenderStats,
}

impl<B: Buffer> StreamSender<B> {
    /// A stream that has sent nothing.
    pub fn new(stream: u8, config: SenderConfig) -> Self {
        Self {
            config,
            frames: ArrayVec::new(),
            payload: config.payload_max,
            payload_next: config.payload_max,
            cutter: Cutter::new(config.payload_max),
            numbers: PathNumbers::new(Kind::Data, stream),
            seq: Seq(0),
            lane_seqs: Box::new([LaneSeq::default(); LANES]),
            sent_on: [0; PATHS_MAX],
            stats: SenderStats::default(),
        }
    }

    /// Adds a frame to the open aggregate.
    ///
    /// # Errors
    /// [`Refused::Full`] gives the frame back: close the aggregate and offer it again.
    /// [`Refused::Dropped`] gives it back for good, with the reason.
    pub fn offer(&mut self, frame: B, lane: Lane) -> Result<(), Refused<B>> {
        let len = frame.len();
        if !(FRAME_MIN..=FRAME_MAX).contains(&len) {
            return Err(Refused::Dropped(frame, DropReason::FrameSize));
        }
        let mut cutter = self.cutter;
        cutter.place(len);
        let shards_max = self.config.shards_max.min(SHARDS_MAX);
        let over = !self.frames.is_empty() && cutter.count() > shards_max;
        if over || self.frames.is_full() {
            return Err(Refused::Full(frame));
        }
        if cutter.count() > SHARDS_MAX {
            return Err(Refused::Dropped(frame, DropReason::FrameSize));
        }
        self.cutter = cutter;
        self.frames.push((frame, lane));
        Ok(())
    }

    /// Cuts the open aggregate into shards and hands each to `out`, numbered.
    pub fn close<P: BufferPool<Buffer = B>>(
        &mut self,
        departure: Departure<'_, P>,
        mut out: impl FnMut(Unsealed<B>),
    ) -> Close {
        if self.frames.is_empty() {
            return Close::Empty;
        }
        let (payload, shards) = self.cut();
        if shards > departure.credit {
            return Close::Busy(shards);
        }
        if !departure.budget.permits(shards, departure.now) {
            return Close::Dropped(DropReason::KeyExhausted, self.discard());
        }
        let in_place = self.frames_in_place(payload);
        let mut fresh: ArrayVec<B, SHARDS_MAX> = ArrayVec::new();
        for _ in 0..shards - in_place.count_ones() as usize {
            match departure.pool.alloc() {
                Some(buffer) if buffer.tailroom() >= payload + TAG_LEN => fresh.push(buffer),
                _ => return Close::Dropped(DropReason::NoBuffer, self.discard()),
            }
        }
        self.stats.aggregates += 1;
        let mut frames = core::mem::take(&mut self.frames);
        self.begin();
        let mut writer = ShardWriter {
            stream: self,
            departure,
            out: &mut out,
            shard_count: shards as u8,
            shard_id: 0,
            current: None,
            first_frame: NO_FRAME,
        };
        let mut cutter = Cutter::new(payload);
        for (frame, lane) in frames.drain(..) {
            let (shard, offset) = cutter.place(frame.len());
            if offset == 0 {
                writer.finish();
            }
            if in_place >> shard & 1 == 1 {
                writer.send_in_place(frame, lane);
            } else {
                writer.copy(&frame, lane, payload, &mut fresh);
            }
        }
        writer.finish();
        Close::Sent(shards)
    }

    /// Into what payloads the open aggregate is cut, and how many. It was gathered for `payload`; if
    /// the path carries less by now, it is cut into more, as far as an aggregate may have so many.
    fn cut(&self) -> (usize, usize) {
        let lens = self.frames.iter().map(|(frame, _)| frame.len());
        let fits = self.payload.min(self.config.payload_max);
        let (payload, shards) = choose_payload(lens.clone(), self.config.shards_min, fits);
        if shards <= SHARDS_MAX {
            return (payload, shards);
        }
        choose_payload(lens, self.config.shards_min, self.payload)
    }

    /// Drops the open aggregate's frames; returns how many there were.
    pub fn discard(&mut self) -> usize {
        let frames = self.frames.drain(..).count();
        self.begin();
        frames
    }

    /// Begins an aggregate.
    fn begin(&mut self) {
        self.payload = self.payload_next;
        self.cutter = Cutter::new(self.payload);
    }

    /// Cuts shards of so many bytes of payload at the most from the next aggregate on, from
    /// [`SHARD_PAYLOAD_MIN`] to what the path carries.
    pub fn set_payload(&mut self, payload: usize) {
        let least = SHARD_PAYLOAD_MIN.min(self.config.payload_max);
        self.payload_next = payload.clamp(least, self.config.payload_max);
        if self.frames.is_empty() {
            self.begin();
        }
    }

    /// Frames in the open aggregate.
    pub fn waiting(&self) -> usize {
        self.frames.len()
    }

    /// Cuts what leaves from now on for paths of another MTU.
    pub fn set_payload_max(&mut self, payload_max: usize) {
        self.config.payload_max = payload_max;
        self.payload_next = payload_max;
        if self.frames.is_empty() {
            self.begin();
        }
    }

    /// What it has sent.
    pub fn stats(&self) -> SenderStats {
        self.stats
    }

    /// The number under which something else than the open aggregate goes out: a repeat, or repair.
    pub(crate) fn number(
        &mut self,
        path: u8,
        budget: &mut SealBudget,
        now: Time,
    ) -> Option<PathNumber> {
        self.numbers.take(path, budget, now)
    }

    /// The sequence number that the next source shard gets.
    pub fn next_seq(&self) -> Seq {
        self.seq
    }

    /// Path numbers taken so far: shards numbered.
    pub fn numbered(&self) -> u64 {
        self.numbers.taken()
    }

    /// A bit for each shard that holds exactly one whole frame whose own buffer has room for the
    /// headers and the tag.
    fn frames_in_place(&self, payload: usize) -> u64 {
        let mut cutter = Cutter::new(payload);
        let mut alone = 0u64;
        let mut begun = 0u64;
        for (frame, _) in &self.frames {
            let (shard, offset) = cutter.place(frame.len());
            let bit = 1u64 << shard;
            let is_first = offset == 0 && begun & bit == 0;
            let fits = FRAME_HEADER_LEN + frame.len() <= payload
                && frame.headroom() >= HEADERS_LEN
                && frame.tailroom() >= TAG_LEN;
            alone = if is_first && fits {
                alone | bit
            } else {
                alone & !bit
            };
            begun |= bit;
        }
        alone
    }
}

/// A frame that was not taken.
#[derive(Debug)]
pub enum Refused<B> {
    /// The aggregate is full: close it and offer the frame again.
    Full(B),
    /// The frame can never be sent.
    Dropped(B, DropReason),
}

/// Fills the shards of one aggregate, in order.
struct ShardWriter<'s, 'd, P: BufferPool, F> {
    stream: &'s mut StreamSender<P::Buffer>,
    departure: Departure<'d, P>,
    out: F,
    shard_count: u8,
    shard_id: u8,
    current: Option<P::Buffer>,
    first_frame: u16,
}

impl<P: BufferPool, F: FnMut(Unsealed<P::Buffer>)> ShardWriter<'_, '_, P, F> {
    /// Counts a frame and writes its header.
    fn frame_header(&mut self, len: usize, lane: Lane) -> [u8; FRAME_HEADER_LEN] {
        self.stream.stats.frames += 1;
        self.stream.stats.frame_bytes += len as u64;
        let lane_seq = &mut self.stream.lane_seqs[lane.index()];
        let header = FrameHeader {
            len: len as u16,
            lane,
            lane_seq: *lane_seq,
        };
        *lane_seq = lane_seq.next();
        header.to_bytes()
    }

    /// Makes a frame that is alone in its shard that shard.
    fn send_in_place(&mut self, mut frame: P::Buffer, lane: Lane) {
        let header = self.frame_header(frame.len(), lane);
        if let Some(room) = frame.prepend(FRAME_HEADER_LEN) {
            room.copy_from_slice(&header);
        }
        self.stream.stats.frames_in_place += 1;
        self.first_frame = 0;
        self.current = Some(frame);
        self.finish();
    }

    /// Copies a frame behind what the current shard holds, and into as many more as it needs.
    fn copy(
        &mut self,
        frame: &P::Buffer,
        lane: Lane,
        payload: usize,
        fresh: &mut ArrayVec<P::Buffer, SHARDS_MAX>,
    ) {
        let header = self.frame_header(frame.len(), lane);
        let mut rest = frame.data();
        let mut is_start = true;
        while is_start || !rest.is_empty() {
            // The counting pass has fetched a buffer for every shard that is not in place.
            let Some(mut shard) = self.current.take().or_else(|| fresh.pop()) else {
                return;
            };
            if is_start {
                if self.first_frame == NO_FRAME {
                    self.first_frame = shard.len() as u16;
                }
                if let Some(room) = shard.append(FRAME_HEADER_LEN) {
                    room.copy_from_slice(&header);
                }
                is_start = false;
            }
            let (part, later) = rest.split_at(rest.len().min(payload - shard.len()));
            if let Some(room) = shard.append(part.len()) {
                room.copy_from_slice(part);
            }
            rest = later;
            self.current = Some(shard);
            if !rest.is_empty() {
                self.finish();
            }
        }
    }

    /// Numbers the current shard and hands it over.
    fn finish(&mut self) {
        let Some(mut shard) = self.current.take() else {
            return;
        };
        let stream = &mut *self.stream;
        let path = usize::from(self.departure.path);
        let mut header = SourceHeader {
            repeat: false,
            shard_id: self.shard_id,
            shard_count: self.shard_count,
            seq: stream.seq,
            same_path: stream.sent_on[path],
            sent_at_us: self.departure.now.as_wire_us(),
            first_frame: core::mem::replace(&mut self.first_frame, NO_FRAME),
            payload_len: shard.len() as u16,
            crc32c: 0,
        };
        if stream.config.checksum {
            header.crc32c = header.checksum(shard.data());
        }
        stream.stats.shards += 1;
        stream.stats.payload_bytes += shard.len() as u64;
        stream.seq = stream.seq.plus(1);
        for (index, history) in stream.sent_on.iter_mut().enumerate() {
            *history = *history << 1 | u32::from(index == path);
        }
        self.shard_id += 1;
        let Some(room) = shard.prepend(SOURCE_HEADER_LEN) else {
            return;
        };
        room.copy_from_slice(&header.to_bytes());
        let number = stream.numbers.take(
            self.departure.path,
            self.departure.budget,
            self.departure.now,
        );
        if let Some(Ok(unsealed)) = number.map(|number| Unsealed::new(shard, number)) {
            (self.out)(unsealed);
        }
    }
}

#[cfg(test)]
mod tests;
