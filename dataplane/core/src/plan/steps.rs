//! Levels that rise at once and fall one step a second.

use core::time::Duration;

use crate::time::Time;

/// How long a level must have been too high before it falls by one, and between two falls.
const STEP: Duration = Duration::from_secs(1);

/// How long more must have been wanted before [`Held`] gives it.
const HELD_FOR: Duration = Duration::from_millis(400);

/// A rise so soon after a fall means that the fall was wrong.
const REGRETTED: Duration = Duration::from_secs(30);

/// Each regret makes the next fall wait three times as long, up to 81 s: there and back again in that
/// time are three changes in two minutes.
const REGRETS_MAX: u8 = 4;
const PATIENCE: u32 = 3;

/// Regrets are forgotten one by one after so long without another.
const FORGIVEN: Duration = Duration::from_secs(120);

/// A level of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Where it is.
    pub at: u8,
    /// Since when it has been too high.
    pub high_since: Option<Time>,
}

/// Something that is wanted only once it has been wanted for long enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The least that has been wanted since then.
    pub least: u8,
    /// Since when more has been wanted than there is.
    pub since: Option<Time>,
}

impl Held {
    /// What is to be had now where `wanted` is wanted and there is `current`.
    pub(super) fn held(&mut self, wanted: u8, current: u8, now: Time) -> u8 {
        if wanted <= current {
            *self = Self::default();
            return wanted;
        }
        let least = self.since.map_or(wanted, |_| self.least.min(wanted));
        self.least = least;
        if now.since(*self.since.get_or_insert(now)) < HELD_FOR {
            return current;
        }
        *self = Self::default();
        least
    }
}

/// When levels that belong together may fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When one of them fell last, and whether that was regretted.
    pub fell_at: Option<Time>,
    /// See there.
    pub is_regretted: bool,
    /// How often one rose again soon after, lately.
    pub regrets: u8,
    /// When that was last counted or forgiven.
    pub judged_at: Time,
}

impl Pace {
    /// How long a level has to have been too high before it falls.
    fn patience(&self, is_calm: bool) -> Duration {
        let regrets = if is_calm { 0 } else { self.regrets };
        STEP * PATIENCE.pow(regrets.min(REGRETS_MAX).into())
    }

    /// Whether a level may fall now that has been too high since then: all levels together once in the
    /// time of their patience, unless there is nothing to regret.
    fn permits(&self, high_since: Time, is_calm: bool, now: Time) -> bool {
        let patience = self.patience(is_calm);
        let is_free = patience == STEP || self.fell_at.is_none_or(|at| now.since(at) >= patience);
        is_free && now.since(high_since) >= patience
    }

    fn rose(&mut self, now: Time) {
        let is_soon = (self.fell_at).is_some_and(|fell| now.since(fell) < REGRETTED);
        // One fall is regretted once, however many levels rise.
        if is_soon && !self.is_regretted {
            self.regrets = self.regrets.saturating_add(1).min(REGRETS_MAX);
            self.judged_at = now;
            self.is_regretted = true;
        }
    }

    /// Forgets regrets with time.
    pub(super) fn forgive(&mut self, now: Time) {
        if self.regrets > 0 && now.since(self.judged_at) >= FORGIVEN {
            self.regrets -= 1;
            self.judged_at = now;
        }
    }
}

impl Level {
    /// Follows what is wanted: `up` at once, and down by one if `down` has been below for long enough.
    /// `down` is no lower than `up`: the distance is what the estimates may waver by. While it
    /// `is_calm`, regrets do not count.
    pub(super) fn follow(&mut self, up: u8, down: u8, is_calm: bool, pace: &mut Pace, now: Time) {
        if up > self.at {
            self.at = up;
            self.high_since = None;
            pace.rose(now);
            return;
        }
        if down.max(up) >= self.at {
            self.high_since = None;
            return;
        }
        let since = *self.high_since.get_or_insert(now);
        if pace.permits(since, is_calm, now) {
            self.at -= 1;
            self.high_since = Some(now);
            (pace.fell_at, pace.is_regretted) = (Some(now), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Time {
        Time(1_000_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn up_at_once_and_down_a_step_a_second() {
        let (mut level, mut pace) = (Level::default(), Pace::default());
        let mut follow = |ms, up| {
            level.follow(up, up, false, &mut pace, at(ms));
            level.at
        };
        assert_eq!(follow(0, 7), 7);
        assert_eq!(follow(10, 2), 7);
        assert_eq!(follow(1_009, 2), 7);
        assert_eq!(follow(1_010, 2), 6);
        assert_eq!(follow(2_009, 2), 6);
        assert_eq!(follow(2_010, 2), 5);
        // Wanted again in between: the second begins anew.
        assert_eq!(follow(2_500, 5), 5);
        assert_eq!(follow(3_020, 2), 5);
        assert_eq!(follow(4_020, 2), 4);
        assert_eq!(follow(9_000, 3), 3);
        assert_eq!(follow(19_000, 3), 3);
    }

    #[test]
    fn what_lies_between_stays() {
        let (mut level, mut pace) = (
            Level {
                at: 3,
                high_since: None,
            },
            Pace::default(),
        );
        for ms in 0..50 {
            level.follow(2, 3, false, &mut pace, at(ms * 100));
        }
        assert_eq!(level.at, 3);
    }

    #[test]
    fn falls_that_are_regretted_become_rare_but_not_in_a_calm() {
        let (mut level, mut pace) = (Level::default(), Pace::default());
        let mut changes = vec![];
        for ms in (0..300_000).step_by(10) {
            let before = level.at;
            // As soon as it has fallen it is wanted again.
            let up = if level.at < 4 { 4 } else { 3 };
            level.follow(up, up, false, &mut pace, at(ms));
            pace.forgive(at(ms));
            if level.at != before {
                changes.push(ms);
            }
        }
        let from_second = |from: u64| {
            let minute = from * 1_000..(from + 60) * 1_000;
            changes.iter().filter(|at| minute.contains(at)).count()
        };
        for from in 60..240 {
            assert!(from_second(from) <= 6, "{from} s: {changes:?}");
        }
        level = Level {
            at: 4,
            high_since: None,
        };
        level.follow(0, 0, true, &mut pace, at(300_500));
        level.follow(0, 0, true, &mut pace, at(301_500));
        assert_eq!(level.at, 3, "a calm needs no patience");
    }

    proptest! {
        #[test]
        fn never_below_what_is_wanted_and_never_two_steps_at_once(
            wanted in prop::collection::vec((0u8..9, 0u8..3, 1u64..2_000), 1..200),
        ) {
            let (mut level, mut pace, mut now) = (Level::default(), Pace::default(), 0);
            let mut fell: Option<u64> = None;
            for (up, margin, wait) in wanted {
                now += wait;
                let before = level.at;
                level.follow(up, up + margin, false, &mut pace, at(now));
                prop_assert!(level.at >= up);
                prop_assert!(level.at <= before.max(up));
                prop_assert!(level.at + 1 >= before);
                if level.at < before {
                    prop_assert!(level.at >= up + margin);
                    prop_assert!(fell.is_none_or(|fell| now - fell >= 1_000));
                    fell = Some(now);
                }
            }
        }
    }
}
