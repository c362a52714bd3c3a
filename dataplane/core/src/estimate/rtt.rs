//! The round trip of a path.

use core::time::Duration;

use super::window::WindowMin;
use super::{Tally, seconds};
use crate::time::Time;

/// Weights of a new sample in the smoothed round trip and in its variance (RFC 6298, 2.3).
const ALPHA: f64 = 1.0 / 8.0;
const BETA: f64 = 1.0 / 4.0;

/// Buckets of the minimum: 10 s.
const MIN_BUCKETS: usize = 10;
const MIN_BUCKET: Duration = Duration::from_secs(1);

/// The quantile that [`Rtt::q95`] follows.
const QUANTILE: f64 = 0.95;
/// Step of the quantile as a share of the mean distance between samples and quantile. With it the
/// quantile rises within about 20 samples, falls within about 300, and keeps 4 to 7 % of steady
/// samples above it.
const QUANTILE_STEP: f64 = 1.0 / 16.0;
/// Weight of a new sample in that distance.
const DISTANCE_WEIGHT: f64 = 1.0 / 16.0;

/// Smoothed round trip and variance (RFC 6298), windowed minimum, and 95 % quantile by stochastic
/// approximation (Robbins and Monro 1951).
#[derive(Clone, Debug)]
pub struct Rtt {
    tally: Tally,
    smoothed: f64,
    variance: f64,
    quantile: f64,
    distance: f64,
    minimum: WindowMin<MIN_BUCKETS>,
}

impl Default for Rtt {
    fn default() -> Self {
        Self::new()
    }
}

impl Rtt {
    /// Nothing known.
    pub fn new() -> Self {
        Self {
            tally: Tally::default(),
            smoothed: 0.0,
            variance: 0.0,
            quantile: 0.0,
            distance: 0.0,
            minimum: WindowMin::new(MIN_BUCKET),
        }
    }

    /// A round trip was measured, without the time the far end held the echo.
    pub fn sample(&mut self, rtt: Duration, now: Time) {
        let value = seconds(rtt);
        if self.tally.count == 0 {
            self.smoothed = value;
            self.variance = value / 2.0;
            self.quantile = value;
            self.distance = value / 2.0;
        } else {
            self.variance += BETA * ((self.smoothed - value).abs() - self.variance);
            self.smoothed += ALPHA * (value - self.smoothed);
            // The step is chosen before this sample is known, or large samples would step further.
            let up = f64::from(u8::from(value > self.quantile));
            let step = QUANTILE_STEP * self.distance;
            self.distance += DISTANCE_WEIGHT * ((value - self.quantile).abs() - self.distance);
            self.quantile = (self.quantile + step * (up - (1.0 - QUANTILE))).max(0.0);
        }
        let nanos = i64::try_from(rtt.as_nanos()).unwrap_or(i64::MAX);
        self.minimum.note(nanos, now);
        self.tally.note(1, now);
    }

    /// The smoothed round trip, SRTT.
    pub fn smoothed(&self) -> Option<Duration> {
        self.known(self.smoothed)
    }

    /// The mean deviation from it, RTTVAR.
    pub fn variance(&self) -> Option<Duration> {
        self.known(self.variance)
    }

    /// What about 95 % of round trips stay below.
    pub fn q95(&self) -> Option<Duration> {
        self.known(self.quantile)
    }

