//! Online logistic regression.

use super::approx::{WHOLE, sigmoid};
use super::prior::PRIOR;

/// Features of a hole.
pub(super) const FEATURES: usize = 32;

/// Which of them is always 1.
pub(super) const BIAS: usize = 20;

/// What is known of a hole, as bytes: multiples of 1/32, from -4 to 4.
pub(super) type Features = [i8; FEATURES];

/// Terms summed side by side.
const LANES: usize = 8;

/// One, as a feature.
const ONE: f32 = 32.0;

/// Features are remembered until a hole's fate is known, so they are small.
#[inline]
pub(super) fn pack(values: &[f32; FEATURES]) -> Features {
    let mut features = [0; FEATURES];
    for (feature, value) in features.iter_mut().zip(values) {
        // A comparison with NaN is false: it counts as the least.
        let value = value * ONE;
        let value = if value > -128.0 { value } else { -128.0 };
        let value = if value < 127.0 { value } else { 127.0 };
        *feature = (value + WHOLE).to_bits() as i8;
    }
    features
}

/// Step of a weight whose gradients have summed up to one.
const STEP: f32 = 0.02;

/// Sum of squared gradients that weights are taken to have learned from before: what they begin with
/// was learned from many channels, and a few surprises do not unlearn it.
const SQUARES: f32 = 200.0;

/// How much of the sum of squared gradients one more hole leaves: learning never stops.
const KEPT: f32 = 0.999;

/// Least sum of squared gradients.
const SQUARE_MIN: f32 = 0.01;

/// No weight goes further from 0: a saved or a trained one.
const WEIGHT_MAX: f32 = 8.0;

/// How likely, by a weighted sum of features; the weights follow what turns out by AdaGrad (Duchi,
/// Hazan and Singer 2011), with forgetting of the squared gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Logistic {
    pub(super) weights: [f32; FEATURES],
    squares: [f32; FEATURES],
    /// Only the bias learns and counts.
    is_frozen: bool,
}

impl Logistic {
    pub(super) fn new(is_frozen: bool) -> Self {
        Self {
            weights: if is_frozen { [0.0; FEATURES] } else { PRIOR },
            squares: [SQUARES; FEATURES],
            is_frozen,
        }
    }

    /// The weighted sum: the logarithm of the odds.
    #[inline]
    pub(super) fn log_odds(&self, features: &Features) -> f32 {
        if self.is_frozen {
            return self.weights[BIAS];
        }
        let mut sums = [0.0; LANES];
        let weights = self.weights.as_chunks::<LANES>().0;
        for (weights, features) in weights.iter().zip(features.as_chunks::<LANES>().0) {
            for ((sum, weight), &x) in sums.iter_mut().zip(weights).zip(features) {
                *sum += weight * f32::from(x);
            }
        }
        sums.iter().sum::<f32>() / ONE
    }

    /// Probability, with `offset` added to the weighted sum.
    #[inline]
    pub(super) fn probability(&self, features: &Features, offset: f32) -> f32 {
        sigmoid(self.log_odds(features) + offset)
    }

    /// It turned out so; counts for `weight`.
    pub(super) fn learn(&mut self, features: &Features, offset: f32, is_true: bool, weight: f32) {
        let target = f32::from(u8::from(is_true));
        let error = (self.probability(features, offset) - target) * weight;
        if self.is_frozen {
            let bias = (&mut self.weights[BIAS], &mut self.squares[BIAS]);
            step(bias.0, bias.1, error);
            return;
        }
        let error = error / ONE;
        let weights = self.weights.iter_mut().zip(&mut self.squares);
        for ((weight, square), &x) in weights.zip(features) {
            step(weight, square, error * f32::from(x));
        }
    }

    /// Takes weights that were saved; false if they cannot be any.
    pub(super) fn restore(&mut self, weights: [f32; FEATURES]) -> bool {
        let is_valid = weights
            .iter()
            .all(|weight| (-WEIGHT_MAX..=WEIGHT_MAX).contains(weight));
        if is_valid {
            self.weights = weights;
        }
        is_valid
    }
}

/// One step against a gradient. Comparisons are as the processor has them: all weights are done side
/// by side.
#[inline]
fn step(weight: &mut f32, square: &mut f32, gradient: f32) {
    let sum = *square * KEPT + gradient * gradient;
    // Never below this, so that no step explodes, nor is there arithmetic with subnormal numbers, which
    // takes a hundred times as long.
    *square = if sum > SQUARE_MIN { sum } else { SQUARE_MIN };
    let moved = *weight - STEP * gradient / square.sqrt();
    let moved = if moved > -WEIGHT_MAX {
        moved
    } else {
        -WEIGHT_MAX
    };
    *weight = if moved < WEIGHT_MAX {
        moved
    } else {
        WEIGHT_MAX
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Logistic {
        fn unlearned() -> Self {
            Self {
                weights: [0.0; FEATURES],
                ..Self::new(false)
            }
        }
    }

    fn features(x: f32) -> Features {
        let mut values = [0.0; FEATURES];
        (values[BIAS], values[3]) = (1.0, x);
        pack(&values)
    }

    #[test]
    fn learns_what_a_feature_says_and_frozen_only_how_often() {
        let mut learning = Logistic::unlearned();
        let mut frozen = Logistic::new(true);
        for round in 0..40_000u32 {
            // Three of four true if x is 1, one of four if it is 0.
            let x = round & 1;
            let is_true = (round >> 1 & 3 == 0) != (x == 1);
            for logistic in [&mut learning, &mut frozen] {
                logistic.learn(&features(x as f32), 0.0, is_true, 1.0);
            }
        }
        let p = |logistic: &Logistic, x| logistic.probability(&features(x), 0.0);
        assert!(
            (p(&learning, 1.0) - 0.75).abs() < 0.06,
            "{}",
            p(&learning, 1.0)
        );
        assert!(
            (p(&learning, 0.0) - 0.25).abs() < 0.06,
            "{}",
            p(&learning, 0.0)
        );
        assert!((p(&frozen, 1.0) - 0.5).abs() < 0.06);
        assert_eq!(p(&frozen, 1.0), p(&frozen, 0.0));
    }

    proptest! {
        #[test]
        fn a_probability_whatever_it_was_taught(
            lessons in prop::collection::vec((any::<[i8; FEATURES]>(), any::<f32>(), any::<bool>()), 0..300),
            asked in any::<[i8; FEATURES]>(),
        ) {
            let mut logistic = Logistic::unlearned();
            for (features, offset, is_true) in lessons {
                let offset = if offset.is_nan() { 0.0 } else { offset };
                logistic.learn(&features, offset, is_true, 1.0);
            }
            let p = logistic.probability(&asked, 0.0);
            prop_assert!(p > 0.0 && p < 1.0);
            let weights = logistic.weights;
            prop_assert!(logistic.restore(weights));
        }
    }
}
