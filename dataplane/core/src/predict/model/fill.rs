//! When a hole is filled, whatever fills it.

use core::time::Duration;

use super::lateness::{Context, Lateness};
use super::ms;
use crate::predict::{Filler, Outlook};

/// Weight of a filled hole.
const WEIGHT: f32 = 1.0 / 32.0;

/// How repeats and repair have filled holes, lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fillers {
    /// Mean time from a request to its answer, in milliseconds; unknown before the first.
    repeat_ms: Option<f32>,
    /// Mean age of a hole that repair filled.
    repair_ms: Option<f32>,
    /// Share of what was filled by either that repair filled.
    repaired: f32,
}

impl Fillers {
    pub(super) fn new() -> Self {
        Self {
            repeat_ms: None,
            repair_ms: None,
            repaired: 0.0,
        }
    }

    pub(super) fn note(&mut self, by: Filler, age: Duration) {
        let (mean, time, repaired) = match by {
            Filler::Repeat { after } => (&mut self.repeat_ms, after, 0.0),
            Filler::Repair => (&mut self.repair_ms, age, 1.0),
        };
        let time_ms = ms(time);
        let old = mean.unwrap_or(time_ms);
        *mean = Some(old + WEIGHT * (time_ms - old));
        self.repaired += WEIGHT * (repaired - self.repaired);
    }

    /// The median of the time a hole takes to be filled, in milliseconds: late with what is left of
    /// probability after `loss`, else by repair when that usually comes, or by the repeat a round
    /// trip after it is asked for. None if it may well never be.
    #[inline]
    pub(super) fn median(
        &self,
        lateness: &Lateness,
        context: Context,
        loss: f32,
        ask_ms: f32,
        outlook: &Outlook,
    ) -> Option<f32> {
        let round = || outlook.round_trip.map(|rtt| ms(rtt.smoothed));
        let repeat = outlook
            .asks
            .then(|| self.repeat_ms.or_else(round))
            .flatten()
            .map(|after| (ask_ms + after, 1.0 - self.repaired));
        let repair = self.repair_ms.map(|at| (at, self.repaired));
        let (first, second) = match (repair, repeat) {
            (Some(a), Some(b)) if b.0 < a.0 => (Some(b), Some(a)),
            pair => pair,
        };
        // Three steps up to one half: late ones all along, and each filler at its time.
        let mut filled = 0.0;
        for (at, share) in [first, second].into_iter().flatten() {
            // Late ones do not make one half.
            if loss >= 0.5 && filled + loss * share >= 0.5 {
                return Some(at);
            }
            let late = (1.0 - loss) * (1.0 - lateness.later_than(context, at));
            if late + filled >= 0.5 {
                break;
            }
            filled += loss * share;
            if late + filled >= 0.5 {
                return Some(at);
            }
        }
        // The late ones have to bring what is missing to one half.
        let later = 1.0 - (0.5 - filled) / (1.0 - loss).max(1e-6);
        (later > 0.0).then(|| lateness.all_but(context, later))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::RoundTrip;

    const MS: Duration = Duration::from_millis(1);

    fn outlook(asks: bool) -> Outlook {
        Outlook {
            round_trip: Some(RoundTrip {
                smoothed: MS * 30,
                variance: MS,
                minimum: MS * 30,
            }),
            asks,
            repair_within: None,
        }
    }

    #[test]
    fn the_median_is_that_of_whoever_fills_it() {
        let mut lateness = Lateness::new();
        (0..2_000).for_each(|_| lateness.add(Context::Single, MS * 4));
        let mut fillers = Fillers::new();
        let median = |fillers: &Fillers, loss, asks| {
            fillers.median(&lateness, Context::Single, loss, 6.0, &outlook(asks))
        };
        let late = median(&fillers, 0.1, true).unwrap();
        assert!((3.4..4.6).contains(&late), "{late}");
        assert_eq!(
            median(&fillers, 0.9, true),
            Some(36.0),
            "a round trip after asking"
        );
        assert_eq!(median(&fillers, 0.9, false), None, "as likely as not never");
        (0..200).for_each(|_| fillers.note(Filler::Repeat { after: MS * 40 }, MS * 50));
        assert!((median(&fillers, 0.9, true).unwrap() - 46.0).abs() < 0.1);
        (0..200).for_each(|_| fillers.note(Filler::Repair, MS * 2));
        assert!((median(&fillers, 0.9, true).unwrap() - 2.0).abs() < 0.1);
        assert!((median(&fillers, 0.9, false).unwrap() - 2.0).abs() < 0.1);
    }
}
