//! A channel played to the core's predictive buffer, with a sender that answers its requests.
//!
//! What opens holes, asks, holds and releases is the core itself; only the sender's side of asking
//! again is modelled, the same for all predictors. A request takes the path's return delay; the
//! answer shares the fate of the first transmission that leaves next on the same path, so that
//! repeats meet the losses of their moment and every policy meets the same ones.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use shardgate_core::buffer::{Buffer, HeapBuffer, HeapPool};
use shardgate_core::estimate::Rtt;
use shardgate_core::lane::{BULK_LANES, CLASSES, Lane};
use shardgate_core::limits::{HEADROOM, PATHS_MAX};
use shardgate_core::predict::{HoldBounds, Predictor, RoundTrip};
use shardgate_core::receiver::{FrameSink, PredictiveBuffer, ReceiverConfig, ReceiverStats};
use shardgate_core::seal::{Aead, Opened, Received};
use shardgate_core::seq::{LaneSeq, Seq};
use shardgate_core::time::Time;
use shardgate_core::wire::feedback::{Block, BlockWriter, Blocks};
use shardgate_core::wire::frame::FrameHeader;
use shardgate_core::wire::header::{ClearHeader, Kind, NONCE_LEN, TAG_LEN};
use shardgate_core::wire::shard::SourceHeader;

use super::channel::{Channel, NEVER};
use super::watch::{Scores, Watched};

/// How long an interactive frame waits behind a hole: the configuration's default.
const INTERACTIVE_HOLD: Duration = Duration::from_millis(5);
/// Frames held out of order: the configuration's default.
const HELD_FRAMES: usize = 16_384;
/// Frames are in these lanes in turn, three of four in bulk.
const LANES: [Lane; 8] = [
    Lane(0),
    Lane(1),
    Lane(BULK_LANES),
    Lane(2),
    Lane(3),
    Lane(4),
    Lane(BULK_LANES + 1),
    Lane(5),
];
/// Bytes of a frame: an Ethernet header and the shard's number.
const FRAME_LEN: usize = 18;
/// A round trip is measured so often: with each report.
const MEASURED_EVERY: Duration = Duration::from_millis(10);
/// The clock moves on by this at least, so that nothing stands still.
const TICK: Duration = Duration::from_micros(1);
/// What was lost in this time after a repeat left is met by it.
const SAME_MOMENT: Duration = Duration::from_millis(20);
/// Room of a feedback message.
const FEEDBACK_LEN: usize = 4_096;

/// What a run over a channel gave.
pub(super) struct Run {
    /// When each shard was asked for first, in nanoseconds, or [`NEVER`].
    pub asked: Vec<u64>,
    /// When each was there, whichever way it came, or [`NEVER`].
    pub usable: Vec<u64>,
    /// Repeats that were sent.
    pub repeats: u64,
    /// How long frames waited for others of their lane, per class, in nanoseconds; those that did
    /// not wait are only counted.
    pub waits: [Vec<u32>; CLASSES],
    /// Frames let go, per class.
    pub frames: [u64; CLASSES],
    pub stats: ReceiverStats,
    pub scores: Scores,
    /// The smoothed round trip from a time on, both in nanoseconds.
    rounds: Vec<(u64, u64)>,
}

impl Run {
    /// The smoothed round trip at a time, in nanoseconds; zero before it was measured.
    pub(super) fn round_at(&self, nanos: u64) -> u64 {
        let after = self.rounds.partition_point(|&(at, _)| at <= nanos);
        let before = after
            .checked_sub(1)
            .and_then(|index| self.rounds.get(index));
        before.map_or(0, |&(_, round)| round)
    }
}

/// Opens everything: what is played was never sealed.
struct NoCipher;

impl Aead for NoCipher {
    fn seal(&self, _: &[u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        Some([0; TAG_LEN])
    }

    fn open(&self, _: &[u8; NONCE_LEN], _: &[u8], _: &mut [u8], _: &[u8; TAG_LEN]) -> bool {
        true
    }
}

/// Notes how long each frame waited.
struct Waits<'a> {
    now: Time,
    usable: &'a [u64],
    waits: &'a mut [Vec<u32>; CLASSES],
    frames: &'a mut [u64; CLASSES],
}

impl FrameSink<HeapBuffer> for Waits<'_> {
    fn frame(&mut self, frame: HeapBuffer) {
        let Some(number) = frame.data().last_chunk().copied().map(u32::from_be_bytes) else {
            return;
        };
        let class = lane_of(number).class().index();
        self.frames[class] += 1;
        let usable = self.usable.get(number as usize).copied().unwrap_or(NEVER);
        let wait = self.now.as_nanos().saturating_sub(usable);
        if wait > 0 {
            self.waits[class].push(u32::try_from(wait).unwrap_or(u32::MAX));
        }
    }
}

fn lane_of(number: u32) -> Lane {
    LANES[number as usize % LANES.len()]
}

/// A repeat on its way: when it arrives, which shard, its path number, when it was sent.
type Repeat = Reverse<(Time, u32, u64, Time)>;

