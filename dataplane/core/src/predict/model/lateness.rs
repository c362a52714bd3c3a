//! How late shards come that come late.

use core::time::Duration;

use super::approx::{decayed, exp2, log2};
use super::ms;

/// Buckets of lateness.
pub(super) const BUCKETS: usize = 64;

/// Buckets in an octave.
const PER_OCTAVE: f32 = 6.0;

/// The buckets' numbers, to be compared side by side.
pub(super) const NUMBERS: [i32; BUCKETS] = {
    let mut numbers = [0; BUCKETS];
    let mut number = 0;
    while number < BUCKETS {
        numbers[number] = number as i32;
        number += 1;
    }
    numbers
};

/// Upper end of the first bucket, in milliseconds.
const FIRST_MS: f32 = 0.05;

/// Late shards after which one counts 1/e.
const MEMORY: f32 = 400.0;

/// Weight of what both contexts saw together, beside what one saw.
const POOLED_WEIGHT: f32 = 20.0;

/// Weight of what is assumed before anything is known.
const PRIOR_WEIGHT: f32 = 2.0;

/// What kind of hole it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Missing alone.
    Single = 0,
    /// One of several in a row.
    Several = 1,
}

/// How many contexts there are.
pub(super) const CONTEXTS: usize = 2;

impl Context {
    pub(super) fn of_gap(gap: u32) -> Self {
        if gap <= 1 {
            Self::Single
        } else {
            Self::Several
        }
    }
}

/// A histogram per context, 6 buckets an octave from 50 us to 81 ms, what is beyond in the last.
/// A sample weighs less with every later one of its context, so the sum of weights stays below
/// [`MEMORY`] and nothing overflows.
///
/// What is asked of it is worked out when it changes, not when it is read: a hole reads it once or
/// more, and most holes are not late.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    weights: [[f32; BUCKETS]; CONTEXTS],
    /// Weights of later buckets together, and of all.
    tails: [[f32; BUCKETS]; CONTEXTS],
    masses: [f32; CONTEXTS],
    /// Share later than the end of each bucket.
    later: [[f32; BUCKETS]; CONTEXTS],
    /// Ends of the buckets, in milliseconds.
    ends: [f32; BUCKETS],
    /// One over their widths.
    per_width: [f32; BUCKETS],
    /// What is assumed to be later than each.
    prior: [f32; BUCKETS],
    /// Median before anything is known, in milliseconds.
    prior_ms: f32,
}

impl Lateness {
    pub(super) fn new() -> Self {
        let mut ends = [0.0; BUCKETS];
        for (index, end) in ends.iter_mut().enumerate() {
            *end = FIRST_MS * (index as f32 / PER_OCTAVE).exp2();
        }
        let mut per_width = ends;
        for (index, width) in per_width.iter_mut().enumerate() {
            let from = index.checked_sub(1).map_or(0.0, |before| ends[before]);
            *width = 1.0 / (*width - from);
        }
        let mut lateness = Self {
            weights: [[0.0; BUCKETS]; CONTEXTS],
            tails: [[0.0; BUCKETS]; CONTEXTS],
            masses: [0.0; CONTEXTS],
            per_width,
            prior: [0.0; BUCKETS],
            later: [[0.0; BUCKETS]; CONTEXTS],
            ends,
            prior_ms: 0.0,
        };
        lateness.assume(2.0);
        lateness
    }

    /// The bucket in which a lateness falls.
    #[inline]
    pub(super) fn bucket(&self, ms: f32) -> usize {
        let above = log2(ms.max(FIRST_MS) * (1.0 / FIRST_MS)) * PER_OCTAVE;
        let index = (above as usize).min(BUCKETS - 1);
        // The logarithm errs by half a bucket, downwards, and what is cut off by one.
        let index = (index + usize::from(self.ends[index] < ms)).min(BUCKETS - 1);
        (index + usize::from(self.ends[index] < ms)).min(BUCKETS - 1)
    }

    /// A shard came so late.
    pub(super) fn add(&mut self, context: Context, age: Duration) {
        const KEPT: f32 = 1.0 - 1.0 / MEMORY;
        let bucket = self.bucket(ms(age));
        let context = context as usize;
        let all = self.weights[context].iter_mut();
        let all = all.zip(&mut self.tails[context]).zip(&NUMBERS);
        for ((weight, tail), &number) in all {
            *weight = decayed(*weight * KEPT);
            *tail = decayed(*tail * KEPT) + if number < bucket as i32 { 1.0 } else { 0.0 };
        }
        self.weights[context][bucket] += 1.0;
        self.masses[context] = self.masses[context] * KEPT + 1.0;
        self.work_out();
    }

