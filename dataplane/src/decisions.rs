//! Changes of plans, on their way from the lcores to the control thread, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use shardgate_core::plan::{Decision, Decisions};

/// Decisions that wait for the control thread, which comes by each millisecond. What finds no room
/// stays where it was made, and comes with the next.
const WAITING_MAX: usize = 256;

/// A change of the plan of a stream that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The peer that the stream goes to, by index.
    pub peer: u16,
    /// The stream.
    pub stream: u8,
    /// The path that it takes.
    pub path: u8,
    /// The how manieth of the stream it is, from 0.
    pub number: u64,
    /// When, from what, to what, and by which inputs.
    pub decision: Decision,
}

/// The way from the lcores to the control thread.
#[derive(Debug)]
pub struct DecisionQueue {
    waiting: ArrayQueue<Decided>,
    missed: AtomicU64,
}

impl Default for DecisionQueue {
    fn default() -> Self {
        Self {
            waiting: ArrayQueue::new(WAITING_MAX),
            missed: AtomicU64::new(0),
        }
    }
}

impl DecisionQueue {
    /// The next decision; those of one stream come in the order they were made.
    pub fn take(&self) -> Option<Decided> {
        self.waiting.pop()
    }

    /// Decisions that nobody will see: their stream made too many before there was room.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// How far the decisions of a stream were handed over.
#[derive(Clone, Copy, Debug)]
pub struct HandOver {
    peer: u16,
    stream: u8,
    path: u8,
    next: u64,
}

impl HandOver {
    /// Nothing of this stream has been handed over yet.
    pub fn new(peer: u16, stream: u8, path: u8) -> Self {
        Self {
            peer,
            stream,
            path,
            next: 0,
        }
    }

    /// Hands over what was decided since, as far as there is room; never waits. What is left after the
    /// `is_last` time is missed.
    pub fn hand_over(&mut self, decisions: &Decisions, queue: &DecisionQueue, is_last: bool) {
        for (number, &decision) in decisions.since(self.next) {
            let decided = Decided {
                peer: self.peer,
                stream: self.stream,
                path: self.path,
                number,
                decision,
            };
            if queue.waiting.push(decided).is_err() {
                break;
            }
            self.skip_to(number, queue);
            self.next = number + 1;
        }
        if is_last {
            self.skip_to(decisions.count(), queue);
        }
    }

    fn skip_to(&mut self, number: u64, queue: &DecisionQueue) {
        let missed = number.saturating_sub(self.next);
        if missed > 0 {
            queue.missed.fetch_add(missed, Ordering::Relaxed);
            self.next = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use shardgate_core::plan::{DECISIONS_KEPT, Inputs, State, decide};
    use shardgate_core::time::Time;

    use super::*;

    fn note(decisions: &mut Decisions, count: u64) {
        for _ in 0..count {
            let (before, inputs, at) = (State::default(), Inputs::default(), Time(7));
            let plan = decide(&before, &inputs, at).plan;
            decisions.note(Decision {
                at,
                before,
                inputs,
                plan,
            });
        }
    }

    fn numbers(queue: &DecisionQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.take())
            .map(|decided| decided.number)
            .collect()
    }

    #[test]
    fn each_decision_is_handed_over_once_and_what_is_lost_is_counted() {
        let (queue, mut decisions) = (DecisionQueue::default(), Decisions::default());
        let mut stream = HandOver::new(3, 1, 0);
        stream.hand_over(&decisions, &queue, false);
        note(&mut decisions, 2);
        stream.hand_over(&decisions, &queue, false);
        stream.hand_over(&decisions, &queue, false);
        let first = queue.take().unwrap();
        assert_eq!((first.peer, first.stream, first.number), (3, 1, 0));
        assert_eq!(first.decision.replay(), first.decision.plan);
        assert_eq!(numbers(&queue), [1]);
        // More than the stream keeps, before anybody looks.
        note(&mut decisions, DECISIONS_KEPT as u64 + 5);
        stream.hand_over(&decisions, &queue, false);
        assert_eq!(queue.missed(), 5);
        let expected: Vec<_> = (7..7 + DECISIONS_KEPT as u64).collect();
        assert_eq!(numbers(&queue), expected);
    }

    #[test]
    fn what_finds_no_room_comes_later() {
        let queue = DecisionQueue::default();
        let mut decisions = Decisions::default();
        note(&mut decisions, 60);
        let mut streams: Vec<_> = (0..5).map(|n| HandOver::new(n, 0, 0)).collect();
        for stream in &mut streams {
            stream.hand_over(&decisions, &queue, false);
        }
        let (seen, left) = (WAITING_MAX, 5 * 60 - WAITING_MAX);
        assert_eq!(numbers(&queue).len(), seen);
        assert_eq!(queue.missed(), 0, "it is still there");
        streams[4].hand_over(&decisions, &queue, false);
        assert_eq!(numbers(&queue).len(), left);
        // At the end there is no later.
        note(&mut decisions, 4);
        (0..WAITING_MAX).for_each(|_| {
            let decision = *decisions.since(0).next().unwrap().1;
            let filler = Decided {
                peer: 0,
                stream: 0,
                path: 0,
                number: 0,
                decision,
            };
            queue.waiting.push(filler).unwrap();
        });
        streams[4].hand_over(&decisions, &queue, true);
        streams[4].hand_over(&decisions, &queue, true);
        assert_eq!(queue.missed(), 4);
    }
}
