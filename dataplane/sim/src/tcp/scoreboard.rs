//! What has been sent and not yet acknowledged, segment by segment (RFC 6675's scoreboard), and
//! the detection of losses by time (RACK, RFC 8985).
//!
//! All segments of a stream but its last are of one size, so a segment is known by its number.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use shardgate_core::time::Time;

/// One segment in flight.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Time,
    /// The number of its last transmission; grows with every transmission of the connection.
    transmission: u64,
    was_repeated: bool,
    /// Its repeat is under way.
    is_repeating: bool,
    is_sacked: bool,
    is_lost: bool,
}

/// What an ACK has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Segments delivered, cumulatively or selectively.
    pub delivered: u32,
    /// The left edge has moved.
    pub is_advance: bool,
    /// Something new was acknowledged selectively.
    pub is_sack: bool,
    /// A segment that was sent only once, and before `high`, has arrived.
    pub is_original: bool,
    /// When the oldest and the newest segment that was sent once and is now acknowledged left.
    pub oldest_sent: Option<Time>,
    /// See `oldest_sent`.
    pub newest_sent: Option<Time>,
}

/// What is known when an ACK is taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckContext {
    pub now: Time,
    /// The transmission that the ACK's timestamp echoes.
    pub echo: u64,
    pub rtt_min: Option<Duration>,
    /// The first segment that had not been sent when the last episode began.
    pub high: u64,
}

/// The newest delivered transmission (RFC 8985, 5.2).
#[derive(Clone, Copy, Debug)]
struct Newest {
    transmission: u64,
    rtt: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    una: u64,
    segments: VecDeque<Sent>,
    sacked: u32,
    lost: u32,
    repeating: u32,
    to_repeat: BTreeSet<u64>,
    next_transmission: u64,
    /// Transmissions in order, those that no longer count among them: (transmission, segment).
    sent_order: VecDeque<(u64, u64)>,
    newest: Option<Newest>,
    /// One behind the highest segment that was delivered.
    forward: u64,
    is_reordered: bool,
}

impl Scoreboard {
    /// The oldest segment not acknowledged.
    pub(super) fn una(&self) -> u64 {
        self.una
    }

