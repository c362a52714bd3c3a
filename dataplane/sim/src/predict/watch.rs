//! What a predictor said of each hole, against what became of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use shardgate_core::predict::{Filler, Hole, Outcome, Outlook, Plan, Predictor};
use shardgate_core::time::Time;

/// Bins of the reliability table: tenths.
pub const BINS: usize = 10;
/// Holes of which what was said is remembered until their fate is known: more than are ever open.
const SAID_MAX: usize = 1 << 17;

/// Stated loss probabilities against what turned out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Holes that were scored.
    pub count: u64,
    squares: f64,
    /// Per tenth of stated probability: holes, sum of probabilities, losses.
    bins: [(u64, f64, u64); BINS],
}

impl Scores {
    /// Notes a stated probability and whether the shard was lost.
    pub fn note(&mut self, stated: f64, lost: bool) {
        let error = stated - f64::from(u8::from(lost));
        self.count += 1;
        self.squares += error * error;
        let bin = ((stated * BINS as f64) as usize).min(BINS - 1);
        let (count, sum, losses) = &mut self.bins[bin];
        (*count, *sum, *losses) = (*count + 1, *sum + stated, *losses + u64::from(lost));
    }

    /// Takes in another's.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.squares += other.squares;
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            *bin = (bin.0 + other.0, bin.1 + other.1, bin.2 + other.2);
        }
    }

    /// Mean square of stated probability less outcome (Brier, Monthly Weather Review 78, 1950).
    pub fn brier(&self) -> Option<f64> {
        (self.count > 0).then(|| self.squares / self.count as f64)
    }

    /// Expected calibration error: the distance between mean stated probability and share of losses
    /// in each tenth, weighted by how many holes are in it.
    pub fn calibration_error(&self) -> Option<f64> {
        let distance = |&(_, sum, losses): &(u64, f64, u64)| (sum - losses as f64).abs();
        let sum: f64 = self.bins.iter().map(distance).sum();
        (self.count > 0).then(|| sum / self.count as f64)
    }
}

/// Hands everything on to a predictor, and keeps its scores.
pub(super) struct Watched<P> {
    inner: P,
    said: HashMap<u32, f32>,
    scores: Rc<RefCell<Scores>>,
}

impl<P> Watched<P> {
    pub(super) fn new(inner: P, scores: Rc<RefCell<Scores>>) -> Self {
        Self {
            inner,
            said: HashMap::new(),
            scores,
        }
    }
}

impl<P: Predictor> Predictor for Watched<P> {
    fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) {
        self.inner.arrived(path, sent_at_us, received_at);
    }

    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        let plan = self.inner.plan(hole, outlook, age);
        if let Some(loss) = plan.loss
            && age.is_zero()
            && self.said.len() < SAID_MAX
        {
            self.said.insert(hole.number, loss);
        }
        plan
    }

    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        if let Some(stated) = self.said.remove(&hole.number) {
            let lost = outcome == Outcome::Lost;
            self.scores.borrow_mut().note(f64::from(stated), lost);
        }
        self.inner.learn(hole, outcome, outlook, now);
    }

    fn retract(&mut self, hole: &Hole) {
        self.said.remove(&hole.number);
        self.inner.retract(hole);
    }

    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        self.inner.filled(hole, by, age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_books() {
        let mut scores = Scores::default();
        assert_eq!((scores.brier(), scores.calibration_error()), (None, None));
        for lost in [true, true, true, false] {
            scores.note(0.75, lost);
        }
        // Three of four: perfectly calibrated, and p(1-p) of spread is left.
        assert_eq!(scores.calibration_error(), Some(0.0));
        assert_eq!(scores.brier(), Some(0.1875));
        let mut wrong = Scores::default();
        wrong.note(1.0, false);
        wrong.note(0.0, true);
        assert_eq!(
            (wrong.brier(), wrong.calibration_error()),
            (Some(1.0), Some(1.0))
        );
        scores.merge(&wrong);
        assert_eq!(scores.count, 6);
        assert!((scores.brier().unwrap() - 2.75 / 6.0).abs() < 1e-12);
    }
}
