//! What a run is worth, in numbers that can be added up.

use serde::Serialize;
use shardgate_core::lane::CLASSES;
use shardgate_core::limits::{HOLD_MAX, UNIT_GRACE};

use super::channel::{Channel, NEVER};
use super::delays::{Delays, Summary};
use super::replay::Run;
use super::watch::Scores;

/// Deadlines at which residual loss is told, in milliseconds.
pub const DEADLINES_MS: [u64; 5] = [5, 10, 20, 40, 80];
/// Late shards in a window of coverage.
const WINDOW: usize = 200;
/// The cap of a deadline: beyond the smoothed round trip, or this, anybody asks.
const CAP_MIN_NS: u64 = 10_000_000;

/// Counts of one or more runs at the same setting.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    shards: u64,
    spurious: u64,
    /// Late shards, and those asked for: all, and those that came before the cap.
    late: [u64; 2],
    late_asked: [u64; 2],
    losses: u64,
    never_asked: u64,
    unrecovered: u64,
    repeats: u64,
    ask: Delays,
    recovery: Delays,
    residual: [u64; DEADLINES_MS.len()],
    wrong_releases: u64,
    waits: [Delays; CLASSES],
    windows: u64,
    worst_window: Option<f64>,
    pub scores: Scores,
}

/// What a setting is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Shards asked for although their first transmission came, of 1,000 shards.
    pub spurious_per_1000: f64,
    /// From a hole's opening to the request, over true losses; one that was never asked for counts
    /// with the longest hold.
    pub ask_delay_ms: Option<Summary>,
    /// From a hole's opening to the shard, over true losses that were made good.
    pub recovery_ms: Option<Summary>,
    /// Share of late shards that were asked for, of those that came before the smoothed round trip
    /// (at least 10 ms) was over.
    pub late_asked_share: Option<f64>,
    /// The same of all late shards.
    pub late_asked_share_all: Option<f64>,
    /// Least share of late shards that were not asked for, in 200 in a row.
    pub coverage_worst: Option<f64>,
    /// Repeats, in percent of first transmissions.
    pub overhead_percent: f64,
    /// Share of all shards that was lost first and not there so long after the hole had opened.
    pub residual_loss: ResidualLoss,
    /// How long frames waited for others of their lane.
    pub head_of_line_ms: HeadOfLine,
    /// Shards that came after what waited for them had been let go, of a million.
    pub wrong_releases_per_million: f64,
    /// True losses that nobody asked for, and those that nothing made good, of a million shards.
    pub never_asked_per_million: f64,
    /// True losses that nothing made good, of a million shards.
    pub unrecovered_per_million: f64,
}

/// Shares of all shards, by deadline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ResidualLoss {
    /// After 5 ms.
    pub ms_5: f64,
    /// After 10 ms.
    pub ms_10: f64,
    /// After 20 ms.
    pub ms_20: f64,
    /// After 40 ms.
    pub ms_40: f64,
    /// After 80 ms.
    pub ms_80: f64,
}

/// Waits by class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeadOfLine {
    /// Frames that somebody waits for.
    pub interactive: Option<Summary>,
    /// All others.
    pub bulk: Option<Summary>,
}

impl Tally {
    pub(super) fn of(channel: &Channel, run: &Run) -> Self {
        let mut tally = Self {
            shards: channel.shards().len() as u64,
            repeats: run.repeats,
            wrong_releases: run.stats.late,
            scores: run.scores,
            ..Self::default()
        };
        let mut covered = Vec::new();
        let mut fates: Vec<(u64, usize)> = (channel.opened().iter().copied().zip(0..))
            .filter(|(opened, _)| *opened != NEVER)
            .collect();
        fates.sort_unstable();
        for (opened, index) in fates {
            match channel.shards()[index].received {
                Some(received) => {
                    let age = received.as_nanos() - opened;
                    if u128::from(age) > UNIT_GRACE.as_nanos() {
                        let is_early = age <= run.round_at(opened).max(CAP_MIN_NS);
                        tally.late(
                            is_early,
                            run.asked[index] < received.as_nanos(),
                            &mut covered,
                        );
                    }
                }
                None => tally.loss(opened, run.asked[index], run.usable[index]),
            }
        }
        for window in covered.chunks_exact(WINDOW) {
            let share = window.iter().filter(|&&covered| covered).count() as f64 / WINDOW as f64;
            tally.windows += 1;
            tally.worst_window = Some(tally.worst_window.map_or(share, |worst| worst.min(share)));
        }
        for class in 0..CLASSES {
            let waits = &mut tally.waits[class];
            for &wait in &run.waits[class] {
                waits.note(u64::from(wait));
            }
            waits.note_zeros(run.frames[class] - run.waits[class].len() as u64);
        }
        tally
    }

    fn late(&mut self, is_early: bool, asked: bool, covered: &mut Vec<bool>) {
        self.late[0] += 1;
        self.late_asked[0] += u64::from(asked);
        self.spurious += u64::from(asked);
        if is_early {
            self.late[1] += 1;
            self.late_asked[1] += u64::from(asked);
            covered.push(!asked);
        }
    }

