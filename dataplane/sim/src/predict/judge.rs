//! The judgement: every policy at every setting on every channel.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use super::channel::Channel;
use super::frontier::{Point, Setting, TARGETS_PER_1000, frontier, tuned};
use super::generate::Recipe;
use super::policies::{JUDGED, Judged};
use super::replay::replay;
use super::tally::{Figures, Tally};
use super::timing::{Cost, cost};
use super::trace::Trace;
use crate::seeds::seed_for;

/// Most threads: more would only wait for memory.
const THREADS_MAX: usize = 16;

/// What is to be judged.
#[derive(Clone, Debug)]
pub struct Options {
    /// Channels to report on; the project's own without any.
    pub traces: Vec<Trace>,
    /// Names of policies; all without any.
    pub policies: Vec<String>,
    /// Seed of all that is random.
    pub seed: u64,
    /// How many seeds follow from it.
    pub seeds: u32,
    /// Shards of a channel.
    pub shards: usize,
    /// Whether to measure what each policy costs; a report with it is not the same each time.
    pub timing: bool,
}

/// There is no such policy.
#[derive(Debug, thiserror::Error)]
#[error("no policy `{0}`; there are {names}", names = policy_names().join(", "))]
pub struct UnknownPolicy(pub String);

/// The judgement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many seeds follow from it.
    pub seeds: u32,
    /// Channels on which knobs were tuned; they are not among those that are reported.
    pub tuned_on: Vec<String>,
    /// The policies over all reported channels together, at the same setting on each.
    pub policies: Vec<PolicyReport>,
    /// Each channel by itself.
    pub channels: Vec<ChannelReport>,
    /// Where the model is worth it; absent if it or `rack` was not judged.
    pub verdicts: Vec<Verdict>,
}

/// A channel by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChannelReport {
    /// Its name.
    pub name: String,
    /// Shards, over all seeds.
    pub shards: u64,
    /// Losses among 1,000 of them.
    pub lost_per_1000: f64,
    /// Shards among 1,000 that came after they were known to be missing.
    pub late_per_1000: f64,
    /// The policies on it.
    pub policies: Vec<PolicyReport>,
}

/// What a policy is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyReport {
    /// Its name.
    pub name: &'static str,
    /// What its knob is.
    pub knob: &'static str,
    /// At the same rates of needless requests as the others.
    pub frontier: Vec<Point>,
    /// As it is set unless somebody sets it.
    pub default: Figures,
    /// With the knob as tuned elsewhere.
    pub tuned: Vec<Tuned>,
    /// Mean square error of the stated loss probabilities; absent if it states none.
    pub brier: Option<f64>,
    /// How far stated probabilities are from what came true.
    pub calibration_error: Option<f64>,
    /// What it costs, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What a setting that was tuned for a target on other channels gives here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tuned {
    /// The target on the channels it was tuned on.
    pub target_per_1000: f64,
    /// The setting; absent, with the figures, if none was good enough there.
    pub knob: Option<f64>,
    /// What it gives here.
    pub figures: Option<Figures>,
}

/// Whether the model is worth its learning on a channel, against adaptive RACK at the same rate of
/// needless requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The channel.
    pub channel: String,
    /// The rate.
    pub spurious_per_1000: f64,
    /// RACK's mean ask delay by the model's.
    pub ratio: f64,
    /// The same for `model-frozen`, if it reaches the rate.
    pub ratio_frozen: Option<f64>,
    /// Below [`WORTH`], RACK is the one to use.
    pub is_worth_it: bool,
}

/// How many times sooner than RACK the model has to ask on average.
pub const WORTH: f64 = 1.5;

/// The names of all policies.
pub fn policy_names() -> Vec<&'static str> {
    JUDGED.iter().map(|policy| policy.name).collect()
}

/// Tallies by policy and setting.
type Grid = Vec<Vec<Tally>>;

