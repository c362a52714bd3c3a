//! `shardgate sim predict`: the judgement as a table.

use std::fmt::Write as _;

use shardgate_sim::predict::channel::SHARDS_MAX;
use shardgate_sim::predict::delays::Summary;
use shardgate_sim::predict::frontier::Point;
use shardgate_sim::predict::tally::Figures;
use shardgate_sim::predict::trace::Trace;
use shardgate_sim::predict::{ChannelReport, Options, PolicyReport, Report, Verdict, WORTH, judge};

use super::Progress;
use crate::cli::SimPredictArgs;
use crate::output::{Failure, print, print_json};

/// Fewest shards of a channel: what a model learns from takes longer than that.
const SHARDS_MIN: usize = 1_000;
/// Most seeds.
const SEEDS_MAX: u32 = 100;
/// Most traces at once, each of which is held in memory.
const TRACES_MAX: usize = 64;

/// Carries out `sim predict`.
pub(super) fn predict(args: &SimPredictArgs) -> Result<(), Failure> {
    let wrong = |text: String| Err(Failure::Wrong(text));
    if !(SHARDS_MIN..=SHARDS_MAX).contains(&args.shards) {
        return wrong(format!(
            "--shards {}: write a number from {SHARDS_MIN} to {SHARDS_MAX}",
            args.shards
        ));
    }
    if !(1..=SEEDS_MAX).contains(&args.seeds) {
        return wrong(format!(
            "--seeds {}: write a number from 1 to {SEEDS_MAX}",
            args.seeds
        ));
    }
    if args.trace.len() > TRACES_MAX {
        return wrong(format!("--trace: give at most {TRACES_MAX} files at once"));
    }
    let traces: Result<Vec<_>, _> = args.trace.iter().map(|path| Trace::load(path)).collect();
    let options = Options {
        traces: traces.map_err(|error| Failure::Wrong(error.to_string()))?,
        policies: args.policy.clone(),
        seed: args.seed,
        seeds: args.seeds,
        shards: args.shards,
        timing: args.timing,
    };
    let mut progress = Progress::new("predict");
    let report = judge(&options, &mut |share| progress.tell(share));
    progress.end();
    let report = report.map_err(|error| Failure::Wrong(format!("--policy: {error}")))?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&table(&report))?;
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let mut text = format!("seed {}, {} from it\n", report.seed, seeds(report.seeds));
    let _ = writeln!(text, "knobs tuned on: {}", report.tuned_on.join(", "));
    let names: Vec<_> = report.channels.iter().map(|it| it.name.as_str()).collect();
    let _ = writeln!(text, "reported on:    {}", names.join(", "));
    text.push_str(LEGEND);
    let shards = report.channels.iter().map(|it| it.shards).sum();
    let _ = writeln!(
        text,
        "\nAll channels together, {shards} shards",
        shards = count(shards)
    );
    frontiers(&mut text, &report.policies);
    defaults(&mut text, &report.policies);
    tuned(&mut text, &report.policies);
    costs(&mut text, &report.policies);
    for channel in &report.channels {
        channel_table(&mut text, channel);
    }
    verdicts(&mut text, &report.verdicts);
    text
}

fn seeds(count: u32) -> String {
    if count == 1 {
        "1 seed".into()
    } else {
        format!("{count} seeds")
    }
}

fn count(shards: u64) -> String {
    match shards {
        0..10_000 => shards.to_string(),
        _ => format!("{} thousand", shards / 1_000),
    }
}

fn channel_table(text: &mut String, channel: &ChannelReport) {
    let _ = writeln!(
        text,
        "\n{}: {} shards, of 1,000 {:.2} lost and {:.2} late",
        channel.name,
        count(channel.shards),
        channel.lost_per_1000,
        channel.late_per_1000
    );
    frontiers(text, &channel.policies);
}

/// Stands where there was nothing to be measured.
const NONE: &str = "none";

/// What the columns are.
const LEGEND: &str = "
All times in milliseconds: the mean, and p50, p99, p99.9 for what that share of losses stayed below.
  needless   requests for shards that came after all, of 1,000 shards
  ask        from the hole to the request, over true losses; lower is better at equal `needless`
  seeds      the least and the most of the mean that a seed alone gives
  recovery   from the hole to the shard, over true losses that were made good
  late       share of late shards asked for, of those that came within a round trip or 10 ms
  more       repeats, in percent of first transmissions
  worst      least share of late shards that were not asked for, in 200 in a row
  wrong/M    shards that came after what waited for them had been let go, of a million
  hol        p99 of the time for which frames wait for others of their lane: interactive, bulk
  Brier      mean squared error of the stated probability of a loss; 0.25 for always one half
  calib.     how far stated probabilities are from shares of losses; 0 is best
  none       there was nothing to measure, or the policy states no probability
