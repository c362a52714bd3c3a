//! What is to be done about holes, and when.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::limits::AGENDA_MAX;
use crate::seq::Seq;
use crate::time::Time;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// To ask for the shard, the so-manieth time.
    Ask(u8),
    /// To believe that its first transmission is lost.
    Verdict,
}

/// The deadlines of all holes, soonest first. Bounded: what finds it full has none.
pub(super) struct Agenda(BinaryHeap<Reverse<(Time, u32, Deadline)>>);

impl Agenda {
    pub(super) fn new() -> Self {
        Self(BinaryHeap::with_capacity(AGENDA_MAX))
    }

    /// Adds a deadline; false if there is no room.
    pub(super) fn add(&mut self, at: Time, seq: Seq, what: Deadline) -> bool {
        let has_room = self.0.len() < AGENDA_MAX;
        if has_room {
            self.0.push(Reverse((at, seq.0, what)));
        }
        has_room
    }

    /// Takes the next deadline that is not later than `now`.
    pub(super) fn next_due(&mut self, now: Time) -> Option<(Seq, Deadline)> {
        if self.next_at()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, seq, what))| (Seq(seq), what))
    }

    /// When the next deadline is.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_are_bounded() {
        let mut agenda = Agenda::new();
        for at in [5, 3, 4] {
            assert!(agenda.add(Time(at), Seq(at as u32), Deadline::Verdict));
        }
        assert_eq!(agenda.next_at(), Some(Time(3)));
        assert_eq!(agenda.next_due(Time(2)), None);
        assert_eq!(agenda.next_due(Time(4)), Some((Seq(3), Deadline::Verdict)));
        assert_eq!(agenda.next_due(Time(4)), Some((Seq(4), Deadline::Verdict)));
        assert_eq!(agenda.next_due(Time(4)), None);
        let taken =
            (0..AGENDA_MAX as u64 + 9).filter(|at| agenda.add(Time(*at), Seq(0), Deadline::Ask(1)));
        assert_eq!(taken.count(), AGENDA_MAX - 1);
    }
}
