//! What a world counts beside its flows.

use std::time::Duration;

/// What came out that must not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Frames that nobody sent as they came out.
    pub wrong: u64,
    /// Frames that came out more than once.
    pub twice: u64,
    /// Frames that came out at the site that sent them, or for no host.
    pub astray: u64,
}

impl Integrity {
    /// Whether nothing was wrong.
    pub fn is_sound(&self) -> bool {
        *self == Self::default()
    }
}

/// The wait in one path's queue, over the looks taken while the world measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    looks: u32,
    sum: Duration,
    max: Duration,
}

impl QueueStats {
    pub(super) fn look(&mut self, delay: Duration) {
        self.looks += 1;
        self.sum += delay;
        self.max = self.max.max(delay);
    }

    /// How long a frame would have waited, on average over time.
    pub fn mean(&self) -> Duration {
        self.sum.checked_div(self.looks).unwrap_or_default()
    }

    /// The longest wait seen.
    pub fn max(&self) -> Duration {
        self.max
    }
}
