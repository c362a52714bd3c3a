//! What came of decisions, as a table for people.

use std::fmt::Write as _;

use shardgate_core::plan::{Figure, Inputs, Plan, Reason, Repair, RepairMode};

use super::{Judged, Report, Verdict};

const HEADING: [&str; 6] = [
    "time",
    "peer/stream",
    "from -> to",
    "reason",
    "what mattered",
    "replay",
];

const LEGEND: &str = "
from, to       label, n, standing repair 1/s@W, in brackets the repair for 100 ms after a rare loss
what mattered  the figures of the reason, in brackets on how many measurements they rest and their age
replay         whether the same inputs lead to the same plan here
";

/// Shows a report.
pub(super) fn table(report: &Report<'_>) -> String {
    let mut rows = vec![HEADING.map(String::from)];
    rows.extend(report.decisions.iter().map(row));
    let widths: Vec<usize> = (0..HEADING.len())
        .map(|at| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text.push_str(LEGEND);
    let _ = writeln!(text, "\n{}", summary(report));
    text
}

fn row(judged: &Judged<'_>) -> [String; 6] {
    let (from, to) = (&judged.from.0, &judged.to.0);
    let replay = match judged.verdict {
        Verdict::Same => "same".into(),
        Verdict::Different => format!("DIFFERENT: {}", change(from, &judged.replayed.0)),
        Verdict::Unconnected => "same, but NOT FROM what was decided before".into(),
    };
    let peer: String = judged.peer.chars().filter(|c| !c.is_control()).collect();
    [
        judged.time.to_string(),
        format!("{peer}/{}", judged.stream),
        change(from, to),
        to.reason.name().into(),
        mattered(to.reason, &judged.record.decision.inputs),
        replay,
    ]
}

fn summary(report: &Report<'_>) -> String {
    let plural = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let mut text = format!(
        "{} of {}: ",
        plural(report.decisions.len(), "decision"),
        plural(report.streams, "stream")
    );
    match (report.different, report.unconnected) {
        (0, 0) => text.push_str("each replays to the same plan"),
        (different, unconnected) => {
            let _ = write!(
                text,
                "{different} DIFFERENT, {unconnected} NOT CONNECTED to the one before"
            );
        }
    }
    if report.missing > 0 {
        let _ = write!(text, "; {} in between are not in the file", report.missing);
    }
    text
}

/// From one plan to another.
fn change(from: &Plan, to: &Plan) -> String {
    let mut text = format!("{} -> {}", short(from), short(to));
    if from.payload != to.payload && (from.split == to.split || from.split == 0) {
        let _ = write!(text, ", shards of {} bytes", to.payload);
    }
    if from.delay_ms != to.delay_ms {
        let _ = write!(text, ", waits {} ms", to.delay_ms);
    }
    if from.added_permille != to.added_permille && (from.split, to.added_permille) != (0, 1_000) {
        let _ = write!(text, ", may add {} %", f64::from(to.added_permille) / 10.0);
    }
    text
}

fn short(plan: &Plan) -> String {
    if plan.split == 0 {
        return "nothing".into();
    }
    let rate = |Repair { every, window }| format!("1/{every}@{window}");
    let repair = match (plan.standing, plan.reactive) {
        (Some(repair), _) => rate(repair),
        (None, Some(repair)) => format!("({})", rate(repair)),
        (None, None) => "no repair".into(),
    };
    format!("{} n={} {repair}", plan.label.name(), plan.split)
}

/// The figures that stand behind a reason.
fn mattered(reason: Reason, inputs: &Inputs) -> String {
    let figure = |name: &str, figure: &Figure, scale: f64, unit: &str| match figure.known() {
        None => format!("{name} unknown"),
        Some(value) => format!(
            "{name} {:.2}{unit} ({}, {:.0} ms)",
            value as f64 * scale,
            figure.count,
            figure.age_us as f64 / 1e3
        ),
    };
    let loss = || figure("loss", &inputs.radio_loss_ppm, 1e-4, " %");
    let burst = || figure("run", &inputs.burst_milli, 1e-3, "");
    let events = || figure("events", &inputs.events_milli_per_s, 1e-3, "/s");
    let round_trip = || figure("round trip", &inputs.round_trip_us, 1e-3, " ms");
    let shortest = || figure("shortest", &inputs.round_trip_min_us, 1e-3, " ms");
    let rate = || figure("rate", &inputs.delivery_bytes_per_s, 8e-6, " Mbit/s");
    let since = || match inputs.since_loss_us.known() {
        None => "none lost yet".into(),
        Some(micros) => format!("last lost {:.0} ms before", micros as f64 / 1e3),
    };
    let shown = match reason {
        Reason::Start | Reason::Limits => vec![limits(inputs)],
        Reason::Loss => vec![loss(), burst(), since()],
        Reason::Events => vec![events(), loss(), since()],
        Reason::Burst => vec![burst(), loss()],
        Reason::RoundTrip => vec![round_trip()],
        Reason::Rate => vec![rate(), round_trip()],
        Reason::Crypto => vec![figure("load", &inputs.crypto_permille, 1e-1, " %")],
        Reason::Queue => {
            let others = if inputs.is_competing {
                "others hold it"
            } else {
                "nobody holds it"
            };
            vec![
                others.into(),
                figure("queue", &inputs.queue_us, 1e-3, " ms"),
            ]
        }
        Reason::Breaker => vec![
            figure("lost in all", &inputs.loss_ppm, 1e-4, " %"),
            round_trip(),
            shortest(),
        ],
        Reason::Silence => vec![format!(
            "{} sent without a report, for {:.0} ms",
            inputs.unanswered,
            inputs.unanswered_us as f64 / 1e3
        )],
    };
    shown.join(", ")
}

fn limits(inputs: &Inputs) -> String {
    let limits = &inputs.limits;
    let repair = match limits.repair {
        RepairMode::Off => "off".into(),
        RepairMode::Auto => "auto".into(),
        RepairMode::Fixed { every, window } => format!("1/{every}@{window}"),
    };
    format!(
        "repair {repair}, shards of at most {} bytes, windows of {}",
        limits.payload_max, limits.window_max
    )
}
