//! The queue that a path's shards wait in.

use core::time::Duration;

use super::Tally;
use super::window::WindowMin;
use crate::time::Time;

/// Buckets of the base and of the largest delay: 10 s.
const LONG_BUCKETS: usize = 10;
const LONG_BUCKET: Duration = Duration::from_secs(1);
/// Buckets of the recent past: a report each, 1.28 s.
const SHORT_BUCKETS: usize = 128;
const SHORT_BUCKET: Duration = Duration::from_millis(10);
/// Weight of a new difference in the jitter (RFC 3550, 6.4.1).
const JITTER_WEIGHT: f64 = 1.0 / 16.0;
/// Samples under the gradient.
const GRADIENT_SAMPLES: usize = 20;
/// Fewer give no line worth the name.
const GRADIENT_SAMPLES_MIN: usize = 4;

/// Queue delay of a path from *relative* one-way delays: the receiver's clock minus the sender's,
/// microseconds modulo 2^32. The clocks' offset is unknown and drops out, because only differences
/// to the base are used: the smallest delay of the last 10 s.
///
/// Clocks that drift apart by 100 ppm move the base by 1 ms in that time: the queue is known to
/// within that. A sample below the base becomes the base at once. A path that got *longer* looks
/// like a queue until the old base is 10 s old; whoever knows better (a path that moved, a route
/// that changed) calls [`reset_base`](Self::reset_base). The other way round, a queue that never
/// empties for 10 s becomes part of the base.
#[derive(Clone, Debug)]
pub struct QueueDelay {
    tally: Tally,
    /// The last report's smallest delay, as it came and without the wrap.
    raw: u32,
    unwrapped: i64,
    /// The last report's mean delay.
    mean: Option<i64>,
    jitter_us: Option<f64>,
    base: WindowMin<LONG_BUCKETS>,
    recent: WindowMin<SHORT_BUCKETS>,
    /// Of negated means.
    largest: WindowMin<LONG_BUCKETS>,
    samples: [(Time, i64); GRADIENT_SAMPLES],
    sampled: usize,
}

impl Default for QueueDelay {
    fn default() -> Self {
        Self::new()
    }
}

impl QueueDelay {
    /// Nothing known.
    pub fn new() -> Self {
        Self {
            tally: Tally::default(),
            raw: 0,
            unwrapped: 0,
            mean: None,
            jitter_us: None,
            base: WindowMin::new(LONG_BUCKET),
            recent: WindowMin::new(SHORT_BUCKET),
            largest: WindowMin::new(LONG_BUCKET),
            samples: [(Time::ZERO, 0); GRADIENT_SAMPLES],
            sampled: 0,
        }
    }

    /// A report: the smallest and the mean relative one-way delay since the last one.
    pub fn sample(&mut self, min_us: u32, mean_us: u32, now: Time) {
        let step = i64::from(min_us.wrapping_sub(self.raw) as i32);
        self.unwrapped = self.unwrapped.wrapping_add(step);
        self.raw = min_us;
        // A mean below the minimum is a peer's mistake.
        let above = i64::from(mean_us.wrapping_sub(min_us) as i32).max(0);
        let mean = self.unwrapped.saturating_add(above);
        if self.mean.is_some() {
            let step = step.unsigned_abs() as f64;
            let jitter = self.jitter_us.unwrap_or(step);
            self.jitter_us = Some(jitter + JITTER_WEIGHT * (step - jitter));
        }
        self.mean = Some(mean);
        self.base.note(self.unwrapped, now);
        self.recent.note(self.unwrapped, now);
        self.largest.note(mean.saturating_neg(), now);
        if let Some(slot) = self.samples.get_mut(self.sampled % GRADIENT_SAMPLES) {
            *slot = (now, mean);
        }
        self.sampled = self.sampled.wrapping_add(1);
        self.tally.note(1, now);
    }

    /// The path's length changed: forgets all delays, so that the next report is the base.
    pub fn reset_base(&mut self) {
        self.mean = None;
        self.jitter_us = None;
        self.base.clear();
        self.recent.clear();
        self.largest.clear();
        self.sampled = 0;
    }

    /// Mean queue delay of the last report.
    pub fn current(&self, now: Time) -> Option<Duration> {
        self.above_base(self.mean?, now)
    }

    /// The least queue delay within the last report.
    pub fn least(&self, now: Time) -> Option<Duration> {
        self.mean?;
        self.above_base(self.unwrapped, now)
    }

