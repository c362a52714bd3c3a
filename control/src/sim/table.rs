//! `shardgate sim profile`: the report as a table; of several seeds, median and worst.

use std::fmt::Write as _;

use shardgate_sim::evaluate::{Outcome, Report};
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::Profile;

use super::outcomes;

/// A row.
struct Figure {
    title: &'static str,
    unit: &'static str,
    of: fn(&Outcome) -> Option<f64>,
    /// Whether the lowest is the worst; else the highest is.
    lowest_is_worst: bool,
}

const fn cost(title: &'static str, unit: &'static str, of: fn(&Outcome) -> Option<f64>) -> Figure {
    Figure {
        title,
        unit,
        of,
        lowest_is_worst: false,
    }
}

const FIGURES: [Figure; 11] = [
    Figure {
        title: "TCP goodput",
        unit: "Mbit/s",
        of: |o| Some(o.goodput_mbit_per_s),
        lowest_is_worst: true,
    },
    cost("frame delay, p50", "ms", |o| o.frame_delay_ms.p50),
    cost("frame delay, p99", "ms", |o| o.frame_delay_ms.p99),
    cost("frame delay, p99.9", "ms", |o| o.frame_delay_ms.p99_9),
    cost("frames lost", "%", |o| Some(100.0 * o.residual_loss)),
    cost("queue, mean", "ms", |o| Some(o.queue_ms.mean)),
    cost("queue, longest", "ms", |o| Some(o.queue_ms.max)),
    cost("overhead, headers", "%", |o| {
        Some(o.overhead_percent.headers)
    }),
    cost("overhead, repair", "%", |o| Some(o.overhead_percent.repair)),
    cost("overhead, repeats", "%", |o| {
        Some(o.overhead_percent.repeats)
    }),
    cost("overhead, feedback", "%", |o| {
        Some(o.overhead_percent.feedback)
    }),
];

/// Shows the runs of a profile, one for each seed; there is at least one.
pub(super) fn table(profile: &Profile, settings: &[String], runs: &[Report]) -> String {
    let Some((first, others)) = runs.split_first() else {
        return String::new();
    };
    let mut text = format!("{}: {}\n", first.profile, describe(profile));
    let _ = write!(
        text,
        "{} s measured after {} s, in virtual time; ",
        first.seconds, first.warm_up_seconds
    );
    let _ = match others.last() {
        None => writeln!(text, "seed {}", first.seed),
        Some(last) => writeln!(text, "seeds {} to {}", first.seed, last.seed),
    };
    if !settings.is_empty() {
        let _ = writeln!(text, "with {}", settings.join(", "));
    }
    if let Some(note) = first.note {
        let _ = writeln!(text, "{note}");
    }
    columns(&mut text, runs);
    text.push_str(
        "\n\nDelays and losses are those of 50 small UDP frames a second beside the TCP flow.\n",
    );
    text
}

fn columns(text: &mut String, runs: &[Report]) {
    let names = runs
        .iter()
        .take(1)
        .flat_map(|run| outcomes(run).map(|(name, _)| name));
    let names: Vec<_> = names.collect();
    let of = |name: &str, figure: &Figure| -> Vec<f64> {
        let all = runs.iter().flat_map(outcomes);
        let all = all.filter(|(other, _)| *other == name);
        all.filter_map(|(_, outcome)| (figure.of)(outcome))
            .collect()
    };
    let is_one = runs.len() == 1;
    let width = if is_one { 16 } else { 18 };
    let _ = write!(text, "\n{:<20}", "");
    for name in &names {
        let _ = if is_one {
            write!(text, "{name:>width$}")
        } else {
            let (median, worst) = (format!("{name} median"), format!("{name} worst"));
            write!(text, "{median:>width$}{worst:>width$}")
        };
    }
    for figure in &FIGURES {
        let _ = write!(text, "\n{:<20}", figure.title);
        for name in &names {
            let found = of(name, figure);
            let shown = |value: Option<f64>| {
                value.map_or("-".into(), |value| format!("{value:.2} {}", figure.unit))
            };
            let _ = write!(text, "{:>width$}", shown(median(&found)));
            if !is_one {
                let _ = write!(text, "{:>width$}", shown(worst(&found, figure)));
            }
        }
    }
}

fn median(found: &[f64]) -> Option<f64> {
    let mut sorted = found.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

fn worst(found: &[f64], figure: &Figure) -> Option<f64> {
    let worse = if figure.lowest_is_worst {
        f64::min
    } else {
        f64::max
    };
    found.iter().copied().reduce(worse)
}

fn describe(profile: &Profile) -> String {
    match profile {
        Profile::Single(path) => describe_path(path),
        Profile::Pair(pair) => {
            format!(
                "a: {}; b: {}",
                describe_path(&pair.a),
                describe_path(&pair.b)
            )
        }
    }
}

fn describe_path(path: &PathProfile) -> String {
    let mut text = format!("{} ms one way", path.delay_ms);
    if path.jitter_ms > 0.0 {
        let _ = write!(text, " with {} ms of jitter", path.jitter_ms);
    }
    match path.rate {
        Some(rate) => {
            let _ = write!(text, ", {rate} Mbit/s");
        }
        None => text.push_str(", no limit"),
    }
    let shares = [
        ("lost", path.loss),
        ("reordered", path.reorder),
        ("twice", path.duplicate),
        ("corrupted", path.corrupt),
    ];
    for (what, share) in shares.into_iter().filter(|(_, share)| *share > 0.0) {
        let _ = write!(text, ", {} % {what}", 100.0 * share);
        if what == "lost" && path.burst > 1.0 {
            let _ = write!(text, " in runs of {}", path.burst);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_there_is_a_median_and_a_worst() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 9.0, 5.0]), Some(4.0));
        let [goodput, delay, ..] = &FIGURES;
        assert_eq!(worst(&[3.0, 1.0, 9.0], goodput), Some(1.0));
        assert_eq!(worst(&[3.0, 1.0, 9.0], delay), Some(9.0));
        assert_eq!(worst(&[], delay), None);
    }
}
