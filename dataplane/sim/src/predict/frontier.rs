//! Frontiers: what each policy is worth at the same rate of needless requests.

use serde::Serialize;

use super::delays::Summary;
use super::tally::Figures;

/// Rates of needless requests at which policies are compared, of 1,000 shards.
pub const TARGETS_PER_1000: [f64; 3] = [0.25, 1.0, 2.5];

/// A policy at one of the targets. All but the target is absent where no setting of its knob leads
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The target.
    pub spurious_per_1000: f64,
    /// The knob that leads there.
    pub knob: Option<f64>,
    /// From a hole's opening to the request, over true losses.
    pub ask_delay_ms: Option<Summary>,
    /// Of the mean ask delay: the least and the most that a seed alone gives.
    pub ask_delay_ms_of_seeds: Option<[f64; 2]>,
    /// From a hole's opening to the shard, over true losses.
    pub recovery_ms: Option<Summary>,
    /// Share of late shards that were asked for.
    pub late_asked_share: Option<f64>,
    /// Repeats, in percent of first transmissions.
    pub overhead_percent: Option<f64>,
    /// Everything else.
    pub figures: Option<Figures>,
}

/// A setting and what it gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub knob: f64,
    pub figures: Figures,
}

/// The setting that leads to `target`, between the two neighbours among `settings`, which are in the
/// order of the knob. Where there are several, the one that asks soonest.
pub(super) fn at(target: f64, settings: &[Setting]) -> Option<Setting> {
    let crossing = |pair: &[Setting]| {
        let [a, b] = pair else { return None };
        let rates = [a, b].map(|setting| setting.figures.spurious_per_1000);
        let [from, to] = rates;
        if target < from.min(to) || target > from.max(to) {
            return None;
        }
        let share = if from == to {
            0.0
        } else {
            (target - from) / (to - from)
        };
        Some(Setting {
            knob: a.knob + (b.knob - a.knob) * share,
            figures: a.figures.toward(&b.figures, share),
        })
    };
    let mean = |setting: &Setting| {
        let delay = setting.figures.ask_delay_ms;
        delay.map_or(f64::INFINITY, |delay| delay.mean)
    };
    settings
        .windows(2)
        .filter_map(crossing)
        .min_by(|a, b| mean(a).total_cmp(&mean(b)))
}

/// The frontier over all seeds, with the spread of `seeds`, each the settings of one seed.
pub(super) fn frontier(all: &[Setting], seeds: &[Vec<Setting>]) -> Vec<Point> {
    TARGETS_PER_1000
        .iter()
        .map(|&target| {
            let found = at(target, all);
            let means = seeds
                .iter()
                .filter_map(|settings| Some(at(target, settings)?.figures.ask_delay_ms?.mean));
            let spread = means.fold(None, |spread: Option<[f64; 2]>, mean| {
                let [least, most] = spread.unwrap_or([mean, mean]);
                Some([least.min(mean), most.max(mean)])
            });
            let figures = found.map(|found| found.figures);
            Point {
                spurious_per_1000: target,
                knob: found.map(|found| found.knob),
                ask_delay_ms: figures.and_then(|figures| figures.ask_delay_ms),
                ask_delay_ms_of_seeds: found.and(spread),
                recovery_ms: figures.and_then(|figures| figures.recovery_ms),
                late_asked_share: figures.and_then(|figures| figures.late_asked_share),
                overhead_percent: figures.map(|figures| figures.overhead_percent),
                figures,
            }
        })
        .collect()
}

/// The setting that asks soonest with at most `target`, if there is one; as an index.
pub(super) fn tuned(target: f64, settings: &[Setting]) -> Option<usize> {
    let delay = |index: &usize| {
        let delay = settings[*index].figures.ask_delay_ms;
        delay.map_or(f64::INFINITY, |delay| delay.mean)
    };
    (0..settings.len())
        .filter(|&index| settings[index].figures.spurious_per_1000 <= target)
        .min_by(|a, b| delay(a).total_cmp(&delay(b)))
}

#[cfg(test)]
mod tests {
    use super::super::tally::Tally;
    use super::*;

    fn setting(knob: f64, spurious: f64, mean: f64) -> Setting {
        let mut figures = Tally::default().figures();
        figures.spurious_per_1000 = spurious;
        figures.ask_delay_ms = Some(Summary {
            mean,
            ..Summary::default()
        });
        Setting { knob, figures }
    }

    #[test]
    fn a_target_lies_between_its_neighbours_or_is_out_of_reach() {
        let settings = [
            setting(1.0, 4.0, 2.0),
            setting(2.0, 2.0, 10.0),
            setting(3.0, 0.5, 20.0),
        ];
        let [quarter, one, most] = frontier(&settings, &[settings.to_vec()])[..] else {
            panic!("three targets");
        };
        assert_eq!((quarter.knob, quarter.ask_delay_ms), (None, None));
        assert_eq!(quarter.figures, None);
        let mean = |point: &Point| point.ask_delay_ms.unwrap().mean;
        assert!(
            (mean(&most) - 8.0).abs() < 1e-9,
            "three quarters of the way"
        );
        assert_eq!(most.knob, Some(1.75));
        assert!((mean(&one) - (10.0 + 10.0 * 2.0 / 3.0)).abs() < 1e-9);
        assert_eq!(one.ask_delay_ms_of_seeds, Some([mean(&one); 2]));
        assert_eq!(tuned(2.0, &settings), Some(1));
        assert_eq!(tuned(0.1, &settings), None);
    }

    #[test]
    fn of_several_crossings_the_soonest_counts() {
        let settings = [
            setting(1.0, 2.0, 30.0),
            setting(2.0, 0.0, 40.0),
            setting(3.0, 2.0, 5.0),
        ];
        assert_eq!(at(1.0, &settings).unwrap().knob, 2.5);
    }
}
