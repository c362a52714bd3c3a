//! Durations in logarithmic buckets: fixed memory, no resizing on an lcore.

use core::time::Duration;

/// Buckets of a histogram.
pub const BUCKETS: usize = 96;

/// Buckets in an octave.
const PER_OCTAVE: u32 = 4;

/// Upper end of the first bucket, in nanoseconds: a power of two, about a microsecond.
const FIRST_LOG2: u32 = 10;

/// Counts of durations: 4 buckets an octave from 1 µs to 17 s, so within 25 %. What is outside goes
/// into the first or the last bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHistogram([u64; BUCKETS]);

impl Default for LogHistogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl LogHistogram {
    /// A histogram with these counts.
    pub fn from_counts(counts: [u64; BUCKETS]) -> Self {
        Self(counts)
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX).max(1);
        let octave = nanos.ilog2();
        let index = match octave.checked_sub(FIRST_LOG2) {
            None => 0,
            // The two bits below the leading one.
            Some(above) => above * PER_OCTAVE + (nanos >> (octave - 2) & 3) as u32,
        };
        self.0[(index as usize).min(BUCKETS - 1)] += 1;
    }

    /// The counts, from short to long.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The middle of a bucket.
    pub fn middle(bucket: usize) -> Duration {
        let index = bucket.min(BUCKETS - 1) as u32;
        let lowest = 1u64 << (FIRST_LOG2 + index / PER_OCTAVE);
        let step = lowest / u64::from(PER_OCTAVE);
        Duration::from_nanos(lowest + step * u64::from(index % PER_OCTAVE) + step / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lies_within_an_eighth_of_its_buckets_middle() {
        for nanos in [1_025, 1_500, 40_000, 999_999, 20_000_000, 16_000_000_000] {
            let mut histogram = LogHistogram::default();
            histogram.record(Duration::from_nanos(nanos));
            let bucket = histogram
                .counts()
                .iter()
                .position(|&count| count == 1)
                .unwrap();
            let middle = LogHistogram::middle(bucket).as_nanos() as f64;
            assert!(
                (middle / nanos as f64 - 1.0).abs() < 0.126,
                "{nanos}: {middle}"
            );
        }
    }

    #[test]
    fn what_is_outside_is_counted_at_the_ends() {
        let mut histogram = LogHistogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!(
            (histogram.counts()[0], histogram.counts()[BUCKETS - 1]),
            (1, 1)
        );
        let mut sum = histogram;
        sum.merge(&histogram);
        assert_eq!(sum.total(), 4);
    }
}
