use std::time::Duration;

use shardgate_core::limits::PATHS_MAX;
use shardgate_core::predict::Fixed;
use shardgate_core::time::Time;

use super::channel::{Channel, Shard};
use super::frontier::{self, Setting};
use super::generate::Recipe;
use super::judge::{Options, PolicyReport, judge};
use super::oracle::Oracle;
use super::replay::replay;
use super::tally::{Figures, Tally};

const MS: u64 = 1_000_000;

/// A shard each millisecond on paths of 20 ms, back as well; `late` tells how many nanoseconds more
/// each takes, or that it is lost.
fn channel(count: u64, paths: u64, late: impl Fn(u64) -> Option<u64>) -> Channel {
    let shards = (0..count)
        .map(|index| {
            let sent = Time(index * MS);
            Shard {
                sent,
                received: late(index).map(|more| Time(sent.as_nanos() + 20 * MS + more)),
                path: (index % paths) as u8,
            }
        })
        .collect();
    Channel::new("test", shards, [Duration::from_millis(20); PATHS_MAX])
}

fn figures_after(channel: &Channel, wait: Duration) -> Figures {
    Tally::of(channel, &replay(channel, Fixed(wait))).figures()
}

#[test]
fn what_a_fixed_time_gives_without_reordering_is_known() {
    let channel = channel(20_000, 1, |index| (index % 100 != 50).then_some(0));
    let figures = figures_after(&channel, Duration::from_millis(7));
    let ask = figures.ask_delay_ms.unwrap();
    for ms in [ask.mean, ask.p50, ask.p99] {
        assert!((ms - 7.0).abs() < 0.15, "{ms}");
    }
    // 7 ms, and a round trip. None of the shards next to a repeat is lost.
    let recovery = figures.recovery_ms.unwrap();
    assert!((recovery.mean - 47.0).abs() < 0.01, "{recovery:?}");
    assert_eq!(figures.spurious_per_1000, 0.0);
    assert_eq!(figures.overhead_percent, 1.0);
    assert_eq!(figures.residual_loss.ms_40, 0.01);
    assert_eq!(figures.residual_loss.ms_80, 0.0);
    assert_eq!(figures.unrecovered_per_million, 0.0);
    // Interactive frames are let go before the answer comes: that is all that comes too late.
    assert_eq!(figures.wrong_releases_per_million, 0.0);
    assert_eq!(figures.late_asked_share, None);
}

#[test]
fn the_frontier_of_uniform_lateness_is_the_closed_form() {
    // One of 50 shards comes up to 16 ms late, evenly spread, one of 200 not at all. A late one was
    // known to be missing when the next one came, a millisecond later.
    const SHARE: f64 = 0.02;
    const MOST: f64 = 16.0;
    let channel = channel(60_000, 1, |index| match index % 200 {
        100 => None,
        // A sequence that fills the range evenly.
        7 | 57 | 107 | 157 => {
            let turn = index / 50;
            Some(
                (turn as f64 * 0.618_033_988_75)
                    .fract()
                    .mul_add(MOST * MS as f64, 0.0) as u64,
            )
        }
        _ => Some(0),
    });
    let settings: Vec<_> = (1..=17)
        .map(|ms| Setting {
            knob: f64::from(ms),
            figures: figures_after(&channel, Duration::from_millis(ms as u64)),
        })
        .collect();
    for target in frontier::TARGETS_PER_1000 {
        let found = frontier::at(target, &settings).unwrap();
        let expected = MOST * (1.0 - target / (1e3 * SHARE)) - 1.0;
        let delay = found.figures.ask_delay_ms.unwrap().mean;
        assert!(
            (delay - expected).abs() < 0.1,
            "{target}: {delay} {expected}"
        );
        assert!((found.knob - expected).abs() < 0.1);
    }
    // Too short a time always asks needlessly, and there are not more than are late.
    assert!(frontier::at(0.0, &settings[..13]).is_none());
    assert!(frontier::at(25.0, &settings).is_none());
}

#[test]
fn the_oracle_asks_at_once_and_never_in_vain() {
    for recipe in [Recipe::TUNED_ON, Recipe::REPORTED_ON].concat() {
        let channel = recipe.channel(20_000, 5);
        let tally = Tally::of(&channel, &replay(&channel, Oracle::new(&channel, 0.0)));
        let figures = tally.figures();
        let name = channel.name();
        assert_eq!(figures.spurious_per_1000, 0.0, "{name}");
        // A long outage is more than can be asked for at once.
        if recipe != Recipe::Outages {
            assert_eq!(figures.ask_delay_ms.unwrap().mean, 0.0, "{name}");
        }
        assert_eq!(tally.scores.brier(), Some(0.0), "{name}");
        assert_eq!(figures.late_asked_share, Some(0.0), "{name}");
    }
}

fn options(shards: usize, seeds: u32, seed: u64) -> Options {
    Options {
        traces: Vec::new(),
        policies: Vec::new(),
        seed,
        seeds,
        shards,
        timing: false,
    }
}

#[test]
fn nobody_beats_the_oracle() {
    let mut some = options(3_000, 1, 9);
    some.policies = ["model", "rack", "fixed", "oracle"]
        .map(String::from)
        .into();
    let report = judge(&some, &mut |_| ()).unwrap();
    let mut compared = 0;
    for channel in &report.channels {
        let is_oracle = |it: &&PolicyReport| it.name == "oracle";
        let oracle = channel.policies.iter().find(is_oracle).unwrap();
        for policy in &channel.policies {
            for (best, point) in oracle.frontier.iter().zip(&policy.frontier) {
                if let (Some(best), Some(other)) = (best.ask_delay_ms, point.ask_delay_ms) {
                    assert!(best.mean <= other.mean, "{} {point:?}", channel.name);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn a_seed_gives_the_same_report_and_another_one_another() {
    let options = |seed| Options {
        policies: vec!["rack".into()],
        ..options(2_000, 2, seed)
    };
    let mut told = Vec::new();
    let report = judge(&options(9), &mut |share| told.push(share)).unwrap();
    assert!(told.is_sorted() && told.last() == Some(&1.0), "{told:?}");
    assert_eq!(report, judge(&options(9), &mut |_| ()).unwrap());
    let other = judge(&options(10), &mut |_| ()).unwrap();
    assert_ne!(report.channels, other.channels);
}

#[test]
fn costs_are_measured_on_demand_alone() {
    let mut one = options(2_000, 1, 1);
    one.policies = vec!["rack".into()];
    assert_eq!(judge(&one, &mut |_| ()).unwrap().policies[0].cost, None);
    one.timing = true;
    let cost = judge(&one, &mut |_| ()).unwrap().policies[0].cost.unwrap();
    assert!(
        cost.ns_per_hole.unwrap() > 0.0 && cost.ns_per_arrival >= 0.0,
        "{cost:?}"
    );
}

#[test]
fn policies_are_chosen_by_name() {
    let mut one = options(1_000, 1, 1);
    one.policies = vec!["oracle".into(), "rack".into()];
    let report = judge(&one, &mut |_| ()).unwrap();
    let names: Vec<_> = report.policies.iter().map(|policy| policy.name).collect();
    assert_eq!(names, ["rack", "oracle"]);
    one.policies.push("clever".into());
    let error = judge(&one, &mut |_| ()).unwrap_err().to_string();
    assert!(
        error.contains("`clever`") && error.contains("rack, "),
        "{error}"
    );
}