/// Judges. `progress` is told which share of the work is done.
///
/// # Errors
/// If a policy is unknown.
pub fn judge(options: &Options, progress: &mut dyn FnMut(f64)) -> Result<Report, UnknownPolicy> {
    let policies = chosen(&options.policies)?;
    let seeds: Vec<u64> = (0..u64::from(options.seeds.max(1)))
        .map(|turn| seed_for(options.seed, &[turn]))
        .collect();
    let is_own = options.traces.is_empty();
    let sources = if is_own {
        Recipe::REPORTED_ON.len()
    } else {
        options.traces.len()
    };
    let steps = Recipe::TUNED_ON.len() + seeds.len() * sources;
    let mut done = 0;
    let mut step = |progress: &mut dyn FnMut(f64)| {
        done += 1;
        progress(f64::from(done) / steps as f64);
    };
    let mut tuning = empty(&policies);
    for recipe in Recipe::TUNED_ON {
        let channel = recipe.channel(options.shards, seed_for(options.seed, &[u64::MAX]));
        merge(&mut tuning, &sweep(&policies, &channel));
        step(progress);
    }
    let mut all = Gathered::new(&policies, seeds.len());
    for (turn, &seed) in seeds.iter().enumerate() {
        for source in 0..sources {
            let channels = match options.traces.get(source) {
                Some(trace) => trace.channels(options.shards, seed),
                None => vec![Recipe::REPORTED_ON[source].channel(options.shards, seed)],
            };
            for channel in channels {
                all.take(&channel, turn, &sweep(&policies, &channel));
            }
            step(progress);
        }
    }
    let mut report = all.report(options, &policies, &tuning);
    if options.timing {
        let channel = Recipe::Stragglers.channel(options.shards, options.seed);
        for (report, policy) in report.policies.iter_mut().zip(&policies) {
            report.cost = Some(cost(policy, &channel));
        }
    }
    Ok(report)
}

fn chosen(names: &[String]) -> Result<Vec<Judged>, UnknownPolicy> {
    if names.is_empty() {
        return Ok(JUDGED.to_vec());
    }
    let unknown = |name: &&String| JUDGED.iter().all(|policy| policy.name != name.as_str());
    if let Some(name) = names.iter().find(unknown) {
        return Err(UnknownPolicy(name.clone()));
    }
    let is_chosen = |policy: &&Judged| names.iter().any(|name| name == policy.name);
    Ok(JUDGED.iter().filter(is_chosen).copied().collect())
}

fn empty(policies: &[Judged]) -> Grid {
    policies
        .iter()
        .map(|policy| vec![Tally::default(); policy.runs().count()])
        .collect()
}

fn merge(grid: &mut Grid, other: &Grid) {
    for (tally, other) in grid.iter_mut().flatten().zip(other.iter().flatten()) {
        tally.merge(other);
    }
}

/// Plays a channel to every policy at every setting, on all CPUs. Each run is by itself, so their
/// order means nothing.
fn sweep(policies: &[Judged], channel: &Channel) -> Grid {
    let jobs: Vec<(usize, usize, Option<f64>)> = policies
        .iter()
        .enumerate()
        .flat_map(|(policy, it)| {
            (0..)
                .zip(it.runs())
                .map(move |(run, knob)| (policy, run, knob))
        })
        .collect();
    let grid = Mutex::new(empty(policies));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&(policy, run, knob)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let played = replay(channel, policies[policy].begin(channel, knob));
            let tally = Tally::of(channel, &played);
            // A thread that failed ends the scope with its panic; what is here is whole.
            grid.lock().unwrap_or_else(PoisonError::into_inner)[policy][run] = tally;
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 1..threads.min(THREADS_MAX) {
            scope.spawn(work);
        }
        work();
    });
    grid.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What was gathered so far: together and by seed, over all channels and for each.
struct Gathered {
    all: Seeds,
    channels: Vec<(String, [u64; 3], Seeds)>,
    empty: Grid,
    seeds: usize,
}

struct Seeds {
    all: Grid,
    each: Vec<Grid>,
}

impl Seeds {
    fn take(&mut self, turn: usize, grid: &Grid) {
        merge(&mut self.all, grid);
        merge(&mut self.each[turn], grid);
    }
}

impl Gathered {
    fn new(policies: &[Judged], seeds: usize) -> Self {
        let empty = empty(policies);
        Self {
            all: Seeds {
                all: empty.clone(),
                each: vec![empty.clone(); seeds],
            },
            channels: Vec::new(),
            empty,
            seeds,
        }
    }

