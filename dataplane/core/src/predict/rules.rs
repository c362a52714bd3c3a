//! Policies that learn little or nothing: what the model has to be better than.

use core::time::Duration;

use super::{Hole, Outcome, Outlook, Plan, Predictor};
use crate::limits::ASK_DEFAULT;
use crate::time::Time;

/// A share of the shortest round trip: QUIC's and RACK's first guess is a quarter or an eighth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RttFraction(pub f32);

impl Default for RttFraction {
    fn default() -> Self {
        Self(0.25)
    }
}

impl Predictor for RttFraction {
    #[inline]
    fn plan(&mut self, _hole: &Hole, outlook: &Outlook, _age: Duration) -> Plan {
        let after = outlook
            .round_trip
            .map_or(ASK_DEFAULT, |rtt| times(rtt.minimum, self.0));
        Plan::ask_after(after)
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}

/// The retransmission timeout of RFC 6298, without its minimum of a second: SRTT and so many
/// RTTVAR, 4 there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rto(pub f32);

impl Default for Rto {
    fn default() -> Self {
        Self(4.0)
    }
}

impl Predictor for Rto {
    #[inline]
    fn plan(&mut self, _hole: &Hole, outlook: &Outlook, _age: Duration) -> Plan {
        let after = outlook.round_trip.map_or(ASK_DEFAULT, |rtt| {
            rtt.smoothed + times(rtt.variance, self.0)
        });
        Plan::ask_after(after)
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}

/// A number of later arrivals, 3 with TCP (RFC 5681): the first has opened the hole, the others are
/// due at the recent rate of arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicates {
    threshold: f32,
    arrived_at: Option<Time>,
    /// Mean distance of arrivals, in microseconds.
    distance_us: f32,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self::new(3.0)
    }
}

impl Duplicates {
    /// Weight of a new distance.
    const WEIGHT: f32 = 1.0 / 16.0;

    /// A threshold of so many later arrivals, at least 1.
    pub fn new(threshold: f32) -> Self {
        Self {
            threshold: threshold.max(1.0),
            arrived_at: None,
            distance_us: 0.0,
        }
    }
}

impl Predictor for Duplicates {
    #[inline]
    fn arrived(&mut self, _path: u8, _sent_at_us: u32, received_at: Time) {
        if let Some(before) = self.arrived_at.replace(received_at) {
            let distance = received_at.since(before).as_secs_f32() * 1e6;
            self.distance_us += Self::WEIGHT * (distance - self.distance_us);
        }
    }

    #[inline]
    fn plan(&mut self, _hole: &Hole, _outlook: &Outlook, _age: Duration) -> Plan {
        let after_us = (self.threshold - 1.0) * self.distance_us;
        Plan::ask_after(Duration::from_micros(after_us as u64))
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}

/// A quantile of how much longer shards take than the fastest one, lately: what NetEQ, WebRTC's
/// jitter buffer, waits for with its 95th percentile. The quantile is followed by stochastic
/// approximation (Robbins and Monro 1951).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    quantile: f32,
    /// One-way delay of the fastest, by the wire's clocks, which rises by as little as clocks drift.
    base_us: Option<u32>,
    since_rise: u32,
    value_us: f32,
    spread_us: f32,
}

impl Default for Quantile {
    fn default() -> Self {
        Self::new(0.95)
    }
}

impl Quantile {
    /// Step as a share of the mean distance from the quantile, and weight in that distance.
    const STEP: f32 = 1.0 / 64.0;
    /// Shards after which the fastest delay is taken to be a microsecond longer.
    const RISE_EVERY: u32 = 64;

    /// Of this quantile, 0 to 1.
    pub fn new(quantile: f32) -> Self {
        Self {
            quantile: quantile.clamp(0.0, 1.0),
            base_us: None,
            since_rise: 0,
            value_us: 0.0,
            spread_us: 1_000.0,
        }
    }
}

impl Predictor for Quantile {
    #[inline]
    fn arrived(&mut self, _path: u8, sent_at_us: u32, received_at: Time) {
        let delay = received_at.as_wire_us().wrapping_sub(sent_at_us);
        let base = *self.base_us.get_or_insert(delay);
        let above = delay.wrapping_sub(base) as i32;
        self.since_rise += 1;
        if above < 0 {
            self.base_us = Some(delay);
        } else if self.since_rise >= Self::RISE_EVERY {
            self.since_rise = 0;
            self.base_us = Some(base.wrapping_add(1));
        }
        let above = above.max(0) as f32;
        let up = f32::from(u8::from(above > self.value_us));
        let step = Self::STEP * self.spread_us * (up - (1.0 - self.quantile));
        self.spread_us += Self::STEP * ((above - self.value_us).abs() - self.spread_us);
        self.value_us = (self.value_us + step).max(0.0);
    }

    #[inline]
    fn plan(&mut self, _hole: &Hole, _outlook: &Outlook, _age: Duration) -> Plan {
        Plan::ask_after(Duration::from_micros(self.value_us as u64))
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}

/// A time, so many times: no time for a factor that is none.
fn times(time: Duration, factor: f32) -> Duration {
    // The cast saturates, and makes 0 of NaN.
    Duration::from_nanos((time.as_nanos() as f32 * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::RoundTrip;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(policy: &mut impl Predictor, outlook: &Outlook) -> Duration {
        let hole = Hole {
            number: 0,
            opened_at: Time::ZERO,
            gap: 1,
            position: 0,
            path: 0,
            siblings: 0,
        };
        policy.plan(&hole, outlook, Duration::ZERO).ask_after
    }

    #[test]
    fn round_trips_are_taken_as_their_standards_say() {
        let outlook = Outlook {
            round_trip: Some(RoundTrip {
                smoothed: MS * 50,
                variance: MS * 2,
                minimum: MS * 40,
            }),
            ..Outlook::default()
        };
        assert_eq!(after(&mut RttFraction::default(), &outlook), MS * 10);
        assert_eq!(after(&mut Rto::default(), &outlook), MS * 58);
        for knob in [f32::NAN, -1.0] {
            assert_eq!(after(&mut RttFraction(knob), &outlook), Duration::ZERO);
        }
        let unknown = Outlook::default();
        assert_eq!(after(&mut RttFraction::default(), &unknown), ASK_DEFAULT);
        assert_eq!(after(&mut Rto::default(), &unknown), ASK_DEFAULT);
    }

    #[test]
    fn duplicates_are_counted_in_arrivals() {
        let mut policy = Duplicates::default();
        assert_eq!(after(&mut policy, &Outlook::default()), Duration::ZERO);
        (0..200).for_each(|n| policy.arrived(0, 0, Time::ZERO + MS * n));
        let two = after(&mut policy, &Outlook::default());
        assert!(two > MS * 19 / 10 && two < MS * 21 / 10, "{two:?}");
    }

    #[test]
    fn the_quantile_of_delays_is_found() {
        let mut policy = Quantile::default();
        for n in 0..200_000u32 {
            // Uniform from 20 to 30 ms, by a multiplicative sequence; the sender's clock wraps.
            let delay = 20_000 + n.wrapping_mul(2_654_435_761) / (u32::MAX / 10_000);
            let sent = (u32::MAX - 100_000).wrapping_add(n * 100);
            let received =
                u64::from(u32::MAX) + 1 + u64::from(n * 100) + u64::from(delay) - 100_001;
            policy.arrived(0, sent, Time(received * 1_000));
        }
        let found = after(&mut policy, &Outlook::default());
        assert!(found > MS * 9 && found < MS * 10, "{found:?}");
    }
}
