//! The `rack` policy: RACK's reordering window (RFC 8985 §6.2), between two gateways.

use core::time::Duration;

use super::{Hole, Outcome, Outlook, Plan, Predictor};
use crate::limits::{ASK_AFTER_MIN, ASK_DEFAULT};
use crate::time::Time;

/// A quarter of the shortest round trip (RFC 8985 §6.2).
const STEP: f32 = 0.25;

/// Recoveries for which a widened window is kept (RFC 8985: 16).
const PERSIST: u8 = 16;

/// Steps of a quarter of the shortest round trip that the window can have; the smoothed round trip
/// bounds it long before.
const STEPS_MAX: u32 = 64;

/// A path on which nothing came out of order for this long counts as one without reordering.
const REORDERING_FORGOTTEN: Duration = Duration::from_secs(60);

/// Adaptive RACK: as long as nothing came out of order a hole is asked for at once; from then on
/// after a quarter of the shortest round trip, a quarter more for each round trip in which a shard
/// was asked for needlessly, back to one after 16 recoveries without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rack {
    /// A step, as a share of the shortest round trip.
    step: f32,
    /// When something came out of order last.
    reordered_at: Option<Time>,
    steps: u32,
    persist: u8,
    /// One step, and one recovery, in a round trip.
    widened_at: Time,
    recovered_at: Time,
}

impl Default for Rack {
    fn default() -> Self {
        Self::with_step(STEP)
    }
}

impl Rack {
    /// With steps of another share of the shortest round trip than a quarter.
    pub fn with_step(step: f32) -> Self {
        Self {
            step,
            reordered_at: None,
            steps: 0,
            persist: 0,
            widened_at: Time::ZERO,
            recovered_at: Time::ZERO,
        }
    }

    fn reset(&mut self) {
        *self = Self {
            widened_at: self.widened_at,
            recovered_at: self.recovered_at,
            ..Self::with_step(self.step)
        };
    }

    fn ask_after(&mut self, hole: &Hole, outlook: &Outlook) -> Duration {
        let Some(reordered_at) = self.reordered_at else {
            return ASK_AFTER_MIN;
        };
        if hole.opened_at.since(reordered_at) > REORDERING_FORGOTTEN {
            self.reset();
            return ASK_AFTER_MIN;
        }
        let Some(rtt) = outlook.round_trip else {
            return ASK_DEFAULT;
        };
        let steps = self.step * (self.steps + 1) as f32;
        // The cast saturates, and makes 0 of NaN.
        let window = Duration::from_nanos((super::nanos(rtt.minimum) as f32 * steps) as u64);
        window.min(rtt.smoothed).max(ASK_AFTER_MIN)
    }
}

impl Predictor for Rack {
    #[inline]
    fn plan(&mut self, hole: &Hole, outlook: &Outlook, _age: Duration) -> Plan {
        Plan::ask_after(self.ask_after(hole, outlook))
    }

    fn learn(&mut self, _hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        let round = outlook.round_trip.map_or(ASK_DEFAULT, |rtt| rtt.smoothed);
        match outcome {
            Outcome::Late { asked, .. } => {
                let is_first = self.reordered_at.replace(now).is_none();
                if asked && !is_first && now.since(self.widened_at) >= round {
                    self.steps = (self.steps + 1).min(STEPS_MAX);
                    self.persist = PERSIST;
                }
                if asked {
                    self.widened_at = now;
                }
            }
            Outcome::Lost if self.steps > 0 && now.since(self.recovered_at) >= round => {
                self.recovered_at = now;
                self.persist = self.persist.saturating_sub(1);
                if self.persist == 0 {
                    self.steps = 0;
                }
            }
            Outcome::Lost => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RoundTrip;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn hole(at_ms: u32) -> Hole {
        Hole {
            number: at_ms,
            opened_at: Time::ZERO + MS * at_ms,
            gap: 1,
            position: 0,
            path: 0,
            siblings: 0,
        }
    }

    fn outlook() -> Outlook {
        Outlook {
            round_trip: Some(RoundTrip {
                smoothed: MS * 50,
                variance: MS,
                minimum: MS * 40,
            }),
            asks: true,
            repair_within: None,
        }
    }

    fn late(rack: &mut Rack, at_ms: u32) {
        let outcome = Outcome::Late {
            age: MS,
            asked: true,
        };
        rack.learn(&hole(at_ms), outcome, &outlook(), Time::ZERO + MS * at_ms);
    }

    #[test]
    fn the_window_opens_with_reordering_grows_with_needless_requests_and_closes_again() {
        let mut rack = Rack::default();
        let window = |rack: &mut Rack, at_ms| rack.ask_after(&hole(at_ms), &outlook());
        assert_eq!(window(&mut rack, 0), ASK_AFTER_MIN);
        late(&mut rack, 100);
        assert_eq!(window(&mut rack, 100), MS * 10);
        late(&mut rack, 120);
        assert_eq!(window(&mut rack, 120), MS * 10, "one step in a round trip");
        for at_ms in [200, 300, 400, 500, 600, 700] {
            late(&mut rack, at_ms);
        }
        assert_eq!(
            window(&mut rack, 700),
            MS * 50,
            "never more than a round trip"
        );
        for recovery in 0..PERSIST {
            assert!(window(&mut rack, 1_000) > MS * 10, "recovery {recovery}");
            let now = Time::ZERO + MS * (1_000 + 60 * u32::from(recovery));
            rack.learn(&hole(0), Outcome::Lost, &outlook(), now);
        }
        assert_eq!(window(&mut rack, 2_000), MS * 10);
        assert_eq!(window(&mut rack, 70_000), ASK_AFTER_MIN, "long ago");
    }

    #[test]
    fn without_a_round_trip_there_is_a_default() {
        let mut rack = Rack::default();
        late(&mut rack, 1);
        assert_eq!(rack.ask_after(&hole(2), &Outlook::default()), ASK_DEFAULT);
    }
}