    fn take(&mut self, channel: &Channel, turn: usize, grid: &Grid) {
        self.all.take(turn, grid);
        let place = self
            .channels
            .iter()
            .position(|(name, ..)| name == channel.name());
        let place = place.unwrap_or_else(|| {
            let seeds = Seeds {
                all: self.empty.clone(),
                each: vec![self.empty.clone(); self.seeds],
            };
            self.channels
                .push((channel.name().to_owned(), [0; 3], seeds));
            self.channels.len() - 1
        });
        let (_, counts, seeds) = &mut self.channels[place];
        let more = [channel.shards().len(), channel.losses(), channel.late()];
        for (count, more) in counts.iter_mut().zip(more) {
            *count += more as u64;
        }
        seeds.take(turn, grid);
    }

    fn report(&self, options: &Options, policies: &[Judged], tuning: &Grid) -> Report {
        let channels: Vec<_> = self
            .channels
            .iter()
            .map(|(name, [shards, lost, late], seeds)| {
                let per_1000 = |count: u64| count as f64 * 1e3 / (*shards).max(1) as f64;
                ChannelReport {
                    name: name.clone(),
                    shards: *shards,
                    lost_per_1000: per_1000(*lost),
                    late_per_1000: per_1000(*late),
                    policies: policy_reports(policies, seeds, tuning),
                }
            })
            .collect();
        Report {
            seed: options.seed,
            seeds: options.seeds.max(1),
            tuned_on: Recipe::TUNED_ON
                .map(|recipe| recipe.name().to_owned())
                .into(),
            policies: policy_reports(policies, &self.all, tuning),
            verdicts: channels.iter().flat_map(verdicts).collect(),
            channels,
        }
    }
}

fn settings(policy: &Judged, tallies: &[Tally]) -> Vec<Setting> {
    let knobs = policy.settings.iter().zip(tallies);
    knobs
        .map(|(&knob, tally)| Setting {
            knob,
            figures: tally.figures(),
        })
        .collect()
}

fn policy_reports(policies: &[Judged], seeds: &Seeds, tuning: &Grid) -> Vec<PolicyReport> {
    let report = |(place, policy): (usize, &Judged)| {
        let all = settings(policy, &seeds.all[place]);
        let each: Vec<_> = (seeds.each.iter())
            .map(|grid| settings(policy, &grid[place]))
            .collect();
        let elsewhere = settings(policy, &tuning[place]);
        let default = &seeds.all[place][policy.settings.len()];
        PolicyReport {
            name: policy.name,
            knob: policy.knob,
            frontier: frontier(&all, &each),
            default: default.figures(),
            tuned: TARGETS_PER_1000
                .map(|target| {
                    let setting = tuned(target, &elsewhere).map(|index| all[index]);
                    Tuned {
                        target_per_1000: target,
                        knob: setting.map(|setting| setting.knob),
                        figures: setting.map(|setting| setting.figures),
                    }
                })
                .into(),
            brier: default.scores.brier(),
            calibration_error: default.scores.calibration_error(),
            cost: None,
        }
    };
    policies.iter().enumerate().map(report).collect()
}

fn verdicts(channel: &ChannelReport) -> Vec<Verdict> {
    let mean = |name: &str, place: usize| {
        let policy = channel.policies.iter().find(|policy| policy.name == name)?;
        Some(policy.frontier.get(place)?.ask_delay_ms?.mean)
    };
    let verdict = |(place, target): (usize, f64)| {
        let (rack, model) = (mean("rack", place)?, mean("model", place)?);
        let ratio = rack / model.max(1e-6);
        Some(Verdict {
            channel: channel.name.clone(),
            spurious_per_1000: target,
            ratio,
            ratio_frozen: mean("model-frozen", place).map(|frozen| rack / frozen.max(1e-6)),
            is_worth_it: ratio >= WORTH,
        })
    };
    TARGETS_PER_1000
        .into_iter()
        .enumerate()
        .filter_map(verdict)
        .collect()
}
