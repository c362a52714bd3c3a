//! The policies that are judged, each with its own knob.

use std::time::Duration;

use shardgate_core::predict::{Engine, Filler, Hole, Outcome, Outlook, Plan, Policy, Predictor};
use shardgate_core::time::Time;

use super::channel::Channel;
use super::oracle::Oracle;

/// A policy, and which settings of its knob are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// Its name in reports, and in the configuration but for `fixed` and `oracle`.
    pub name: &'static str,
    /// What the knob is.
    pub knob: &'static str,
    /// In order.
    pub settings: &'static [f64],
}

/// From hardly ever needless to hardly ever not.
const COSTS: &[f64] = &[
    0.1, 0.4, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 250.0, 600.0, 2_000.0, 8_000.0, 40_000.0,
];

/// All of them, in the order of reports.
pub(super) const JUDGED: &[Judged] = &[
    Judged {
        name: "model",
        knob: "milliseconds that a needless request costs",
        settings: COSTS,
    },
    Judged {
        name: "model-frozen",
        knob: "milliseconds that a needless request costs",
        settings: COSTS,
    },
    Judged {
        name: "rack",
        knob: "step as a share of the shortest round trip",
        settings: &[
            0.005, 0.025, 0.05, 0.08, 0.12, 0.17, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0,
        ],
    },
    Judged {
        name: "rtt-fraction",
        knob: "share of the shortest round trip",
        settings: &[
            0.005, 0.025, 0.05, 0.08, 0.12, 0.17, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0,
        ],
    },
    Judged {
        name: "duplicates",
        knob: "later arrivals",
        settings: &[
            1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0,
        ],
    },
    Judged {
        name: "rto",
        knob: "deviations beyond the round trip",
        settings: &[0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
    },
    Judged {
        name: "quantile",
        knob: "quantile of delays",
        settings: &[
            0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999,
        ],
    },
    Judged {
        name: "fixed",
        knob: "milliseconds",
        settings: &[
            1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 50.0, 80.0, 160.0,
        ],
    },
    Judged {
        name: "oracle",
        knob: "share of late shards asked for",
        settings: &[0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0],
    },
];

/// A policy at work.
pub(super) enum Candidate {
    Core(Engine),
    Oracle(Oracle),
}

impl Judged {
    /// As it begins on a channel, at a setting; without one as the gateway has it unless told
    /// otherwise, which for the model is no setting: there its cost is steered.
    pub(super) fn begin(&self, channel: &Channel, knob: Option<f64>) -> Candidate {
        let name = match self.name {
            "fixed" => "fixed:20ms",
            name => name,
        };
        match (name.parse::<Policy>(), knob) {
            (Ok(policy), Some(knob)) => Candidate::Core(policy.with_knob(knob as f32).engine()),
            (Ok(policy), None) => Candidate::Core(policy.engine()),
            (Err(_), knob) => Candidate::Oracle(Oracle::new(channel, knob.unwrap_or(0.0))),
        }
    }

    /// The knobs of all runs: each setting, and last none.
    pub(super) fn runs(&self) -> impl Iterator<Item = Option<f64>> {
        let settings = self.settings.iter().copied().map(Some);
        settings.chain([None])
    }
}

impl Predictor for Candidate {
    #[inline]
    fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) {
        match self {
            Self::Core(engine) => engine.arrived(path, sent_at_us, received_at),
            Self::Oracle(_) => {}
        }
    }

    #[inline]
    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        match self {
            Self::Core(engine) => engine.plan(hole, outlook, age),
            Self::Oracle(oracle) => oracle.plan(hole, outlook, age),
        }
    }

    #[inline]
    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        match self {
            Self::Core(engine) => engine.learn(hole, outcome, outlook, now),
            Self::Oracle(oracle) => oracle.learn(hole, outcome, outlook, now),
        }
    }

    #[inline]
    fn retract(&mut self, hole: &Hole) {
        if let Self::Core(engine) = self {
            engine.retract(hole);
        }
    }

    #[inline]
    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        if let Self::Core(engine) = self {
            engine.filled(hole, by, age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_oracle_are_the_cores_own() {
        let channel = Channel::new("none", Vec::new(), Default::default());
        for policy in JUDGED {
            let is_own = matches!(policy.begin(&channel, None), Candidate::Oracle(_));
            assert_eq!(is_own, policy.name == "oracle", "{}", policy.name);
            assert!(policy.settings.is_sorted(), "{}", policy.name);
        }
    }
}
