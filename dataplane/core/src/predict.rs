//! The prediction engine: for every hole, how long to wait.

use core::time::Duration;

use crate::lane::{CLASSES, Class};
use crate::limits::HOLD_MAX;
use crate::time::Time;

/// A hole as it opens: what a predictor may know of it.
#[derive(Clone, Copy, Debug)]
pub struct Hole {
    /// When the evidence for it arrived.
    pub opened_at: Time,
    /// Missing shards in a row, this one included, when it opened.
    pub gap: u32,
    /// The path that it was sent on, as far as that is known.
    pub path: u8,
}

/// What became of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The shard came after all, this long after the hole had opened.
    Late(Duration),
    /// It did not come while anybody remembered it.
    Lost,
}

/// Decides how long frames behind a hole are held, and learns from what came of it.
pub trait Predictor {
    /// How long a hole holds the frames behind it, per class (indexed by [`Class::index`]).
    fn hold(&mut self, hole: &Hole) -> [Duration; CLASSES];

    /// What became of a hole.
    fn learn(&mut self, hole: &Hole, outcome: Outcome);
}

/// Upper bounds of a hold, whatever a predictor says.
#[derive(Clone, Copy, Debug)]
pub struct HoldBounds([Duration; CLASSES]);

impl HoldBounds {
    /// Bounds per class, none above [`HOLD_MAX`].
    pub fn new(interactive: Duration, bulk: Duration) -> Self {
        let mut bounds = [Duration::ZERO; CLASSES];
        bounds[Class::Interactive.index()] = interactive.min(HOLD_MAX);
        bounds[Class::Bulk.index()] = bulk.min(HOLD_MAX);
        Self(bounds)
    }

    /// A hold within the bounds.
    #[inline]
    pub fn clamp(&self, hold: [Duration; CLASSES]) -> [Duration; CLASSES] {
        core::array::from_fn(|class| hold[class].min(self.0[class]))
    }

    /// The longer of the bounds.
    pub fn longest(&self) -> Duration {
        self.0.iter().copied().max().unwrap_or_default()
    }
}

/// The `fixed` policy: every hole holds for the same time. It learns nothing.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub Duration);

impl Predictor for Fixed {
    #[inline]
    fn hold(&mut self, _hole: &Hole) -> [Duration; CLASSES] {
        [self.0; CLASSES]
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome) {}
}
