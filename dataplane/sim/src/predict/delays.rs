//! How long things took, as counts in narrow buckets: bounded, and the same when merged in any
//! order.

use serde::Serialize;

/// Buckets in each doubling: 2 % wide.
const PER_OCTAVE: f64 = 32.0;
/// Nanoseconds at which buckets begin; what is shorter is zero.
const LEAST: f64 = 1_000.0;
/// Buckets: up to 18 minutes.
const BUCKETS: usize = 960;

/// Counts of delays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delays {
    count: u64,
    sum_ns: f64,
    zeros: u64,
    /// Empty until something is in it.
    buckets: Vec<u32>,
}

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p99_9: f64,
}

impl Delays {
    /// Notes a delay in nanoseconds.
    pub fn note(&mut self, nanos: u64) {
        self.count += 1;
        self.sum_ns += nanos as f64;
        if (nanos as f64) < LEAST {
            self.zeros += 1;
            return;
        }
        self.buckets.resize(BUCKETS, 0);
        let bucket = (nanos as f64 / LEAST).log2() * PER_OCTAVE;
        if let Some(count) = self.buckets.get_mut((bucket as usize).min(BUCKETS - 1)) {
            *count += 1;
        }
    }

    /// Notes so many that took no time.
    pub fn note_zeros(&mut self, count: u64) {
        self.count += count;
        self.zeros += count;
    }

    /// Takes in another's.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.zeros += other.zeros;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
    }

    /// How many were noted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Nanoseconds that a share of all stays below, with the width of a bucket as error.
    fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.count as f64;
        let mut below = self.zeros as f64;
        if rank <= below {
            return 0.0;
        }
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if count > 0 && rank <= below + f64::from(count) {
                let into = (rank - below) / f64::from(count);
                return LEAST * ((bucket as f64 + into) / PER_OCTAVE).exp2();
            }
            below += f64::from(count);
        }
        0.0
    }

    /// Mean and percentiles, if there is anything.
    pub fn summary(&self) -> Option<Summary> {
        let ms = |nanos: f64| nanos / 1e6;
        (self.count > 0).then(|| Summary {
            mean: ms(self.sum_ns / self.count as f64),
            p50: ms(self.quantile(0.5)),
            p99: ms(self.quantile(0.99)),
            p99_9: ms(self.quantile(0.999)),
        })
    }
}

impl Summary {
    /// The one that lies a share of the way to another.
    pub(super) fn toward(self, other: Self, share: f64) -> Self {
        let mix = |a: f64, b: f64| a + (b - a) * share;
        Self {
            mean: mix(self.mean, other.mean),
            p50: mix(self.p50, other.p50),
            p99: mix(self.p99, other.p99),
            p99_9: mix(self.p99_9, other.p99_9),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_list(
            mut list in prop::collection::vec(0u64..2_000_000_000, 1..400),
            cut in 0usize..400,
        ) {
            let (mut first, mut second) = (Delays::default(), Delays::default());
            for (index, &nanos) in list.iter().enumerate() {
                if index < cut { first.note(nanos) } else { second.note(nanos) }
            }
            first.merge(&second);
            list.sort_unstable();
            let summary = first.summary().unwrap();
            let exact = |share: f64| {
                let rank = (share * list.len() as f64).ceil() as usize;
                list[rank.max(1) - 1] as f64 / 1e6
            };
            for (found, share) in [(summary.p50, 0.5), (summary.p99, 0.99), (summary.p99_9, 0.999)] {
                let exact = exact(share);
                prop_assert!((found - exact).abs() <= 0.023 * exact + 0.001, "{found} {exact}");
            }
            let mean = list.iter().sum::<u64>() as f64 / list.len() as f64 / 1e6;
            prop_assert!((summary.mean - mean).abs() < 1e-6 * mean.max(1.0));
        }
    }
}
