//! Lanes at the receiver: frames leave in order, or when nothing can fill what is missing.
//!
//! Held frames of all lanes share one arena of fixed size; each lane is a list in it, sorted by
//! lane sequence number.

use crate::lane::{CLASSES, LANES, Lane};
use crate::seq::{LaneSeq, Seq};

const NONE: u32 = u32::MAX;

/// Where complete frames go.
pub trait FrameSink<B> {
    /// Takes a frame; in the order of its lane, unless it is a straggler.
    fn frame(&mut self, frame: B);
}

/// Below which sequence number nothing is awaited any more, per class: the lowest open hole.
pub(super) type Gates = [Option<Seq>; CLASSES];

/// A complete frame and where it stands in its stream and lane.
pub(super) struct Complete<B> {
    pub frame: B,
    pub lane: Lane,
    pub lane_seq: LaneSeq,
    /// The shard in which it starts.
    pub seq: Seq,
}

#[derive(Clone, Copy)]
struct LaneState {
    /// The first frame that came; what was before it is unknown.
    first: LaneSeq,
    next: LaneSeq,
    /// Shard of the newest frame delivered.
    newest: Seq,
    started: bool,
    head: u32,
    tail: u32,
    held: u32,
}

struct Held<B> {
    frame: Option<B>,
    lane_seq: LaneSeq,
    seq: Seq,
    before: u32,
    after: u32,
}

/// What the lanes have done.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneStats {
    /// Frames delivered, stragglers included.
    pub delivered: u64,
    /// Frames that waited behind a hole.
    pub held: u64,
    /// Frames delivered after later ones of their lane.
    pub stragglers: u64,
    /// Frames that were passed over because nothing could fill their place any more.
    pub skipped: u64,
    /// Stragglers that had been skipped; the other skipped frames are lost. A straggler from before
    /// the first frame that ever came in its lane is not among them.
    pub recovered: u64,
    /// Most frames held at once.
    pub held_high_water: u64,
}

/// All lanes of one stream.
pub(super) struct Lanes<B> {
    lanes: Box<[LaneState; LANES]>,
    /// Which lanes hold frames, a bit each.
    holding: [u64; LANES / 64],
    arena: Vec<Held<B>>,
    free: u32,
    held: usize,
    held_per_lane_max: u32,
    stats: LaneStats,
}

impl<B> Lanes<B> {
    /// Room for `held_max` frames, a quarter of them in any one lane.
    pub(super) fn new(held_max: usize) -> Self {
        let held_max = held_max.max(4);
        let arena = (0..held_max as u32).map(|index| Held {
            frame: None,
            lane_seq: LaneSeq::default(),
            seq: Seq::default(),
            before: NONE,
            after: if index + 1 < held_max as u32 {
                index + 1
            } else {
                NONE
            },
        });
        Self {
            lanes: Box::new(
                [LaneState {
                    first: LaneSeq::default(),
                    next: LaneSeq::default(),
                    newest: Seq::default(),
                    started: false,
                    head: NONE,
                    tail: NONE,
                    held: 0,
                }; LANES],
            ),
            holding: [0; LANES / 64],
            arena: arena.collect(),
            free: 0,
            held: 0,
            held_per_lane_max: (held_max / 4) as u32,
            stats: LaneStats::default(),
        }
    }

    pub(super) fn stats(&self) -> LaneStats {
        self.stats
    }

    /// Frames held now.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// True if a frame with this number would not leave at once, whatever it waits for.
    pub(super) fn must_hold(&self, lane: Lane, lane_seq: LaneSeq) -> bool {
        let state = &self.lanes[lane.index()];
        state.started && lane_seq.distance_from(state.next) > 0
    }

    /// True if no further frame can be held in `lane`.
    pub(super) fn is_full(&self, lane: Lane) -> bool {
        self.free == NONE || self.lanes[lane.index()].held >= self.held_per_lane_max
    }

