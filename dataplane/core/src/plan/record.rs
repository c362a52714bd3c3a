//! Decisions, so that they can be read and made again.

use std::collections::VecDeque;

use super::{Inputs, Plan, State, decide};
use crate::time::Time;

/// Decisions of a stream that are kept until they are fetched: ten times what a steady path makes in a
/// minute.
pub const DECISIONS_KEPT: usize = 64;

/// A change of the plan: when, from what, to what, and by which inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub at: Time,
    /// What was planned, and what led to that.
    pub before: State,
    /// What was known.
    pub inputs: Inputs,
    /// What is planned since.
    pub plan: Plan,
}

impl Decision {
    /// What the same arguments lead to: [`Self::plan`], or the record is not of this program. It may
    /// be anybody's: no figure in it does any harm.
    pub fn replay(&self) -> Plan {
        decide(&self.before, &self.inputs, self.at).plan
    }
}

/// The last decisions of a stream, for whoever fetches them. At the bound the oldest go.
#[derive(Clone, Debug)]
pub struct Decisions {
    kept: VecDeque<Decision>,
    count: u64,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            kept: VecDeque::with_capacity(DECISIONS_KEPT),
            count: 0,
        }
    }
}

impl Decisions {
    /// Keeps a decision. Does not allocate.
    pub fn note(&mut self, decision: Decision) {
        if self.kept.len() >= DECISIONS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(decision);
        self.count += 1;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is left of those from the `first`th on, oldest first, with their numbers.
    pub fn since(&self, first: u64) -> impl Iterator<Item = (u64, &Decision)> {
        let oldest = self.count - self.kept.len() as u64;
        let skipped = usize::try_from(first.saturating_sub(oldest)).unwrap_or(usize::MAX);
        (oldest..).zip(&self.kept).skip(skipped)
    }
}