    fn loss(&mut self, opened: u64, asked: u64, usable: u64) {
        self.losses += 1;
        if asked == NEVER {
            self.never_asked += 1;
            self.ask.note(HOLD_MAX.as_nanos() as u64);
        } else {
            self.ask.note(asked.saturating_sub(opened));
        }
        if usable == NEVER {
            self.unrecovered += 1;
        } else {
            self.recovery.note(usable.saturating_sub(opened));
        }
        for (count, deadline) in self.residual.iter_mut().zip(DEADLINES_MS) {
            *count += u64::from(usable.saturating_sub(opened) > deadline * 1_000_000);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.shards += other.shards;
        self.spurious += other.spurious;
        for part in 0..2 {
            self.late[part] += other.late[part];
            self.late_asked[part] += other.late_asked[part];
        }
        self.losses += other.losses;
        self.never_asked += other.never_asked;
        self.unrecovered += other.unrecovered;
        self.repeats += other.repeats;
        self.ask.merge(&other.ask);
        self.recovery.merge(&other.recovery);
        for (count, more) in self.residual.iter_mut().zip(other.residual) {
            *count += more;
        }
        self.wrong_releases += other.wrong_releases;
        for (waits, more) in self.waits.iter_mut().zip(&other.waits) {
            waits.merge(more);
        }
        self.windows += other.windows;
        let worst = self.worst_window.into_iter().chain(other.worst_window);
        self.worst_window = worst.reduce(f64::min);
        self.scores.merge(&other.scores);
    }

    pub(super) fn figures(&self) -> Figures {
        let of = |count: u64, unit: f64| count as f64 * unit / self.shards.max(1) as f64;
        let share = |part: usize| {
            let late = self.late[part];
            (late > 0).then(|| self.late_asked[part] as f64 / late as f64)
        };
        let [ms_5, ms_10, ms_20, ms_40, ms_80] = self.residual.map(|count| of(count, 1.0));
        let [interactive, bulk] = [0, 1].map(|class: usize| self.waits[class].summary());
        Figures {
            spurious_per_1000: of(self.spurious, 1e3),
            ask_delay_ms: self.ask.summary(),
            recovery_ms: self.recovery.summary(),
            late_asked_share: share(1),
            late_asked_share_all: share(0),
            coverage_worst: self.worst_window,
            overhead_percent: of(self.repeats, 100.0),
            residual_loss: ResidualLoss {
                ms_5,
                ms_10,
                ms_20,
                ms_40,
                ms_80,
            },
            head_of_line_ms: HeadOfLine { interactive, bulk },
            wrong_releases_per_million: of(self.wrong_releases, 1e6),
            never_asked_per_million: of(self.never_asked, 1e6),
            unrecovered_per_million: of(self.unrecovered, 1e6),
        }
    }
}

impl Figures {
    /// The figures that lie a share of the way to those of the next setting.
    pub(super) fn toward(&self, other: &Self, share: f64) -> Self {
        let mix = |a: f64, b: f64| a + (b - a) * share;
        let mix_some = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| mix(a, b));
        let mix_all =
            |a: Option<Summary>, b: Option<Summary>| a.zip(b).map(|(a, b)| a.toward(b, share));
        let (here, there) = (&self.residual_loss, &other.residual_loss);
        let (waits, waits_there) = (&self.head_of_line_ms, &other.head_of_line_ms);
        Self {
            spurious_per_1000: mix(self.spurious_per_1000, other.spurious_per_1000),
            ask_delay_ms: mix_all(self.ask_delay_ms, other.ask_delay_ms),
            recovery_ms: mix_all(self.recovery_ms, other.recovery_ms),
            late_asked_share: mix_some(self.late_asked_share, other.late_asked_share),
            late_asked_share_all: mix_some(self.late_asked_share_all, other.late_asked_share_all),
            coverage_worst: mix_some(self.coverage_worst, other.coverage_worst),
            overhead_percent: mix(self.overhead_percent, other.overhead_percent),
            residual_loss: ResidualLoss {
                ms_5: mix(here.ms_5, there.ms_5),
                ms_10: mix(here.ms_10, there.ms_10),
                ms_20: mix(here.ms_20, there.ms_20),
                ms_40: mix(here.ms_40, there.ms_40),
                ms_80: mix(here.ms_80, there.ms_80),
            },
            head_of_line_ms: HeadOfLine {
                interactive: mix_all(waits.interactive, waits_there.interactive),
                bulk: mix_all(waits.bulk, waits_there.bulk),
            },
            wrong_releases_per_million: mix(
                self.wrong_releases_per_million,
                other.wrong_releases_per_million,
            ),
            never_asked_per_million: mix(
                self.never_asked_per_million,
                other.never_asked_per_million,
            ),
            unrecovered_per_million: mix(
                self.unrecovered_per_million,
                other.unrecovered_per_million,
            ),
        }
    }
}
