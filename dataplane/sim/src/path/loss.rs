//! Which frames are lost: independent, or in bursts.

use super::random::{Chance, Source, Stream};

/// A two-state Markov chain that loses every frame in its bad state and none in its good one
/// (Gilbert, Bell System Technical Journal 39, 1960; Elliott 1963 with loss 0 and 1).
///
/// The chance to be bad is `loss` from the first frame on, a run of lost frames has the mean
/// `burst` and a geometric distribution. `burst = 1` asks for independent losses; their runs have
/// the mean `1 / (1 - loss)`.
#[derive(Clone, Debug)]
pub struct LossProcess {
    source: Source,
    /// Leaving the good state, and staying in the bad one; equal if losses are independent.
    good_to_bad: Chance,
    bad_to_bad: Chance,
    bad: bool,
}

impl LossProcess {
    /// `loss` in 0 to 1, `burst` at least 1 and at least `loss / (1 - loss)` unless it is exactly
    /// 1 or `loss` is 1 ([`super::PathProfile::check`] sees to it; beyond, the nearest chain).
    pub fn new(loss: f64, burst: f64, seed: u64) -> Self {
        let mut source = Source::new(seed, Stream::Loss);
        let (good_to_bad, bad_to_bad) = chances(loss, burst);
        let bad = source.happens(Chance::new(loss));
        Self {
            source,
            good_to_bad,
            bad_to_bad,
            bad,
        }
    }

    /// Loses otherwise from the frame after the next one on.
    pub fn change(&mut self, loss: f64, burst: f64) {
        (self.good_to_bad, self.bad_to_bad) = chances(loss, burst);
    }

    /// Whether the next frame is lost.
    #[inline]
    pub fn next_is_lost(&mut self) -> bool {
        let lost = self.bad;
        let chance = if lost {
            self.bad_to_bad
        } else {
            self.good_to_bad
        };
        self.bad = self.source.happens(chance);
        lost
    }
}

/// The chances to leave the good state, and to stay in the bad one.
fn chances(loss: f64, burst: f64) -> (Chance, Chance) {
    let (good_to_bad, bad_to_bad) = if burst <= 1.0 || loss >= 1.0 {
        (loss, loss)
    } else {
        (loss / (burst * (1.0 - loss)), 1.0 - 1.0 / burst)
    };
    (Chance::new(good_to_bad), Chance::new(bad_to_bad))
}
