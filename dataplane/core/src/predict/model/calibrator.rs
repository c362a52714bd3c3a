//! What a predicted probability is worth.

use super::approx::sigmoid;

/// Knots, a unit of log odds apart, the middle one at even odds.
pub(super) const KNOTS: usize = 13;
const MIDDLE: f32 = (KNOTS / 2) as f32;

/// Weight of a fate at a knot.
const WEIGHT: f32 = 1.0 / 64.0;

/// No probability is surer than this: one in 2,000.
const SURE: f32 = 0.000_5;

/// A piecewise linear curve from log odds to a probability, that follows how often what was
/// predicted like this came true. A weighted sum of features is seldom a probability as it stands;
/// where it bends, this bends it back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calibrator {
    pub(super) knots: [f32; KNOTS],
}

impl Calibrator {
    /// Takes log odds by their word, to begin with.
    pub(super) fn new() -> Self {
        let mut knots = [0.0; KNOTS];
        for (index, knot) in knots.iter_mut().enumerate() {
            *knot = sigmoid(index as f32 - MIDDLE);
        }
        Self { knots }
    }

    /// The knot below, and how far above it.
    #[inline]
    fn place(log_odds: f32) -> (usize, f32) {
        let place = (log_odds + MIDDLE).clamp(0.0, (KNOTS - 1) as f32);
        let below = (place as usize).min(KNOTS - 2);
        (below, place - below as f32)
    }

    /// How often what was predicted like this comes true.
    #[inline]
    pub(super) fn probability(&self, log_odds: f32) -> f32 {
        let (below, part) = Self::place(log_odds);
        self.knots[below] + (self.knots[below + 1] - self.knots[below]) * part
    }

    /// It turned out so.
    pub(super) fn learn(&mut self, log_odds: f32, is_true: bool) {
        let error = f32::from(u8::from(is_true)) - self.probability(log_odds);
        let (below, part) = Self::place(log_odds);
        for (knot, share) in [(below, 1.0 - part), (below + 1, part)] {
            let knot = &mut self.knots[knot];
            *knot = (*knot + WEIGHT * share * error).clamp(SURE, 1.0 - SURE);
        }
    }

    /// Takes knots that were saved; false if they cannot be any.
    pub(super) fn restore(&mut self, knots: [f32; KNOTS]) -> bool {
        let is_valid = knots.iter().all(|knot| (SURE..=1.0 - SURE).contains(knot));
        if is_valid {
            self.knots = knots;
        }
        is_valid
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_predictions_by_their_word_until_it_knows_better() {
        let mut calibrator = Calibrator::new();
        assert!((calibrator.probability(0.0) - 0.5).abs() < 1e-3);
        assert!((calibrator.probability(2.0) - 0.881).abs() < 5e-3);
        // What is said to be even comes true nine times of ten.
        (0..2_000).for_each(|n| calibrator.learn(0.0, n % 10 > 0));
        assert!((calibrator.probability(0.0) - 0.9).abs() < 0.1);
        assert!(
            (calibrator.probability(-2.0) - 0.119).abs() < 5e-3,
            "others stay"
        );
    }

    proptest! {
        #[test]
        fn a_probability_whatever_it_was_taught(
            lessons in prop::collection::vec((any::<f32>(), any::<bool>()), 0..500),
            asked in -50f32..50.0,
        ) {
            let mut calibrator = Calibrator::new();
            for (log_odds, is_true) in lessons {
                calibrator.learn(if log_odds.is_nan() { 0.0 } else { log_odds }, is_true);
            }
            let p = calibrator.probability(asked);
            prop_assert!(p > 0.0 && p < 1.0);
            prop_assert!(calibrator.restore(calibrator.knots));
        }
    }
}
