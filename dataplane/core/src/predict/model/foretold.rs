//! Expected arrivals, held against what came.

use crate::histogram::LogHistogram;

use super::from_ms;

/// Bins of actual over expected times: octaves, the middle of them at one.
pub const RATIO_BINS: usize = 8;

/// What became of the times at which missing shards were expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foretold {
    /// Holes of which a time was said when they opened.
    pub said: u64,
    /// By how much those that were filled before it came too soon.
    pub sooner: LogHistogram,
    /// By how much the others came too late.
    pub later: LogHistogram,
    /// Filled holes by actual over expected time: below 1/8, then octaves up to 8 and above.
    pub ratio: [u64; RATIO_BINS],
}

impl Foretold {
    /// Holes that were filled, and had been expected.
    pub fn filled(&self) -> u64 {
        self.ratio.iter().sum()
    }

    /// A hole was filled at this age, and expected at that: positive milliseconds both.
    pub(super) fn came(&mut self, ms: f32, expected_ms: f32) {
        let (error, histogram) = if ms <= expected_ms {
            (expected_ms - ms, &mut self.sooner)
        } else {
            (ms - expected_ms, &mut self.later)
        };
        histogram.record(from_ms(error));
        // Infinite or no number at all ends in the last or first bin: casts saturate.
        let octave = (ms / expected_ms).log2().floor() + (RATIO_BINS / 2) as f32;
        self.ratio[(octave.max(0.0) as usize).min(RATIO_BINS - 1)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn errors_and_ratios_are_those_of_the_times() {
        let mut foretold = Foretold::default();
        for ms in [0.01, 1.0, 2.9, 3.0, 4.0, 13.0, 400.0] {
            foretold.came(ms, 3.0);
        }
        assert_eq!(foretold.ratio, [1, 0, 1, 1, 2, 0, 1, 1]);
        assert_eq!(foretold.filled(), 7);
        assert_eq!(
            (foretold.sooner.total(), foretold.later.total()),
            (4, 3),
            "on time is not late"
        );
        let mut expected = LogHistogram::default();
        for ms in [1, 10, 397] {
            expected.record(Duration::from_millis(ms));
        }
        assert_eq!(foretold.later, expected);
    }

    #[test]
    fn strange_times_are_counted_somewhere() {
        let mut foretold = Foretold::default();
        for (ms, expected_ms) in [
            (0.0, 0.0),
            (1.0, 0.0),
            (0.0, 1.0),
            (f32::INFINITY, 1.0),
            (f32::NAN, 1.0),
        ] {
            foretold.came(ms, expected_ms);
        }
        assert_eq!(foretold.filled(), 5);
    }
}
