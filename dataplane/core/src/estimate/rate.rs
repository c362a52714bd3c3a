//! What a path delivers.

use core::time::Duration;

use super::Tally;
use crate::time::Time;

/// Bounds of the maximum's window, which is ten round trips else.
const WINDOW_MIN: Duration = Duration::from_millis(100);
const WINDOW_MAX: Duration = Duration::from_secs(1);
const WINDOW_RTTS: u32 = 10;
/// A window holds this many intervals. Reports that bunch up on their way shorten an interval by
/// some milliseconds; a quarter of the window is long enough for that to matter little.
const INTERVALS: u32 = 4;
/// Rates remembered: more than a window holds, because intervals grow with the round trip.
const RATES: usize = 16;

/// Bytes a second that the far end acknowledged, the most of any interval of the last ten round
/// trips (0.1 to 1 s).
///
/// The maximum is taken because an interval shows less than the path can carry whenever less was
/// sent. An interval in which the application limited the sender may raise the estimate and never
/// lower or age it (as in BBR, draft-ietf-ccwg-bbr): a path does not get slower while nothing is
/// asked of it, it only gets less known, which [`age`](Self::age) says.
#[derive(Clone, Debug)]
pub struct DeliveryRate {
    tally: Tally,
    window: Duration,
    /// When the interval began; what it has brought so far.
    since: Option<Time>,
    bytes: u64,
    app_limited: bool,
    rates: [(Time, u64); RATES],
    next: usize,
    best: u64,
}

impl Default for DeliveryRate {
    fn default() -> Self {
        Self::new()
    }
}

impl DeliveryRate {
    /// Nothing known.
    pub fn new() -> Self {
        Self {
            tally: Tally::default(),
            window: WINDOW_MIN,
            since: None,
            bytes: 0,
            app_limited: false,
            rates: [(Time::ZERO, 0); RATES],
            next: 0,
            best: 0,
        }
    }

    /// The path's round trip, from which the window follows.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.window = rtt
            .saturating_mul(WINDOW_RTTS)
            .clamp(WINDOW_MIN, WINDOW_MAX);
    }

    /// A report acknowledged `bytes` more. `app_limited`: since the last report there was a time
    /// when nothing waited to be sent.
    pub fn acknowledged(&mut self, bytes: u64, now: Time, app_limited: bool) {
        let Some(since) = self.since else {
            // When these bytes began to arrive is not known; the first interval begins here.
            self.since = Some(now);
            return;
        };
        self.bytes = self.bytes.saturating_add(bytes);
        self.app_limited |= app_limited;
        let took = now.since(since);
        if took < self.window / INTERVALS {
            return;
        }
        let nanos = took.as_nanos().max(1);
        let rate = u128::from(self.bytes) * 1_000_000_000 / nanos;
        self.interval(u64::try_from(rate).unwrap_or(u64::MAX), now);
        self.since = Some(now);
        self.bytes = 0;
        self.app_limited = false;
    }

    fn interval(&mut self, rate: u64, now: Time) {
        if self.app_limited && rate <= self.best {
            return;
        }
        if let Some(slot) = self.rates.get_mut(self.next % RATES) {
            *slot = (now, rate);
        }
        self.next = (self.next + 1) % RATES;
        let recent = |at: Time| now.since(at) < self.window;
        let rates = self.rates.iter().filter(|(at, _)| recent(*at));
        self.best = rates.map(|(_, rate)| *rate).max().unwrap_or(rate);
        self.tally.note(1, now);
    }

    /// Bytes a second.
    pub fn bytes_per_second(&self) -> Option<u64> {
        (self.tally.count > 0).then_some(self.best)
    }

    /// How many intervals counted.
    pub fn count(&self) -> u64 {
        self.tally.count
    }

    /// How long ago the last of them ended.
    pub fn age(&self, now: Time) -> Option<Duration> {
        self.tally.age(now)
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
        let mut rate = DeliveryRate::new();
        rate.acknowledged(1_000_000, Time(5), false);
        assert_eq!(
            (rate.bytes_per_second(), rate.count(), rate.age(Time(9))),
            (None, 0, None)
        );
    }

    #[test]
    fn finds_the_rate_though_reports_jitter() {
        for rtt_ms in [2, 40, 300] {
            let mut rate = DeliveryRate::new();
            rate.set_rtt(Duration::from_millis(rtt_ms));
            let mut noise = Noise(rtt_ms);
            // 25 MB/s; each report is up to 5 ms late on its way.
            for n in 1..500u64 {
                let jitter = (noise.uniform() * 5e6) as u64;
                rate.acknowledged(250_000, Time(n * 10_000_000 + jitter), false);
            }
            let found = rate.bytes_per_second().unwrap() as f64 / 25e6;
            assert!((0.95..1.25).contains(&found), "{rtt_ms} ms: {found}");
        }
    }

    #[test]
    fn follows_a_slower_path_within_its_window_and_a_faster_at_once() {
        let mut rate = DeliveryRate::new();
        rate.set_rtt(Duration::from_millis(40));
        let mut now = Time::ZERO;
        let mut feed = |bytes, reports, limited| {
            for _ in 0..reports {
                now += STEP;
                rate.acknowledged(bytes, now, limited);
            }
            rate.bytes_per_second()
        };
        assert_eq!(feed(100_000, 100, false), Some(10_000_000));
        assert_eq!(feed(50_000, 30, false), Some(10_000_000));
        assert_eq!(feed(50_000, 20, false), Some(5_000_000));
        // The application slows down: that says nothing about the path.
        assert_eq!(feed(1_000, 1_000, true), Some(5_000_000));
        // It may show that the path is faster.
        assert_eq!(feed(80_000, 30, true), Some(8_000_000));
        assert_eq!(feed(90_000, 20, false), Some(9_000_000));
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_all_intervals(
            reports in prop::collection::vec((0u64..200_000, 1u64..60_000_000, any::<bool>()), 1..300),
            rtt_ms in 0u64..400,
        ) {
            let mut rate = DeliveryRate::new();
            rate.set_rtt(Duration::from_millis(rtt_ms));
            let window = (rtt_ms * 10).clamp(100, 1_000) * 1_000_000;
            let mut now = 0;
            let (mut since, mut sum, mut limited) = (None, 0u64, false);
            let (mut counted, mut expected): (Vec<(u64, u64)>, _) = (vec![], None);
            for (bytes, wait, app_limited) in reports {
                now += wait;
                rate.acknowledged(bytes, Time(now), app_limited);
                if let Some(at) = since {
                    sum += bytes;
                    limited |= app_limited;
                    if now - at >= window / 4 {
                        let sample = (u128::from(sum) * 1_000_000_000 / u128::from(now - at)) as u64;
                        if !limited || Some(sample) > expected.or(Some(0)) {
                            counted.push((now, sample));
                            let recent = counted.iter().filter(|c| now - c.0 < window);
                            expected = recent.map(|c| c.1).max();
                        }
                        (since, sum, limited) = (Some(now), 0, false);
                    }
                } else {
                    since = Some(now);
                }
                prop_assert_eq!(rate.bytes_per_second(), expected);
            }
        }
    }
}
