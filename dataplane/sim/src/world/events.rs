//! What will happen, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use shardgate_core::time::Time;

/// A heap of events; those of one instant come in the order in which they were scheduled, so a
/// run depends on nothing but its inputs.
#[derive(Debug)]
pub(super) struct EventQueue<E> {
    heap: BinaryHeap<Scheduled<E>>,
    next: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> EventQueue<E> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            next: 0,
        }
    }

    pub(super) fn schedule(&mut self, at: Time, event: E) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Scheduled { at, number, event });
    }

    /// The next event if it is not later than `until`.
    pub(super) fn pop_until(&mut self, until: Time) -> Option<(Time, E)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|next| (next.at, next.event))
    }
}

impl<E> Ord for Scheduled<E> {
    /// Reversed: the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Scheduled<E> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a stable sort.
        #[test]
        fn by_time_and_then_by_turn(times in prop::collection::vec(0u64..20, 0..200), until in 0u64..25) {
            let mut queue = EventQueue::new();
            for (turn, &at) in times.iter().enumerate() {
                queue.schedule(Time(at), turn);
            }
            let mut expected: Vec<_> = times.iter().copied().enumerate().map(|(turn, at)| (Time(at), turn)).collect();
            expected.retain(|(at, _)| at.as_nanos() <= until);
            expected.sort_by_key(|(at, _)| *at);
            let got: Vec<_> = std::iter::from_fn(|| queue.pop_until(Time(until))).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
