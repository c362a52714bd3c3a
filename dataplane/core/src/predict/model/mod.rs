//! The `model` policy: what is missing is lost or late, with what probability, and until when
//! waiting pays.
//!
//! | file | what |
//! |---|---|
//! | `delays` | relative delays of a path, and how far apart its shards are sent |
//! | `lateness` | how late shards come that come late: a histogram that forgets |
//! | `signals` | what the stream shows that tells losses from lateness |
//! | `logistic` | how likely a hole is a loss, learned from what turned out |
//! | `prior` | what its weights begin with |
//! | `conformal` | how dear a needless request is, steered by the share of them |
//! | `fill` | when a hole is filled, whatever fills it |
//! | `foretold` | when that was expected, and when it came |
//! | `memo` | what was said of each hole, until its fate is known |
//! | `watch` | what the predictions were worth; falls back to RACK if nothing |
//! | `state` | what was learned, as bytes |
//!
//! Of a hole that is a loss with probability π, waiting until τ costs π w(τ), where w grows faster
//! than τ so that long waits are fewer, and asking at τ costs a needless request if the shard is late
//! by more: (1 - π) S(τ) C λ. The hole is asked for where the sum is least. Waiting by itself changes
//! nothing of that; so the plan stands until the picture changes, which a few looks find out: the
//! neighbours of a late shard come too, those of a lost one stay away; where nothing else is missing
//! nothing is held up. An opening and a look have the same weights; at a look the odds of a loss are
//! 1 / S(age) times as high.
//!
//! **Who shapes delays can train it.** Only shards that opened under the peer's key teach. Three
//! things bound what an attacker on the path gains: a request is never later than
//! max(SRTT, 10 ms) after the hole has opened; the price of a needless request is bounded, and leaks
//! back while nothing is late; and needless requests have a budget of their own
//! ([`NEEDLESS_PER_SHARD`](crate::limits::NEEDLESS_PER_SHARD)). He can delay each shard by himself
//! for as long without touching the model.

mod approx;
mod conformal;
mod delays;
mod fill;
mod foretold;
mod lateness;
mod logistic;
mod memo;
mod prior;
mod signals;
mod state;
mod watch;

#[cfg(test)]
mod tests;

use core::time::Duration;

use self::approx::log2;
use self::conformal::Conformal;
use self::fill::Fillers;
pub use self::foretold::{Foretold, RATIO_BINS};
use self::lateness::{BUCKETS, Context, Lateness, NUMBERS};
use self::logistic::Logistic;
use self::memo::Memos;
use self::signals::Signals;
pub use self::state::{STATE_LEN, StateError};
use self::watch::Watch;
pub use self::watch::{Bin, Fault, RELIABILITY_BINS, Reliability};
use super::{Filler, Hole, Outcome, Outlook, Plan, Predictor, Rack, nanos};
use crate::limits::ASK_DEFAULT;
use crate::time::Time;

/// The model never asks sooner than this: crypto units reorder by as much.
const SOONEST_MS: f32 = 0.2;

/// It never asks later than after a round trip, or this if that is longer.
const LATEST_MIN_MS: f32 = 10.0;

/// What a needless request costs unless configured, in milliseconds.
const NEEDLESS_MS: f32 = 30.0;

/// After so many milliseconds a delay counts double: a long wait is worse than several short ones.
const DOUBLE_MS: f32 = 2.0;

/// Fates after which the model counts for half, beside RACK: it begins with weights that were
/// learned before.
const COLD: f32 = 2.0;

/// Fates that are counted: beyond, nothing is cold.
const LEARNED_MAX: u32 = 1 << 20;

/// What another path leaves of the histogram.
const PATH_CHANGE_KEEPS: f32 = 0.1;

/// The first look at an open hole, in milliseconds; the others each at twice the age.
const LOOK_MS: f32 = 0.6;

/// What a look counts in learning, beside an opening.
const LOOK_WEIGHT: f32 = 0.5;

/// A hole is asked for at the latest when no more late ones are to come than would cost so many
/// milliseconds if all were asked for, nor than this share of them. A loss that looks like a late shard
/// is otherwise waited for until the last bucket that ever held one.
const TAIL_MS: f32 = 2.0;
const TAIL_MAX: f32 = 0.05;

/// How much later than that, as buckets are a tenth wide.
const TAIL_SLACK: f32 = 1.1;

/// Costs compared side by side.
const LANES: usize = 8;