    /// The smallest round trip of the last 10 s: the path without its queue, unless the queue
    /// stood all the time.
    pub fn min(&self, now: Time) -> Option<Duration> {
        let nanos = self.minimum.least(now)?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    /// How many round trips were measured.
    pub fn count(&self) -> u64 {
        self.tally.count
    }

    /// How long ago the last one was.
    pub fn age(&self, now: Time) -> Option<Duration> {
        self.tally.age(now)
    }

    fn known(&self, value: f64) -> Option<Duration> {
        let known = self.tally.count > 0;
        known.then(|| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::noise::Noise;
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    #[test]
    fn unknown_is_not_zero() {
        let rtt = Rtt::new();
        assert_eq!(
            (rtt.smoothed(), rtt.variance(), rtt.q95()),
            (None, None, None)
        );
        assert_eq!(
            (rtt.min(Time::ZERO), rtt.count(), rtt.age(Time::ZERO)),
            (None, 0, None)
        );
    }

    #[test]
    fn the_first_two_samples_by_hand() {
        let mut rtt = Rtt::new();
        let ms = Duration::from_millis;
        rtt.sample(ms(80), Time(5));
        assert_eq!(rtt.smoothed(), Some(ms(80)));
        assert_eq!(rtt.variance(), Some(ms(40)));
        rtt.sample(ms(40), Time(9));
        assert_eq!(rtt.smoothed(), Some(ms(75)));
        assert_eq!(rtt.variance(), Some(ms(40)));
        assert_eq!(rtt.min(Time(9)), Some(ms(40)));
        assert_eq!(
            (rtt.count(), rtt.age(Time(20))),
            (2, Some(Duration::from_nanos(11)))
        );
    }

    #[test]
    fn the_minimum_is_forgotten_after_ten_seconds() {
        let mut rtt = Rtt::new();
        rtt.sample(Duration::from_millis(1), Time::ZERO);
        let at = |s| Time::ZERO + Duration::from_secs(s);
        (1..=9).for_each(|s| rtt.sample(Duration::from_millis(40), at(s)));
        assert_eq!(rtt.min(at(9)), Some(Duration::from_millis(1)));
        assert_eq!(rtt.min(at(10)), Some(Duration::from_millis(40)));
        assert_eq!(rtt.min(at(30)), None);
    }

    /// The share of samples that lie above the quantile as it stood before each of them.
    fn share_above(mut draw: impl FnMut() -> f64) -> f64 {
        let (mut rtt, mut now, mut above) = (Rtt::new(), Time::ZERO, 0);
        for n in 0..22_000 {
            let value = Duration::from_secs_f64(draw());
            above += u32::from(n >= 2_000 && Some(value) > rtt.q95());
            now += STEP;
            rtt.sample(value, now);
        }
        f64::from(above) / 20_000.0
    }

    #[test]
    fn five_percent_lie_above_the_quantile() {
        let mut noise = Noise(1);
        let uniform = share_above(|| 0.04 + 0.01 * noise.uniform());
        let mut noise = Noise(2);
        let exponential = share_above(|| 0.04 + 0.005 * noise.exponential());
        let mut noise = Noise(3);
        let two_routes = share_above(|| if noise.uniform() < 0.1 { 0.06 } else { 0.04 });
        for share in [uniform, exponential, two_routes] {
            assert!(
                (0.035..0.07).contains(&share),
                "{uniform} {exponential} {two_routes}"
            );
        }
    }

    #[test]
    fn the_quantile_follows_a_step_up_soon_and_a_step_down_in_time() {
        let mut rtt = Rtt::new();
        let mut now = Time::ZERO;
        let mut feed = |ms, samples: u32| {
            for _ in 0..samples {
                now += STEP;
                rtt.sample(Duration::from_millis(ms), now);
            }
            rtt.q95().unwrap()
        };
        feed(40, 100);
        assert!(feed(80, 60) > Duration::from_millis(78));
        assert!(feed(40, 1_500) < Duration::from_millis(44));
    }

    proptest! {
        #[test]
        fn agrees_with_the_rfc_and_stays_between_the_extremes(
            samples in prop::collection::vec((0u64..500_000_000, 0u64..2_000_000_000), 1..200),
        ) {
            let mut rtt = Rtt::new();
            let mut now = Time::ZERO;
            let (mut srtt, mut rttvar) = (0.0, 0.0);
            let mut seen = vec![];
            for (n, &(value, wait)) in samples.iter().enumerate() {
                now.0 += wait;
                rtt.sample(Duration::from_nanos(value), now);
                seen.push((now, value));
                let r = value as f64;
                (srtt, rttvar) = if n == 0 {
                    (r, r / 2.0)
                } else {
                    (0.875 * srtt + 0.125 * r, 0.75 * rttvar + 0.25 * f64::abs(srtt - r))
                };
                let close = |a: Option<Duration>, b: f64| (a.unwrap().as_nanos() as f64 - b).abs() < 100.0;
                prop_assert!(close(rtt.smoothed(), srtt) && close(rtt.variance(), rttvar));
                let least = seen.iter().filter(|s| now.0 / 1_000_000_000 - s.0.0 / 1_000_000_000 < 10);
                let least = least.map(|s| s.1).min().map(Duration::from_nanos);
                prop_assert_eq!(rtt.min(now), least);
            }
        }
    }
}