";

/// Stands for the figures of a policy that is never as often wrong as asked for.
const OUT_OF_REACH: &str = "not comparable: no setting of its knob asks needlessly that often";

fn ms(value: Option<f64>) -> String {
    value.map_or(NONE.into(), |ms| format!("{ms:.2}"))
}

fn summary(value: Option<Summary>) -> String {
    let [mean, p50, p99, p99_9] = [
        value.map(|it| it.mean),
        value.map(|it| it.p50),
        value.map(|it| it.p99),
        value.map(|it| it.p99_9),
    ]
    .map(ms);
    format!("{mean:>9}{p50:>8}{p99:>8}{p99_9:>8}")
}

/// At the same rates of needless requests.
fn frontiers(text: &mut String, policies: &[PolicyReport]) {
    let _ = writeln!(
        text,
        "  {:>8}  {:<14}{:>9}{:>8}{:>8}{:>8}  {:<15}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "needless",
        "policy",
        "ask, mean",
        "p50",
        "p99",
        "p99.9",
        "  seeds",
        "recovery",
        "p50",
        "p99",
        "p99.9",
        "late",
        "more"
    );
    let points = policies.first().map_or(0, |policy| policy.frontier.len());
    for place in 0..points {
        for policy in policies {
            if let Some(point) = policy.frontier.get(place) {
                frontier(text, policy.name, point);
            }
        }
    }
}

fn frontier(text: &mut String, name: &str, point: &Point) {
    if point.knob.is_none() {
        let rate = point.spurious_per_1000;
        let _ = writeln!(text, "  {rate:>8}  {name:<14}  {OUT_OF_REACH}");
        return;
    }
    let spread = point.ask_delay_ms_of_seeds;
    let spread = spread.map_or(NONE.into(), |[least, most]| {
        format!("{least:.2} to {most:.2}")
    });
    let percent = |share: Option<f64>| share.map_or(NONE.into(), |it| format!("{it:.2}%"));
    let _ = writeln!(
        text,
        "  {:>8}  {name:<14}{}  {spread:<15}{}{:>8}{:>8}",
        point.spurious_per_1000,
        summary(point.ask_delay_ms),
        summary(point.recovery_ms),
        percent(point.late_asked_share.map(|share| share * 100.0)),
        percent(point.overhead_percent),
    );
}

/// As each is set unless somebody sets it.
fn defaults(text: &mut String, policies: &[PolicyReport]) {
    let _ = writeln!(
        text,
        "\n  At its default setting\n  {:<14}{:>9}{:>10}{:>8}{:>8}{:>8}{:>9}{:>9}{:>8}{:>8}   lost, not there after 5, 10, 20, 40, 80 ms",
        "policy",
        "needless",
        "ask, mean",
        "late",
        "worst",
        "wrong/M",
        "hol int",
        "hol bulk",
        "Brier",
        "calib."
    );
    for policy in policies {
        let it = &policy.default;
        let percent = |share: Option<f64>| {
            share.map_or(NONE.into(), |share| format!("{:.2}%", share * 100.0))
        };
        let score = |score: Option<f64>| score.map_or(NONE.into(), |it| format!("{it:.4}"));
        let p99 = |waits: Option<Summary>| ms(waits.map(|waits| waits.p99));
        let _ = writeln!(
            text,
            "  {:<14}{:>9.3}{:>10}{:>8}{:>8}{:>8.0}{:>9}{:>9}{:>8}{:>8}   {}",
            policy.name,
            it.spurious_per_1000,
            ms(it.ask_delay_ms.map(|delay| delay.mean)),
            percent(it.late_asked_share),
            percent(it.coverage_worst),
            it.wrong_releases_per_million,
            p99(it.head_of_line_ms.interactive),
            p99(it.head_of_line_ms.bulk),
            score(policy.brier),
            score(policy.calibration_error),
            residual(it),
        );
    }
}

fn residual(figures: &Figures) -> String {
    let it = &figures.residual_loss;
    [it.ms_5, it.ms_10, it.ms_20, it.ms_40, it.ms_80]
        .map(|share| format!("{:.3}%", share * 100.0))
        .join(", ")
}

