//! What arrived on a path, for the reports about it (SPEC §6).

use core::time::Duration;

use arrayvec::ArrayVec;

use super::ReplayWindow;
use crate::congestion::is_queue_full;
use crate::estimate::QueueDelay;
use crate::limits::{REPLAY_WINDOW, REPORTS_COVERED};
use crate::time::Time;
use crate::wire::feedback::{RANGES_MAX, Range, Report};

/// A stream that has been silent for this long, and for this many mean gaps between its datagrams,
/// is idle: what is unreported is reported at once. Without the second a path on which a datagram
/// takes longer than the first, 6 Mbit/s and less, gets a report for each of them.
const IDLE_AFTER: Duration = Duration::from_millis(2);
const IDLE_AFTER_GAPS: u32 = 4;
/// A longer gap is a pause. It says nothing of how datagrams follow each other.
const GAP_MAX: Duration = Duration::from_millis(10);
/// What a gap counts in their mean is 1 / 8.
const GAP_SHIFT: u32 = 3;

/// What arrived on one path of a stream.
pub(super) struct Arrivals {
    received: u64,
    received_bytes: u64,
    /// Largest path number, its `sent_at_us` and when it arrived.
    newest: Option<(u64, u32, Time)>,
    last_at: Time,
    /// Mean time between datagrams, ns.
    gap_ns: u64,
    /// Since the last report.
    fresh: u32,
    delay_first_us: u32,
    delay_min_us: i32,
    delay_sum_us: i64,
    queue: QueueDelay,
    reported_at: Time,
    /// Lowest path number that came since the last report.
    lowest: u64,
    /// Where the news of each of the last reports began, newest first: the lowest number that had
    /// come since the one before, late ones included.
    told_from: [u64; REPORTS_COVERED],
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            received: 0,
            received_bytes: 0,
            newest: None,
            last_at: Time::ZERO,
            gap_ns: 0,
            fresh: 0,
            delay_first_us: 0,
            delay_min_us: 0,
            delay_sum_us: 0,
            queue: QueueDelay::new(),
            reported_at: Time::ZERO,
            lowest: u64::MAX,
            told_from: [0; REPORTS_COVERED],
        }
    }

    /// Whether what is lost now on this path is lost to a full queue.
    pub(super) fn is_queue_full(&self, round_trip_min: Option<Duration>, now: Time) -> bool {
        is_queue_full(&self.queue, round_trip_min, now)
    }

    /// Notes an authenticated, new datagram of `bytes` bytes.
    #[inline]
    pub(super) fn note(&mut self, number: u64, bytes: usize, sent_at_us: u32, at: Time) {
        self.received += 1;
        self.received_bytes += bytes as u64;
        if self.newest.is_none_or(|(newest, ..)| newest < number) {
            self.newest = Some((number, sent_at_us, at));
        }
        self.lowest = self.lowest.min(number);
        let gap = at.since(self.last_at);
        if gap < GAP_MAX {
            let gap_ns = gap.as_nanos() as u64;
            self.gap_ns = self.gap_ns - (self.gap_ns >> GAP_SHIFT) + (gap_ns >> GAP_SHIFT);
        }
        self.last_at = self.last_at.max(at);
        // Relative to the first since the last report: only differences mean something.
        let delay_us = at.as_wire_us().wrapping_sub(sent_at_us);
        if self.fresh == 0 {
            self.delay_first_us = delay_us;
            self.delay_min_us = 0;
            self.delay_sum_us = 0;
        }
        let more = delay_us.wrapping_sub(self.delay_first_us) as i32;
        self.delay_min_us = self.delay_min_us.min(more);
        self.delay_sum_us += i64::from(more);
        self.fresh = self.fresh.saturating_add(1);
    }

    /// When the next report is due, `interval` after the last or as soon as the stream is idle.
    pub(super) fn report_at(&self, interval: Duration) -> Option<Time> {
        let idle_after = IDLE_AFTER.max(Duration::from_nanos(self.gap_ns) * IDLE_AFTER_GAPS);
        let idle = self.last_at.max(self.reported_at) + idle_after;
        (self.fresh > 0).then(|| (self.reported_at + interval).min(idle))
    }

    /// What is to be reported now.
    pub(super) fn report(
        &mut self,
        window: &ReplayWindow,
        ranges: &mut ArrayVec<Range, RANGES_MAX>,
        now: Time,
    ) -> Option<Report> {
        let (largest, echo_sent_at_us, arrived_at) = self.newest?;
        // What came between this report and the last but two is told: a report may be lost.
        self.told_from.rotate_right(1);
        self.told_from[0] = core::mem::replace(&mut self.lowest, u64::MAX).min(largest);
        let oldest = self.told_from.iter().copied().min().unwrap_or(largest);
        window.runs(
            oldest.max(largest.saturating_sub(REPLAY_WINDOW as u64 - 1)),
            ranges,
        );
        let mean = self.delay_sum_us / i64::from(self.fresh.max(1));
        let report = Report {
            largest,
            received: self.received,
            received_bytes: self.received_bytes,
            delay_min_us: self.delay_first_us.wrapping_add_signed(self.delay_min_us),
            delay_mean_us: self.delay_first_us.wrapping_add_signed(mean as i32),
            echo_sent_at_us,
            echo_held_us: u32::try_from(now.since(arrived_at).as_micros()).unwrap_or(u32::MAX),
            ..Report::default()
        };
        self.queue
            .sample(report.delay_min_us, report.delay_mean_us, now);
        self.fresh = 0;
        self.reported_at = now;
        Some(report)
    }

    /// Forgets everything: a new incarnation of the peer.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Time {
        Time(us * 1_000)
    }

    #[test]
    fn a_slow_path_is_reported_by_interval_and_a_burst_when_it_ends() {
        let interval = Duration::from_millis(10);
        let reports = |gaps_us: &[u64], shards: usize| {
            let (mut arrivals, mut window) = (Arrivals::new(), ReplayWindow::default());
            let mut ranges = ArrayVec::new();
            let (mut now, mut reports) = (us(1_000_000), 0);
            for (number, gap) in gaps_us.iter().cycle().take(shards).enumerate() {
                let next = now + Duration::from_micros(*gap);
                while let Some(due) = arrivals.report_at(interval).filter(|due| *due < next) {
                    ranges.clear();
                    let due = due.max(now);
                    arrivals.report(&window, &mut ranges, due).unwrap();
                    reports += 1;
                }
                now = next;
                window.accept(number as u64).unwrap();
                arrivals.note(number as u64, 1_500, 0, now);
            }
            reports
        };
        // 5 Mbit/s: every 10 ms, not for each of them.
        let slow = reports(&[2_400], 1_000);
        assert!((190..=250).contains(&slow), "{slow}");
        // Ten at once every 9 ms, as a radio hands them out: for each burst, when it ends.
        let burst = [9_000, 50, 50, 50, 50, 50, 50, 50, 50, 50];
        let bursts = reports(&burst, 1_000);
        assert!((95..=101).contains(&bursts), "{bursts}");
        // Sparse: for each.
        assert_eq!(reports(&[20_000], 100), 99);
    }

    #[test]
    fn a_report_says_what_came_since_the_last_ones() {
        let (mut arrivals, mut window) = (Arrivals::new(), ReplayWindow::default());
        let interval = Duration::from_millis(10);
        assert_eq!(arrivals.report_at(interval), None);
        // The sender's clock is ahead, and wraps.
        for (number, sent, at) in [(0, u32::MAX - 9, 1_000), (1, 10, 1_030), (4, 30, 1_035)] {
            window.accept(number).unwrap();
            arrivals.note(number, 100, sent, us(at));
        }
        assert_eq!(arrivals.report_at(interval), Some(us(3_035)), "idle");
        let mut ranges = ArrayVec::new();
        let report = arrivals.report(&window, &mut ranges, us(3_035)).unwrap();
        assert_eq!(
            (report.largest, report.received, report.received_bytes),
            (4, 3, 300)
        );
        assert_eq!((report.echo_sent_at_us, report.echo_held_us), (30, 2_000));
        assert_eq!((report.delay_min_us, report.delay_mean_us), (1_005, 1_011));
        assert_eq!(
            ranges[..],
            [Range { gap: 0, len: 1 }, Range { gap: 2, len: 2 }]
        );
        assert_eq!(arrivals.report_at(interval), None);
        for report in 0..REPORTS_COVERED as u64 {
            let at = 20_000 * (report + 1);
            window.accept(5 + report).unwrap();
            arrivals.note(5 + report, 100, 0, us(at));
            ranges.clear();
            arrivals
                .report(&window, &mut ranges, us(at + 2_000))
                .unwrap();
        }
        assert_eq!(
            ranges.iter().map(|range| range.len).sum::<u16>(),
            REPORTS_COVERED as u16
        );
        // What comes late is told three times too, however far behind it is.
        window.accept(3).unwrap();
        arrivals.note(3, 100, 0, us(80_000));
        for later in 0..=REPORTS_COVERED as u64 {
            let number = 8 + later;
            window.accept(number).unwrap();
            arrivals.note(number, 100, 0, us(90_000 + later));
            ranges.clear();
            arrivals.report(&window, &mut ranges, us(90_000)).unwrap();
            let reached: u64 = ranges
                .iter()
                .map(|range| u64::from(range.gap) + u64::from(range.len))
                .sum();
            let lowest = number + 1 - reached;
            assert_eq!(
                lowest == 3,
                later < REPORTS_COVERED as u64,
                "{later}: {lowest}"
            );
        }
    }
}
