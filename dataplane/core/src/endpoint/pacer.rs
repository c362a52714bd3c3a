//! Bursts leave no faster than the path can take them.
//!
//! When a hole fills, its lane lets go all that was held, at once; the TCP receiver behind it
//! acknowledges all of it at once, and its sender answers with a burst as long as its window. Such a
//! burst overflows the bottleneck's queue, which makes the next holes. So bulk frames beyond a short
//! burst wait at the entrance and leave a quarter faster than the path delivers: the burst reaches
//! the bottleneck spread out, and what is not a burst never waits.

use core::time::Duration;

use super::path::Path;
use crate::time::Time;

/// Bursts of so much of the path's rate pass unhindered.
const BURST: Duration = Duration::from_millis(5);

/// A bottleneck has shown itself when its queue has been this long, or an eighth of the shortest
/// round trip if that is more.
const QUEUE_SEEN_MIN: Duration = Duration::from_millis(1);

/// Rates below this are not paced: a few frames are no burst.
const RATE_MIN: u64 = 100_000;

/// Quarters of what the path delivers at which frames leave.
const GAIN: u64 = 5;
/// The same after a round trip in which frames waited for a path whose queue was empty: what a slow
/// start asks for.
const GAIN_UNQUEUED: u64 = 8;

/// When how many bytes may leave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pacer {
    /// Bytes a second; 0 while the path's bottleneck is not known.
    rate: u64,
    /// Bytes that may leave now; below zero if more has left.
    tokens: i64,
    at: Time,
    /// Quarters of what the path delivers.
    gain: u64,
    /// Whether something had to wait since the gain was last judged, and when that was.
    held: bool,
    judged_at: Time,
}

impl Pacer {
    /// Follows what is known of the path.
    pub(super) fn follow(&mut self, path: &Path, now: Time) {
        let minimum = path.rtt.min(now).unwrap_or_default();
        let seen = (minimum / 8).max(QUEUE_SEEN_MIN);
        let is_known = path.queue.largest(now).is_some_and(|queue| queue >= seen);
        let delivered = path.rate.bytes_per_second().filter(|_| is_known);
        let queue = path.queue.current(now).unwrap_or_default();
        self.judge(
            queue >= seen / 2,
            path.rtt.smoothed().unwrap_or_default(),
            now,
        );
        let rate = delivered.map_or(0, |rate| rate.saturating_mul(self.gain) / 4);
        let rate = if rate < RATE_MIN { 0 } else { rate };
        if self.rate == 0 {
            self.tokens = 0;
            self.at = now;
        }
        self.rate = rate;
    }

    /// What was delivered is what was sent, not what the path can carry, if frames wait here while
    /// its queue is empty: a flow in slow start is held back by the little there was before it.
    fn judge(&mut self, is_queued: bool, round_trip: Duration, now: Time) {
        if is_queued {
            self.gain = GAIN;
        } else if now.since(self.judged_at) < round_trip {
            return;
        } else if self.held {
            self.gain = GAIN_UNQUEUED;
        }
        self.held = false;
        self.judged_at = now;
    }

    fn depth(&self) -> i64 {
        (self.rate as u128 * BURST.as_nanos() / 1_000_000_000) as i64
    }

    fn refill(&mut self, now: Time) {
        let passed = now.since(self.at).min(Duration::from_secs(1)).as_nanos();
        let earned = u128::from(self.rate) * passed / 1_000_000_000;
        // Whole bytes only: the time of a part of one stays on the clock.
        if earned > 0 {
            self.at = now;
            self.tokens = (self.tokens + earned as i64).min(self.depth());
        }
    }

    /// Whether something may leave now.
    pub(super) fn permits(&mut self, now: Time) -> bool {
        if self.rate == 0 {
            return true;
        }
        self.refill(now);
        self.held |= self.tokens <= 0;
        self.tokens > 0
    }

    /// So many bytes have left.
    pub(super) fn spend(&mut self, bytes: usize) {
        if self.rate > 0 {
            // Never more than a second's worth of debt.
            let debt_max = -(self.rate.min(i64::MAX as u64) as i64);
            self.tokens = self.tokens.saturating_sub(bytes as i64).max(debt_max);
        }
    }

    /// Permits so many bytes a second from now on.
    #[cfg(test)]
    pub(super) fn set(&mut self, rate: u64, now: Time) {
        (self.rate, self.at, self.tokens) = (rate, now, 0);
    }

    /// When the next bytes may leave.
    pub(super) fn next_at(&self) -> Time {
        if self.rate == 0 || self.tokens > 0 {
            return self.at;
        }
        let missing = self.tokens.unsigned_abs() + 1;
        let nanos = u128::from(missing) * 1_000_000_000 / u128::from(self.rate) + 1;
        self.at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Time {
        Time(us * 1_000)
    }

    #[test]
    fn a_burst_passes_and_the_rest_is_spread() {
        let mut pacer = Pacer {
            rate: 10_000_000,
            tokens: 0,
            at: at(0),
            ..Pacer::default()
        };
        assert!(!pacer.permits(at(0)));
        // Idle for long: a burst of 5 ms has gathered, no more.
        assert!(pacer.permits(at(1_000_000)));
        let mut sent = 0;
        while pacer.permits(at(1_000_000)) {
            pacer.spend(1_000);
            sent += 1;
        }
        assert_eq!(sent, 50);
        let (mut now, mut later) = (at(1_000_000), 0);
        while now < at(1_100_000) {
            now = pacer.next_at().max(now + Duration::from_nanos(1));
            if pacer.permits(now) {
                pacer.spend(1_000);
                later += 1;
            }
        }
        assert!((998..=1_002).contains(&later), "{later}");
    }

    #[test]
    fn an_empty_queue_shows_that_the_path_carries_more() {
        let mut pacer = Pacer {
            rate: 1_000_000,
            ..Pacer::default()
        };
        let ms = |ms: u64| at(ms * 1_000);
        let mut judged = |held: bool, is_queued, now: u64| {
            if held {
                assert!(!pacer.permits(pacer.at));
            }
            pacer.judge(is_queued, Duration::from_millis(40), ms(now));
            pacer.gain
        };
        assert_eq!(judged(false, true, 0), GAIN);
        // Nothing waited, or not yet for a round trip.
        assert_eq!(judged(false, false, 50), GAIN);
        assert_eq!(judged(true, false, 60), GAIN);
        assert_eq!(judged(false, false, 95), GAIN_UNQUEUED);
        assert_eq!(judged(false, false, 140), GAIN_UNQUEUED);
        assert_eq!(judged(true, true, 150), GAIN);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pacer = Pacer::default();
        for _ in 0..1_000 {
            assert!(pacer.permits(at(0)));
            pacer.spend(1_500);
        }
    }
}