    /// Delivers a frame, or holds it behind a hole below it. The caller has made room.
    pub(super) fn accept(
        &mut self,
        complete: Complete<B>,
        gates: &Gates,
        out: &mut impl FrameSink<B>,
    ) {
        let Complete {
            frame,
            lane,
            lane_seq,
            seq,
        } = complete;
        let state = &mut self.lanes[lane.index()];
        if !state.started {
            state.started = true;
            state.first = lane_seq;
            state.next = lane_seq;
            state.newest = seq;
        }
        let ahead = lane_seq.distance_from(state.next);
        if ahead == 0 {
            state.next = lane_seq.next();
            state.newest = later(state.newest, seq);
            self.stats.delivered += 1;
            out.frame(frame);
            self.release(lane, gates, out);
        } else if ahead > 0 {
            self.hold(lane, frame, lane_seq, seq);
            self.release(lane, gates, out);
        } else if state.newest.is_before(seq) {
            // Newer than all that was delivered, yet numbered below: the numbering has moved on
            // by more than it can tell.
            self.release(lane, &[None; CLASSES], out);
            let state = &mut self.lanes[lane.index()];
            state.first = lane_seq;
            state.next = lane_seq.next();
            state.newest = seq;
            self.stats.delivered += 1;
            out.frame(frame);
        } else {
            self.stats.delivered += 1;
            self.stats.stragglers += 1;
            self.stats.recovered += u64::from(lane_seq.distance_from(state.first) >= 0);
            out.frame(frame);
        }
    }

    /// Delivers what a lane holds as far as no hole below it is open.
    fn release(&mut self, lane: Lane, gates: &Gates, out: &mut impl FrameSink<B>) {
        let gate = gates[lane.class().index()];
        let state = &mut self.lanes[lane.index()];
        while let Some(held) = self.arena.get_mut(state.head as usize) {
            let gap = held.lane_seq.distance_from(state.next);
            let is_awaited = gate.is_some_and(|gate| gate.is_before(held.seq));
            if gap > 0 && is_awaited {
                break;
            }
            let index = state.head;
            state.head = held.after;
            state.held -= 1;
            state.next = held.lane_seq.next();
            state.newest = later(state.newest, held.seq);
            self.stats.skipped += gap.max(0) as u64;
            self.stats.delivered += 1;
            let frame = held.frame.take();
            held.after = self.free;
            self.free = index;
            self.held -= 1;
            match self.arena.get_mut(state.head as usize) {
                Some(first) => first.before = NONE,
                None => {
                    state.tail = NONE;
                    self.holding[lane.index() / 64] &= !(1 << (lane.index() % 64));
                }
            }
            if let Some(frame) = frame {
                out.frame(frame);
            }
        }
    }

    /// Puts a frame into its lane's list: from the end, where it nearly always belongs.
    fn hold(&mut self, lane: Lane, frame: B, lane_seq: LaneSeq, seq: Seq) {
        let index = self.free;
        let Some(slot) = self.arena.get_mut(index as usize) else {
            debug_assert!(false, "the caller makes room");
            return;
        };
        self.free = slot.after;
        let state = &mut self.lanes[lane.index()];
        let mut before = state.tail;
        while let Some(other) = self.arena.get(before as usize) {
            if other.lane_seq.distance_from(lane_seq) < 0 {
                break;
            }
            before = other.before;
        }
        let after = match self.arena.get_mut(before as usize) {
            Some(predecessor) => core::mem::replace(&mut predecessor.after, index),
            None => core::mem::replace(&mut state.head, index),
        };
        match self.arena.get_mut(after as usize) {
            Some(successor) => successor.before = index,
            None => state.tail = index,
        }
        self.arena[index as usize] = Held {
            frame: Some(frame),
            lane_seq,
            seq,
            before,
            after,
        };
        state.held += 1;
        self.held += 1;
        self.holding[lane.index() / 64] |= 1 << (lane.index() % 64);
        self.stats.held += 1;
        self.stats.held_high_water = self.stats.held_high_water.max(self.held as u64);
    }

    /// Delivers from every lane that holds something what the gates let go.
    pub(super) fn release_all(&mut self, gates: &Gates, out: &mut impl FrameSink<B>) {
        for word in 0..self.holding.len() {
            let mut bits = self.holding[word];
            while bits != 0 {
                let lane = Lane((word * 64) as u8 + bits.trailing_zeros() as u8);
                bits &= bits - 1;
                self.release(lane, gates, out);
            }
        }
    }

    /// A new incarnation of the peer: delivers what is held and numbers lanes afresh.
    pub(super) fn reset(&mut self, out: &mut impl FrameSink<B>) {
        self.release_all(&[None; CLASSES], out);
        self.lanes.iter_mut().for_each(|lane| lane.started = false);
    }
}

fn later(a: Seq, b: Seq) -> Seq {
    if a.is_before(b) { b } else { a }
}
