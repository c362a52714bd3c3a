//! What was sent on a path, by path number, and what the peer's reports say became of it.
//!
//! | a transmission is | from | until |
//! |---|---|---|
//! | pending | it is numbered | a report has it, or it is overtaken |
//! | arrived | a report has it | |
//! | untold | it counts among what arrived, and the report that had it was lost | a late report has it |
//! | lost | something sent long enough after it arrived | a late report has it after all |
//! | not sent | it died inside the gateway | |
//!
//! Each arrival is told in a few reports, and all of those may be lost: where the other direction
//! loses every second datagram, as the queue of a slow start does, or where a path is silent for a
//! moment. What came is then known by its number only, from the count that each report has.

use core::time::Duration;

use crate::seq::Seq;
use crate::time::Time;
use crate::wire::feedback::Range;

/// Transmissions on a path that are remembered: a third of a second at 100,000 a second. A power
/// of two.
pub(crate) const TRANSMISSIONS_MAX: u64 = 1 << 15;

/// Why something was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The first transmission of a source shard.
    Source,
    /// A source shard again.
    Repeat,
    /// A repair shard.
    Repair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Arrived,
    /// One of those that arrived without being told of, or as many others did.
    Untold,
    Lost,
    NotSent,
}

/// One transmission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transmission {
    pub sent_at: Time,
    /// The source shard, or the first of a repair's window.
    pub seq: Seq,
    /// Bytes of the sealed datagram.
    pub bytes: u16,
    pub cause: Cause,
    state: State,
}

/// What a report says of a transmission for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It arrived.
    Arrived,
    /// It was declared lost, and arrived after all.
    LateArrival,
    /// It counts as received from now on, in the order of path numbers.
    SettledArrived,
    /// It counts as lost from now on, in the order of path numbers.
    SettledLost,
}

/// The transmissions of one path.
pub(crate) struct Transmissions {
    ring: Box<[Transmission]>,
    /// One above the newest number sent.
    next: u64,
    /// Below this everything has arrived or is lost.
    settled: u64,
    /// One above the largest number that has arrived.
    reported: u64,
    /// How many arrived, as the newest report has it; and how many of those no report has told.
    received: u64,
    untold: u64,
}