    /// The first segment not yet sent.
    pub(super) fn next(&self) -> u64 {
        self.una + self.segments.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments sent and not acknowledged.
    pub(super) fn outstanding(&self) -> u32 {
        self.segments.len() as u32
    }

    /// Segments believed to be in the network.
    pub(super) fn in_flight(&self) -> u32 {
        self.outstanding() - self.sacked - self.lost + self.repeating
    }

    pub(super) fn sacked(&self) -> u32 {
        self.sacked
    }

    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// Repeats under way.
    pub(super) fn repeating(&self) -> u32 {
        self.repeating
    }

    /// Whether segments were seen to overtake others.
    pub(super) fn is_reordered(&self) -> bool {
        self.is_reordered
    }

    /// The number that the next transmission gets.
    pub(super) fn next_transmission(&self) -> u64 {
        self.next_transmission
    }

    /// A transmission of something without a place here: a SYN, a bare ACK.
    pub(super) fn count_transmission(&mut self) -> u64 {
        self.next_transmission += 1;
        self.next_transmission - 1
    }

    /// The next segment is sent; its number and that of the transmission.
    pub(super) fn send_next(&mut self, now: Time) -> (u64, u64) {
        let number = self.next();
        let transmission = self.count_transmission();
        self.segments.push_back(Sent {
            at: now,
            transmission,
            was_repeated: false,
            is_repeating: false,
            is_sacked: false,
            is_lost: false,
        });
        self.sent_order.push_back((transmission, number));
        (number, transmission)
    }

    /// The oldest segment that is lost and not yet repeated.
    pub(super) fn next_to_repeat(&self) -> Option<u64> {
        self.to_repeat.first().copied()
    }

    /// A segment is sent again; the number of the transmission, none if it is not outstanding.
    pub(super) fn repeat(&mut self, number: u64, now: Time) -> Option<u64> {
        let transmission = self.next_transmission;
        let segment = self.get_mut(number)?;
        segment.at = now;
        segment.transmission = transmission;
        segment.was_repeated = true;
        let was_repeating = std::mem::replace(&mut segment.is_repeating, true);
        self.repeating += u32::from(!was_repeating);
        self.to_repeat.remove(&number);
        self.next_transmission += 1;
        self.sent_order.push_back((transmission, number));
        Some(transmission)
    }

    fn get(&self, number: u64) -> Option<&Sent> {
        self.segments
            .get(usize::try_from(number.checked_sub(self.una)?).ok()?)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Sent> {
        self.segments
            .get_mut(usize::try_from(number.checked_sub(self.una)?).ok()?)
    }

    /// Everything before `una` has arrived.
    pub(super) fn acknowledge(&mut self, una: u64, context: &AckContext, news: &mut News) {
        while self.una < una {
            let Some(segment) = self.segments.pop_front() else {
                return;
            };
            let number = self.una;
            self.una += 1;
            news.is_advance = true;
            self.lost -= u32::from(segment.is_lost);
            self.repeating -= u32::from(segment.is_repeating);
            self.to_repeat.remove(&number);
            if segment.is_sacked {
                self.sacked -= 1;
                continue;
            }
            self.deliver(number, &segment, context, news);
            if !segment.was_repeated {
                news.oldest_sent.get_or_insert(segment.at);
                news.newest_sent = Some(segment.at);
            }
        }
    }

    /// The segments of `range` have arrived, out of order.
    pub(super) fn sack(&mut self, range: Range<u64>, context: &AckContext, news: &mut News) {
        for number in range.start.max(self.una)..range.end.min(self.next()) {
            let Some(segment) = self.get_mut(number) else {
                continue;
            };
            if segment.is_sacked {
                continue;
            }
            let before = *segment;
            segment.is_sacked = true;
            (segment.is_lost, segment.is_repeating) = (false, false);
            self.sacked += 1;
            self.lost -= u32::from(before.is_lost);
            self.repeating -= u32::from(before.is_repeating);
            self.to_repeat.remove(&number);
            news.is_sack = true;
            self.deliver(number, &before, context, news);
            if !before.was_repeated {
                news.newest_sent = Some(before.at);
            }
        }
    }

    fn deliver(&mut self, number: u64, segment: &Sent, context: &AckContext, news: &mut News) {
        news.delivered += 1;
        news.is_original |= !segment.was_repeated && number < context.high;
        if number >= self.forward {
            self.forward = number + 1;
        } else if !segment.was_repeated {
            self.is_reordered = true;
        }
        // An ACK of a repeated segment may be one of the original (RFC 8985, 6.2, step 2).
        let rtt = context.now.since(segment.at);
        let is_ambiguous = segment.was_repeated
            && (context.echo < segment.transmission
                || context.rtt_min.is_some_and(|min| rtt < min));
        let is_newest = self
            .newest
            .is_none_or(|newest| segment.transmission > newest.transmission);
        if is_newest && !is_ambiguous {
            self.newest = Some(Newest {
                transmission: segment.transmission,
                rtt,
            });
        }
    }

    /// Marks as lost what was sent before the newest delivered transmission and is overdue by
    /// more than `window`. How many, and when something else will be.
    pub(super) fn detect_losses(&mut self, window: Duration, now: Time) -> (u32, Option<Time>) {
        let Some(newest) = self.newest else {
            return (0, None);
        };
        let (mut count, mut next) = (0, None);
        for at in 0..self.sent_order.len() {
            let (transmission, number) = self.sent_order[at];
            if transmission >= newest.transmission {
                break;
            }
            if !self.is_current(transmission, number) {
                continue;
            }
            let Some(segment) = self.get(number) else {
                continue;
            };
            let due = segment.at + newest.rtt + window;
            if due <= now {
                self.mark_lost(number);
                count += 1;
            } else {
                next = next.max(Some(due));
            }
        }
        while let Some(&(transmission, number)) = self.sent_order.front() {
            if self.is_current(transmission, number) {
                break;
            }
            self.sent_order.pop_front();
        }
        (count, next)
    }

    /// Whether a transmission is its segment's last, and the segment may still arrive by it.
    fn is_current(&self, transmission: u64, number: u64) -> bool {
        self.get(number).is_some_and(|segment| {
            segment.transmission == transmission
                && !segment.is_sacked
                && (!segment.is_lost || segment.is_repeating)
        })
    }

    fn mark_lost(&mut self, number: u64) {
        let Some(segment) = self.get_mut(number) else {
            return;
        };
        if segment.is_sacked {
            return;
        }
        let was_lost = std::mem::replace(&mut segment.is_lost, true);
        let was_repeating = std::mem::take(&mut segment.is_repeating);
        self.lost += u32::from(!was_lost);
        self.repeating -= u32::from(was_repeating);
        self.to_repeat.insert(number);
    }

    /// A timeout: the oldest segment is lost, and so is what is older than RACK's round trip
    /// (RFC 8985, 6.3).
    pub(super) fn time_out(&mut self, now: Time) {
        let rtt = self.newest.map_or(Duration::ZERO, |newest| newest.rtt);
        for number in self.una..self.next() {
            let is_due = self
                .get(number)
                .is_some_and(|segment| segment.at + rtt <= now);
            if number == self.una || is_due {
                self.mark_lost(number);
            }
        }
    }

    /// Nothing was lost after all.
    pub(super) fn forgive_losses(&mut self) {
        for segment in &mut self.segments {
            segment.is_lost = false;
        }
        self.lost = 0;
        self.to_repeat.clear();
        // What had left the order with its loss comes back into it.
        let una = self.una;
        let open = self
            .segments
            .iter()
            .zip(una..)
            .filter(|(segment, _)| !segment.is_sacked);
        let mut order: Vec<_> = open.map(|(segment, n)| (segment.transmission, n)).collect();
        order.sort_unstable();
        self.sent_order = order.into();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(now: u64) -> AckContext {
        AckContext {
            now: Time(now),
            echo: u64::MAX,
            rtt_min: None,
            high: 0,
        }
    }

    /// `count` segments sent at 0, 1, 2 ... ns.
    fn sent(count: u64) -> Scoreboard {
        let mut board = Scoreboard::default();
        for at in 0..count {
            assert_eq!(board.send_next(Time(at)).0, at);
        }
        board
    }

    #[test]
    fn a_loss_is_found_a_window_after_what_was_sent_later_has_arrived() {
        let mut board = sent(10);
        let window = Duration::from_nanos(25);
        let mut news = News::default();
        // 4 arrives after 100 ns.
        board.sack(4..5, &context(104), &mut news);
        assert_eq!((news.delivered, board.in_flight()), (1, 9));
        assert_eq!(
            board.detect_losses(window, Time(104)),
            (0, Some(Time(3 + 100 + 25)))
        );
        assert_eq!(board.detect_losses(window, Time(126)), (2, Some(Time(128))));
        assert_eq!(board.next_to_repeat(), Some(0));
        assert_eq!((board.lost(), board.in_flight()), (2, 7));
        board.repeat(0, Time(127));
        assert_eq!((board.next_to_repeat(), board.in_flight()), (Some(1), 8));
        board.acknowledge(5, &context(200), &mut News::default());
        assert_eq!(
            (board.lost(), board.repeating(), board.in_flight()),
            (0, 0, 5)
        );
    }

    #[test]
    fn an_ack_of_the_original_does_not_pass_for_one_of_the_repeat() {
        let mut board = sent(3);
        board.time_out(Time(50));
        assert_eq!(board.lost(), 3);
        let transmission = board.repeat(0, Time(60)).expect("outstanding");
        let original = AckContext {
            echo: transmission - 1,
            ..context(70)
        };
        board.acknowledge(1, &original, &mut News::default());
        assert_eq!(board.newest.map(|newest| newest.transmission), None);
        let transmission = board.repeat(1, Time(80)).expect("outstanding");
        let repeat = AckContext {
            echo: transmission,
            ..context(120)
        };
        board.acknowledge(2, &repeat, &mut News::default());
        assert_eq!(
            board.newest.map(|newest| newest.rtt),
            Some(Duration::from_nanos(40))
        );
    }

    #[test]
    fn overtaking_is_seen_but_not_in_repeats() {
        let mut board = sent(5);
        board.sack(3..4, &context(100), &mut News::default());
        assert!(!board.is_reordered());
        board.time_out(Time(200));
        board.repeat(1, Time(201));
        board.sack(1..2, &context(300), &mut News::default());
        assert!(!board.is_reordered());
        board.sack(2..3, &context(300), &mut News::default());
        assert!(board.is_reordered());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send,
        Ack(u64),
        Sack(u64, u64),
        Detect(u64),
        Repeat,
        TimeOut,
        Forgive,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Send),
            1 => (0u64..4).prop_map(Step::Ack),
            2 => (0u64..20, 1u64..4).prop_map(|(from, len)| Step::Sack(from, len)),
            2 => (0u64..10).prop_map(Step::Detect),
            2 => Just(Step::Repeat),
            1 => Just(Step::TimeOut),
            1 => Just(Step::Forgive),
        ]
    }

    proptest! {
        /// The counts against a count of the segments themselves.
        #[test]
        fn counts_hold(steps in prop::collection::vec(step(), 0..200)) {
            let mut board = Scoreboard::default();
            for (now, step) in steps.into_iter().enumerate() {
                let now = now as u64;
                let mut news = News::default();
                let in_network = board.outstanding() - board.sacked();
                match step {
                    Step::Send => {
                        board.send_next(Time(now));
                    }
                    Step::Ack(ahead) => {
                        let una = (board.una() + ahead).min(board.next());
                        board.acknowledge(una, &context(now), &mut news);
                    }
                    Step::Sack(from, len) => {
                        let from = board.una() + from;
                        board.sack(from..from + len, &context(now), &mut news);
                    }
                    Step::Detect(window) => {
                        board.detect_losses(Duration::from_nanos(window), Time(now));
                    }
                    Step::Repeat => {
                        if let Some(number) = board.next_to_repeat() {
                            prop_assert!(board.repeat(number, Time(now)).is_some());
                        }
                    }
                    Step::TimeOut => board.time_out(Time(now)),
                    Step::Forgive => board.forgive_losses(),
                }
                let count = |is: fn(&Sent) -> bool| board.segments.iter().filter(|s| is(s)).count() as u32;
                prop_assert_eq!(board.sacked, count(|s| s.is_sacked));
                prop_assert_eq!(board.lost, count(|s| s.is_lost));
                prop_assert_eq!(board.repeating, count(|s| s.is_repeating));
                prop_assert_eq!(board.to_repeat.len() as u32, count(|s| s.is_lost && !s.is_repeating));
                prop_assert!(board.to_repeat.iter().all(|&n| board.get(n).is_some_and(|s| s.is_lost)));
                let arrived = if news.delivered > 0 { in_network - news.delivered } else { in_network };
                if !matches!(step, Step::Send) {
                    prop_assert_eq!(board.outstanding() - board.sacked(), arrived);
                }
                // Whatever may still be found lost is in the order.
                for (segment, number) in board.segments.iter().zip(board.una..) {
                    if !segment.is_sacked && (!segment.is_lost || segment.is_repeating) {
                        prop_assert!(board.sent_order.contains(&(segment.transmission, number)));
                    }
                }
            }
        }
    }
}
