//! The `model` policy: what is missing is lost or late, with what probability, and until when
//! waiting pays.
//!
//! | file | what |
//! |---|---|
//! | `lateness` | how late shards come that come late: a histogram that forgets |
//! | `signals` | what the stream shows that tells losses from lateness |
//! | `logistic` | how likely a hole is a loss, learned from what turned out |
//! | `calibrator` | what the logistic's probability is worth |
//! | `conformal` | how dear a needless request is, steered by the share of them |
//! | `fill` | when a hole is filled, whatever fills it |
//! | `foretold` | when that was expected, and when it came |
//! | `memo` | what was said of each hole, until its fate is known |
//! | `watch` | what the predictions were worth; falls back to RACK if nothing |
//! | `state` | what was learned, as bytes |
//!
//! Of a hole that is a loss with probability π, waiting until τ costs π τ, and asking at τ costs a
//! needless request if the shard is late by more: (1 - π) S(τ) C λ. The hole is asked for where the
//! sum is least. Waiting by itself changes nothing of that; so the plan stands until the picture
//! changes, which a few looks find out: the neighbours of a late shard come too, those of a lost one
//! stay away.
//!
//! **Who shapes delays can train it.** Only shards that opened under the peer's key teach. Three
//! things bound what an attacker on the path gains: a request is never later than
//! max(SRTT, 10 ms) after the hole has opened; the price of a needless request is bounded, and leaks
//! back while nothing is late; and needless requests have a budget of their own
//! ([`NEEDLESS_PER_SHARD`](crate::limits::NEEDLESS_PER_SHARD)). He can delay each shard by himself
//! for as long without touching the model.

mod approx;
mod calibrator;
mod conformal;
mod fill;
mod foretold;
mod lateness;
mod logistic;
mod memo;
mod signals;
mod state;
mod watch;

#[cfg(test)]
mod tests;

use core::time::Duration;

use self::approx::{log2, logit, sigmoid};
use self::calibrator::Calibrator;
use self::conformal::Conformal;
use self::fill::Fillers;
pub use self::foretold::{Foretold, RATIO_BINS};
use self::lateness::{BUCKETS, Context, Lateness};
use self::logistic::{FEATURES, Features, Logistic};
use self::memo::Memos;
use self::signals::Signals;
pub use self::state::{STATE_LEN, StateError};
use self::watch::Watch;
pub use self::watch::{Bin, Fault, RELIABILITY_BINS, Reliability};
use super::{Filler, Hole, Outcome, Outlook, Plan, Predictor, Rack, nanos};
use crate::limits::{ASK_AFTER_MIN, ASK_DEFAULT};
use crate::time::Time;

/// The model never asks sooner than this: crypto units reorder by as much.
const SOONEST_MS: f32 = 0.2;

/// It never asks later than after a round trip, or this if that is longer.
const LATEST_MIN: Duration = Duration::from_millis(10);

/// Fates after which the model counts for half, beside RACK.
const COLD: f32 = 200.0;

/// Fates that are counted: beyond, nothing is cold.
const LEARNED_MAX: u32 = 1 << 20;

/// What another path leaves of the histogram.
const PATH_CHANGE_KEEPS: f32 = 0.1;

/// Costs compared side by side.
const LANES: usize = 8;

/// How a model weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelConfig {
    /// What a needless request costs before experience says otherwise, in milliseconds of delay.
    pub needless_ms: f32,
    /// Share of late shards that may be asked for needlessly, 0 to 1: the knob.
    pub alpha: f32,
    /// Whether all weights but the bias stay zero: to see what learning them is worth.
    pub frozen: bool,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            needless_ms: 30.0,
            alpha: 0.05,
            frozen: false,
        }
    }
}

/// The learned predictor of one stream.
#[derive(Clone, Debug)]
pub struct Model {
    config: ModelConfig,
    lateness: Lateness,
    signals: Signals,
    /// Of a hole that opens, and of one that is looked at again.
    fresh: Logistic,
    look: Logistic,
    /// Of `fresh`.
    calibrator: Calibrator,
    price: Conformal,
    fillers: Fillers,
    memos: Memos,
    watch: Watch,
    /// What it is compared with, and falls back to.
    rack: Rack,
    /// Fates learned from.
    learned: u32,
}

#[inline]
fn ms(time: Duration) -> f32 {
    nanos(time) as f32 / 1e6
}

fn from_ms(ms: f32) -> Duration {
    // The cast saturates, and makes 0 of NaN.
    Duration::from_nanos((ms * 1e6) as u64)
}

/// The weighted sum that a look begins with, as it was packed among its features.
fn before_look(looked: &Features) -> f32 {
    f32::from(looked[7]) / 16.0
}

