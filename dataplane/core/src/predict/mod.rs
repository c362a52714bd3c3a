//! The prediction engine: for every hole, when to ask for it and how long to hold what is behind it.
//!
//! A [`Predictor`] answers one question, when to ask; [`HoldBounds::hold`] makes of the answer how
//! long each class waits: until the last thing that can still fill the hole is overdue. Between
//! late originals and the answer to a request lies a valley in which nothing arrives; releasing
//! there throws the answer away, so a hold ends with a whole round of asking or before the first.

mod fixed;
mod model;
mod policy;
mod rack;
mod rules;

use core::time::Duration;

pub use self::fixed::Fixed;
pub use self::model::{
    Bin, Fault, Foretold, Model, ModelConfig, RATIO_BINS, RELIABILITY_BINS, Reliability, STATE_LEN,
    StateError,
};
pub use self::policy::{Engine, Policy, UnknownPolicy};
pub use self::rack::Rack;
pub use self::rules::{Duplicates, Quantile, Rto, RttFraction};
use crate::lane::{CLASSES, Class};
use crate::limits::{ASK_DEFAULT, HOLD_MAX, HOLD_SLACK, ROUNDS_HELD};
use crate::time::Time;

/// A hole as it opens: what a predictor may know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Counts the stream's holes, modulo 2^32: by it a predictor finds what it said of this one.
    pub number: u32,
    /// When the evidence for it arrived.
    pub opened_at: Time,
    /// Missing shards in a row, this one included, when it opened.
    pub gap: u32,
    /// How many of those were sent before this one.
    pub position: u32,
    /// The path that it was sent on, as far as that is known.
    pub path: u8,
    /// Which of its neighbours outside the gap are of its own aggregate: 0 to 2.
    pub siblings: u8,
}

/// What became of the first transmission of a shard that was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It came after all.
    Late {
        /// How long after the hole had opened.
        age: Duration,
        /// Whether it had been asked for by then: needlessly.
        asked: bool,
    },
    /// It did not come while anybody remembered it.
    Lost,
}

/// A path's round trip as the estimator has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Smoothed (RFC 6298).
    pub smoothed: Duration,
    /// Its mean deviation (RFC 6298).
    pub variance: Duration,
    /// Shortest of the last seconds.
    pub minimum: Duration,
}

impl RoundTrip {
    /// How long an answer to a request is waited for: a quarter more than a round trip, more where
    /// round trips vary, at most twice as long.
    pub fn round(&self) -> Duration {
        let slack = (self.smoothed / 4).max(self.variance * 4);
        self.smoothed + slack.min(self.smoothed)
    }
}

/// What can still fill a hole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outlook {
    /// The path's round trip; unknown at first.
    pub round_trip: Option<RoundTrip>,
    /// Whether missing shards are asked for.
    pub asks: bool,
    /// Within which time every shard was covered by standing repair lately; none without.
    pub repair_within: Option<Duration>,
}

/// What fills a hole in place of its first transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filler {
    /// It was asked for, and sent again.
    Repeat {
        /// How long after it had been asked for first.
        after: Duration,
    },
    /// Repair, standing or in answer.
    Repair,
}

/// What is planned for a hole, and expected of it. All times count from its opening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// When its shard is asked for.
    pub ask_after: Duration,
    /// When the plan is made anew, if the hole is open then: always sooner than `ask_after`.
    pub look_after: Option<Duration>,
    /// When it is filled as likely as not; unknown to those that do not predict.
    pub expected_after: Option<Duration>,
    /// How likely its first transmission is lost, 0 to 1; unknown to those that do not predict.
    pub loss: Option<f32>,
}

impl Plan {
    /// To ask after this time, without any expectation.
    pub const fn ask_after(ask_after: Duration) -> Self {
        Self {
            ask_after,
            look_after: None,
            expected_after: None,
            loss: None,
        }
    }
}

/// Decides when a missing shard is asked for, and learns from what came of it.
///
/// Whoever drives it tells of every shard that arrives first ([`arrived`](Self::arrived)), then of
/// the holes that this one opens ([`plan`](Self::plan)), and later once what became of each
/// hole's first transmission ([`learn`](Self::learn)); one more `Late` may follow a `Lost` if the
/// shard comes when nobody believed in it any more, and a hole that only the crypto units' order
/// opened ([`UNIT_GRACE`](crate::limits::UNIT_GRACE)) has no fate.
pub trait Predictor {
    /// A shard that was sent at `sent_at_us` by the sender's clock has arrived: not a duplicate, but
    /// perhaps sent again or repair.
    #[inline]
    fn arrived(&mut self, _path: u8, _sent_at_us: u32, _received_at: Time) {}

    /// When the shard is asked for, as far as that can be said at `age` after the hole has opened: 0
    /// at first, later when the last plan wanted another look. Also a plan that has passed is
    /// carried out at once.
    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan;

    /// What became of a hole's first transmission, at `now`.
    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time);

    /// The hole was none: only the crypto units' order had opened it.
    #[inline]
    fn retract(&mut self, _hole: &Hole) {}

    /// Something else has filled the hole, `age` after it had opened.
    #[inline]
    fn filled(&mut self, _hole: &Hole, _by: Filler, _age: Duration) {}
}

