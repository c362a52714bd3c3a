//! The smallest value of the recent past.

use core::time::Duration;

use crate::time::Time;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Which multiple of the width it covers.
    number: u64,
    least: i64,
}

/// Minimum over a window of `N` buckets of time: the one that is being filled and the `N - 1`
/// before it.
///
/// A ring of buckets, not a list of candidates: memory and work are fixed, and the answer is exact
/// but for the window's far edge, which moves by a bucket at a time. A maximum is the minimum of
/// negated values.
#[derive(Clone, Debug)]
pub struct WindowMin<const N: usize> {
    width: u64,
    buckets: [Option<Bucket>; N],
}

impl<const N: usize> WindowMin<N> {
    /// An empty window of buckets this wide.
    pub fn new(width: Duration) -> Self {
        Self {
            width: (width.as_nanos() as u64).max(1),
            buckets: [None; N],
        }
    }

    /// Notes a value.
    pub fn note(&mut self, value: i64, now: Time) {
        let number = now.as_nanos() / self.width;
        let Some(slot) = self.buckets.get_mut((number % N.max(1) as u64) as usize) else {
            return;
        };
        match slot {
            Some(bucket) if bucket.number == number => bucket.least = bucket.least.min(value),
            // A sample from before the window: whoever gave it had an old clock reading.
            Some(bucket) if bucket.number > number => {}
            _ => {
                *slot = Some(Bucket {
                    number,
                    least: value,
                });
            }
        }
    }

    /// The smallest value of the whole window.
    pub fn least(&self, now: Time) -> Option<i64> {
        self.least_of(N as u64, now)
    }

    /// The smallest value of the last `span`, rounded up to whole buckets; the window at the most.
    pub fn least_over(&self, span: Duration, now: Time) -> Option<i64> {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.least_of(span.div_ceil(self.width).saturating_add(1), now)
    }

    fn least_of(&self, buckets: u64, now: Time) -> Option<i64> {
        let newest = now.as_nanos() / self.width;
        self.buckets
            .iter()
            .flatten()
            .filter(|bucket| {
                bucket.number <= newest && newest - bucket.number < buckets.min(N as u64)
            })
            .map(|bucket| bucket.least)
            .min()
    }

    /// How long ago a value of at most `limit` was last noted, as far as the window reaches; to
    /// within a bucket, and rather too long.
    pub fn since_at_most(&self, limit: i64, now: Time) -> Option<Duration> {
        let buckets = self.buckets.iter().flatten();
        let newest = buckets
            .filter(|bucket| bucket.least <= limit)
            .map(|b| b.number)
            .max()?;
        Some(now.since(Time(newest.saturating_mul(self.width))))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = [None; N];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDTH: Duration = Duration::from_millis(10);

    proptest! {
        #[test]
        fn agrees_with_a_list_of_all_values(
            steps in prop::collection::vec((0u64..40_000_000, -50i64..50), 1..200),
            span_ms in 0u64..120,
        ) {
            let mut window = WindowMin::<8>::new(WIDTH);
            let mut all = vec![];
            let mut now = Time::ZERO;
            for (wait, value) in steps {
                now.0 += wait;
                window.note(value, now);
                all.push((now.0 / 10_000_000, value));
                let least = |buckets: u64| {
                    let recent = |at: &&(u64, i64)| now.0 / 10_000_000 - at.0 < buckets;
                    all.iter().filter(recent).map(|at| at.1).min()
                };
                prop_assert_eq!(window.least(now), least(8));
                let span = Duration::from_millis(span_ms);
                prop_assert_eq!(window.least_over(span, now), least((span_ms.div_ceil(10) + 1).min(8)));
            }
            window.clear();
            prop_assert_eq!(window.least(now), None);
        }
    }

    #[test]
    fn expires_and_ignores_the_past() {
        let mut window = WindowMin::<4>::new(WIDTH);
        window.note(1, Time(100_000_000));
        window.note(-7, Time(20_000_000));
        assert_eq!(window.least(Time(100_000_000)), Some(1));
        assert_eq!(window.least(Time(139_999_999)), Some(1));
        assert_eq!(window.least(Time(140_000_000)), None);
    }
}
