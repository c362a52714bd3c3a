//! Random draws of the model. Only raw generator words are used, so what a seed gives depends on
//! ChaCha8 and this file, not on the sampling code of a library version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The parts of the model that draw, each from its own stream of the seed.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Loss = 1,
    Jitter = 2,
    Reorder = 3,
    Duplicate = 4,
    Corrupt = 5,
    Traffic = 6,
}

/// One stream of draws.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    generator: ChaCha8Rng,
    spare_normal: Option<f64>,
}

impl Source {
    pub(crate) fn new(seed: u64, stream: Stream) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream as u64);
        Self {
            generator,
            spare_normal: None,
        }
    }

    /// 53 random bits, the precision of an `f64`.
    fn bits53(&mut self) -> u64 {
        self.generator.next_u64() >> 11
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.bits53() as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [0, bound); zero for a bound of zero. The bias is below 2^-32 for bounds of
    /// the size of a frame.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.generator.next_u64()) * u128::from(bound)) >> 64) as u32
    }

    /// Standard normal, by Box and Muller's transform (Annals of Math. Stat. 29, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (core::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    pub(crate) fn happens(&mut self, chance: Chance) -> bool {
        chance.0 != 0 && self.bits53() < chance.0
    }
}

/// A probability as a threshold for 53 random bits; one draws nothing and never happens at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(probability: f64) -> Self {
        Self((probability.clamp(0.0, 1.0) * (1u64 << 53) as f64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certain_and_impossible() {
        let mut source = Source::new(1, Stream::Loss);
        for _ in 0..10_000 {
            assert!(source.happens(Chance::new(1.0)));
            assert!(!source.happens(Chance::new(0.0)));
        }
    }

    #[test]
    fn streams_of_a_seed_differ() {
        let draw = |stream| Source::new(7, stream).uniform();
        assert_ne!(draw(Stream::Loss), draw(Stream::Jitter));
        assert_eq!(draw(Stream::Loss), draw(Stream::Loss));
    }

    #[test]
    fn below_covers_its_range() {
        let mut source = Source::new(3, Stream::Corrupt);
        let mut seen = [false; 7];
        for _ in 0..1_000 {
            seen[source.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(source.below(0), 0);
    }
}
