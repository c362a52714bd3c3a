//! The `fixed` policy.

use core::time::Duration;

use super::{Hole, Outcome, Outlook, Plan, Predictor};
use crate::time::Time;

/// Every hole is asked for after the same time. It learns nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fixed(pub Duration);

impl Predictor for Fixed {
    #[inline]
    fn plan(&mut self, _hole: &Hole, _outlook: &Outlook, _age: Duration) -> Plan {
        Plan::ask_after(self.0)
    }

    #[inline]
    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}
