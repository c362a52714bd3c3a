//! The `fixed` policy.

use core::time::Duration;

use super::{Hole, Outcome, Outlook, Predictor};
use crate::time::Time;

/// Every hole is asked for after the same time. It learns nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fixed(pub Duration);

impl Predictor for Fixed {
    #[inline]
    fn ask_after(&mut self, _hole: &Hole, _outlook: &Outlook) -> Duration {
        self.0
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}
