//! CUBIC (RFC 9438) as Linux has it: fast convergence, the Reno-friendly region by counting, and
//! HyStart in its classic form (Ha, Rhee: "Taming the elephants", Computer Networks 55, 2011) with
//! both detectors. Windows are in segments.

use std::time::Duration;

use shardgate_core::time::Time;

/// What a window is multiplied with at a congestion event (RFC 9438, 4.6).
const BETA: f64 = 0.7;
/// Aggressiveness, segments per cubic second (RFC 9438, 5.1).
const C: f64 = 0.4;
/// Acknowledged segments per window and segment of Reno's estimate: (1 + β) / 3 (1 - β), the
/// inverse of α in RFC 9438, 4.3.
const RENO_ACKS: f64 = (1.0 + BETA) / (3.0 * (1.0 - BETA));
/// Without a known maximum a window grows at least by a twentieth each round trip.
const ACKS_PER_SEGMENT_MAX: f64 = 20.0;

/// HyStart works from this window on.
const LOW_WINDOW: u32 = 16;
/// ACKs not further apart belong to one train.
const TRAIN_GAP: Duration = Duration::from_millis(2);
/// What a train may take beyond half the least round trip: a host's own bursts.
const TRAIN_SLACK: Duration = Duration::from_millis(1);
/// Round trips of a round that are looked at.
const SAMPLES: u8 = 8;
/// An eighth of the least round trip, within these bounds, is an increase of delay.
const INCREASE_MIN: Duration = Duration::from_millis(4);
const INCREASE_MAX: Duration = Duration::from_millis(16);
/// After a loss, round trips say nothing about the path alone for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Growth and reduction of a congestion window.
#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    w_max: f64,
    epoch: Option<Epoch>,
    /// Acknowledged since the window last grew.
    acked: f64,
    delay_min: Option<Duration>,
    hystart: HyStart,
}

/// The time since the last congestion event.
#[derive(Clone, Debug)]
struct Epoch {
    start: Time,
    origin: f64,
    k: f64,
    reno_window: f64,
    reno_acked: f64,
}

/// Looks for the end of slow start, round by round.
#[derive(Clone, Debug, Default)]
struct HyStart {
    is_over: bool,
    round_start: Time,
    last_ack: Time,
    /// A round ends when the segment that was next at its start is acknowledged.
    round_end: Option<u64>,
    rtt_min: Option<Duration>,
    samples: u8,
}

impl Cubic {
    /// A congestion event at window `cwnd`; the new slow start threshold.
    pub(super) fn on_congestion(&mut self, cwnd: u32) -> u32 {
        let window = f64::from(cwnd);
        self.epoch = None;
        // Fast convergence (RFC 9438, 4.7).
        self.w_max = if window < self.w_max {
            window * (1.0 + BETA) / 2.0
        } else {
            window
        };
        ((window * BETA) as u32).max(2)
    }

    /// A timeout: everything known about the path is forgotten.
    pub(super) fn on_timeout(&mut self) {
        *self = Self::default();
    }

    /// `acked` segments were acknowledged, and the flow used its whole window; the new one.
    pub(super) fn on_congestion_avoidance(&mut self, cwnd: u32, acked: u32, now: Time) -> u32 {
        let per_segment = self.acks_per_segment(f64::from(cwnd), f64::from(acked), now);
        let mut grown = 0.0;
        if self.acked >= per_segment {
            // Saved up while growth was slower: one segment, not a burst of them.
            self.acked = 0.0;
            grown = 1.0;
        }
        self.acked += f64::from(acked);
        let steps = (self.acked / per_segment).floor();
        self.acked -= steps * per_segment;
        grown += steps;
        cwnd.saturating_add(grown as u32)
    }

    /// How many segments must be acknowledged for the window to grow by one.
    fn acks_per_segment(&mut self, cwnd: f64, acked: f64, now: Time) -> f64 {
        let w_max = self.w_max;
        let epoch = self.epoch.get_or_insert_with(|| {
            self.acked = 0.0;
            Epoch {
                start: now,
                origin: w_max.max(cwnd),
                k: ((w_max - cwnd).max(0.0) / C).cbrt(),
                reno_window: cwnd,
                reno_acked: 0.0,
            }
        });
        let t = now.since(epoch.start) + self.delay_min.unwrap_or_default();
        let target = epoch.origin + C * (t.as_secs_f64() - epoch.k).powi(3);
        let mut per_segment = if target > cwnd {
            cwnd / (target - cwnd)
        } else {
            100.0 * cwnd
        };
        if w_max == 0.0 {
            per_segment = per_segment.min(ACKS_PER_SEGMENT_MAX);
        }
        // The Reno-friendly region (RFC 9438, 4.3).
        epoch.reno_acked += acked;
        let steps = (epoch.reno_acked / (cwnd * RENO_ACKS)).floor();
        epoch.reno_acked -= steps * cwnd * RENO_ACKS;
        epoch.reno_window += steps;
        if epoch.reno_window > cwnd {
            per_segment = per_segment.min(cwnd / (epoch.reno_window - cwnd));
        }
        // At most half a window each round trip (RFC 9438, 4.2).
        per_segment.max(2.0)
    }

