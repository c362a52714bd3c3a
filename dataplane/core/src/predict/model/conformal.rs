//! How dear a needless request is, so that the share of them is what it is meant to be.

/// How far the logarithm of the price counts, either way: beyond, nothing is asked for before the cap,
/// or the price falls no further.
const LOG_MAX: f32 = 6.0;

/// How far it goes: requests that were on their way when it came so far still count.
const LOG_END: f32 = 10.0;

/// Step of the logarithm with each late hole. A stream of 100,000 shards has about 1,000 late ones, and
/// what the price begins with is mostly right to within e^2: over them the share is right to within
/// 2 / (0.4 * 1,000), one in 200.
const STEP: f32 = 0.4;

/// Holes without a late one among them after which the price leaks back, and its half-life then.
const QUIET: u32 = 100;

/// What 100 holes leave half of, each.
const LEAK: f32 = 0.993_092_5;

/// The factor by which a needless request is dearer than it was taken for, steered so that in the
/// long run a share `alpha` of late holes is asked for needlessly, whatever the sequence: adaptive
/// conformal inference (Gibbs and Candes 2021).
///
/// Where the logarithm is above L nothing that comes before the cap is asked for, so it falls; where it
/// is below -L all is, so it rises. With steps `s` it stays within L + s, and the number of needless
/// requests in `n` late holes differs from `alpha n` by at most `(2 L + s) / s`. That it leaks to 0
/// while nothing is late, and the cap, keep whoever can shape delays from driving the price so high
/// that nothing is ever asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conformal {
    alpha: f32,
    log: f32,
    /// e^log.
    factor: f32,
    /// Holes since the last late one.
    quiet: u32,
}

impl Conformal {
    pub(super) fn new(alpha: f32) -> Self {
        Self {
            alpha: alpha.clamp(0.0, 1.0),
            log: 0.0,
            factor: 1.0,
            quiet: 0,
        }
    }

    /// A hole was filled late, and had been asked for or not.
    pub(super) fn late(&mut self, asked: bool) {
        self.quiet = 0;
        let error = f32::from(u8::from(asked)) - self.alpha;
        self.set(self.log + STEP * error);
    }

    /// A hole was no late one.
    pub(super) fn lost(&mut self) {
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet > QUIET {
            self.set(self.log * LEAK);
        }
    }

    fn set(&mut self, log: f32) {
        self.log = log.clamp(-LOG_END, LOG_END);
        self.factor = self.log.clamp(-LOG_MAX, LOG_MAX).exp();
    }

    /// By how much a needless request is dearer.
    #[inline]
    pub(super) fn factor(&self) -> f32 {
        self.factor
    }

    /// Whether nothing is asked for before the cap.
    #[inline]
    pub(super) fn forbids(&self) -> bool {
        self.log > LOG_MAX
    }

    pub(super) fn log(&self) -> f32 {
        self.log
    }

    /// Takes what was saved; false if it cannot be.
    pub(super) fn restore(&mut self, log: f32) -> bool {
        let is_valid = (-LOG_END..=LOG_END).contains(&log);
        if is_valid {
            self.set(log);
        }
        is_valid
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leaks_while_nothing_is_late() {
        let mut price = Conformal::new(0.05);
        (0..400).for_each(|_| price.late(true));
        assert_eq!(price.log(), LOG_END);
        (0..QUIET).for_each(|_| price.lost());
        assert_eq!(price.log(), LOG_END);
        (0..100).for_each(|_| price.lost());
        assert!(
            (price.log() / LOG_END - 0.5).abs() < 0.01,
            "{}",
            price.log()
        );
        price.late(false);
        let log = price.log();
        (0..QUIET).for_each(|_| price.lost());
        assert_eq!(price.log(), log);
    }

    proptest! {
        /// An adversary that knows the price and chooses every lateness: asked for exactly if the
        /// threshold, which rises with the price, is below what it chose. The share is what the bound
        /// says.
        #[test]
        fn the_share_is_kept_against_an_adversary(
            alpha in 0.01f32..0.3,
            moves in prop::collection::vec((0u8..3, 0f32..1.0), 300..1_500),
        ) {
            let mut price = Conformal::new(alpha);
            let (mut asked, mut steps) = (0.0, 0.0);
            for &(kind, place) in &moves {
                // Just past the threshold, just before, or anywhere.
                let threshold = (price.log() / LOG_MAX + 1.0) / 2.0;
                let lateness = match kind {
                    0 => threshold + 0.001,
                    1 => threshold - 0.001,
                    _ => place,
                };
                // Beyond the cap it does not count, and is not told.
                if !(0.0..1.0).contains(&lateness) {
                    continue;
                }
                let is_asked = lateness > threshold;
                price.late(is_asked);
                asked += f32::from(u8::from(is_asked));
                steps += 1.0;
            }
            let bound = (2.0 * LOG_MAX + STEP) / STEP;
            prop_assert!((asked - alpha * steps).abs() <= bound, "{} of {}", asked, steps);
        }
    }
}