    /// How much one report's least delay differs from the next one's, smoothed as the jitter of
    /// RFC 3550 (6.4.1). Of a path that carries much it is small however much single packets
    /// vary; of a thin one it is the path's jitter.
    pub fn jitter(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.jitter_us? as u64))
    }

    /// The standing queue: what no report of the last `interval` (at most 1.27 s) was below.
    pub fn standing(&self, interval: Duration, now: Time) -> Option<Duration> {
        self.above_base(self.recent.least_over(interval, now)?, now)
    }

    /// The largest mean queue delay of a report of the last 10 s.
    pub fn largest(&self, now: Time) -> Option<Duration> {
        self.above_base(self.largest.least(now)?.saturating_neg(), now)
    }

    /// The base itself, in microseconds of the clocks' unknown offset: only its changes mean
    /// something.
    pub fn base_us(&self, now: Time) -> Option<i64> {
        self.base.least(now)
    }

    /// How long ago the queue was last seen empty but for `rest`; to within a second, and rather
    /// too long. After 10 s without, what is left of the queue becomes part of the base.
    pub fn since_empty(&self, rest: Duration, now: Time) -> Option<Duration> {
        let rest = i64::try_from(rest.as_micros()).unwrap_or(i64::MAX);
        let limit = self.base.least(now)?.saturating_add(rest);
        self.base.since_at_most(limit, now)
    }

    /// How fast the queue grows, in seconds a second: the slope of the least-squares line through
    /// the last 20 reports' means. A link that gets k times what it carries shows k - 1.
    pub fn gradient(&self) -> Option<f64> {
        let count = self.sampled.min(GRADIENT_SAMPLES);
        if count < GRADIENT_SAMPLES_MIN {
            return None;
        }
        let samples = self.samples.get(..count)?;
        let first = samples.iter().min_by_key(|sample| sample.0)?;
        // Small numbers, relative to one of the samples: sums of squares keep their precision.
        let points = samples.iter().map(|(at, delay)| {
            let x = at.since(first.0).as_secs_f64();
            (x, delay.saturating_sub(first.1) as f64 / 1e6)
        });
        let n = count as f64;
        let (x_sum, y_sum) = points
            .clone()
            .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        let (x_mean, y_mean) = (x_sum / n, y_sum / n);
        let (along, square) = points.fold((0.0, 0.0), |(along, square), (x, y)| {
            let dx = x - x_mean;
            (along + dx * (y - y_mean), square + dx * dx)
        });
        (square > 0.0).then(|| along / square)
    }

    /// How many reports there were.
    pub fn count(&self) -> u64 {
        self.tally.count
    }

    /// How long ago the last one was.
    pub fn age(&self, now: Time) -> Option<Duration> {
        self.tally.age(now)
    }

    fn above_base(&self, delay_us: i64, now: Time) -> Option<Duration> {
        let above = delay_us.saturating_sub(self.base.least(now)?);
        Some(Duration::from_micros(u64::try_from(above).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::noise::Noise;
    use super::*;

    const STEP: Duration = Duration::from_millis(10);
    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn at(ms: u64) -> Time {
        Time::ZERO + MS(ms)
    }

    #[test]
    fn unknown_is_not_zero() {
        let mut queue = QueueDelay::new();
        let now = at(5);
        assert_eq!(
            (queue.current(now), queue.largest(now), queue.gradient()),
            (None, None, None)
        );
        assert_eq!(
            (queue.standing(MS(100), now), queue.age(now), queue.count()),
            (None, None, 0)
        );
        queue.sample(7, 7, now);
        assert_eq!(
            (queue.current(now), queue.gradient()),
            (Some(Duration::ZERO), None)
        );
        // Silence: what was known has expired.
        assert_eq!(queue.current(at(11_000)), None);
    }

    #[test]
    fn a_known_queue_is_found_whatever_the_clocks_say() {
        for offset in [0u32, 5, u32::MAX - 30_000, 1 << 31] {
            let mut queue = QueueDelay::new();
            // Empty for 1 s, then a ramp of 50 ms/s up to 25 ms, then level.
            let truth = |ms: u64| {
                if ms < 1_000 {
                    0
                } else {
                    ((ms - 1_000) * 50).min(25_000)
                }
            };
            for ms in (0..3_000).step_by(10) {
                let delay = offset.wrapping_add(20_000 + truth(ms) as u32);
                queue.sample(delay, delay.wrapping_add(300), at(ms));
                if ms == 1_400 {
                    let gradient = queue.gradient().unwrap();
                    assert!((gradient - 0.05).abs() < 0.002, "{gradient}");
                }
            }
            let now = at(2_990);
            assert_eq!(queue.current(now), Some(Duration::from_micros(25_300)));
            assert_eq!(queue.standing(MS(100), now), Some(MS(25)));
            assert_eq!(queue.largest(now), Some(Duration::from_micros(25_300)));
            assert!(queue.gradient().unwrap().abs() < 1e-9);
        }
    }

    #[test]
    fn drifting_clocks_move_it_by_a_millisecond_at_most() {
        for ppm in [-100.0, 100.0] {
            let mut queue = QueueDelay::new();
            let mut noise = Noise(7);
            for ms in (0..60_000u64).step_by(10) {
                let drift = ms as f64 * ppm / 1_000.0;
                let delay = (1e6 + drift + noise.uniform() * 200.0) as u32;
                queue.sample(delay, delay, at(ms));
                assert!(queue.current(at(ms)).unwrap() <= Duration::from_micros(1_250));
                assert!(queue.standing(MS(100), at(ms)).unwrap() <= Duration::from_micros(1_100));
            }
        }
    }

    #[test]
    fn a_longer_path_is_taken_for_a_queue_until_it_expires_or_is_reported() {
        let mut queue = QueueDelay::new();
        (0..100).for_each(|n| queue.sample(1_000, 1_000, at(n * 10)));
        for n in 100..1_000 {
            queue.sample(31_000, 31_000, at(n * 10));
            assert_eq!(queue.current(at(n * 10)), Some(MS(30)));
        }
        queue.sample(31_000, 31_000, at(10_000));
        assert_eq!(queue.current(at(10_000)), Some(Duration::ZERO));
        // A shorter one shows at once.
        queue.sample(11_000, 11_000, at(10_010));
        assert_eq!(queue.current(at(10_010)), Some(Duration::ZERO));
        queue.sample(61_000, 61_000, at(10_020));
        queue.reset_base();
        assert_eq!(queue.current(at(10_020)), None);
        queue.sample(61_000, 61_000, at(10_030));
        assert_eq!(queue.largest(at(10_030)), Some(Duration::ZERO));
    }

    #[test]
    fn tells_when_the_queue_was_last_empty_and_how_its_reports_vary() {
        let mut queue = QueueDelay::new();
        let one = MS(1);
        assert_eq!(
            (
                queue.since_empty(one, at(0)),
                queue.jitter(),
                queue.base_us(at(0))
            ),
            (None, None, None)
        );
        for n in 0..600u64 {
            // Empty at first, then a queue of 8 and 9 ms in turn.
            let delay = if n < 100 {
                5_000
            } else {
                13_000 + (n % 2) as u32 * 1_000
            };
            queue.sample(delay, delay + 500, at(n * 10));
        }
        let now = at(5_990);
        assert_eq!(queue.since_empty(one, now), Some(MS(5_990)));
        assert_eq!(queue.since_empty(MS(8), now), Some(MS(990)));
        assert_eq!(queue.base_us(now), Some(5_000));
        assert_eq!(queue.least(now), Some(MS(9)));
        let jitter = queue.jitter().unwrap();
        assert!(
            (Duration::from_micros(990)..=one).contains(&jitter),
            "{jitter:?}"
        );
        queue.reset_base();
        assert_eq!((queue.least(now), queue.jitter()), (None, None));
    }

    #[test]
    fn the_gradient_is_found_under_jitter() {
        let mut noise = Noise(11);
        let mut queue = QueueDelay::new();
        for ms in (0..1_000u64).step_by(10) {
            // 0.2 s/s, with up to 2 ms of jitter.
            let delay = (ms * 200) as u32 + (noise.uniform() * 2_000.0) as u32;
            queue.sample(delay, delay, at(ms));
        }
        let gradient = queue.gradient().unwrap();
        assert!((gradient - 0.2).abs() < 0.01, "{gradient}");
    }

    proptest! {
        /// Against lists of all reports, in plain integers that never wrap.
        #[test]
        fn agrees_with_plain_arithmetic(
            offset: u32,
            reports in prop::collection::vec((0u64..2_000, 0u32..400_000, 0u32..5_000), 1..120),
            interval_ms in 0u64..1_200,
        ) {
            let mut queue = QueueDelay::new();
            let mut ms = 0;
            let mut all: Vec<(u64, u32, u32)> = vec![];
            for (wait, delay, above) in reports {
                ms += wait;
                let min = offset.wrapping_add(delay);
                queue.sample(min, min.wrapping_add(above), at(ms));
                all.push((ms, delay, delay + above));
                let bucket = |at: u64, width: u64| ms / width - at / width;
                let long = || all.iter().filter(|r| bucket(r.0, 1_000) < 10);
                let base = long().map(|r| r.1).min().unwrap();
                let us = |delay: u32| Some(Duration::from_micros(u64::from(delay - base)));
                prop_assert_eq!(queue.current(at(ms)), us(delay + above));
                prop_assert_eq!(queue.largest(at(ms)), us(long().map(|r| r.2).max().unwrap()));
                let buckets = interval_ms.div_ceil(10) + 1;
                let recent = all.iter().filter(|r| bucket(r.0, 10) < buckets).map(|r| r.1).min();
                prop_assert_eq!(queue.standing(MS(interval_ms), at(ms)), us(recent.unwrap()));
            }
        }

        #[test]
        fn any_numbers_are_survived(reports in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u64>()), 1..60)) {
            let mut queue = QueueDelay::new();
            for (min, mean, when) in reports {
                queue.sample(min, mean, Time(when));
                let _ = (queue.current(Time(when)), queue.standing(STEP, Time(when)), queue.largest(Time(when)));
                prop_assert!(queue.gradient().is_none_or(f64::is_finite));
            }
        }
    }
}