struct Replay<'a, P> {
    channel: &'a Channel,
    buffer: PredictiveBuffer<HeapBuffer, Watched<P>>,
    pool: HeapPool,
    run: Run,
    repeats: BinaryHeap<Repeat>,
    /// Path numbers: how far they were given, each shard's, and each path's next.
    numbered: usize,
    numbers: Vec<u32>,
    next_number: [u32; PATHS_MAX],
    /// When each shard was repeated last, and how often; only of those that were.
    answered: HashMap<u32, (Time, u8)>,
    rtt: Rtt,
    measured_at: Option<Time>,
    round: Duration,
}

/// Plays all of `channel` to `predictor`.
pub(super) fn replay<P: Predictor>(channel: &Channel, predictor: P) -> Run {
    let scores = Rc::new(RefCell::new(Scores::default()));
    let config = ReceiverConfig {
        paths: channel.paths(),
        ordered: true,
        hold_bounds: HoldBounds::new(INTERACTIVE_HOLD, None),
        held_frames_max: HELD_FRAMES,
        kept_shards_max: 64,
        checksum: false,
        asks: true,
        passes_on: false,
        rebuilt_payload_max: 0,
    };
    let count = channel.shards().len();
    let mut replay = Replay {
        channel,
        buffer: PredictiveBuffer::new(config, Watched::new(predictor, Rc::clone(&scores))),
        pool: HeapPool::new(usize::MAX, 64),
        run: Run {
            asked: vec![NEVER; count],
            usable: vec![NEVER; count],
            repeats: 0,
            waits: Default::default(),
            frames: [0; CLASSES],
            stats: ReceiverStats::default(),
            scores: Scores::default(),
            rounds: Vec::new(),
        },
        repeats: BinaryHeap::new(),
        numbered: 0,
        numbers: vec![0; count],
        next_number: [0; PATHS_MAX],
        answered: Default::default(),
        rtt: Rtt::new(),
        measured_at: None,
        round: Duration::ZERO,
    };
    replay.play();
    replay.run.stats = replay.buffer.stats();
    replay.run.scores = *scores.borrow();
    replay.run
}