/// What was tuned elsewhere, here.
fn tuned(text: &mut String, policies: &[PolicyReport]) {
    let _ = writeln!(
        text,
        "\n  Knob tuned elsewhere\n  {:>8}  {:<14}{:>10}{:>10}{:>10}{:>8}  its knob",
        "for", "policy", "setting", "needless", "ask, mean", "p99"
    );
    let points = policies.first().map_or(0, |policy| policy.tuned.len());
    for place in 0..points {
        for policy in policies {
            let Some(tuned) = policy.tuned.get(place) else {
                continue;
            };
            if tuned.knob.is_none() {
                let _ = writeln!(
                    text,
                    "  {:>8}  {:<14}  not comparable: no setting was wrong as seldom as that where it was tuned",
                    tuned.target_per_1000, policy.name
                );
                continue;
            }
            let delay = tuned.figures.and_then(|figures| figures.ask_delay_ms);
            let needless = tuned.figures.map(|figures| figures.spurious_per_1000);
            let _ = writeln!(
                text,
                "  {:>8}  {:<14}{:>10}{:>10}{:>10}{:>8}  {}",
                tuned.target_per_1000,
                policy.name,
                tuned.knob.map_or(NONE.into(), |knob| knob.to_string()),
                ms(needless),
                ms(delay.map(|delay| delay.mean)),
                ms(delay.map(|delay| delay.p99)),
                policy.knob,
            );
        }
    }
}

/// What each costs, if that was measured.
fn costs(text: &mut String, policies: &[PolicyReport]) {
    if policies.iter().all(|policy| policy.cost.is_none()) {
        return;
    }
    let _ = writeln!(text, "\n  Nanoseconds         an arrival    a hole");
    for policy in policies {
        if let Some(cost) = &policy.cost {
            let _ = writeln!(
                text,
                "  {:<14}{:>16.1}{:>10}",
                policy.name,
                cost.ns_per_arrival,
                ms(cost.ns_per_hole)
            );
        }
    }
}

/// Where the model earns its place, and where it does not.
fn verdicts(text: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        text.push_str("\nNo verdict: model and rack are at no rate of needless requests both.\n");
        return;
    }
    let _ = writeln!(
        text,
        "\nMean ask delay of rack by that of model (below {WORTH} rack is the one to use), and by that of model-frozen\n\
         at so many needless requests of 1,000 shards; a rate that one of the two cannot be at is left out"
    );
    for verdict in verdicts {
        let advice = if verdict.is_worth_it { "model" } else { "rack" };
        let frozen = verdict.ratio_frozen;
        let frozen = frozen.map_or(NONE.into(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "  {:>8}  {:>6.2}{frozen:>8}  {advice:<6}{}",
            verdict.spurious_per_1000, verdict.ratio, verdict.channel
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compared_is_said_in_words_and_the_units_in_a_legend() {
        let report = judge(
            &Options {
                traces: Vec::new(),
                policies: ["oracle", "rack"].map(str::to_owned).to_vec(),
                seed: 1,
                seeds: 1,
                shards: 1_000,
                timing: false,
            },
            &mut |_| {},
        );
        let mut report = report.expect("both are known");
        for point in report.policies.iter_mut().flat_map(|it| &mut it.frontier) {
            if point.spurious_per_1000 < 1.0 {
                (point.knob, point.figures) = (None, None);
                (point.ask_delay_ms, point.ask_delay_ms_of_seeds) = (None, None);
                (point.recovery_ms, point.late_asked_share) = (None, None);
                point.overhead_percent = None;
            }
        }
        let text = table(&report);
        let row = |start: &str| {
            text.lines()
                .find(|line| line.trim_start().starts_with(start))
        };
        for policy in ["rack", "oracle"] {
            let row = row(&format!("0.25  {policy}")).expect("a row");
            assert!(row.ends_with(OUT_OF_REACH), "{row}");
        }
        assert!(text.contains("times in milliseconds"), "{text}");
        for column in [
            "needless", "recovery", "late", "more", "worst", "wrong/M", "Brier",
        ] {
            let told = |line: &str| line.starts_with(&format!("  {column:<11}"));
            assert!(text.lines().any(told), "{column} is in no legend");
        }
        assert!(text.contains("No verdict"), "there is no model");
        let is_dash = |word: &str| word == "-";
        assert!(!text.split_whitespace().any(is_dash), "{text}");
    }
}
