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

const NONE: &str = "-";

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
        return;
    }
    let _ = writeln!(
        text,
        "\nMean ask delay of rack by that of model (below {WORTH} rack is the one to use), and by that of model-frozen"
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
