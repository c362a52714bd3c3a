//! `shardgate sim`: the deterministic world of the simulator, from the command line.

mod predict;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::str::FromStr;
use std::time::Duration;

use shardgate_sim::evaluate::{self, Options, Outcome, Report};
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::{Profile, ProfileRef};

use crate::cli::{SimArgs, SimCommand, SimProfileArgs};
use crate::output::{Failure, print, print_json};

/// Fewest virtual seconds: one to measure after the warm-up.
const SECONDS_MIN: f64 = 4.0;
/// Most virtual seconds: an hour, in which a fast path takes some minutes of a CPU.
const SECONDS_MAX: f64 = 3_600.0;

/// Carries out a `sim` command.
pub fn sim(args: &SimArgs) -> Result<(), Failure> {
    match &args.command {
        SimCommand::Profile(args) => profile(args),
        SimCommand::Predict(args) => predict::predict(args),
    }
}

fn profile(args: &SimProfileArgs) -> Result<(), Failure> {
    let options = options(args.seconds)?;
    let wrong = |error: &dyn std::fmt::Display| Failure::Wrong(error.to_string());
    let reference = ProfileRef::from_str(&args.profile).map_err(|error| wrong(&error))?;
    let profile = reference.load().map_err(|error| wrong(&error))?;
    let mut progress = Progress::new(&reference.name);
    let report = evaluate::profile(
        &reference.name,
        &profile,
        args.seed,
        options,
        &mut |share| {
            progress.tell(share);
        },
    );
    progress.end();
    let report = report.map_err(|error| wrong(&error))?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&table(&profile, &report))?;
    }
    if outcomes(&report).any(|(_, outcome)| outcome.broken_frames > 0) {
        return Err(Failure::Failed(
            "frames came out that must not have: see broken_frames; this is a fault of the program"
                .into(),
        ));
    }
    Ok(())
}

fn options(seconds: f64) -> Result<Options, Failure> {
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
        return Err(Failure::Wrong(format!(
            "--seconds {seconds}: write a number from {SECONDS_MIN} to {SECONDS_MAX}"
        )));
    }
    let warm_up = Options::default().warm_up;
    Ok(Options {
        warm_up,
        measured: Duration::from_secs_f64(seconds) - warm_up,
    })
}

fn outcomes(report: &Report) -> impl Iterator<Item = (&'static str, &Outcome)> {
    let tunnel = report.tunnel.as_ref().map(|outcome| ("shardgate", outcome));
    tunnel.into_iter().chain([("plain", &report.plain)])
}

fn table(profile: &Profile, report: &Report) -> String {
    let mut text = format!("{}: {}\n", report.profile, describe(profile));
    let _ = writeln!(
        text,
        "{} s measured after {} s, in virtual time; seed {}",
        report.seconds, report.warm_up_seconds, report.seed
    );
    if let Some(note) = report.note {
        let _ = writeln!(text, "{note}");
    }
    let ms = |value: Option<f64>| value.map_or("-".into(), |ms| format!("{ms:.2} ms"));
    let percent = |value: f64| format!("{value:.2} %");
    type Cell<'a> = &'a dyn Fn(&Outcome) -> String;
    let rows: [(&str, Cell<'_>); 11] = [
        ("TCP goodput", &|o| {
            format!("{:.2} Mbit/s", o.goodput_mbit_per_s)
        }),
        ("frame delay, p50", &|o| ms(o.frame_delay_ms.p50)),
        ("frame delay, p99", &|o| ms(o.frame_delay_ms.p99)),
        ("frame delay, p99.9", &|o| ms(o.frame_delay_ms.p99_9)),
        ("frames lost", &|o| percent(100.0 * o.residual_loss)),
        ("queue, mean", &|o| format!("{:.2} ms", o.queue_ms.mean)),
        ("queue, longest", &|o| format!("{:.2} ms", o.queue_ms.max)),
        ("overhead, headers", &|o| {
            percent(o.overhead_percent.headers)
        }),
        ("overhead, repair", &|o| percent(o.overhead_percent.repair)),
        ("overhead, repeats", &|o| {
            percent(o.overhead_percent.repeats)
        }),
        ("overhead, feedback", &|o| {
            percent(o.overhead_percent.feedback)
        }),
    ];
    let _ = write!(text, "\n{:<20}", "");
    for (name, _) in outcomes(report) {
        let _ = write!(text, "{name:>16}");
    }
    for (name, cell) in rows {
        let _ = write!(text, "\n{name:<20}");
        for (_, outcome) in outcomes(report) {
            let _ = write!(text, "{:>16}", cell(outcome));
        }
    }
    text.push_str(
        "\n\nDelays and losses are those of 50 small UDP frames a second beside the TCP flow.\n",
    );
    text
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

/// How far the work is, on a terminal.
struct Progress<'a> {
    name: &'a str,
    is_shown: bool,
    percent: u32,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            is_shown: std::io::stderr().is_terminal(),
            percent: 0,
        }
    }

    fn tell(&mut self, share: f64) {
        let percent = (100.0 * share) as u32;
        if self.is_shown && percent > self.percent {
            self.percent = percent;
            // Who does not see it misses nothing.
            let _ = write!(std::io::stderr(), "\r{}: {percent} %", self.name);
        }
    }

    fn end(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
