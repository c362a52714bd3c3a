//! The policies that are judged, each with its own knob.

use std::time::Duration;

use shardgate_core::predict::{Filler, Fixed, Hole, Outcome, Outlook, Plan, Predictor, Rack};
use shardgate_core::time::Time;

use super::channel::Channel;
use super::oracle::Oracle;
use super::replay::{Run, replay};

/// A policy, and which settings of its knob are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub name: &'static str,
    /// What the knob is.
    pub knob: &'static str,
    /// In order.
    pub settings: &'static [f64],
    /// Which of them the gateway uses unless told otherwise.
    pub default: usize,
    run: fn(&Channel, f64) -> Run,
}

const FACTORS: &[f64] = &[
    0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 16.0,
];
const MILLISECONDS: &[f64] = &[
    1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 160.0,
];
const SHARES: &[f64] = &[0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// All of them, in the order of reports.
pub(super) const POLICIES: &[Policy] = &[
    Policy {
        name: "rack",
        knob: "factor of the window",
        settings: FACTORS,
        default: 7,
        run: |channel, factor| replay(channel, Scaled(Rack::default(), factor)),
    },
    Policy {
        name: "fixed",
        knob: "milliseconds",
        settings: MILLISECONDS,
        default: 7,
        run: |channel, ms| replay(channel, Fixed(Duration::from_secs_f64(ms / 1e3))),
    },
    Policy {
        name: "oracle",
        knob: "share of late shards asked for",
        settings: SHARES,
        default: 0,
        run: |channel, share| replay(channel, Oracle::new(channel, share)),
    },
];

impl Policy {
    /// Plays a channel to it at a setting.
    pub(super) fn run(&self, channel: &Channel, knob: f64) -> Run {
        (self.run)(channel, knob)
    }
}

/// A policy whose times are so many times as long.
struct Scaled<P>(P, f64);

impl<P: Predictor> Predictor for Scaled<P> {
    fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) {
        self.0.arrived(path, sent_at_us, received_at);
    }

    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        let plan = self.0.plan(hole, outlook, age);
        Plan {
            ask_after: plan.ask_after.mul_f64(self.1),
            ..plan
        }
    }

    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        self.0.learn(hole, outcome, outlook, now);
    }

    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        self.0.filled(hole, by, age);
    }
}