impl Transmissions {
    pub(crate) fn new() -> Self {
        let nothing = Transmission {
            sent_at: Time::ZERO,
            seq: Seq(0),
            bytes: 0,
            cause: Cause::Source,
            state: State::NotSent,
        };
        Self {
            ring: vec![nothing; TRANSMISSIONS_MAX as usize].into_boxed_slice(),
            next: 0,
            settled: 0,
            reported: 0,
            received: 0,
            untold: 0,
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Transmission> {
        let is_known = number < self.next && self.next - number <= TRANSMISSIONS_MAX;
        let slot = &mut self.ring[(number % TRANSMISSIONS_MAX) as usize];
        is_known.then_some(slot)
    }

    /// Notes a transmission; numbers come in order.
    #[inline]
    pub(crate) fn sent(&mut self, number: u64, seq: Seq, bytes: u16, cause: Cause, now: Time) {
        self.next = number.saturating_add(1);
        self.settled = self
            .settled
            .max(self.next.saturating_sub(TRANSMISSIONS_MAX));
        self.ring[(number % TRANSMISSIONS_MAX) as usize] = Transmission {
            sent_at: now,
            seq,
            bytes,
            cause,
            state: State::Pending,
        };
    }

    /// Takes a transmission that never left out of all reckoning; says what it was.
    pub(crate) fn not_sent(&mut self, number: u64) -> Option<Transmission> {
        let slot = self.slot(number)?;
        let was_pending = slot.state == State::Pending;
        slot.state = State::NotSent;
        was_pending.then_some(*slot)
    }

    /// Waits for no word of what was sent so far: whoever would have given it is gone.
    pub(crate) fn forget(&mut self) {
        self.settled = self.next;
        self.reported = self.next;
        (self.received, self.untold) = (0, 0);
    }

    /// When a transmission left, if it is remembered.
    pub(crate) fn sent_at(&mut self, number: u64) -> Option<Time> {
        self.slot(number).map(|slot| slot.sent_at)
    }

    /// Whether something was sent that no report has overtaken.
    pub(crate) fn has_unreported(&self) -> bool {
        self.reported < self.next
    }

    /// When the first transmission was sent that no report has overtaken, and its number.
    pub(crate) fn oldest_unreported(&self) -> Option<(u64, Time)> {
        let oldest = &self.ring[(self.reported % TRANSMISSIONS_MAX) as usize];
        let is_known = self.next.saturating_sub(self.reported) <= TRANSMISSIONS_MAX;
        (self.has_unreported() && is_known).then_some((self.reported, oldest.sent_at))
    }

    /// Takes a report: the largest number, how many arrived in all, and the runs below the largest.
    /// `reordering` is how much earlier than an arrival something must have been sent to count as lost.
    ///
    /// # Errors
    /// Nothing is taken of a report about what was never sent.
    pub(crate) fn report(
        &mut self,
        (largest, received): (u64, u64),
        ranges: impl Iterator<Item = Range>,
        reordering: Duration,
        mut news: impl FnMut(&Transmission, News),
    ) -> Result<(), NeverSent> {
        if largest >= self.next {
            return Err(NeverSent);
        }
        let mut told = 0;
        let mut end = largest + 1;
        for range in ranges {
            let Some(top) = end.checked_sub(u64::from(range.gap)) else {
                break;
            };
            let bottom = top.saturating_sub(u64::from(range.len));
            // What is too old to be remembered is not worth a look.
            let oldest = self.next.saturating_sub(TRANSMISSIONS_MAX);
            for number in bottom.max(oldest)..top {
                told += u64::from(self.arrived(number, &mut news));
            }
            end = bottom;
        }
        told += u64::from(self.arrived(largest, &mut news));
        self.count(largest, received, told);
        self.reported = self.reported.max(largest + 1);
        self.settle(end, reordering, &mut news);
        Ok(())
    }

    /// Takes the count of what arrived, of which a report has told so many for the first time.
    fn count(&mut self, largest: u64, received: u64, told: u64) {
        let is_newest = largest >= self.reported;
        if is_newest && received < self.received {
            // The peer has begun to count anew.
            self.received = received;
            self.untold = 0;
        }
        let more = received.saturating_sub(self.received);
        self.received = self.received.max(received);
        // No more than there are numbers to arrive under.
        self.untold = (self.untold + more)
            .saturating_sub(told)
            .min(TRANSMISSIONS_MAX);
    }

    /// Notes an arrival; true if nothing was told of it before.
    fn arrived(&mut self, number: u64, news: &mut impl FnMut(&Transmission, News)) -> bool {
        let Some(slot) = self.slot(number) else {
            return false;
        };
        let what = match slot.state {
            State::Pending | State::Untold => News::Arrived,
            State::Lost => News::LateArrival,
            State::Arrived | State::NotSent => return false,
        };
        slot.state = State::Arrived;
        news(slot, what);
        true
    }

    /// Decides about what lies below the largest number that has arrived, in order. The report has
    /// told everything from `told_from` on.
    fn settle(
        &mut self,
        told_from: u64,
        reordering: Duration,
        news: &mut impl FnMut(&Transmission, News),
    ) {
        let Some(newest) = self.reported.checked_sub(1) else {
            return;
        };
        let Some(overtaken_by) = self.slot(newest).map(|slot| slot.sent_at) else {
            return;
        };
        while self.settled < self.reported {
            let may_be_untold = self.settled < told_from && self.untold > 0;
            let Some(slot) = self.slot(self.settled) else {
                self.settled += 1;
                continue;
            };
            match slot.state {
                State::Pending if slot.sent_at + reordering > overtaken_by => return,
                State::Pending if may_be_untold => {
                    slot.state = State::Untold;
                    news(slot, News::SettledArrived);
                    self.untold -= 1;
                }
                State::Pending => {
                    slot.state = State::Lost;
                    news(slot, News::SettledLost);
                }
                State::Arrived => news(slot, News::SettledArrived),
                State::Untold | State::Lost | State::NotSent => {}
            }
            self.settled += 1;
        }
    }
}

/// A report speaks of what was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeverSent;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn log(count: u64) -> Transmissions {
        let mut log = Transmissions::new();
        for number in 0..count {
            let at = Time::ZERO + MS * number as u32;
            log.sent(number, Seq(number as u32), 100, Cause::Source, at);
        }
        log
    }

    fn take(log: &mut Transmissions, largest: u64, ranges: &[(u16, u16)]) -> Vec<(u32, News)> {
        take_of(log, (largest, 0), ranges)
    }

    fn take_of(
        log: &mut Transmissions,
        counts: (u64, u64),
        ranges: &[(u16, u16)],
    ) -> Vec<(u32, News)> {
        let mut all = vec![];
        let ranges = ranges.iter().map(|&(gap, len)| Range { gap, len });
        let taken = log.report(counts, ranges, MS * 3, |t, news| all.push((t.seq.0, news)));
        assert_eq!(taken, Ok(()));
        all
    }

