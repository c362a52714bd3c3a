//! Holes: which missing shards are known to be missing, and until when they hold frames.
//!
//! A hole opens only on evidence, holds frames of each class for as long as the predictor says, and
//! ends filled or given up. Per class only the lowest open hole matters, the *gate*.

use super::slots::{OpenHole, State};
use super::{FrameSink, PredictiveBuffer};
use crate::buffer::Buffer;
use crate::lane::Class;
use crate::limits::UNIT_GRACE;
use crate::predict::{Hole, Outcome, Predictor};
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::shard::SourceHeader;

/// How many sequence numbers a shard's `same_path` speaks of.
const SAME_PATH_BITS: u32 = u32::BITS;

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// Claims the slots of `missing` shards after `newest`, as holes where there is evidence: the
    /// shard that just came says which of the last 32 were first sent on its own path, and is
    /// itself evidence for its own aggregate. What lies further back than its word reaches is a
    /// hole if all it speaks of went the same way.
    pub(super) fn open_gap(
        &mut self,
        newest: Seq,
        missing: u32,
        header: &SourceHeader,
        path: u8,
        now: Time,
    ) {
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
    pub(super) fn attribute(&mut self, header: &SourceHeader, path: u8, now: Time) {
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

    pub(super) fn fill(&mut self, hole: &OpenHole, now: Time) {
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
    pub(super) fn advance_gates(&mut self, now: Time, sink: &mut impl FrameSink<B>) {
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
}
