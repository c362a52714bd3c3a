//! What the fate of data says: may the path carry less than before?
//!
//! Long packets that are all lost while something sent later arrives, or silence. Either is only a
//! reason to ask: probes decide.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::{FLOOR, Timing, Unreported};
use crate::time::Time;

/// Lost sizes that are told apart.
const SIZES_MAX: usize = 8;

/// So many lost in a row, over so long a time, are no chance: the runs of a lossy radio link are
/// shorter, an overflowing queue lets some through.
const LOST_MIN: u32 = 4;
const LOST_FOR: Duration = Duration::from_millis(30);

/// After so long an arrival says nothing of what passes now.
const ARRIVAL_KEPT: Duration = Duration::from_millis(100);

/// Packets of one size of which none has arrived since.
#[derive(Clone, Copy, Debug)]
struct Lost {
    size: u16,
    count: u32,
    first: Time,
    last: Time,
}

/// What the fate of data says.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspicion {
    lost: ArrayVec<Lost, SIZES_MAX>,
    /// A long packet that has arrived, and when it was sent.
    arrived: (u16, Time),
}

impl Suspicion {
    /// Something sent at `sent_at` has arrived.
    #[inline]
    pub(super) fn arrived(&mut self, size: u16, sent_at: Time) {
        let (longest, at) = self.arrived;
        if size >= longest || sent_at.since(at) > ARRIVAL_KEPT {
            self.arrived = (size, sent_at.max(at));
        }
        if !self.lost.is_empty() {
            self.lost
                .retain(|lost| lost.size > size || lost.first > sent_at);
        }
    }

    /// Something sent at `sent_at` is lost, and something sent later has arrived.
    pub(super) fn lost(&mut self, size: u16, sent_at: Time) {
        let (longest, at) = self.arrived;
        if size <= FLOOR || (size <= longest && sent_at <= at) {
            return;
        }
        if let Some(lost) = self.lost.iter_mut().find(|lost| lost.size == size) {
            lost.count = lost.count.saturating_add(1);
            lost.last = lost.last.max(sent_at);
            lost.first = lost.first.min(sent_at);
            return;
        }
        if self.lost.is_full()
            && let Some(oldest) = (0..self.lost.len()).min_by_key(|at| self.lost[*at].last)
        {
            self.lost.swap_remove(oldest);
        }
        self.lost.push(Lost {
            size,
            count: 1,
            first: sent_at,
            last: sent_at,
        });
    }

    /// Whether long packets are lost, and no others.
    pub(super) fn is_raised(&self) -> bool {
        if self.lost.is_empty() {
            return false;
        }
        let count = (self.lost.iter()).fold(0u32, |sum, lost| sum.saturating_add(lost.count));
        let first = self.lost.iter().map(|lost| lost.first).min();
        let last = self.lost.iter().map(|lost| lost.last).max();
        let span = last.zip(first).map(|(last, first)| last.since(first));
        count >= LOST_MIN && span.is_some_and(|span| span >= LOST_FOR)
    }

    /// When silence becomes suspicious, if long packets were sent into it after `confirmed`, when the
    /// path still carried them.
    pub(super) fn silent_at(
        unreported: Unreported,
        confirmed: Time,
        timing: Timing,
    ) -> Option<Time> {
        let since = unreported.since?;
        (unreported.newest_long? > confirmed).then(|| since.max(confirmed) + timing.silent_for())
    }

    /// The smallest size that is suspected not to pass.
    pub(super) fn smallest(&self) -> Option<u16> {
        self.lost.iter().map(|lost| lost.size).min()
    }

    /// What was lost so far says nothing more.
    pub(super) fn clear(&mut self) {
        self.lost.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn long_packets_lost_among_short_ones_are_suspicious() {
        let mut suspicion = Suspicion::default();
        suspicion.arrived(1_500, at(0));
        for ms in (1..40).step_by(10) {
            assert!(!suspicion.is_raised());
            suspicion.arrived(100, at(ms + 5));
            suspicion.lost(1_500, at(ms));
        }
        assert!(suspicion.is_raised());
        assert_eq!(suspicion.smallest(), Some(1_500));
        suspicion.arrived(1_400, at(50));
        assert!(suspicion.is_raised());
        suspicion.arrived(1_500, at(50));
        assert!(!suspicion.is_raised());
    }

    #[test]
    fn a_run_in_a_moment_and_an_outage_are_not() {
        let mut suspicion = Suspicion::default();
        for us in 0..100 {
            suspicion.lost(1_500, Time(us * 1_000));
        }
        assert!(!suspicion.is_raised());
        let mut suspicion = Suspicion::default();
        // What the first report after it tells: what came, then what is lost below that.
        suspicion.arrived(1_500, at(300));
        for ms in 0..300 {
            suspicion.lost(1_500, at(ms));
        }
        assert!(!suspicion.is_raised());
        for ms in 0..300 {
            suspicion.lost(FLOOR, at(301 + ms));
        }
        assert!(!suspicion.is_raised());
    }

    #[test]
    fn any_sizes_stay_within_the_bound() {
        let mut suspicion = Suspicion::default();
        for size in 600..1_500 {
            suspicion.lost(size, at(10 * u64::from(size)));
        }
        assert!(suspicion.is_raised() && suspicion.lost.len() == SIZES_MAX);
        assert_eq!(suspicion.smallest(), Some(1_500 - SIZES_MAX as u16));
    }
}
