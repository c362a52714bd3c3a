//! What the stream shows that tells losses from lateness: delays, and other holes.

use core::time::Duration;

use super::approx::{decayed, exp2, log2};
use super::delays::Delays;
use super::logistic::{BIAS, FEATURES, Features, pack};
use super::memo::Memo;
use super::ms;
use crate::limits::PATHS_MAX;
use crate::predict::Hole;
use crate::time::Time;

/// How many memories there are, the last three for nobody: eight are done side by side.
const MEMORIES: usize = 8;

/// One over the half-lives in milliseconds, negative: 16 s, 4 s, 256, 16 and 4 ms.
const HALVINGS: [f32; MEMORIES] = [
    -1.0 / 16_384.0,
    -1.0 / 4_096.0,
    -1.0 / 256.0,
    -1.0 / 16.0,
    -1.0 / 4.0,
    -1.0,
    -1.0,
    -1.0,
];

/// Holes that opened closer together than this many arrivals can have a period: crypto units and
/// carriers take turns.
const PERIOD_MAX: u32 = 4;

/// How many features are logarithms: the first ones.
const LOGS: usize = BIAS;

/// What one in a feature is, of those that are logarithms of one more than a count or a time.
#[rustfmt::skip]
const UNITS: [f32; LOGS] = [
    0.5, 0.5, 0.5, 0.5, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.5, 0.25, 0.5, 0.5,
];

/// A longer time since the last late one makes no difference, in milliseconds.
const SINCE_MAX_MS: f32 = 4_095.0;

/// What is left after some time, by half-life, the longest first.
#[inline]
fn left(passed_ms: f32) -> [f32; MEMORIES] {
    let mut left = [0.0; MEMORIES];
    for (left, halvings) in left.iter_mut().zip(&HALVINGS) {
        *left = exp2(passed_ms * halvings);
    }
    left
}

/// Holes of the last while, the newer the heavier: by half-life.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    at: Time,
    /// Such as are open as far as is known: after a while, losses.
    open: [f32; MEMORIES],
    /// Such as were filled late.
    late: [f32; MEMORIES],
}

impl Recent {
    #[inline]
    fn age(&mut self, now: Time) {
        let passed = now.since(self.at);
        if passed.is_zero() {
            return;
        }
        let left = left(ms(passed));
        for ((open, late), left) in self.open.iter_mut().zip(&mut self.late).zip(&left) {
            *open = decayed(*open * left);
            *late = decayed(*late * left);
        }
        self.at = now;
    }

    /// Takes out a hole that opened `age` ago.
    fn close(&mut self, age: Duration) {
        for (weight, left) in self.open.iter_mut().zip(left(ms(age))) {
            *weight = (*weight - left).max(0.0);
        }
    }
}

