//! Logarithm and exponential to within a few per cent, in a few cycles: features and odds need no
//! more, and a hole has a budget of 100 ns.

/// Bits of a mantissa.
const MANTISSA: u32 = f32::MANTISSA_DIGITS - 1;

/// log2 of a positive number, linear between powers of two: rising, at most 0.09 too small.
#[inline]
pub(super) fn log2(x: f32) -> f32 {
    // A comparison with NaN is false; this is one instruction, `max` is four.
    let x = if x > f32::MIN_POSITIVE {
        x
    } else {
        f32::MIN_POSITIVE
    };
    let bits = x.to_bits();
    let exponent = (bits >> MANTISSA) as i32 - (f32::MAX_EXP - 1);
    let mantissa = f32::from_bits(bits & ((1 << MANTISSA) - 1) | 1f32.to_bits());
    exponent as f32 + (mantissa - 1.0)
}

/// Added to a small number it leaves the nearest whole one in the mantissa's last bits.
pub(super) const WHOLE: f32 = 1.5 * (1 << MANTISSA) as f32;

/// 2^x for x from -60 to 60, and that of the nearer end for others: rising, within 0.4 %.
#[inline]
pub(super) fn exp2(x: f32) -> f32 {
    // A comparison with NaN is false: it counts as -60.
    let x = if x > -60.0 { x } else { -60.0 };
    let x = if x < 60.0 { x } else { 60.0 };
    let whole = x + WHOLE;
    let part = x - (whole - WHOLE);
    // The parabola through 2^x at -0.5, 0 and 0.5.
    let scale = 1.0 + part * (0.707_106_77 + part * 0.242_640_69);
    // Beyond its last bits the whole number is shifted out.
    f32::from_bits((whole.to_bits() << MANTISSA).wrapping_add(1f32.to_bits())) * scale
}

/// What decays ends at zero when it is next to nothing: arithmetic with subnormal numbers takes a
/// hundred times as long.
#[inline]
pub(super) fn decayed(x: f32) -> f32 {
    if x > 1e-12 { x } else { 0.0 }
}

/// 1 / (1 + e^-x), strictly between 0 and 1.
#[inline]
pub(super) fn sigmoid(x: f32) -> f32 {
    let x = x.clamp(-SIGMOID_MAX, SIGMOID_MAX);
    1.0 / (1.0 + exp2(-x * core::f32::consts::LOG2_E))
}

/// Odds beyond which certainty does not grow: e^9, one in 8,000.
const SIGMOID_MAX: f32 = 9.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn close_to_the_exact_functions(x in 1e-6f32..1e6, y in -50f32..50.0) {
            let error = x.log2() - log2(x);
            prop_assert!((-1e-4..0.0865).contains(&error), "{} {}", x, error);
            prop_assert!((exp2(y) / y.exp2() - 1.0).abs() < 0.004);
            prop_assert!((sigmoid(y / 6.0) - 1.0 / (1.0 + (-y / 6.0).exp())).abs() < 0.002);
        }

        #[test]
        fn rising_and_finite_whatever_comes(a in any::<f32>(), b in any::<f32>()) {
            prop_assert!(log2(a).is_finite() && exp2(a).is_finite() && exp2(a) > 0.0);
            if a <= b {
                prop_assert!(exp2(a) <= exp2(b) && sigmoid(a) <= sigmoid(b));
                prop_assert!(log2(a) <= log2(b) || b.is_infinite());
            }
            let p = sigmoid(if a.is_nan() { 0.0 } else { a });
            prop_assert!(p > 0.0 && p < 1.0);
        }
    }
}
