//! What arrives, for the judge of predictors: from the lcores to the control thread, without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use shardgate_core::buffer::Buffer;
use shardgate_core::predict::RoundTrip;
use shardgate_core::seal::Opened;
use shardgate_core::time::Time;
use shardgate_core::wire::header::ClearHeader;
use shardgate_core::wire::shard::{RepairHeader, SourceHeader, is_repair};
use shardgate_sim::predict::trace::record::{Arrival, What};

/// Arrivals that wait for the control thread, which comes by each millisecond: 0.3 s at 200,000 a
/// second.
const WAITING_MAX: usize = 1 << 16;

/// What is to be recorded of an opened shard; nothing of a malformed one. Reads its header, which
/// accepting it reads again: a few nanoseconds, and only where something is recorded.
pub fn arrival<B: Buffer>(
    opened: &Opened<B>,
    header: ClearHeader,
    received_at: Time,
    round_trip: Option<RoundTrip>,
) -> Option<Arrival> {
    let (sent_us, what) = if is_repair(opened.plaintext())? {
        let (header, _) = RepairHeader::parse(opened.plaintext()).ok()?;
        (header.sent_at_us, What::Repair)
    } else {
        let (header, _) = SourceHeader::parse(opened.plaintext()).ok()?;
        let what = if header.repeat {
            What::Repeat
        } else {
            What::First
        };
        (header.sent_at_us, what)
    };
    let tenths = round_trip.map_or(0, |rtt| rtt.smoothed.as_micros() / 100);
    Some(Arrival {
        number: header.path_number as u32,
        sent_us,
        received_us: received_at.as_wire_us(),
        round_trip: u16::try_from(tenths).unwrap_or(u16::MAX),
        path: header.path,
        stream: header.stream,
        what,
    })
}

/// The way from the lcores to the control thread. What finds it full is counted and forgotten.
#[derive(Debug)]
pub struct Recorder {
    waiting: ArrayQueue<Arrival>,
    missed: AtomicU64,
    is_over: AtomicBool,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            waiting: ArrayQueue::new(WAITING_MAX),
            missed: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }
}

impl Recorder {
    /// Notes an arrival, from any lcore; never waits.
    #[inline]
    pub fn note(&self, arrival: Arrival) {
        if !self.is_over.load(Ordering::Relaxed) && self.waiting.push(arrival).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next arrival to be written.
    pub fn take(&self) -> Option<Arrival> {
        self.waiting.pop()
    }

    /// Arrivals that found no room.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Nothing more is wanted.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVAL: Arrival = Arrival {
        number: 1,
        sent_us: 2,
        received_us: 3,
        round_trip: 4,
        path: 0,
        stream: 0,
        what: What::First,
    };

    #[test]
    fn what_finds_no_room_is_counted_and_an_end_is_one() {
        let recorder = Recorder::default();
        for number in 0..WAITING_MAX as u32 + 5 {
            recorder.note(Arrival { number, ..ARRIVAL });
        }
        assert_eq!(recorder.missed(), 5);
        assert_eq!(recorder.take().map(|arrival| arrival.number), Some(0));
        recorder.end();
        recorder.note(ARRIVAL);
        let left = std::iter::from_fn(|| recorder.take()).count();
        assert_eq!((left, recorder.missed()), (WAITING_MAX - 1, 5));
    }
}