    /// A round trip was measured, with `una` acknowledged and `next` to be sent; true if slow
    /// start is to end.
    pub(super) fn on_rtt(
        &mut self,
        rtt: Duration,
        now: Time,
        (una, next): (u64, u64),
        cwnd: u32,
        is_slow_start: bool,
    ) -> bool {
        let is_quiet = |epoch: &Epoch| now.since(epoch.start) < QUIET;
        if self.epoch.as_ref().is_some_and(is_quiet) {
            return false;
        }
        let delay_min = self.delay_min.map_or(rtt, |min| min.min(rtt));
        self.delay_min = Some(delay_min);
        is_slow_start && self.hystart.is_end(rtt, delay_min, now, (una, next), cwnd)
    }
}

impl HyStart {
    fn is_end(
        &mut self,
        rtt: Duration,
        delay_min: Duration,
        now: Time,
        (una, next): (u64, u64),
        cwnd: u32,
    ) -> bool {
        if self.is_over {
            return false;
        }
        if self.round_end.is_none_or(|end| una > end) {
            self.round_end = Some(next);
            (self.round_start, self.last_ack) = (now, now);
            (self.rtt_min, self.samples) = (None, 0);
        }
        if cwnd < LOW_WINDOW {
            return false;
        }
        let mut is_train_long = false;
        if now.since(self.last_ack) <= TRAIN_GAP {
            self.last_ack = now;
            is_train_long = now.since(self.round_start) > (delay_min + TRAIN_SLACK) / 2;
        }
        let rtt_min = self.rtt_min.map_or(rtt, |min| min.min(rtt));
        self.rtt_min = Some(rtt_min);
        let increase = (delay_min / 8).clamp(INCREASE_MIN, INCREASE_MAX);
        let is_delayed = self.samples >= SAMPLES && rtt_min > delay_min + increase;
        self.samples = self.samples.saturating_add(1);
        self.is_over = is_train_long || is_delayed;
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// One round trip after the other, each acknowledging a window.
    fn rounds(cubic: &mut Cubic, mut cwnd: u32, count: u32) -> Vec<u32> {
        (0..count)
            .map(|round| {
                let now = Time::ZERO + RTT * round;
                let window = cwnd;
                for _ in 0..window {
                    cwnd = cubic.on_congestion_avoidance(cwnd, 1, now);
                }
                cwnd
            })
            .collect()
    }

    #[test]
    fn the_window_is_a_cubic_around_the_last_maximum() {
        let mut cubic = Cubic {
            delay_min: Some(RTT),
            ..Cubic::default()
        };
        assert_eq!(cubic.on_congestion(1_000), 700);
        let windows = rounds(&mut cubic, 700, 200);
        // K = cbrt(300 / 0.4) = 9.09 s: the maximum is reached there, and the curve is flat.
        assert!((990..=1_001).contains(&windows[90]), "{}", windows[90]);
        assert!(windows[100] - windows[80] <= 6, "a plateau");
        // W(t) = C (t - K)^3 + W_max at t = 3 s and 18 s.
        for (round, t) in [(30, 3.1), (180, 18.1)] {
            let expected = 0.4 * (t - 9.085_f64).powi(3) + 1_000.0;
            let got = f64::from(windows[round]);
            assert!(
                (got / expected - 1.0).abs() < 0.02,
                "{got} instead of {expected}"
            );
        }
    }

    #[test]
    fn small_windows_grow_as_reno_with_the_same_mean_does() {
        let mut cubic = Cubic {
            delay_min: Some(Duration::from_millis(10)),
            ..Cubic::default()
        };
        let start = cubic.on_congestion(20);
        let mut cwnd = start;
        // 10 round trips of 10 ms: the cubic part is flat, α = 3 (1 - β) / (1 + β) = 0.53.
        for round in 0..10 {
            let now = Time(round * 10_000_000);
            let window = cwnd;
            for _ in 0..window {
                cwnd = cubic.on_congestion_avoidance(cwnd, 1, now);
            }
        }
        assert!((start + 4..=start + 6).contains(&cwnd), "{start} to {cwnd}");
    }

    #[test]
    fn a_smaller_maximum_makes_room() {
        let mut cubic = Cubic::default();
        cubic.on_congestion(1_000);
        assert_eq!(cubic.on_congestion(800), 560);
        assert_eq!(cubic.w_max, 680.0, "fast convergence");
        assert_eq!(cubic.on_congestion(2), 2);
    }

    #[test]
    fn slow_start_ends_when_delay_grows_or_a_train_fills_half_a_round_trip() {
        let ms = Duration::from_millis;
        let mut calm = Cubic::default();
        let mut delayed = Cubic::default();
        for ack in 0..9 {
            // ACKs 5 ms apart are no train.
            let now = Time::ZERO + ms(5 * ack);
            assert!(!calm.on_rtt(ms(40), now, (0, 20), 20, true));
            assert!(!delayed.on_rtt(ms(40), now, (0, 20), 20, true));
        }
        for ack in 0..20 {
            let now = Time::ZERO + ms(100 + 5 * ack);
            assert!(!calm.on_rtt(ms(44), now, (21, 40), 20, true));
            assert_eq!(
                delayed.on_rtt(ms(46), now, (21, 40), 20, true),
                ack == 8,
                "{ack}"
            );
        }
        let mut train = Cubic::default();
        let end =
            (0..100).find(|&ack| train.on_rtt(ms(40), Time::ZERO + ms(ack), (0, 200), 100, true));
        assert_eq!(end, Some(21), "longer than half of 41 ms");
    }
}