/// Upper bounds of a hold, whatever a predictor says.
#[derive(Clone, Copy, Debug)]
pub struct HoldBounds {
    interactive: Duration,
    /// By the path's round trip if absent.
    bulk: Option<Duration>,
}

impl HoldBounds {
    /// Bounds per class, none above [`HOLD_MAX`]. Without one for bulk it is
    /// [`HOLD_SLACK`] more than the path's round trip: a TCP sender's timer runs for a round trip
    /// and at least 200 ms (RFC 6298, Linux), so it does not see a hold that is shorter.
    pub fn new(interactive: Duration, bulk: Option<Duration>) -> Self {
        Self {
            interactive: interactive.min(HOLD_MAX),
            bulk: bulk.map(|bulk| bulk.min(HOLD_MAX)),
        }
    }

    fn bound(&self, class: Class, outlook: &Outlook) -> Duration {
        let automatic = || {
            let round_trip = outlook.round_trip.map(|rtt| rtt.smoothed);
            (round_trip.unwrap_or_default() + HOLD_SLACK).min(HOLD_MAX)
        };
        match class {
            Class::Interactive => self.interactive,
            Class::Bulk => self.bulk.unwrap_or_else(automatic),
        }
    }

    /// How long a hole that is asked for after `ask_after` holds frames of each class: as many
    /// rounds of asking as fit the bound, at most [`ROUNDS_HELD`]; if none does, until late originals
    /// and standing repair are overdue.
    #[inline]
    pub fn hold(&self, ask_after: Duration, outlook: &Outlook) -> [Duration; CLASSES] {
        let mut hold = [Duration::ZERO; CLASSES];
        for class in Class::ALL {
            let bound = self.bound(class, outlook);
            let round = outlook.round_trip.map(|rtt| rtt.round() + ask_after);
            let rounds = round
                .filter(|round| outlook.asks && !round.is_zero())
                .map_or(0, |round| bound.as_nanos() / round.as_nanos())
                .min(u128::from(ROUNDS_HELD)) as u32;
            let horizon = match (rounds, round) {
                (1.., Some(round)) => round * rounds,
                // An answer may come, nobody knows when.
                (_, None) if outlook.asks => bound,
                _ => ask_after.max(outlook.repair_within.unwrap_or_default()),
            };
            hold[class.index()] = horizon.min(bound);
        }
        hold
    }

    /// The longest hold there can be.
    pub fn longest(&self) -> Duration {
        self.bulk.unwrap_or(HOLD_MAX).max(self.interactive)
    }
}

/// Nanoseconds, up to 584 years: without the 128-bit arithmetic of [`Duration::as_nanos`].
#[inline]
fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(time.subsec_nanos()))
}

/// The time to the next round of asking: an answer should have come by then.
pub(crate) fn next_round(ask_after: Duration, outlook: &Outlook) -> Duration {
    let round = outlook.round_trip.map_or(ASK_DEFAULT, |rtt| rtt.round());
    round + ask_after
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn outlook(rtt_ms: u32, asks: bool, repair_ms: Option<u32>) -> Outlook {
        Outlook {
            round_trip: Some(RoundTrip {
                smoothed: MS * rtt_ms,
                variance: Duration::ZERO,
                minimum: MS * rtt_ms,
            }),
            asks,
            repair_within: repair_ms.map(|ms| MS * ms),
        }
    }

    #[test]
    fn a_hold_ends_with_a_round_or_before_the_first() {
        let bounds = HoldBounds::new(MS * 5, None);
        let hold = |outlook: &Outlook| bounds.hold(MS * 10, outlook);
        assert_eq!(hold(&outlook(40, true, None)), [MS * 5, MS * 120]);
        assert_eq!(
            hold(&outlook(200, true, None)),
            [MS * 5, MS * 260],
            "one round fits 350 ms"
        );
        assert_eq!(
            hold(&outlook(600, true, Some(30))),
            [MS * 5, MS * 30],
            "none fits 750 ms"
        );
        assert_eq!(hold(&outlook(40, false, None)), [MS * 5, MS * 10]);
        assert_eq!(hold(&outlook(40, false, Some(4))), [MS * 5, MS * 10]);
        assert_eq!(
            hold(&outlook(1, true, None)),
            [
                Duration::from_micros(0).max(MS * 5),
                Duration::from_micros(22_500)
            ]
        );
        assert_eq!(hold(&Outlook::default()), [MS * 5, MS * 10]);
    }

    #[test]
    fn a_configured_bound_is_never_exceeded() {
        let bounds = HoldBounds::new(MS * 5, Some(MS * 70));
        assert_eq!(bounds.hold(MS * 10, &outlook(40, true, None))[1], MS * 60);
        let bounds = HoldBounds::new(MS * 5, Some(MS * 30));
        assert_eq!(bounds.hold(MS * 10, &outlook(40, true, None))[1], MS * 10);
        assert_eq!(bounds.hold(MS * 50, &outlook(40, false, None))[1], MS * 30);
        assert_eq!(HoldBounds::new(MS, Some(MS * 100_000)).longest(), HOLD_MAX);
    }
}
