//! Relative one-way delays of a path, and how far apart its shards are sent.

use core::time::Duration;

use crate::time::Time;

/// Weights of a sampled shard in the fast and in the slow mean of delays: one in 16 and in 256 of all.
const FAST: f32 = 1.0 / 4.0;
const SLOW: f32 = 1.0 / 64.0;

/// Of so many shards one goes into the means.
const SAMPLED: u8 = 4;

/// Samples in a mean over all, before it is one that forgets.
const SAMPLES: u16 = 64;

/// Delays further than this from the reference, in microseconds, mean another clock: 8 s, which a
/// 32-bit float still holds to the microsecond.
const SPAN_US: i32 = 8 << 20;

/// A jump of the base delay by so many deviations and microseconds, for so many samples and so long,
/// is another path.
const JUMP_DEVIATIONS: f32 = 8.0;
const JUMP_US_MIN: f32 = 3_000.0;
const JUMP_SAMPLES: u16 = 16;
const JUMP_TIME: Duration = Duration::from_millis(100);

/// What is known of a path's delays.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delays {
    /// By the sender's clock: the newest shard, and the newest before it came.
    newest_sent_us: u32,
    before_newest_us: u32,
    latest_us: u32,
    turn: u8,
    reference_us: u32,
    /// Samples, as far as a mean cares.
    count: u16,
    fast: f32,
    slow: f32,
    /// Mean distance from the slow mean.
    deviation: f32,
    /// How many in a row were far below or above the slow mean, since when, and how far.
    away: u16,
    away_since: Time,
    away_by: f32,
}

impl Delays {
    /// A shard has arrived. True if the path has become another one.
    #[inline]
    pub(super) fn note(&mut self, sent_us: u32, at: Time) -> bool {
        self.latest_us = at.as_wire_us().wrapping_sub(sent_us);
        if sent_us.wrapping_sub(self.newest_sent_us) as i32 > 0 || self.count == 0 {
            self.before_newest_us = self.newest_sent_us;
            self.newest_sent_us = sent_us;
        }
        self.turn = self.turn.wrapping_add(1);
        if self.turn % SAMPLED == 1 {
            return self.sample(at);
        }
        false
    }

    fn sample(&mut self, at: Time) -> bool {
        let relative = self.latest_us.wrapping_sub(self.reference_us) as i32;
        if self.count == 0 || !(-SPAN_US..=SPAN_US).contains(&relative) {
            let is_new = self.count > 0;
            *self = Self {
                newest_sent_us: self.newest_sent_us,
                before_newest_us: self.newest_sent_us,
                latest_us: self.latest_us,
                turn: self.turn,
                reference_us: self.latest_us,
                count: 1,
                ..Self::default()
            };
            return is_new;
        }
        let relative = relative as f32;
        let distance = (relative - self.slow).abs();
        // Until there are many, a mean over all.
        let slow = if self.count < SAMPLES {
            self.count += 1;
            (1.0 / f32::from(self.count)).max(SLOW)
        } else {
            SLOW
        };
        self.fast += FAST * (relative - self.fast);
        if distance > JUMP_DEVIATIONS * self.deviation + JUMP_US_MIN {
            return self.stray(relative, distance, at);
        }
        self.slow += slow * (relative - self.slow);
        self.deviation += slow * (distance - self.deviation);
        if self.away > 0 {
            // However many strayed in a row, they count as one.
            self.deviation += slow * (self.away_by - self.deviation);
            self.away = 0;
        }
        false
    }

    /// A delay far from the others: a spike, or a longer or shorter path.
    #[cold]
    fn stray(&mut self, relative: f32, distance: f32, at: Time) -> bool {
        if self.away == 0 {
            self.away_since = at;
        }
        self.away = self.away.saturating_add(1);
        self.away_by = distance;
        let is_jump = self.away >= JUMP_SAMPLES && at.since(self.away_since) >= JUMP_TIME;
        if is_jump {
            (self.slow, self.fast, self.away) = (relative, relative, 0);
        }
        is_jump
    }

    /// How far the latest delay and the fast mean are from the slow one, in deviations, within 4.
    #[inline]
    pub(super) fn rises(&self) -> (f32, f32) {
        let unit = 1.0 / (self.deviation + 50.0);
        let latest = self.latest_us.wrapping_sub(self.reference_us) as i32 as f32;
        let rise = |delay: f32| ((delay - self.slow) * unit).clamp(-4.0, 4.0);
        (rise(latest), rise(self.fast))
    }

    /// How far apart `missing` shards and the one that showed that they are were sent, each from the
    /// next, in milliseconds: at most 100.
    #[inline]
    pub(super) fn spacing_ms(&self, missing: u32) -> f32 {
        let span_us = self.newest_sent_us.wrapping_sub(self.before_newest_us);
        let span_ms = span_us.min(1 << 24) as f32 / 1e3;
        (span_ms / (missing as f32 + 1.0)).min(100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_base_delay_is_another_path_and_a_burst_of_jitter_is_not() {
        let mut delays = Delays::default();
        let mut changes = |from: u32, count: u32, delay_us: u32| {
            (from..from + count)
                .filter(|n| {
                    let jitter = n % 7 * 100;
                    let at = Time(u64::from(n * 100 + delay_us + jitter) * 1_000);
                    delays.note(n * 100, at)
                })
                .count()
        };
        assert_eq!(changes(0, 2_000, 20_000), 0);
        assert_eq!(changes(2_000, 900, 45_000), 0, "a spike of 90 ms");
        assert_eq!(changes(2_900, 2_000, 20_000), 0);
        assert_eq!(changes(4_900, 2_000, 45_000), 1);
        assert_eq!(changes(6_900, 2_000, 20_000), 1);
    }

    #[test]
    fn what_rises_is_seen_in_the_latest_first() {
        let mut delays = Delays::default();
        let mut arrive = |n: u32, delay_us: u32| {
            delays.note(n * 500, Time(u64::from(n * 500 + delay_us) * 1_000));
            delays.rises()
        };
        for n in 0..1_000 {
            arrive(n, 20_000 + n % 5 * 20);
        }
        let (latest, fast) = arrive(1_000, 21_000);
        assert!(latest == 4.0 && fast < 3.0, "{latest} {fast}");
        let (_, fast) = (1_001..1_040).map(|n| arrive(n, 21_000)).last().unwrap();
        assert!(fast > 2.0, "{fast}");
    }

    #[test]
    fn missing_shards_were_sent_between_their_neighbours() {
        let mut delays = Delays::default();
        // The sender's clock wraps; one that comes late changes nothing.
        let sent = u32::MAX - 1_000;
        for (after, at) in [(0, 10), (5_000, 15), (3_000, 16), (9_000, 19)] {
            delays.note(sent.wrapping_add(after), Time(at * 1_000_000));
        }
        assert!((delays.spacing_ms(3) - 1.0).abs() < 1e-6);
        delays.note(sent.wrapping_add(2_009_000), Time(2_019_000_000));
        assert_eq!(delays.spacing_ms(0), 100.0);
    }
}
