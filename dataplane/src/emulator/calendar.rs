//! Packets held until they depart.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use shardgate_core::time::Time;

/// A packet and when it departs.
#[derive(Debug)]
pub(super) struct Held<B> {
    /// When.
    pub at: Time,
    /// Number of its arrival, from which reordering is seen.
    pub arrival: u64,
    /// Number of the entry: packets of one time depart in the order in which they were entered.
    entry: u64,
    /// The packet.
    pub frame: B,
}

impl<B> Held<B> {
    fn key(&self) -> (Time, u64) {
        (self.at, self.entry)
    }
}

impl<B> PartialEq for Held<B> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<B> Eq for Held<B> {}

impl<B> PartialOrd for Held<B> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<B> Ord for Held<B> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A bounded heap by departure. Without jitter departures come in order, and an entry costs one
/// comparison; it never allocates after it was made.
#[derive(Debug)]
pub(super) struct Calendar<B> {
    heap: BinaryHeap<Reverse<Held<B>>>,
    limit: usize,
    entries: u64,
}

impl<B> Calendar<B> {
    /// Room for `limit` packets.
    pub fn new(limit: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(limit),
            limit,
            entries: 0,
        }
    }

    /// Enters a packet, or gives it back if there is no room.
    pub fn enter(&mut self, at: Time, arrival: u64, frame: B) -> Result<(), B> {
        if self.heap.len() >= self.limit {
            return Err(frame);
        }
        self.entries += 1;
        self.heap.push(Reverse(Held {
            at,
            arrival,
            entry: self.entries,
            frame,
        }));
        Ok(())
    }

    /// The packet that departs next, if it is due.
    pub fn take_due(&mut self, now: Time) -> Option<Held<B>> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(held)| held)
    }

    /// When the next packet departs.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(held)| held.at)
    }

    /// Packets held.
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departs_by_time_then_by_entry() {
        let mut calendar = Calendar::new(5);
        for (at, frame) in [(30, 'd'), (10, 'a'), (20, 'b'), (20, 'c'), (40, 'e')] {
            calendar.enter(Time(at), 0, frame).expect("room");
        }
        assert_eq!(calendar.enter(Time(0), 0, 'x'), Err('x'), "full");
        assert_eq!(calendar.next(), Some(Time(10)));
        assert!(calendar.take_due(Time(9)).is_none());
        let mut out = String::new();
        while let Some(held) = calendar.take_due(Time(30)) {
            out.push(held.frame);
        }
        assert_eq!((out.as_str(), calendar.len()), ("abcd", 1));
    }
}