    #[test]
    fn what_was_overtaken_long_enough_is_lost_and_may_come_late() {
        use News::{Arrived, LateArrival, SettledArrived, SettledLost};
        let mut log = log(10);
        // 4 and 2 arrived, 0, 1 and 3 are missing; 3 was sent just before 4.
        let news = take(&mut log, 4, &[(0, 1), (1, 1)]);
        let expected = [
            (4, Arrived),
            (2, Arrived),
            (0, SettledLost),
            (1, SettledLost),
            (2, SettledArrived),
        ];
        assert_eq!(news, expected);
        assert!(log.has_unreported());
        let news = take(&mut log, 9, &[(0, 5), (4, 1)]);
        assert_eq!(news[5..7], [(0, LateArrival), (3, SettledLost)]);
        assert!(!log.has_unreported());
        assert_eq!(take(&mut log, 9, &[(0, 5)]), []);
    }

    #[test]
    fn what_only_lost_reports_told_of_is_not_lost() {
        use News::{Arrived, SettledArrived, SettledLost};
        let settled = |news: &[(u32, News)], how| news.iter().filter(|one| one.1 == how).count();
        let mut log = log(40);
        take_of(&mut log, (4, 5), &[(0, 5)]);
        // The reports on 5 to 20 are lost. All but two of those came, and 25 did not.
        let news = take_of(&mut log, (29, 27), &[(0, 4), (1, 4)]);
        assert_eq!(settled(&news, Arrived), 8);
        assert_eq!(settled(&news, SettledArrived), 14 + 8);
        assert_eq!(
            settled(&news, SettledLost),
            3,
            "which two of the 16 is not known"
        );
        // A late report has some of them: they have been counted.
        let news = take_of(&mut log, (12, 12), &[(0, 8)]);
        assert_eq!(settled(&news, Arrived), 8);
        assert_eq!(settled(&news, SettledArrived), 0);
        // The peer begins to count anew: what it does not tell of is lost again.
        let news = take_of(&mut log, (39, 2), &[(0, 1)]);
        assert_eq!(settled(&news, SettledLost), 7);
    }

    #[test]
    fn what_never_left_is_neither_lost_nor_received() {
        let mut log = log(3);
        assert!(log.not_sent(0).is_some());
        assert!(log.not_sent(0).is_none() && log.not_sent(3).is_none());
        let news = take(&mut log, 2, &[(0, 2)]);
        assert!(news.iter().all(|&(seq, _)| seq != 0), "{news:?}");
    }

    #[test]
    fn what_a_peer_that_is_gone_did_not_report_is_no_loss() {
        let mut log = log(10);
        take_of(&mut log, (2, 3), &[(0, 3)]);
        log.forget();
        assert!(!log.has_unreported());
        for number in 10..20 {
            let at = Time::ZERO + MS * number;
            log.sent(number.into(), Seq(number), 100, Cause::Source, at);
        }
        // The one that came after it has 19 and 17; 18 may still come.
        let news = take_of(&mut log, (19, 2), &[(0, 1), (1, 1)]);
        let lost: Vec<_> = news
            .iter()
            .filter(|one| one.1 == News::SettledLost)
            .map(|one| one.0)
            .collect();
        assert_eq!(lost, [10, 11, 12, 13, 14, 15, 16]);
    }

    #[test]
    fn a_report_from_the_future_is_refused() {
        let mut log = log(3);
        let refused = log.report((3, 0), core::iter::empty(), MS, |_, _| panic!("news"));
        assert_eq!(refused, Err(NeverSent));
        assert_eq!(
            log.report((u64::MAX, 0), core::iter::empty(), MS, |_, _| {}),
            Err(NeverSent)
        );
    }

    proptest! {
        /// Whatever reports say, each transmission settles at most once, in order, and what was not
        /// reported never arrives.
        #[test]
        fn any_reports_settle_each_number_once(
            reports in prop::collection::vec(
                ((0u64..300, any::<u64>()), prop::collection::vec((0u16..40, 0u16..40), 0..6)),
                1..30,
            ),
        ) {
            let mut log = log(300);
            let mut settled = vec![];
            let mut reported = std::collections::HashSet::new();
            for ((largest, received), ranges) in reports {
                let mut end = largest + 1;
                reported.insert(largest as u32);
                for &(gap, len) in &ranges {
                    let Some(top) = end.checked_sub(gap.into()) else { break };
                    let bottom = top.saturating_sub(len.into());
                    reported.extend((bottom..top).map(|n| n as u32));
                    end = bottom;
                }
                let ranges = ranges.iter().map(|&(gap, len)| Range { gap, len });
                log.report((largest, received), ranges, MS * 3, |t, news| match news {
                    News::SettledArrived | News::SettledLost => settled.push(t.seq.0),
                    News::Arrived | News::LateArrival => assert!(reported.contains(&t.seq.0)),
                }).unwrap();
            }
            prop_assert!(settled.is_sorted_by(|a, b| a < b));
        }
    }
}