impl Model {
    /// A model that knows nothing.
    pub fn new(config: ModelConfig) -> Self {
        Self {
            config,
            lateness: Lateness::new(),
            signals: Signals::new(),
            fresh: Logistic::new([0.0; FEATURES], config.frozen),
            look: Logistic::new([0.0; FEATURES], config.frozen),
            calibrator: Calibrator::new(),
            price: Conformal::new(config.alpha),
            fillers: Fillers::new(),
            memos: Memos::new(),
            watch: Watch::default(),
            rack: Rack::default(),
            learned: 0,
        }
    }

    /// What its predictions were worth.
    pub fn reliability(&self) -> &Reliability {
        &self.watch.all
    }

    /// The logarithm of the factor by which a needless request is dearer than configured.
    pub fn log_price(&self) -> f32 {
        self.price.log()
    }

    /// Fates learned from, up to a million.
    pub fn learned(&self) -> u32 {
        self.learned
    }

    /// How likely a hole that opens with these features is a loss.
    #[inline]
    fn fresh_loss(&self, fresh: &Features) -> f32 {
        let log_odds = self.fresh.log_odds(fresh);
        if self.config.frozen {
            return sigmoid(log_odds);
        }
        self.calibrator.probability(log_odds)
    }

    /// The latest time to ask, whatever was learned.
    fn latest(outlook: &Outlook) -> Duration {
        let round_trip = outlook.round_trip;
        round_trip
            .map_or(ASK_DEFAULT, |rtt| rtt.smoothed)
            .max(LATEST_MIN)
    }

    /// Where waiting on costs least from age `from_ms` on, in milliseconds of age.
    #[inline]
    fn deadline(&self, context: Context, loss: f32, from_ms: f32) -> f32 {
        let (ends, later) = (self.lateness.ends(), self.lateness.later(context));
        let here = if from_ms > 0.0 {
            self.lateness.later_than(context, from_ms).max(1e-6)
        } else {
            1.0
        };
        // Where losses are rare, there is more to wait for; the price need not find that out.
        let price = self.config.needless_ms * self.price.factor() * self.signals.odds();
        let needless = (1.0 - loss) * price / here;
        // The ends times the loss, less what does not depend on them: the same order.
        let mut costs = [0.0; BUCKETS];
        for ((cost, end), later) in costs.iter_mut().zip(ends).zip(later) {
            *cost = loss * end + needless * later;
        }
        // Before its age there is nothing to choose; the ends rise.
        let first = match from_ms > 0.0 {
            true => self.lateness.bucket(from_ms),
            false => 0,
        };
        for cost in &mut costs[..first] {
            *cost = f32::INFINITY;
        }
        let mut least = [f32::INFINITY; LANES];
        for lanes in costs.as_chunks::<LANES>().0 {
            for (least, cost) in least.iter_mut().zip(lanes) {
                *least = if *cost < *least { *cost } else { *least };
            }
        }
        let least = least.into_iter().fold(f32::INFINITY, f32::min);
        // Asking at once: all that is still late is asked for needlessly.
        if needless * here + loss * from_ms <= least {
            return from_ms;
        }
        let bucket = costs.iter().position(|cost| *cost <= least);
        ends[bucket.unwrap_or(0)].max(from_ms)
    }

    /// A deadline as it is carried out: blended with what RACK begins with as long as it was learned
    /// from few, and bounded.
    #[inline]
    fn carried_out(&self, deadline_ms: f32, rack_ms: f32, outlook: &Outlook) -> f32 {
        let learned = self.learned as f32;
        let quarter_ms = outlook
            .round_trip
            .map_or(ms(ASK_DEFAULT), |rtt| ms(rtt.minimum) / 4.0);
        let rack_ms = rack_ms.min(quarter_ms.max(ms(ASK_AFTER_MIN)));
        let blended = (deadline_ms * learned + rack_ms * COLD) / (learned + COLD);
        blended.max(SOONEST_MS).min(ms(Self::latest(outlook)))
    }

    fn plan_fresh(&mut self, hole: &Hole, outlook: &Outlook) -> Plan {
        let context = Context::of_gap(hole.gap);
        let fresh = self.signals.open(hole);
        let loss = self.fresh_loss(&fresh);
        self.signals.believe(loss);
        let deadline = self.deadline(context, loss, 0.0);
        let rack = self.rack.plan(hole, outlook, Duration::ZERO).ask_after;
        let ask_ms = self.carried_out(deadline, ms(rack), outlook);
        let is_fallen_back = self.watch.all.is_fallen_back;
        let carried_ms = if is_fallen_back { ms(rack) } else { ask_ms };
        let expected = self
            .fillers
            .median(&self.lateness, context, loss, carried_ms, outlook);
        self.watch.all.foretold.said += u64::from(expected.is_some());
        let memo = self.memos.open(hole.number, fresh);
        memo.loss = loss;
        memo.ask_ms = ask_ms;
        memo.rack_ms = ms(rack);
        memo.expected_ms = expected.unwrap_or(0.0);
        let look_ms = (ask_ms / 8.0).max(SOONEST_MS);
        Plan {
            ask_after: if is_fallen_back {
                rack
            } else {
                from_ms(ask_ms).min(Self::latest(outlook))
            },
            look_after: (!is_fallen_back && look_ms < ask_ms * 0.75).then(|| from_ms(look_ms)),
            expected_after: expected.map(from_ms),
            loss: Some(loss),
        }
    }

