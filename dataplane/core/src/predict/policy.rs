//! The policies by name, and what carries them out.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::{
    Duplicates, Filler, Fixed, Hole, Model, ModelConfig, Outcome, Outlook, Plan, Predictor,
    Quantile, Rack, Reliability, Rto, RttFraction,
};
use crate::limits::HOLD_MAX;
use crate::time::Time;

/// The policies to choose from, as they begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// The same time for every hole.
    Fixed(Fixed),
    /// Adaptive RACK.
    Rack(Rack),
    /// A share of the shortest round trip.
    RttFraction(RttFraction),
    /// A number of later arrivals.
    Duplicates(Duplicates),
    /// The retransmission timeout.
    Rto(Rto),
    /// A quantile of delays.
    Quantile(Quantile),
    /// The learned predictor.
    Model(ModelConfig),
}

impl Policy {
    /// What carries it out: made once for each stream.
    pub fn engine(self) -> Engine {
        match self {
            Self::Fixed(policy) => Engine::Fixed(policy),
            Self::Rack(policy) => Engine::Rack(policy),
            Self::RttFraction(policy) => Engine::RttFraction(policy),
            Self::Duplicates(policy) => Engine::Duplicates(policy),
            Self::Rto(policy) => Engine::Rto(policy),
            Self::Quantile(policy) => Engine::Quantile(policy),
            Self::Model(config) => Engine::Model(Box::new(Model::new(config))),
        }
    }

    /// The same policy with its one knob at another place: milliseconds (`fixed`), step as a share
    /// of the shortest round trip (`rack`), that share (`rtt-fraction`), later arrivals
    /// (`duplicates`), RTTVARs (`rto`), the quantile, or what a needless request costs, in
    /// milliseconds of delay (`model`): with a knob it is not steered.
    #[must_use]
    pub fn with_knob(self, knob: f32) -> Self {
        match self {
            Self::Fixed(_) => {
                let nanos = (knob * 1e6) as u64;
                Self::Fixed(Fixed(Duration::from_nanos(nanos)))
            }
            Self::Rack(_) => Self::Rack(Rack::with_step(knob)),
            Self::RttFraction(_) => Self::RttFraction(RttFraction(knob)),
            Self::Duplicates(_) => Self::Duplicates(Duplicates::new(knob)),
            Self::Rto(_) => Self::Rto(Rto(knob)),
            Self::Quantile(_) => Self::Quantile(Quantile::new(knob)),
            Self::Model(config) => Self::Model(ModelConfig {
                needless_ms: knob,
                steered: false,
                ..config
            }),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(Fixed(after)) => write!(f, "fixed:{}ms", after.as_millis()),
            Self::Rack(_) => f.write_str("rack"),
            Self::RttFraction(_) => f.write_str("rtt-fraction"),
            Self::Duplicates(_) => f.write_str("duplicates"),
            Self::Rto(_) => f.write_str("rto"),
            Self::Quantile(_) => f.write_str("quantile"),
            Self::Model(config) if config.frozen => f.write_str("model-frozen"),
            Self::Model(_) => f.write_str("model"),
        }
    }
}

/// A name that no policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "write \"rack\", \"model\", \"model-frozen\", \"rtt-fraction\", \"duplicates\", \"rto\", \
             \"quantile\", or \"fixed:Nms\" with N from 0 to {}",
            HOLD_MAX.as_millis()
        )
    }
}

impl core::error::Error for UnknownPolicy {}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let model = ModelConfig::default();
        Ok(match name {
            "rack" => Self::Rack(Rack::default()),
            "rtt-fraction" => Self::RttFraction(RttFraction::default()),
            "duplicates" => Self::Duplicates(Duplicates::default()),
            "rto" => Self::Rto(Rto::default()),
            "quantile" => Self::Quantile(Quantile::default()),
            "model" => Self::Model(model),
            "model-frozen" => Self::Model(ModelConfig {
                frozen: true,
                ..model
            }),
            _ => Self::Fixed(Fixed(fixed(name).ok_or(UnknownPolicy)?)),
        })
    }
}

/// The time in `fixed:Nms`, digits only.
fn fixed(name: &str) -> Option<Duration> {
    let digits = name.strip_prefix("fixed:")?.strip_suffix("ms")?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let after = Duration::from_millis(digits.parse().ok().filter(|_| is_number)?);
    (after <= HOLD_MAX).then_some(after)
}