/// How a model weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelConfig {
    /// What a needless request costs before experience says otherwise, in milliseconds of delay.
    pub needless_ms: f32,
    /// Share of late shards that may be asked for needlessly, 0 to 1.
    pub alpha: f32,
    /// Whether the cost is steered so that the share is `alpha`; else it stays what it is.
    pub steered: bool,
    /// Whether all weights but the bias stay zero: to see what learning them is worth.
    pub frozen: bool,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            needless_ms: NEEDLESS_MS,
            alpha: 0.05,
            steered: true,
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
    odds: Logistic,
    /// What it costs to wait in vain until each bucket's end.
    waiting: [f32; BUCKETS],
    /// See [`LATEST_MIN_MS`]; longer where a needless request is configured to cost more.
    latest_min_ms: f32,
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
    nanos(time).min(i64::MAX as u64) as i64 as f32 * 1e-6
}

fn from_ms(ms: f32) -> Duration {
    // The cast saturates, and makes 0 of NaN.
    Duration::from_nanos((ms * 1e6) as u64)
}

/// What waiting in vain costs.
#[inline]
fn waiting(ms: f32) -> f32 {
    ms * (1.0 + ms / DOUBLE_MS)
}

impl Model {
    /// A model that has seen nothing of its path.
    pub fn new(config: ModelConfig) -> Self {
        let lateness = Lateness::new();
        Self {
            config,
            waiting: lateness.ends().map(waiting),
            lateness,
            signals: Signals::new(),
            odds: Logistic::new(config.frozen),
            latest_min_ms: LATEST_MIN_MS * (config.needless_ms / NEEDLESS_MS).max(1.0).sqrt(),
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

    /// The latest time to ask, whatever was learned, in milliseconds.
    #[inline]
    fn latest_ms(&self, outlook: &Outlook) -> f32 {
        let round_trip = outlook.round_trip;
        let round_ms = round_trip.map_or(ms(ASK_DEFAULT), |rtt| ms(rtt.smoothed));
        round_ms.max(self.latest_min_ms)
    }

    /// Where waiting on costs least from age `from_ms` on, in milliseconds of age; of late ones `here`
    /// come later than that.
    #[inline]
    fn deadline(&self, context: Context, loss: f32, from_ms: f32, here: f32) -> f32 {
        if self.price.forbids() {
            return f32::INFINITY;
        }
        let price = self.config.needless_ms * self.price.factor();
        let needless = (1.0 - loss) * price / here;
        // Before its age there is nothing to choose; the ends rise.
        let first = match from_ms > 0.0 {
            true => self.lateness.bucket(from_ms),
            false => 0,
        };
        // Costs, less what does not depend on the end: the same order. They are positive, so their
        // last bits can be the bucket's number.
        let mut least = [f32::INFINITY; LANES];
        let waiting_costs = self.waiting.as_chunks::<LANES>().0;
        let later = self.lateness.later(context).as_chunks::<LANES>().0;
        let numbers = NUMBERS.as_chunks::<LANES>().0;
        for ((waiting, later), numbers) in waiting_costs.iter().zip(later).zip(numbers) {
            for lane in 0..LANES {
                let cost = loss * waiting[lane] + needless * later[lane];
                let bits = cost.to_bits() & !(BUCKETS as u32 - 1) | numbers[lane] as u32;
                let is_better = f32::from_bits(bits) < least[lane] && numbers[lane] >= first as i32;
                least[lane] = if is_better {
                    f32::from_bits(bits)
                } else {
                    least[lane]
                };
            }
        }
        let least = least.into_iter().fold(f32::INFINITY, f32::min);
        // Asking at once: all that is still late is asked for needlessly.
        if needless * here + loss * waiting(from_ms) <= least {
            return from_ms;
        }
        let bucket = least.to_bits() as usize % BUCKETS;
        let tail = (TAIL_MS / price).min(TAIL_MAX);
        let tail_ms = self.lateness.all_but(context, tail) * TAIL_SLACK;
        self.lateness.ends()[bucket].min(tail_ms).max(from_ms)
    }

    /// A deadline as it is carried out: blended with what RACK begins with as long as it was learned
    /// from few, and bounded.
    #[inline]
    fn carried_out(&self, deadline_ms: f32, rack_ms: f32, latest_ms: f32) -> f32 {
        let learned = self.learned as f32;
        let deadline_ms = deadline_ms.min(latest_ms);
        let blended = (deadline_ms * learned + rack_ms * COLD) / (learned + COLD);
        blended.max(SOONEST_MS).min(latest_ms)
    }

    fn plan_fresh(&mut self, hole: &Hole, outlook: &Outlook) -> Plan {
        let context = Context::of_gap(hole.gap);
        let memo = self.memos.open(hole.number);
        let fresh = self.signals.open(hole, memo);
        memo.fresh = fresh;
        let loss = self.odds.probability(&fresh, 0.0);
        let deadline = self.deadline(context, loss, 0.0, 1.0);
        let rack = self.rack.plan(hole, outlook, Duration::ZERO).ask_after;
        let latest_ms = self.latest_ms(outlook);
        let ask_ms = self.carried_out(deadline, ms(rack), latest_ms);
        let is_fallen_back = self.watch.all.is_fallen_back;
        let carried_ms = if is_fallen_back { ms(rack) } else { ask_ms };
        let expected = self
            .fillers
            .median(&self.lateness, context, loss, carried_ms, outlook);
        self.watch.all.foretold.said += u64::from(expected.is_some());
        if let Some(memo) = self.memos.get_mut(hole.number) {
            memo.loss = loss;
            memo.ask_ms = ask_ms;
            memo.rack_ms = ms(rack);
            memo.expected_ms = expected.unwrap_or(0.0);
        }
        Plan {
            ask_after: if is_fallen_back {
                rack
            } else {
                from_ms(ask_ms)
            },
            look_after: (!is_fallen_back && LOOK_MS < ask_ms).then(|| from_ms(LOOK_MS)),
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
        let rack_ms = memo.rack_ms;
        // Those of a gap have numbers in a row.
        let first = self.memos.get(hole.number.wrapping_sub(hole.position));
        let looked = self.signals.look(hole, age, memo, first);
        let offset = -log2(survival) * core::f32::consts::LN_2;
        let loss = self.odds.probability(&looked, offset);
        let deadline = self.deadline(context, loss, age_ms, survival);
        let latest_ms = self.latest_ms(outlook);
        let ask_ms = self.carried_out(deadline, rack_ms, latest_ms).max(age_ms);
        if let Some(memo) = self.memos.get_mut(hole.number) {
            memo.ask_ms = ask_ms;
            memo.looks = memo.looks.saturating_add(1);
            // Each look is as likely as the others to be the one that is learned from.
            let luck = hole
                .number
                .wrapping_mul(0x9e37_79b9)
                .rotate_left(u32::from(memo.looks))
                >> 16;
            if luck % u32::from(memo.looks) == 0 {
                (memo.looked, memo.looked_offset) = (looked, offset);
            }
        }
        let look_ms = age_ms * 2.0;
        let expected = self
            .fillers
            .median(&self.lateness, context, loss, ask_ms, outlook);
        Plan {
            // What rounding adds is neither in the past nor past the cap.
            ask_after: from_ms(ask_ms).min(from_ms(latest_ms)).max(age),
            look_after: (look_ms < ask_ms).then(|| from_ms(look_ms)),
            expected_after: expected.map(from_ms),
            loss: Some(loss),
        }
    }

    /// Learns how likely a hole was a loss from what it turned out to be.
    fn learn_fate(&mut self, hole: &Hole, is_lost: bool) {
        let Some(memo) = self.memos.get_mut(hole.number) else {
            return;
        };
        let is_first = !memo.judged;
        memo.judged = true;
        self.odds.learn(&memo.fresh, 0.0, is_lost, 1.0);
        if memo.looks > 0 {
            // It stands for the other looks too.
            let weight = f32::from(memo.looks) * LOOK_WEIGHT;
            self.odds
                .learn(&memo.looked, memo.looked_offset, is_lost, weight);
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
        self.signals.late(hole, age);
        let first = hole.number.wrapping_sub(hole.position);
        if let Some(first) = self.memos.get_mut(first) {
            let place = u16::try_from(hole.position).unwrap_or(u16::MAX);
            first.gap_late = first.gap_late.saturating_add(1);
            first.gap_newest_late = first.gap_newest_late.max(place.saturating_add(1));
        }
        let rack_asked = memo.is_some_and(|memo| memo.rack_ms < age_ms);
        let outcome = Outcome::Late {
            age,
            asked: rack_asked,
        };
        self.rack.learn(hole, outcome, outlook, now);
        if age_ms < self.latest_ms(outlook) {
            // While RACK decides, by what the model would have done.
            let asked = match memo {
                Some(memo) if self.watch.all.is_fallen_back => memo.ask_ms < age_ms,
                _ => asked,
            };
            if self.config.steered {
                self.price.late(asked);
            }
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
        if let Some(memo) = self.memos.get_mut(hole.number) {
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
                if self.config.steered {
                    self.price.lost();
                }
                self.rack.learn(hole, outcome, outlook, now);
                self.learn_fate(hole, true);
            }
        }
    }

    fn retract(&mut self, _hole: &Hole) {
        self.signals.retract();
    }

    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        self.fillers.note(by, age);
        self.note_filled(hole, ms(age));
    }
}
