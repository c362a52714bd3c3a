//! `shardgate sim`: the deterministic world of the simulator, from the command line.

mod plan;
mod predict;
mod settings;
mod table;

use std::io::{IsTerminal, Write as _};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use shardgate_sim::evaluate::{self, Options, Outcome, Report};
use shardgate_sim::profiles::ProfileRef;

use self::settings::Settings;
use crate::cli::{SimArgs, SimCommand, SimProfileArgs};
use crate::output::{Failure, print, print_json};

/// Fewest virtual seconds: one to measure after the warm-up.
const SECONDS_MIN: f64 = 4.0;
/// Most virtual seconds: an hour, in which a fast path takes some minutes of a CPU.
const SECONDS_MAX: f64 = 3_600.0;
/// Most seeds of a profile.
const SEEDS_MAX: u32 = 100;

/// Carries out a `sim` command.
pub fn sim(args: &SimArgs) -> Result<(), Failure> {
    match &args.command {
        SimCommand::Profile(args) => profile(args),
        SimCommand::Predict(args) => predict::predict(args),
        SimCommand::Plan(args) => plan::plan(args),
    }
}

fn profile(args: &SimProfileArgs) -> Result<(), Failure> {
    let options = options(args.seconds)?;
    if !(1..=SEEDS_MAX).contains(&args.seeds) {
        return Err(Failure::Wrong(format!(
            "--seeds {}: write a number from 1 to {SEEDS_MAX}",
            args.seeds
        )));
    }
    let settings = Settings::read(&args.settings)
        .map_err(|message| Failure::Wrong(format!("--set: {message}")))?;
    let wrong = |error: &dyn std::fmt::Display| Failure::Wrong(error.to_string());
    let reference = ProfileRef::from_str(&args.profile).map_err(|error| wrong(&error))?;
    let profile = reference.load().map_err(|error| wrong(&error))?;
    let mut progress = Progress::new(&reference.name);
    let runs: Result<Vec<_>, _> = (0..args.seeds)
        .map(|at| {
            evaluate::profile_tuned(
                &reference.name,
                &profile,
                args.seed.wrapping_add(at.into()),
                options,
                &|endpoint| settings.apply(endpoint),
                &mut |share| progress.tell((f64::from(at) + share) / f64::from(args.seeds)),
            )
        })
        .collect();
    progress.end();
    let runs = runs.map_err(|error| wrong(&error))?;
    match runs.as_slice() {
        [report] if args.json => print_json(&One {
            report,
            settings: &args.settings,
        })?,
        runs if args.json => print_json(&Several {
            profile: &reference.name,
            settings: &args.settings,
            runs,
        })?,
        runs => print(&table::table(&profile, &args.settings, runs))?,
    };
    let is_broken = |report| outcomes(report).any(|(_, outcome)| outcome.broken_frames > 0);
    if runs.iter().any(is_broken) {
        return Err(Failure::Failed(
            "frames came out that must not have: see broken_frames; this is a fault of the program"
                .into(),
        ));
    }
    Ok(())
}

/// The document of one seed.
#[derive(Serialize)]
struct One<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    settings: &'a [String],
}

/// The document of several.
#[derive(Serialize)]
struct Several<'a> {
    profile: &'a str,
    settings: &'a [String],
    runs: &'a [Report],
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