impl<P: Predictor> Replay<'_, P> {
    fn play(&mut self) {
        let mut arrivals = self.channel.arrivals().iter().copied().peekable();
        let mut now = Time::ZERO;
        loop {
            let original = arrivals
                .peek()
                .and_then(|&index| self.channel.shards().get(index as usize)?.received);
            let repeat = self.repeats.peek().map(|Reverse((at, ..))| *at);
            let arrival = original.into_iter().chain(repeat).min();
            let wake = self.buffer.poll_timeout().map(|at| at.max(now + TICK));
            match (arrival, wake) {
                (None, None) => break,
                (Some(at), wake) if wake.is_none_or(|wake| at <= wake) => {
                    now = now.max(at);
                    if original == Some(at) {
                        let index = arrivals.next().unwrap_or_default();
                        self.measure(index, now);
                        self.number_up_to(index as usize + 1);
                        let number = u64::from(self.numbers[index as usize]);
                        let sent = self.channel.shards()[index as usize].sent;
                        self.accept(self.shard(index, false, number, sent), index, now);
                    } else if let Some(Reverse((_, index, number, sent))) = self.repeats.pop() {
                        self.accept(self.shard(index, true, number, sent), index, now);
                    }
                }
                (_, wake) => now = wake.unwrap_or(now),
            }
            self.poll(now);
            self.feedback(now);
        }
    }

    /// Gives path numbers to what was sent first, in that order.
    fn number_up_to(&mut self, end: usize) {
        for index in self.numbered..end {
            let next = &mut self.next_number[usize::from(self.channel.shards()[index].path)];
            self.numbers[index] = *next;
            *next += 1;
        }
        self.numbered = self.numbered.max(end);
    }

    /// The round trip, as reports and their echoes measure it on the first path.
    fn measure(&mut self, index: u32, now: Time) {
        let shard = self.channel.shards()[index as usize];
        let is_due = self
            .measured_at
            .is_none_or(|at| now.since(at) >= MEASURED_EVERY);
        if shard.path != 0 || !is_due {
            return;
        }
        self.measured_at = Some(now);
        let round_trip = now.since(shard.sent) + self.channel.return_delay(shard.path);
        self.rtt.sample(round_trip, now);
        let (smoothed, variance) = (self.rtt.smoothed(), self.rtt.variance());
        let round_trip =
            smoothed
                .zip(variance)
                .zip(self.rtt.min(now))
                .map(|((smoothed, variance), minimum)| RoundTrip {
                    smoothed,
                    variance,
                    minimum,
                });
        self.round = smoothed.unwrap_or_default();
        let nanos = u64::try_from(self.round.as_nanos()).unwrap_or(u64::MAX);
        self.run.rounds.push((now.as_nanos(), nanos));
        self.buffer.set_round_trip(round_trip);
    }

    fn accept(&mut self, shard: Option<Opened<HeapBuffer>>, index: u32, now: Time) {
        let usable = &mut self.run.usable[index as usize];
        *usable = (*usable).min(now.as_nanos());
        let Some(shard) = shard else {
            return;
        };
        let mut sink = Waits {
            now,
            usable: &self.run.usable,
            waits: &mut self.run.waits,
            frames: &mut self.run.frames,
        };
        self.buffer.accept(shard, 1, now, &mut self.pool, &mut sink);
    }

    fn poll(&mut self, now: Time) {
        let mut sink = Waits {
            now,
            usable: &self.run.usable,
            waits: &mut self.run.waits,
            frames: &mut self.run.frames,
        };
        self.buffer.poll(now, &mut sink);
    }

    /// A shard with one frame in it, opened.
    fn shard(
        &self,
        index: u32,
        repeat: bool,
        path_number: u64,
        sent: Time,
    ) -> Option<Opened<HeapBuffer>> {
        let fate = self.channel.shards()[index as usize];
        let mut payload = [0; 6 + FRAME_LEN];
        let (header, frame) = payload.split_at_mut(6);
        // Every lane comes up as often in a round of them.
        let lane_seq = index / LANES.len() as u32;
        header.copy_from_slice(
            &FrameHeader {
                len: FRAME_LEN as u16,
                lane: lane_of(index),
                lane_seq: LaneSeq::new(lane_seq),
            }
            .to_bytes(),
        );
        frame[FRAME_LEN - 4..].copy_from_slice(&index.to_be_bytes());
        let header = SourceHeader {
            repeat,
            shard_id: 0,
            shard_count: 1,
            seq: Seq(index),
            same_path: self.channel.same_path()[index as usize],
            sent_at_us: sent.as_wire_us(),
            first_frame: 0,
            payload_len: payload.len() as u16,
            crc32c: 0,
        };
        let clear = ClearHeader {
            kind: Kind::Data,
            stream: 0,
            path: fate.path,
            receiver_index: 0,
            path_number,
        };
        let mut buffer = HeapBuffer::new(HEADROOM, 96);
        let parts: [&[u8]; 4] = [
            &clear.to_bytes(),
            &header.to_bytes(),
            &payload,
            &[0; TAG_LEN],
        ];
        for part in parts {
            buffer.append(part.len())?.copy_from_slice(part);
        }
        let (received, _) = Received::new(buffer).ok()?;
        received.open(&NoCipher).ok()
    }

    /// Takes what the receiver has to tell, and has the sender answer it.
    fn feedback(&mut self, now: Time) {
        while self.buffer.feedback_at().is_some_and(|at| at <= now) {
            let mut message = HeapBuffer::new(0, FEEDBACK_LEN + TAG_LEN);
            let mut writer = BlockWriter::new(&mut message, FEEDBACK_LEN);
            if !self.buffer.write_feedback(&mut writer, now) {
                return;
            }
            for block in Blocks::new(message.data()) {
                if let Block::Wanted(wanted) = block {
                    for (place, seq) in wanted.iter().enumerate() {
                        self.answer(seq.0, place, now);
                    }
                }
            }
        }
    }

    /// A request is on its way since `now`: its answer, as the core's sender gives it. What was
    /// answered within half a round trip is under way; what is asked for once more was lost twice,
    /// and two copies go.
    fn answer(&mut self, index: u32, place: usize, now: Time) {
        let Some(&shard) = self.channel.shards().get(index as usize) else {
            return;
        };
        let asked = &mut self.run.asked[index as usize];
        *asked = (*asked).min(now.as_nanos());
        let at = now + self.channel.return_delay(shard.path);
        let before = self.answered.get(&index).copied();
        if before.is_some_and(|(last, _)| at.since(last) < self.round / 2) {
            return;
        }
        let times = before.map_or(0, |(_, times)| times).saturating_add(1);
        self.answered.insert(index, (at, times));
        for copy in 0..1 + usize::from(times > 1) {
            self.repeat(index, place + copy, at);
        }
    }

    /// Sends a shard again at `at`, the `place`th of those that go then.
    fn repeat(&mut self, index: u32, place: usize, at: Time) {
        let shards = self.channel.shards();
        let path = shards[index as usize].path;
        let next = shards.partition_point(|shard| shard.sent < at);
        self.number_up_to(next.max(self.numbered));
        self.run.repeats += 1;
        let number = &mut self.next_number[usize::from(path)];
        let path_number = u64::from(*number);
        *number += 1;
        let model = shards[next..]
            .iter()
            .filter(|shard| shard.path == path)
            .nth(place)
            .filter(|model| model.sent.since(at) < SAME_MOMENT);
        let delay = match model {
            Some(model) => match model.delay() {
                Some(delay) => delay,
                None => return,
            },
            // Nothing else leaves then: it meets what the last one met.
            None => shards[..next]
                .iter()
                .rev()
                .filter(|shard| shard.path == path)
                .find_map(|shard| shard.delay())
                .unwrap_or_default(),
        };
        self.repeats
            .push(Reverse((at + delay, index, path_number, at)));
    }
}