/// What the stream shows.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    delays: [Delays; PATHS_MAX],
    /// Shards that arrived, modulo 2^32.
    arrived: u32,
    /// At the last opening, and how many came between it and the one before it, twice.
    arrived_at_opening: u32,
    apart: [u32; 2],
    /// The newest hole.
    newest: u32,
    recent: Recent,
    /// When a hole was filled late, and the newest one that was.
    late_at: Option<Time>,
    overtaker: Option<u32>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            delays: [Delays::default(); PATHS_MAX],
            arrived: 0,
            arrived_at_opening: 0,
            apart: [u32::MAX; 2],
            newest: 0,
            recent: Recent::default(),
            late_at: None,
            overtaker: None,
        }
    }

    /// True if the path has become another one.
    #[inline]
    pub(super) fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) -> bool {
        self.arrived = self.arrived.wrapping_add(1);
        self.delays
            .get_mut(usize::from(path))
            .is_some_and(|delays| delays.note(sent_at_us, received_at))
    }

    /// A hole opens: what is known of it.
    #[inline]
    pub(super) fn open(&mut self, hole: &Hole, memo: &mut Memo) -> Features {
        self.recent.age(hole.opened_at);
        self.newest = hole.number;
        let apart = self.arrived.wrapping_sub(self.arrived_at_opening);
        // Those of one gap open together.
        if apart > 0 {
            self.apart = [apart, self.apart[0]];
            self.arrived_at_opening = self.arrived;
        }
        memo.arrived = self.arrived;
        let delays = self.delays.get(usize::from(hole.path));
        let delays = delays.copied().unwrap_or_default();
        memo.spacing_ms = delays.spacing_ms(hole.gap);
        memo.apart = self.apart.map(|apart| apart.min(255) as u8);
        memo.rises = delays.rises().into();
        let features = self.describe(hole, Duration::ZERO, memo, None, [0.0; MEMORIES]);
        self.recent
            .open
            .iter_mut()
            .for_each(|weight| *weight += 1.0);
        features
    }

    /// Another look at an open hole. `first` is what is known of the first of its gap.
    pub(super) fn look(
        &mut self,
        hole: &Hole,
        age: Duration,
        memo: &Memo,
        first: Option<&Memo>,
    ) -> Features {
        self.recent.age(hole.opened_at + age);
        self.describe(hole, age, memo, first, left(ms(age)))
    }

    /// What is known of a hole at `age`; `itself` is how much of the open holes it is.
    #[inline]
    fn describe(
        &self,
        hole: &Hole,
        age: Duration,
        memo: &Memo,
        first: Option<&Memo>,
        itself: [f32; MEMORIES],
    ) -> Features {
        let age_ms = ms(age);
        let flag = |is: bool| f32::from(u8::from(is));
        let gap = hole.gap.clamp(1, 1 << 12);
        let position = hole.position.min(gap - 1);
        let behind = gap - 1 - position;
        let arrived = self.arrived.wrapping_sub(memo.arrived).min(1 << 16);
        // Beyond its own gap.
        let newer = self.newest.wrapping_sub(hole.number).saturating_sub(behind);
        let newer = if age.is_zero() { 0 } else { newer.min(1 << 12) };
        let is_after = |number: u32| (number.wrapping_sub(hole.number) as i32) > 0;
        let others = |index: usize| {
            let others = self.recent.open[index] - itself[index];
            if others > 0.0 { others } else { 0.0 }
        };
        let late = self.recent.late;
        let since_ms = self.late_at.map_or(SINCE_MAX_MS, |at| {
            ms((hole.opened_at + age).since(at)).min(SINCE_MAX_MS)
        });
        let [apart, apart_before] = memo.apart.map(u32::from);
        let is_period = apart == apart_before && apart <= PERIOD_MAX;
        let (gap_late, gap_overtaken) = first.map_or((0, false), |first| {
            (first.gap_late, first.gap_newest_late > position as u16)
        });
        let whole = |count: u32| count as i32 as f32;
        let counts = [
            age_ms,
            whole(gap - 1),
            whole(position),
            whole(behind),
            whole(arrived),
            whole(newer),
            others(4),
            others(3),
            others(2),
            others(1),
            others(0),
            late[3],
            late[2],
            late[1],
            late[0],
            since_ms,
            f32::from(gap_late),
            whole(apart),
            memo.spacing_ms * whole(behind),
            memo.spacing_ms,
        ];
        let mut logs = [0.0; LOGS];
        for ((log, count), unit) in logs.iter_mut().zip(&counts).zip(&UNITS) {
            *log = log2(1.0 + count) * unit;
        }
        let (age_log, newer_log, late_log) = (logs[0], logs[5], logs[13]);
        let single = flag(gap == 1);
        let mut values = [0.0; FEATURES];
        let (first_values, last_values) = values.split_at_mut(LOGS);
        first_values.copy_from_slice(&logs);
        last_values.copy_from_slice(&[
            1.0,
            flag(age.is_zero()),
            single,
            memo.rises[0] * 0.5,
            memo.rises[1] * 0.5,
            flag(self.overtaker.is_some_and(is_after)),
            flag(gap_overtaken),
            flag(is_period),
            age_log * newer_log,
            age_log * single,
            late_log * single,
            f32::from(hole.siblings) * 0.5,
        ]);
        pack(&values)
    }

    /// A hole was filled by its first transmission.
    pub(super) fn late(&mut self, hole: &Hole, age: Duration) {
        let now = hole.opened_at + age;
        self.recent.age(now);
        self.recent.close(age);
        self.recent
            .late
            .iter_mut()
            .for_each(|weight| *weight += 1.0);
        self.late_at = Some(now);
        let is_newer = |number: u32| (hole.number.wrapping_sub(number) as i32) > 0;
        if self.overtaker.is_none_or(is_newer) {
            self.overtaker = Some(hole.number);
        }
    }

    /// A hole was none.
    pub(super) fn retract(&mut self) {
        for weight in &mut self.recent.open {
            *weight = (*weight - 1.0).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memo::Memos;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

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

    fn open(signals: &mut Signals, memos: &mut Memos, hole: &Hole) -> Features {
        signals.open(hole, memos.open(hole.number))
    }

    #[test]
    fn what_is_left_halves_in_each_half_life() {
        for (index, half_life) in [16_384.0, 4_096.0, 256.0, 16.0, 4.0]
            .into_iter()
            .enumerate()
        {
            for lives in [0.5f32, 1.0, 3.0] {
                let found = left(half_life * lives)[index];
                assert!(
                    (found / (-lives).exp2() - 1.0).abs() < 0.004,
                    "{half_life} {found}"
                );
            }
        }
        assert_eq!(left(0.0), [1.0; MEMORIES]);
    }

    #[test]
    fn open_holes_count_until_they_are_filled_or_turn_out_to_be_none() {
        let (mut signals, mut memos) = (Signals::new(), Memos::new());
        for number in 0..8 {
            open(&mut signals, &mut memos, &hole(number, 1_000));
        }
        assert!((signals.recent.open[2] - 8.0).abs() < 0.1);
        for number in 0..6 {
            signals.late(&hole(number, 1_000), MS * 3);
        }
        signals.retract();
        assert!((signals.recent.open[1] - 1.0).abs() < 0.05);
        assert!((signals.recent.late[1] - 6.0).abs() < 0.05);
    }

    #[test]
    fn a_look_sees_what_came_since_and_that_others_of_the_gap_have_come() {
        let (mut signals, mut memos) = (Signals::new(), Memos::new());
        let gap = [0, 1, 2].map(|position| Hole {
            gap: 3,
            position,
            ..hole(position, 1_000)
        });
        for hole in &gap {
            open(&mut signals, &mut memos, hole);
        }
        for n in 0..15 {
            signals.arrived(0, n, Time(2_000_000));
        }
        open(&mut signals, &mut memos, &hole(3, 2_000));
        signals.late(&gap[1], MS);
        let first = memos.get_mut(0).unwrap();
        (first.gap_late, first.gap_newest_late) = (1, 2);
        let look = |number: usize| {
            let hole = &gap[number];
            let memo = memos.get(hole.number).unwrap();
            signals.clone().look(hole, MS * 2, memo, memos.get(0))
        };
        let (before, after) = (look(0), look(2));
        // Fifteen arrivals, log2(16) / 4; one newer hole, log2(2) / 2.
        assert_eq!((before[4], before[5]), (32, 16));
        // Overtaken by one of the stream and one of its gap, of which one has come.
        assert_eq!((&before[25..27], before[16]), (&[32, 32][..], 16));
        assert_eq!((&after[25..27], after[16]), (&[0, 0][..], 16));
    }

    proptest! {
        #[test]
        fn finite_whatever_comes(
            steps in prop::collection::vec((0u8..5, any::<u32>(), any::<u64>(), any::<u8>()), 1..200),
        ) {
            let (mut signals, mut memos) = (Signals::new(), Memos::new());
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
                    1 => { open(&mut signals, &mut memos, &hole); }
                    2 => {
                        let memo = *memos.open(number);
                        signals.look(&hole, age, &memo, Some(&memo));
                    }
                    3 => signals.late(&hole, age),
                    _ => signals.retract(),
                }
                let weights = signals.recent.open.iter().chain(&signals.recent.late);
                prop_assert!(weights.clone().all(|weight| weight.is_finite() && *weight >= 0.0));
            }
        }
    }
}
