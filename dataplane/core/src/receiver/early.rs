//! Early classification: what a shard tells about the one after it.
//!
//! A frame's header stands with its first bytes. So once that shard is open, lane and class of the
//! frame are known, and what of it the next shards carry, though they are missing. Bytes of a frame
//! that is not whole are never handed on: what is known early decides only what is waited for, by
//! whom, and how soon it is asked for.

use super::PredictiveBuffer;
use super::slots::{OpenHole, State};
use crate::buffer::Buffer;
use crate::lane::Class;
use crate::limits::SHARDS_MAX;
use crate::predict::Predictor;
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::frame::{FRAME_HEADER_LEN, FrameHeader};

/// A frame that goes on in shards that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFrame {
    class: Class,
    /// Its bytes in the shards to come.
    missing: usize,
    /// Bytes of a shard of its aggregate; the last may be shorter, none is longer.
    shard_len: usize,
    /// Shards of its aggregate that are still to come.
    shards: u32,
}

/// What is known of a missing shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlyClass {
    /// Of the frame that its payload begins with.
    pub class: Class,
    /// Whether that frame is all there is in it.
    pub is_all: bool,
}

impl EarlyClass {
    /// Whether somebody waits for it.
    pub(super) fn is_urgent(self) -> bool {
        self.class == Class::Interactive
    }
}

impl OpenFrame {
    /// What the `ahead`th shard from here carries of the frame.
    pub(super) fn in_shard(&self, ahead: u32) -> Option<EarlyClass> {
        let before = self
            .shard_len
            .saturating_mul((ahead as usize).saturating_sub(1));
        let is_in = (1..=self.shards).contains(&ahead) && before < self.missing;
        is_in.then(|| EarlyClass {
            class: self.class,
            is_all: self.missing - before >= self.shard_len,
        })
    }
}

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// The frame that goes on after the shard at `seq`, if that shard and those before it are there
    /// back to the frame's first bytes.
    pub(super) fn open_frame(&self, seq: Seq) -> Option<OpenFrame> {
        let last = self.placed(seq)?;
        let mut passed = 0;
        for back in 0..SHARDS_MAX as u32 {
            let at = seq.minus(back);
            let placed = self.placed(at)?;
            if u32::from(placed.shard_id) + back != u32::from(last.shard_id) {
                return None;
            }
            let payload = self.kept_payload(at)?;
            let Some(tail) = placed.open_tail else {
                // One that a frame only goes through belongs to what began before it.
                if placed.first_frame.is_some() {
                    return None;
                }
                passed += payload.len();
                continue;
            };
            let bytes = payload.get(usize::from(tail)..)?;
            let header = FrameHeader::parse(bytes)?;
            let there = bytes.len().saturating_sub(FRAME_HEADER_LEN) + passed;
            return Some(OpenFrame {
                class: header.lane.class(),
                missing: usize::from(header.len).saturating_sub(there),
                shard_len: payload.len(),
                shards: u32::from(last.shard_count.saturating_sub(last.shard_id + 1)),
            });
        }
        None
    }

    /// Tells the holes after a shard whose frame goes on what they are holes in: it came after they
    /// had been opened.
    pub(super) fn classify_after(&mut self, seq: Seq, now: Time) {
        let Some(frame) = self.open_frame(seq) else {
            return;
        };
        for ahead in 1..=frame.shards {
            let Some(early) = frame.in_shard(ahead) else {
                return;
            };
            if let Some(slot) = self.slots.get_mut(seq.plus(ahead))
                && let State::Hole(hole) = &mut slot.state
                && hole.early.is_none()
            {
                hole.classify(early, now);
                self.stats.holes_classified += 1;
            }
        }
    }
}

impl OpenHole {
    /// Nothing but a frame of one class is missing here: the other class need not wait.
    pub(super) fn classify(&mut self, early: EarlyClass, now: Time) {
        self.early = Some(early);
        if early.is_all {
            for class in Class::ALL {
                if class != early.class {
                    let release_at = &mut self.release_at[class.index()];
                    *release_at = (*release_at).min(now);
                }
            }
        }
    }
}
