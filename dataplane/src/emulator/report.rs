//! What the emulator did, as JSON at its end.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct EmulatorReport {
    /// Seed of both directions.
    pub seed: u64,
    /// How long it ran, seconds.
    pub duration_s: f64,
    /// Looks at the queues.
    pub loops: u64,
    /// Mbufs in the pool.
    pub mbufs: usize,
    /// Frames that arrived at the left port.
    pub left_to_right: DirectionReport,
    /// Frames that arrived at the right port.
    pub right_to_left: DirectionReport,
}

/// One direction, in frames. Nothing vanishes: `received + duplicated` is `sent` and all of
/// `lost`, the four `_drops` but the driver's, and `held_at_end`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DirectionReport {
    /// Taken from the port.
    pub received: u64,
    /// Given to the other port, duplicates included.
    pub sent: u64,
    /// Lost by the model.
    pub lost: u64,
    /// Dropped at the tail of the model's queue.
    pub queue_drops: u64,
    /// Longer than the path's MTU.
    pub mtu_drops: u64,
    /// Copies for which there was no memory: more in flight than the pool was sized for.
    pub no_buffer_drops: u64,
    /// Due, but the tx queue took nothing for 10 ms.
    pub tx_full_drops: u64,
    /// Still held when the emulator was stopped.
    pub held_at_end: u64,
    /// Frames for which the model made a second copy.
    pub duplicated: u64,
    /// Copies with flipped bits.
    pub corrupted: u64,
    /// Copies sent the longer way by `reorder`.
    pub held_back: u64,
    /// Sent after a frame that had arrived later, for whatever reason.
    pub reordered: u64,
    /// Most frames held at once.
    pub held_max: u64,
    /// The receiving port's driver dropped these before the emulator saw them: its ring was full.
    pub rx_missed: u64,
    /// The same for want of an mbuf, or of one large enough.
    pub rx_no_mbuf: u64,
    /// The sending port's driver took these and could not send them.
    pub tx_errors: u64,
    /// How long after their time frames were given to the port.
    pub lateness_us: Lateness,
}

/// A distribution in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Lateness {
    /// Half of all frames are earlier.
    pub p50: f64,
    /// 99 % of all frames are earlier.
    pub p99: f64,
    /// The latest.
    pub max: f64,
}

impl Lateness {
    /// From a histogram of nanoseconds; zeros if it is empty.
    pub(super) fn of(nanoseconds: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self {
            p50: us(nanoseconds.value_at_quantile(0.5)),
            p99: us(nanoseconds.value_at_quantile(0.99)),
            max: us(nanoseconds.max()),
        }
    }
}