    /// What is assumed before anything is known: half of what is late comes within this time.
    pub(super) fn set_prior(&mut self, median: Duration) {
        let ms = ms(median).clamp(FIRST_MS, self.ends[BUCKETS - 1]);
        // Every change costs a pass over all buckets; a tenth does not matter.
        if (ms - self.prior_ms).abs() > 0.1 * self.prior_ms {
            self.assume(ms);
        }
    }

    fn assume(&mut self, median_ms: f32) {
        self.prior_ms = median_ms;
        let halvings = -1.0 / median_ms;
        for (prior, end) in self.prior.iter_mut().zip(&self.ends) {
            *prior = PRIOR_WEIGHT * exp2(end * halvings);
        }
        self.work_out();
    }

    /// Keeps a share of what is known: the path has changed.
    pub(super) fn shrink(&mut self, kept: f32) {
        let kept = kept.clamp(0.0, 1.0);
        for weight in self.weights.iter_mut().flatten() {
            *weight *= kept;
        }
        self.sum_up();
    }

    /// Sum of weights in a context.
    #[cfg(test)]
    pub(super) fn mass(&self, context: Context) -> f32 {
        self.masses[context as usize]
    }

    /// All from the weights.
    fn sum_up(&mut self) {
        for (context, weights) in self.weights.iter().enumerate() {
            let mut sum = 0.0;
            for (tail, weight) in self.tails[context].iter_mut().zip(weights).rev() {
                *tail = sum;
                sum += weight;
            }
            self.masses[context] = sum;
        }
        self.work_out();
    }

    /// Shares from the sums.
    fn work_out(&mut self) {
        let [single, several] = &self.tails;
        let pooled_scale = POOLED_WEIGHT / (self.masses[0] + self.masses[1] + PRIOR_WEIGHT);
        let scales = self.masses.map(|mass| 1.0 / (mass + POOLED_WEIGHT));
        let [later_single, later_several] = &mut self.later;
        let least = |share: f32| if share < 1.0 { share } else { 1.0 };
        for bucket in 0..BUCKETS {
            let pooled = (single[bucket] + several[bucket] + self.prior[bucket]) * pooled_scale;
            later_single[bucket] = least((single[bucket] + pooled) * scales[0]);
            later_several[bucket] = least((several[bucket] + pooled) * scales[1]);
        }
    }

    /// Share of late shards that come later than the end of each bucket.
    #[inline]
    pub(super) fn later(&self, context: Context) -> &[f32; BUCKETS] {
        &self.later[context as usize]
    }

    /// Ends of the buckets, in milliseconds.
    #[inline]
    pub(super) fn ends(&self) -> &[f32; BUCKETS] {
        &self.ends
    }

    /// Share of late shards that come later than `ms`: 1 at 0, falling.
    #[inline]
    pub(super) fn later_than(&self, context: Context, ms: f32) -> f32 {
        let later = self.later(context);
        let bucket = self.bucket(ms);
        let (from, share_from) = match bucket.checked_sub(1) {
            Some(before) => (self.ends[before], later[before]),
            None => (0.0, 1.0),
        };
        let part = ((ms - from) * self.per_width[bucket]).clamp(0.0, 1.0);
        share_from + (later[bucket] - share_from) * part
    }

    /// When all but `share` of late shards have come, in milliseconds, at most the last bucket's end.
    #[inline]
    pub(super) fn all_but(&self, context: Context, share: f32) -> f32 {
        let index = self.later(context).partition_point(|&later| later > share);
        self.ends[index.min(BUCKETS - 1)]
    }

    pub(super) fn weights(&self) -> &[[f32; BUCKETS]; CONTEXTS] {
        &self.weights
    }