/// A policy at work on one stream.
#[derive(Clone, Debug)]
pub enum Engine {
    /// See [`Fixed`].
    Fixed(Fixed),
    /// See [`Rack`].
    Rack(Rack),
    /// See [`RttFraction`].
    RttFraction(RttFraction),
    /// See [`Duplicates`].
    Duplicates(Duplicates),
    /// See [`Rto`].
    Rto(Rto),
    /// See [`Quantile`].
    Quantile(Quantile),
    /// See [`Model`].
    Model(Box<Model>),
}

/// Does the same with whichever policy it is.
macro_rules! each {
    ($engine:expr, $policy:ident => $what:expr) => {
        match $engine {
            Engine::Fixed($policy) => $what,
            Engine::Rack($policy) => $what,
            Engine::RttFraction($policy) => $what,
            Engine::Duplicates($policy) => $what,
            Engine::Rto($policy) => $what,
            Engine::Quantile($policy) => $what,
            Engine::Model($policy) => $what,
        }
    };
}

impl Engine {
    /// What the model's predictions were worth; none of a policy that does not predict.
    pub fn reliability(&self) -> Option<&Reliability> {
        self.model().map(Model::reliability)
    }

    /// The model, if it is one.
    pub fn model(&self) -> Option<&Model> {
        match self {
            Self::Model(model) => Some(model),
            _ => None,
        }
    }

    /// The model, if it is one, to give it what an earlier one has learned.
    pub fn model_mut(&mut self) -> Option<&mut Model> {
        match self {
            Self::Model(model) => Some(model),
            _ => None,
        }
    }
}

impl Predictor for Engine {
    #[inline]
    fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) {
        each!(self, policy => policy.arrived(path, sent_at_us, received_at));
    }

    #[inline]
    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        each!(self, policy => policy.plan(hole, outlook, age))
    }

    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        each!(self, policy => policy.learn(hole, outcome, outlook, now));
    }

    fn retract(&mut self, hole: &Hole) {
        each!(self, policy => policy.retract(hole));
    }

    #[inline]
    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        each!(self, policy => policy.filled(hole, by, age));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_what_its_name_says() {
        let names = [
            "rack",
            "rtt-fraction",
            "duplicates",
            "rto",
            "quantile",
            "model",
            "model-frozen",
            "fixed:0ms",
            "fixed:20ms",
            "fixed:1000ms",
        ];
        for name in names {
            let policy: Policy = name.parse().unwrap();
            assert_eq!(policy.to_string(), name);
        }
        for wrong in [
            "",
            "Rack",
            "fixed",
            "fixed:",
            "fixed:ms",
            "fixed:+5ms",
            "fixed:1001ms",
            "fixed:5",
            "fixed:99999999999999999999ms",
            "oracle",
        ] {
            assert_eq!(wrong.parse::<Policy>(), Err(UnknownPolicy), "{wrong}");
        }
    }

    #[test]
    fn a_knob_changes_what_a_policy_does() {
        let outlook = Outlook {
            round_trip: Some(super::super::RoundTrip {
                smoothed: Duration::from_millis(50),
                variance: Duration::from_millis(5),
                minimum: Duration::from_millis(40),
            }),
            asks: true,
            repair_within: None,
        };
        let hole = |number| Hole {
            number,
            opened_at: Time(5_000_000_000),
            gap: 1,
            position: 0,
            path: 0,
            siblings: 0,
        };
        let late = Outcome::Late {
            age: Duration::from_millis(3),
            asked: true,
        };
        let ask_after = |policy: Policy| {
            let mut engine = policy.engine();
            for n in 0..400u32 {
                let at = Time(u64::from(n) * 10_000_000);
                engine.arrived(0, n * 10_000 - n % 5 * 1_000, at);
                let hole = Hole {
                    opened_at: at,
                    ..hole(n)
                };
                engine.plan(&hole, &outlook, Duration::ZERO);
                engine.learn(
                    &hole,
                    if n % 2 == 0 { late } else { Outcome::Lost },
                    &outlook,
                    at,
                );
            }
            engine.plan(&hole(400), &outlook, Duration::ZERO).ask_after
        };
        for (name, low, high) in [
            ("fixed:1ms", 1.0, 2.0),
            ("rack", 0.1, 0.4),
            ("rtt-fraction", 0.1, 0.2),
            ("duplicates", 2.0, 4.0),
            ("rto", 1.0, 4.0),
            ("quantile", 0.3, 0.95),
        ] {
            let policy: Policy = name.parse().unwrap();
            let (low, high) = (policy.with_knob(low), policy.with_knob(high));
            assert!(ask_after(low) < ask_after(high), "{name}");
        }
        let Policy::Model(config) = Policy::Model(ModelConfig::default()).with_knob(0.2) else {
            unreachable!("it was a model");
        };
        assert_eq!((config.needless_ms, config.steered), (0.2, false));
    }
}