    fn plan_again(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        let context = Context::of_gap(hole.gap);
        let age_ms = ms(age);
        let survival = self.lateness.later_than(context, age_ms).max(1e-6);
        let Some(memo) = self.memos.get(hole.number) else {
            // Pushed out: the plan as it was is not known any more.
            return Plan::ask_after(age);
        };
        let before = logit(memo.loss) - log2(survival) * core::f32::consts::LN_2;
        let looked = self.signals.look(hole, age, before);
        let loss = self.look.probability(&looked, before_look(&looked));
        memo.looked = Some(looked);
        let rack_ms = memo.rack_ms;
        let deadline = self.deadline(context, loss, age_ms);
        let ask_ms = self.carried_out(deadline, rack_ms, outlook).max(age_ms);
        if let Some(memo) = self.memos.get(hole.number) {
            memo.ask_ms = ask_ms;
        }
        let look_ms = age_ms * 2.0;
        let expected = self
            .fillers
            .median(&self.lateness, context, loss, ask_ms, outlook);
        Plan {
            // What rounding adds is neither in the past nor past the cap.
            ask_after: from_ms(ask_ms).max(age).min(Self::latest(outlook).max(age)),
            look_after: (look_ms < ask_ms * 0.75).then(|| from_ms(look_ms)),
            expected_after: expected.map(from_ms),
            loss: Some(loss),
        }
    }

    /// Learns how likely a hole was a loss from what it turned out to be.
    fn learn_fate(&mut self, hole: &Hole, is_lost: bool) {
        let Some(memo) = self.memos.get(hole.number) else {
            return;
        };
        let is_first = !memo.judged;
        memo.judged = true;
        self.calibrator
            .learn(self.fresh.log_odds(&memo.fresh), is_lost);
        self.fresh.learn(&memo.fresh, 0.0, is_lost);
        if let Some(looked) = &memo.looked {
            self.look.learn(looked, before_look(looked), is_lost);
        }
        if is_first {
            self.learned = (self.learned + 1).min(LEARNED_MAX);
            if is_lost {
                self.watch.loss(memo.ask_ms, memo.rack_ms);
            }
            self.watch.fate(memo.loss, is_lost);
        }
    }

    fn learn_late(
        &mut self,
        hole: &Hole,
        age: Duration,
        asked: bool,
        outlook: &Outlook,
        now: Time,
    ) {
        let age_ms = ms(age);
        if let Some(rtt) = outlook.round_trip {
            self.lateness.set_prior(rtt.minimum / 8);
        }
        self.lateness.add(Context::of_gap(hole.gap), age);
        let memo = self.memos.get(hole.number).copied();
        let was_judged = memo.is_some_and(|memo| memo.judged);
        self.signals.late(hole, age, was_judged);
        let rack_asked = memo.is_some_and(|memo| memo.rack_ms < age_ms);
        let outcome = Outcome::Late {
            age,
            asked: rack_asked,
        };
        self.rack.learn(hole, outcome, outlook, now);
        if age_ms < ms(Self::latest(outlook)) {
            // While RACK decides, by what the model would have done.
            let asked = match memo {
                Some(memo) if self.watch.all.is_fallen_back => memo.ask_ms < age_ms,
                _ => asked,
            };
            self.price.late(asked);
            self.watch.late(asked);
        }
        if let Some(memo) = memo
            && !memo.filled
        {
            self.note_filled(hole, age_ms);
        }
        self.learn_fate(hole, false);
    }

    fn note_filled(&mut self, hole: &Hole, age_ms: f32) {
        if let Some(memo) = self.memos.get(hole.number) {
            memo.filled = true;
            if memo.expected_ms > 0.0 {
                self.watch.all.foretold.came(age_ms, memo.expected_ms);
            }
        }
    }
}

impl Predictor for Model {
    #[inline]
    fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) {
        if self.signals.arrived(path, sent_at_us, received_at) {
            self.watch.all.path_changes += 1;
            self.lateness.shrink(PATH_CHANGE_KEEPS);
        }
    }

    #[inline]
    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        if age.is_zero() {
            self.plan_fresh(hole, outlook)
        } else {
            self.plan_again(hole, outlook, age)
        }
    }

    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        match outcome {
            Outcome::Late { age, asked } => self.learn_late(hole, age, asked, outlook, now),
            Outcome::Lost => {
                self.signals.lost();
                self.price.lost();
                self.rack.learn(hole, outcome, outlook, now);
                self.learn_fate(hole, true);
            }
        }
    }

    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        self.fillers.note(by, age);
        self.note_filled(hole, ms(age));
    }
}
