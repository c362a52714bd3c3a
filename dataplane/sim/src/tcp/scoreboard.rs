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
mod tests;
