//! The circuit breaker: what the tunnel adds never keeps a path down.
//!
//! After RFC 8084: what is measured shows that the path cannot carry what it is given, so less is given.
//! The frames of those inside still go, because they slow down by themselves; what is added stops.

use core::time::Duration;

use super::Inputs;
use crate::time::Time;

/// So much lost, with twice the shortest round trip, in so many reports one after another, halves
/// what may be added.
const LOST_PPM: u64 = 200_000;
const REPORTS: u64 = 3;

/// So much lost for so long: nothing is added any more.
const HALF_PPM: u64 = 500_000;
const HALF_FOR: Duration = Duration::from_secs(5);

/// Halvings, and the step after them at which nothing is added.
const HALVINGS_MAX: u8 = 3;
const OPEN: u8 = HALVINGS_MAX + 1;

/// The path has to have been sound for so long before a halving is taken back.
const SOUND_FOR: Duration = Duration::from_secs(1);

/// How far the breaker has opened, and what would open it further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Halvings; above the most of them nothing is added.
    pub step: u8,
    /// Reports taken when it was looked at last.
    pub reports: u64,
    /// Reports in a row that showed much loss and twice the delay.
    pub strikes: u64,
    /// Since when half of all is lost.
    pub half_since: Option<Time>,
    /// Since when neither has been the case, or the last halving was taken back.
    pub sound_since: Option<Time>,
}

impl Breaker {
    /// Takes what is known now.
    pub(super) fn follow(&mut self, inputs: &Inputs, now: Time) {
        let lost = inputs.loss_ppm.known().unwrap_or_default();
        let is_slow = match (
            inputs.round_trip_us.known(),
            inputs.round_trip_min_us.known(),
        ) {
            (Some(smoothed), Some(shortest)) => smoothed / 2 >= shortest,
            _ => false,
        };
        let is_bad = lost >= LOST_PPM && is_slow;
        let is_half = lost >= HALF_PPM;
        let reports = inputs.reports.wrapping_sub(self.reports);
        self.reports = inputs.reports;
        if !is_bad {
            self.strikes = 0;
        } else if reports > 0 {
            self.strikes = self.strikes.saturating_add(reports);
        }
        if self.strikes >= REPORTS {
            self.strikes = 0;
            self.step = self.step.saturating_add(1).min(HALVINGS_MAX.max(self.step));
        }
        if !is_half {
            self.half_since = None;
        } else if now.since(*self.half_since.get_or_insert(now)) >= HALF_FOR {
            self.step = OPEN;
        }
        if is_bad || is_half {
            self.sound_since = None;
        } else if now.since(*self.sound_since.get_or_insert(now)) >= SOUND_FOR {
            self.step = self.step.saturating_sub(1);
            self.sound_since = Some(now);
        }
    }

    /// Share of the configured limit that may be added, in thousandths.
    pub fn permille(&self) -> u16 {
        if self.step >= OPEN {
            return 0;
        }
        1_000 >> self.step
    }
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::*;

    fn figure(value: u64) -> Figure {
        Figure::new(Some(value), 1, Some(Duration::ZERO))
    }

    fn inputs(lost: u64, round_trip: u64, reports: u64) -> Inputs {
        Inputs {
            loss_ppm: figure(lost),
            round_trip_us: figure(round_trip),
            round_trip_min_us: figure(20_000),
            reports,
            ..Inputs::default()
        }
    }

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn three_bad_reports_halve_and_sound_seconds_give_back() {
        let mut breaker = Breaker::default();
        let mut follow = |ms, lost, round_trip, reports| {
            breaker.follow(&inputs(lost, round_trip, reports), at(ms));
            breaker.permille()
        };
        assert_eq!(follow(0, 250_000, 40_000, 1), 1_000);
        assert_eq!(follow(10, 250_000, 40_000, 1), 1_000, "the same report");
        assert_eq!(follow(20, 250_000, 40_000, 2), 1_000);
        assert_eq!(follow(30, 250_000, 39_999, 3), 1_000, "not twice the delay");
        assert_eq!(follow(40, 250_000, 40_000, 5), 1_000, "it begins anew");
        assert_eq!(follow(50, 250_000, 40_000, 6), 500);
        assert_eq!(follow(60, 300_000, 90_000, 9), 250);
        assert_eq!(follow(70, 300_000, 90_000, 12), 125);
        assert_eq!(follow(80, 300_000, 90_000, 15), 125, "it is no outage");
        assert_eq!(follow(90, 199_999, 90_000, 16), 125);
        assert_eq!(follow(1_089, 10_000, 20_000, 17), 125);
        assert_eq!(follow(1_090, 10_000, 20_000, 18), 250);
        assert_eq!(follow(2_090, 10_000, 20_000, 19), 500);
        assert_eq!(follow(3_090, 10_000, 20_000, 20), 1_000);
        assert_eq!(follow(4_090, 10_000, 20_000, 21), 1_000);
    }

    #[test]
    fn half_lost_for_five_seconds_stops_all() {
        let mut breaker = Breaker::default();
        let mut follow = |ms, lost| {
            breaker.follow(&inputs(lost, 20_000, ms), at(ms));
            breaker.permille()
        };
        assert_eq!(follow(0, 500_000), 1_000);
        assert_eq!(follow(4_999, 900_000), 1_000);
        assert_eq!(follow(5_000, 500_000), 0);
        assert_eq!(follow(5_500, 499_999), 0);
        assert_eq!(follow(6_500, 0), 125);
        assert_eq!(follow(6_600, 600_000), 125);
        assert_eq!(follow(11_600, 600_000), 0);
    }
}
