//! What a decision is made from.

use core::time::Duration;

use super::RepairMode;

/// A measured figure, and what it rests on: unknown is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figure {
    /// The figure, in the unit that its name says.
    pub value: u64,
    /// How many measurements it rests on; without any it is unknown.
    pub count: u64,
    /// How long ago the last of them was, in microseconds.
    pub age_us: u64,
}

impl Figure {
    /// A figure nobody has measured.
    pub const UNKNOWN: Figure = Figure {
        value: 0,
        count: 0,
        age_us: 0,
    };

    /// A figure that rests on so many measurements, the last of them so long ago; unknown if it has no
    /// value, no measurement or no age.
    pub fn new(value: Option<u64>, count: u64, age: Option<Duration>) -> Self {
        match (value, age) {
            (Some(value), Some(age)) if count > 0 => Self {
                value,
                count,
                age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
            },
            _ => Self::UNKNOWN,
        }
    }

    /// The figure, if it is known.
    pub fn known(&self) -> Option<u64> {
        (self.count > 0).then_some(self.value)
    }

    /// The figure, if it was measured within so long.
    pub fn within(&self, age: Duration) -> Option<u64> {
        self.known()
            .filter(|_| u128::from(self.age_us) <= age.as_micros())
    }
}

/// What configuration, path and peer allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How the stream is repaired.
    pub repair: RepairMode,
    /// Whether what the peer asks for is sent again.
    pub asks: bool,
    /// Most payload of a shard that the path carries, in bytes.
    pub payload_max: u16,
    /// Most source shards of a window that the peer can decode.
    pub window_max: u16,
    /// Most shards of an aggregate.
    pub shards_max: u8,
}

/// What is known of a path, and of this machine. Whole numbers, so that a record of them is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// What is allowed.
    pub limits: Limits,
    /// Smoothed round trip, in microseconds.
    pub round_trip_us: Figure,
    /// Shortest round trip of the last ten seconds, in microseconds.
    pub round_trip_min_us: Figure,
    /// Share of shards lost, full queues included, in millionths.
    pub loss_ppm: Figure,
    /// Share of shards lost that no full queue explains, in millionths.
    pub radio_loss_ppm: Figure,
    /// Mean run of those, in thousandths.
    pub burst_milli: Figure,
    /// Mean run of the last few, in thousandths.
    pub recent_burst_milli: Figure,
    /// Such runs a second, in thousandths.
    pub events_milli_per_s: Figure,
    /// How long ago the last of them was seen, in microseconds.
    pub since_loss_us: Figure,
    /// Bytes a second that arrive at the peer, at best, lately.
    pub delivery_bytes_per_s: Figure,
    /// Queueing delay, in microseconds.
    pub queue_us: Figure,
    /// Share of their time for which the crypto units are busy, in thousandths.
    pub crypto_permille: Figure,
    /// Reports taken so far.
    pub reports: u64,
    /// Transmissions since the last report.
    pub unanswered: u64,
    /// How long ago the first of them was sent, in microseconds; 0 without any.
    pub unanswered_us: u64,
    /// Whether others hold the bottleneck's queue.
    pub is_competing: bool,
}
