//! What the emulator did, as JSON at its end.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct EmulatorReport {
    /// Seed of both directions.
    pub seed: u64,
    /// When it started to carry, seconds since the Unix epoch: what the windows of a queue count
    /// from.
    pub started_unix_s: f64,
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
    /// The bottleneck's queue; `null` if the path has no rate, and so no queue.
    pub queue: Option<QueueReport>,
}

/// The queue of one direction, sampled at equal distances of time. A window's number times
/// `window_ms` is when it begins; the last one may be shorter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueueReport {
    /// Time between two samples.
    pub sample_ms: f64,
    /// Samples taken.
    pub samples: u64,
    /// Frames that wait, and the one being sent.
    pub frames: Spread,
    /// How long the next frame would have waited.
    pub delay_ms: Spread,
    /// Length of a window. It doubles whenever the windows would become too many.
    pub window_ms: f64,
    /// Mean of `frames` in each window.
    pub window_frames: Vec<f64>,
    /// Mean of `delay_ms` in each window.
    pub window_delay_ms: Vec<f64>,
}

/// A distribution over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Exact, also of samples beyond the range of the others.
    pub mean: f64,
    /// Half of the time it is no more.
    pub p50: f64,
    /// 99 % of the time it is no more.
    pub p99: f64,
    /// The highest sample.
    pub max: f64,
}

impl Spread {
    /// From a histogram and the mean of its samples, both divided by `unit`.
    pub(super) fn of(histogram: &Histogram<u64>, mean: f64, unit: f64) -> Self {
        Self {
            mean: mean / unit,
            p50: histogram.value_at_quantile(0.5) as f64 / unit,
            p99: histogram.value_at_quantile(0.99) as f64 / unit,
            max: histogram.max() as f64 / unit,
        }
    }
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
