//! What the stream shows that tells losses from lateness: delays, and other holes.

use core::time::Duration;

use super::approx::{exp2, log2};
use super::logistic::{FEATURES, Features, pack};
use super::ms;
use crate::limits::PATHS_MAX;
use crate::predict::Hole;
use crate::time::Time;

/// Weights of a shard in the fast and in the slow mean of delays.
const FAST: f32 = 1.0 / 16.0;
const SLOW: f32 = 1.0 / 256.0;

/// Delays further than this from the reference, in microseconds, mean another clock: 8 s, which a
/// 32-bit float still holds to the microsecond.
const SPAN_US: i32 = 8 << 20;

/// A jump of the base delay by so many deviations and microseconds, for so many shards and so long,
/// is another path.
const JUMP_DEVIATIONS: f32 = 8.0;
const JUMP_US_MIN: f32 = 3_000.0;
const JUMP_SHARDS: u16 = 64;
const JUMP_TIME: Duration = Duration::from_millis(100);

/// Half-lives of what is remembered of other holes, in milliseconds.
const HALF_LIVES_MS: [f32; 3] = [4.0, 16.0, 64.0];

/// Weight of a hole in the share of holes that were losses, and of a shard in the loss rate.
const HOLE: f32 = 1.0 / 64.0;
const HOLES_LONG: u16 = 2_048;
const SHARD: f32 = 1.0 / 4_096.0;

/// A bad state loses half of what is sent (a burst of mean 2 at least), and ends with a sixteenth
/// of the shards that arrive in it.
const BAD_LOSS: f32 = 0.5;
const BAD_ENDS: f32 = 1.0 / 16.0;

/// Relative one-way delays on a path, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Delays {
    reference_us: u32,
    /// Shards seen, as far as a mean cares.
    count: u16,
    latest: f32,
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
    /// True if the path has become another one.
    #[inline]
    fn note(&mut self, delay_us: u32, at: Time) -> bool {
        let relative = delay_us.wrapping_sub(self.reference_us) as i32;
        if self.count == 0 || !(-SPAN_US..=SPAN_US).contains(&relative) {
            let is_new = self.count > 0;
            *self = Self {
                reference_us: delay_us,
                count: 1,
                ..Self::default()
            };
            return is_new;
        }
        let relative = relative as f32;
        let distance = (relative - self.slow).abs();
        // Until there are many, a mean over all.
        let slow = if self.count < 256 {
            self.count += 1;
            (1.0 / f32::from(self.count)).max(SLOW)
        } else {
            SLOW
        };
        self.latest = relative;
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
        let is_jump = self.away >= JUMP_SHARDS && at.since(self.away_since) >= JUMP_TIME;
        if is_jump {
            (self.slow, self.fast, self.away) = (relative, relative, 0);
        }
        is_jump
    }

    /// A distance in deviations, within 4.
    fn deviations(&self, distance: f32) -> f32 {
        (distance / (self.deviation + 50.0)).clamp(-4.0, 4.0)
    }
}

/// Holes of the last while, the newer the heavier: by half-life.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    at: Time,
    weights: [f32; HALF_LIVES_MS.len()],
}

impl Recent {
    #[inline]
    fn age(&mut self, now: Time) {
        let passed = ms(now.since(self.at));
        if passed > 0.0 {
            for (weight, half_life) in self.weights.iter_mut().zip(HALF_LIVES_MS) {
                *weight *= exp2(-passed / half_life);
            }
            self.at = now;
        }
    }

    #[inline]
    fn add(&mut self, now: Time) {
        self.age(now);
        self.weights.iter_mut().for_each(|weight| *weight += 1.0);
    }

    /// Takes out what was added `age` ago.
    fn remove(&mut self, age: Duration, now: Time) {
        self.age(now);
        for (weight, half_life) in self.weights.iter_mut().zip(HALF_LIVES_MS) {
            *weight = (*weight - exp2(-ms(age) / half_life)).max(0.0);
        }
    }
}