    /// Takes weights that were saved; false if they cannot be any.
    pub(super) fn restore(&mut self, weights: [[f32; BUCKETS]; CONTEXTS]) -> bool {
        let is_valid = |weights: &[f32; BUCKETS]| {
            // NaN compares as outside.
            weights.iter().all(|weight| (0.0..=MEMORY).contains(weight))
                && weights.iter().sum::<f32>() <= MEMORY * 1.001
        };
        if !weights.iter().all(is_valid) {
            return false;
        }
        self.weights = weights;
        self.sum_up();
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_six_an_octave() {
        let lateness = Lateness::new();
        assert_eq!(lateness.bucket(0.0), 0);
        assert_eq!(lateness.bucket(0.049), 0);
        assert_eq!(lateness.bucket(0.099), 6);
        assert_eq!(lateness.bucket(0.101), 7);
        assert_eq!(lateness.bucket(1e9), BUCKETS - 1);
        assert!((lateness.ends[60] / FIRST_MS - 1_024.0).abs() < 1.0);
    }

    #[test]
    fn what_is_known_outweighs_what_was_assumed() {
        let mut lateness = Lateness::new();
        for _ in 0..500 {
            lateness.add(Context::Single, Duration::from_millis(8));
        }
        assert!(lateness.later_than(Context::Single, 7.0) > 0.98);
        assert!(lateness.later_than(Context::Single, 9.5) < 0.02);
        assert!(
            (6.5..9.5).contains(&lateness.all_but(Context::Several, 0.5)),
            "pooled"
        );
        lateness.shrink(0.1);
        assert!(lateness.mass(Context::Single) < 40.0);
        assert!(
            lateness.later_than(Context::Single, 7.0) > 0.9,
            "the shape stays"
        );
    }

    #[test]
    fn a_saved_histogram_that_cannot_be_is_refused() {
        let mut lateness = Lateness::new();
        for bad in [f32::NAN, -1.0, f32::INFINITY, MEMORY + 1.0] {
            let mut weights = [[0.0; BUCKETS]; CONTEXTS];
            weights[1][7] = bad;
            assert!(!lateness.restore(weights), "{bad}");
        }
        assert!(!lateness.restore([[MEMORY; BUCKETS]; CONTEXTS]));
        assert!(lateness.restore([[1.0; BUCKETS]; CONTEXTS]));
    }

    proptest! {
        #[test]
        fn a_bucket_is_the_first_that_ends_later(ms in 0f32..100.0) {
            let lateness = Lateness::new();
            let first = lateness.ends.iter().position(|end| *end >= ms);
            prop_assert_eq!(lateness.bucket(ms), first.unwrap_or(BUCKETS - 1));
        }

        /// What is kept up with each sample against sums from the beginning.
        #[test]
        fn sums_stay_those_of_the_weights(
            samples in prop::collection::vec((any::<bool>(), 0u64..100_000), 1..600),
        ) {
            let mut lateness = Lateness::new();
            for (single, micros) in samples {
                let context = if single { Context::Single } else { Context::Several };
                lateness.add(context, Duration::from_micros(micros));
            }
            let mut summed = lateness.clone();
            summed.sum_up();
            for (kept, summed) in lateness.later.iter().zip(&summed.later) {
                prop_assert!(kept.iter().zip(summed).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }

        /// Against the sum of a geometric series: no mass is lost, none appears.
        #[test]
        fn mass_is_kept_whatever_comes(
            samples in prop::collection::vec((any::<bool>(), any::<u64>()), 1..400),
        ) {
            let mut lateness = Lateness::new();
            let mut expected = [0.0f64; CONTEXTS];
            for (single, nanos) in samples {
                let context = if single { Context::Single } else { Context::Several };
                lateness.add(context, Duration::from_nanos(nanos));
                let mass = &mut expected[context as usize];
                *mass = *mass * (1.0 - 1.0 / f64::from(MEMORY)) + 1.0;
            }
            for context in [Context::Single, Context::Several] {
                let mass = f64::from(lateness.mass(context));
                prop_assert!((mass - expected[context as usize]).abs() <= 1e-3 * mass.max(1.0));
                prop_assert!(mass < f64::from(MEMORY) * 1.001);
                let later = lateness.later(context);
                prop_assert!(later.iter().all(|share| (0.0..=1.0).contains(share)));
                prop_assert!(later.is_sorted_by(|a, b| *a >= *b - 1e-6));
            }
        }

        #[test]
        fn later_falls_from_one(ms in 0f32..200.0, more in 0f32..50.0, late_ms in 1u64..80) {
            let mut lateness = Lateness::new();
            (0..30).for_each(|_| lateness.add(Context::Several, Duration::from_millis(late_ms)));
            let (sooner, later) = (
                lateness.later_than(Context::Several, ms),
                lateness.later_than(Context::Several, ms + more),
            );
            prop_assert!(later <= sooner + 1e-6 && (0.0..=1.0).contains(&later));
            prop_assert_eq!(lateness.later_than(Context::Several, 0.0), 1.0);
        }
    }
}