/// What the stream shows.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    delays: [Delays; PATHS_MAX],
    /// Shards that arrived, modulo 2^32.
    arrived: u32,
    arrived_at_hole: u32,
    /// Holes that are open as far as is known, and such as were filled late.
    unresolved: Recent,
    late: Recent,
    /// Share of holes that were losses, lately and over long, and of shards.
    lost_of_holes: f32,
    lost_of_holes_long: f32,
    fates: u16,
    lost_of_shards: f32,
    arrived_at_fate: u32,
    /// Probability that the path is in its bad state.
    bad: f32,
    /// The newest hole that was filled late.
    overtaker: Option<u32>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            delays: [Delays::default(); PATHS_MAX],
            arrived: 0,
            arrived_at_hole: 0,
            unresolved: Recent::default(),
            late: Recent::default(),
            lost_of_holes: 0.5,
            lost_of_holes_long: 0.5,
            fates: 0,
            lost_of_shards: 0.005,
            arrived_at_fate: 0,
            bad: 0.0,
            overtaker: None,
        }
    }

    /// True if the path has become another one.
    #[inline]
    pub(super) fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) -> bool {
        self.arrived = self.arrived.wrapping_add(1);
        let delay_us = received_at.as_wire_us().wrapping_sub(sent_at_us);
        self.delays
            .get_mut(usize::from(path))
            .is_some_and(|delays| delays.note(delay_us, received_at))
    }

    /// What is known of a hole at `age`; `itself` is how much of the unresolved holes it is.
    fn describe(&self, hole: &Hole, itself: [f32; HALF_LIVES_MS.len()]) -> [f32; FEATURES] {
        let delays = self.delays.get(usize::from(hole.path)).copied();
        let delays = delays.unwrap_or_default();
        let gap = hole.gap.clamp(1, 64) as f32;
        let others = |index: usize| (self.unresolved.weights[index] - itself[index]).max(0.0);
        let several = |weight: f32| log2(1.0 + weight) / 2.0;
        [
            1.0,
            log2(gap) / 3.0,
            f32::from(u8::from(hole.gap <= 1)),
            (hole.position.min(63) as f32 + 1.0) / gap - 0.5,
            log2(self.lost_of_shards + 1e-4) / 4.0 + 2.0,
            self.bad * 2.0,
            self.lost_of_holes * 2.0 - 1.0,
            delays.deviations(delays.latest - delays.slow) / 2.0,
            delays.deviations(delays.fast - delays.slow) / 2.0,
            f32::from(hole.siblings) / 2.0,
            several(others(0)),
            several(others(1)),
            several(others(2)),
            several(self.late.weights[0]),
            several(self.late.weights[2]),
            0.0,
        ]
    }

    /// A hole opens: what is known of it.
    #[inline]
    pub(super) fn open(&mut self, hole: &Hole) -> Features {
        self.unresolved.age(hole.opened_at);
        self.late.age(hole.opened_at);
        let arrived = self.arrived.wrapping_sub(self.arrived_at_hole);
        self.arrived_at_hole = self.arrived;
        // The forward filter over `arrived` shards at once, of which a bad state loses its share.
        let loss = self.lost_of_shards.clamp(1e-5, 0.5);
        let stays = (1.0 - BAD_LOSS) * (1.0 - BAD_ENDS);
        let begins = loss * BAD_ENDS;
        let left = exp2(log2(stays) * arrived.min(64) as f32);
        self.bad = (self.bad * left + begins).min(0.99);
        let features = pack(self.describe(hole, [0.0; HALF_LIVES_MS.len()]));
        self.unresolved.add(hole.opened_at);
        features
    }

    /// What losses there are to one late shard, over long: from 1 in 1,000 to 1.
    #[inline]
    pub(super) fn odds(&self) -> f32 {
        (self.lost_of_holes_long / (1.0 - self.lost_of_holes_long).max(1e-3)).clamp(1e-3, 1.0)
    }

    /// How likely the hole was a loss, for the belief in a bad state.
    #[inline]
    pub(super) fn believe(&mut self, probability: f32) {
        let loss = self.lost_of_shards.clamp(1e-5, 0.5);
        let ratio = probability * BAD_LOSS / loss + (1.0 - probability);
        let bad = self.bad * ratio;
        self.bad = (bad / (bad + 1.0 - self.bad)).min(0.99);
    }

    /// Another look at an open hole, whose logit was `before`, survival included.
    pub(super) fn look(&mut self, hole: &Hole, age: Duration, before: f32) -> Features {
        let now = hole.opened_at + age;
        self.unresolved.age(now);
        self.late.age(now);
        let itself = HALF_LIVES_MS.map(|half_life| exp2(-ms(age) / half_life));
        let mut values = self.describe(hole, itself);
        // What was sent after it has come late: it did not wait in the same queue.
        let is_overtaken = self
            .overtaker
            .is_some_and(|number| (number.wrapping_sub(hole.number) as i32) > 0);
        values[15] = f32::from(u8::from(is_overtaken));
        // The position and who opened it say nothing new; their places tell of the age.
        values[7] = (before / 2.0).clamp(-4.0, 4.0);
        values[9] = log2(ms(age).max(0.1)) / 4.0;
        pack(values)
    }

    /// A hole was filled by its first transmission.
    pub(super) fn late(&mut self, hole: &Hole, age: Duration, was_judged: bool) {
        let now = hole.opened_at + age;
        if !was_judged {
            self.unresolved.remove(age, now);
            self.fate(false);
        }
        self.late.add(now);
        let is_newer = |number: u32| (hole.number.wrapping_sub(number) as i32) > 0;
        if self.overtaker.is_none_or(is_newer) {
            self.overtaker = Some(hole.number);
        }
    }

    /// A hole's first transmission is lost.
    pub(super) fn lost(&mut self) {
        self.fate(true);
    }

    fn fate(&mut self, lost: bool) {
        let lost = f32::from(u8::from(lost));
        self.lost_of_holes += HOLE * (lost - self.lost_of_holes);
        self.fates = (self.fates + 1).min(HOLES_LONG);
        let weight = 1.0 / f32::from(self.fates + 1);
        self.lost_of_holes_long += weight * (lost - self.lost_of_holes_long);
        let arrived = self.arrived.wrapping_sub(self.arrived_at_fate);
        self.arrived_at_fate = self.arrived;
        let kept = exp2(-(arrived.min(1 << 20) as f32) * SHARD * core::f32::consts::LOG2_E);
        self.lost_of_shards = (self.lost_of_shards * kept + SHARD * lost).clamp(0.0, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hole(number: u32, at_us: u64) -> Hole {
        Hole {
            number,
            opened_at: Time(at_us * 1_000),
            gap: 1,
            position: 0,
            path: 0,
            siblings: 0,
        }
    }

    #[test]
    fn another_base_delay_is_another_path_and_a_burst_of_jitter_is_not() {
        let mut signals = Signals::new();
        let mut changes = |from: u32, count: u32, delay_us: u32| {
            (from..from + count)
                .filter(|n| {
                    let jitter = n % 7 * 100;
                    signals.arrived(
                        0,
                        n * 100,
                        Time(u64::from(n * 100 + delay_us + jitter) * 1_000),
                    )
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
    fn open_holes_count_until_they_are_filled() {
        let mut signals = Signals::new();
        for number in 0..8 {
            signals.open(&hole(number, 1_000));
        }
        assert!((signals.unresolved.weights[1] - 8.0).abs() < 0.1);
        for number in 0..8 {
            signals.late(&hole(number, 1_000), Duration::from_millis(3), false);
        }
        assert!(signals.unresolved.weights[1] < 0.1);
        assert!((signals.late.weights[1] - 8.0).abs() < 0.1);
    }

    #[test]
    fn losses_raise_the_belief_in_a_bad_state_and_arrivals_lower_it() {
        let mut signals = Signals::new();
        for number in 0..3 {
            signals.open(&hole(number, 1_000));
            signals.believe(0.9);
        }
        let believed = signals.bad;
        assert!(believed > 0.3, "{believed}");
        (0..20).for_each(|n| {
            signals.arrived(0, n, Time(2_000_000));
        });
        signals.open(&hole(3, 2_000));
        assert!(signals.bad < believed / 10.0);
    }

    proptest! {
        #[test]
        fn finite_whatever_comes(
            steps in prop::collection::vec((0u8..5, any::<u32>(), any::<u64>(), any::<u8>()), 1..200),
        ) {
            let mut signals = Signals::new();
            for (kind, number, nanos, path) in steps {
                let hole = Hole {
                    number,
                    opened_at: Time(nanos),
                    gap: number.rotate_left(7),
                    position: number.rotate_left(13),
                    path,
                    siblings: path,
                };
                let age = Duration::from_nanos(nanos.rotate_left(23));
                match kind {
                    0 => { signals.arrived(path, number, Time(nanos)); }
                    1 => { signals.open(&hole); }
                    2 => { signals.look(&hole, age, nanos as f32); }
                    3 => signals.late(&hole, age, number & 1 == 0),
                    _ => signals.lost(),
                }
                signals.believe(f32::from(path) / 255.0);
                prop_assert!((0.0..=1.0).contains(&signals.bad));
                prop_assert!((0.0..=1.0).contains(&signals.lost_of_holes));
                prop_assert!((0.0..=1.0).contains(&signals.lost_of_shards));
                let weights = signals.unresolved.weights.iter().chain(&signals.late.weights);
                prop_assert!(weights.clone().all(|weight| weight.is_finite() && *weight >= 0.0));
            }
        }
    }
}
