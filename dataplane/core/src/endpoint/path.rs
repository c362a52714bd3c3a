//! What is known of a path from reports and probes, and what that allows to add.

use core::time::Duration;

use crate::congestion::{QueueControl, TokenBucket, is_queue_full};
use crate::estimate::{DeliveryRate, LossRuns, QueueDelay, Rtt};
use crate::limits::LOST_AFTER;
use crate::path_mtu::{FLOOR, MtuView, PathMtu, Timing, Unreported};
use crate::plan::REACTIVE_FOR;
use crate::predict::RoundTrip;
use crate::sender::transmissions::{Cause, News, Transmission, Transmissions};
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::feedback::{Ranges, Report};

/// Reports that come closer together than this are not looked at: a peer that sends more costs
/// nothing.
const REPORT_EVERY_MIN: Duration = Duration::from_millis(1);

/// A round trip longer than this is none.
const RTT_MAX: Duration = Duration::from_secs(30);

/// Something sent this much earlier than what arrived, at the least, is lost; more on long paths.
const REORDERING_MIN: Duration = Duration::from_millis(2);

/// For how long the longest reordering seen counts.
const REORDERING_KEPT: Duration = Duration::from_secs(10);

/// How long a loss is remembered as a sign that the path loses.
const LOSSY_FOR: Duration = Duration::from_secs(10);

/// Why a report was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadReport {
    /// Too soon after the last.
    TooSoon,
    /// It speaks of what was never sent.
    NeverSent,
}

/// One path, as a sender knows it.
pub(super) struct Path {
    pub log: Transmissions,
    pub rtt: Rtt,
    /// All losses.
    pub loss: LossRuns,
    /// Losses that no full queue explains.
    pub radio_loss: LossRuns,
    pub rate: DeliveryRate,
    pub queue: QueueDelay,
    pub control: QueueControl,
    pub bucket: TokenBucket,
    pub mtu: PathMtu,
    pub lost: u64,
    pub lost_late: u64,
    /// Reports taken.
    pub reports: u64,
    /// Share of what the bucket would earn that it does, in thousandths.
    pub added_permille: u16,
    /// Transmissions since the last report, and when the first of them was.
    unanswered: (u32, Option<Time>),
    /// The last transmission that is longer than every path carries: its number, and when it was.
    long: Option<(u64, Time)>,
    reordering: Reordering,
    reported_at: Option<Time>,
    lost_at: Option<Time>,
    echoes_refused: u64,
}

/// How far shards overtake one another on a path.
///
/// A quarter of the round trip is where RACK begins (RFC 8985, 6.2); a path that jitters by more
/// would show losses that are none, and a loss estimate that is wrong takes repair, pacing and
/// queue control with it.
#[derive(Clone, Copy, Debug, Default)]
struct Reordering {
    longest: Duration,
    at: Time,
}

impl Reordering {
    /// Something that counted as lost arrived; what was sent so much later had arrived before.
    fn overtaken_by(&mut self, distance: Duration, now: Time) {
        if distance >= self.window(now) {
            self.longest = distance.min(LOST_AFTER);
            self.at = now;
        }
    }

    /// How much earlier than an arrival something was sent that does not count as lost yet: what was
    /// seen lately, and a quarter more.
    fn window(&self, now: Time) -> Duration {
        if now.since(self.at) > REORDERING_KEPT {
            return Duration::ZERO;
        }
        self.longest + self.longest / 4
    }
}

/// What is known of a path. Unknown is not zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathView {
    /// Smoothed round trip (RFC 6298).
    pub rtt_smoothed: Option<Duration>,
    /// Its variance.
    pub rtt_variance: Option<Duration>,
    /// Shortest round trip of the last ten seconds.
    pub rtt_min: Option<Duration>,
    /// 95th percentile of round trips.
    pub rtt_q95: Option<Duration>,
    /// How many round trips were measured.
    pub rtt_count: u64,
    /// Age of the last measurement.
    pub rtt_age: Option<Duration>,
    /// Share of shards lost, lately.
    pub loss_rate: Option<f64>,
    /// Mean run of lost shards.
    pub loss_burst: Option<f64>,
    /// Runs of lost shards a second that no full queue explains.
    pub loss_events_per_second: Option<f64>,
    /// Bytes a second that arrive at the peer, at best, lately.
    pub delivery_rate: Option<u64>,
    /// Queueing delay now.
    pub queue_delay: Option<Duration>,
    /// Seconds of queueing delay gained a second.
    pub queue_gradient: Option<f64>,
    /// Transmissions lost so far.
    pub lost: u64,
    /// Of those: arrived after all.
    pub lost_late: u64,
    /// Round trips that cannot be: echoes from the future, or ages old.
    pub echoes_refused: u64,
    /// Whether others hold the bottleneck's queue.
    pub is_competing: bool,
    /// How large packets it carries.
    pub mtu: MtuView,
}

impl Path {
    pub(super) fn new(overhead_limit: f64) -> Self {
        Self {
            log: Transmissions::new(),
            rtt: Rtt::new(),
            loss: LossRuns::new(),
            radio_loss: LossRuns::new(),
            rate: DeliveryRate::new(),
            queue: QueueDelay::new(),
            control: QueueControl::new(),
            bucket: TokenBucket::new(overhead_limit),
            mtu: PathMtu::default(),
            lost: 0,
            lost_late: 0,
            reports: 0,
            added_permille: 1_000,
            unanswered: (0, None),
            long: None,
            reordering: Reordering::default(),
            reported_at: None,
            lost_at: None,
            echoes_refused: 0,
        }
    }

    pub(super) fn round_trip(&self, now: Time) -> Option<RoundTrip> {
        let smoothed = self.rtt.smoothed()?;
        Some(RoundTrip {
            smoothed,
            variance: self.rtt.variance().unwrap_or_default(),
            minimum: self.rtt.min(now).unwrap_or(smoothed),
        })
    }

    /// Notes a transmission.
    pub(super) fn sent(&mut self, number: u64, seq: Seq, bytes: u16, cause: Cause, now: Time) {
        self.log.sent(number, seq, bytes, cause, now);
        let (count, since) = &mut self.unanswered;
        *count = count.saturating_add(1);
        since.get_or_insert(now);
        if bytes > FLOOR {
            self.long = Some((number, now));
        }
    }

    /// What the search for the path's MTU needs to know of time.
    pub(super) fn timing(&self) -> Timing {
        let smoothed = self.rtt.smoothed();
        let variance = self.rtt.variance().unwrap_or_default();
        Timing::new(smoothed.map(|smoothed| (smoothed, variance)))
    }

    /// What the peer has not told of.
    pub(super) fn unreported(&self) -> Unreported {
        let Some((oldest, since)) = self.log.oldest_unreported() else {
            return Unreported::default();
        };
        Unreported {
            since: Some(since),
            newest_long: self
                .long
                .filter(|(number, _)| *number >= oldest)
                .map(|(_, at)| at),
        }
    }

    /// Transmissions since the last report, and when the first of them was.
    pub(super) fn unanswered(&self) -> (u32, Option<Time>) {
        self.unanswered
    }

    /// Waits for no report on what was sent so far.
    pub(super) fn forget(&mut self) {
        self.log.forget();
        self.unanswered = (0, None);
    }

    /// A probe or a report gives a round trip: sent at `sent_at`, held by the peer for `held`.
    pub(super) fn echo(&mut self, sent_at_us: u32, held_us: u32, received_at: Time) {
        let age_us = received_at.as_wire_us().wrapping_sub(sent_at_us);
        match age_us.checked_sub(held_us) {
            Some(rtt_us) if u128::from(rtt_us) < RTT_MAX.as_micros() => {
                let rtt = Duration::from_micros(u64::from(rtt_us.max(1)));
                self.rtt.sample(rtt, received_at);
                self.rate.set_rtt(rtt);
            }
            _ => self.echoes_refused += 1,
        }
    }

    /// Takes a report; tells of each transmission that is news.
    pub(super) fn report(
        &mut self,
        report: &Report,
        ranges: Ranges<'_>,
        received_at: Time,
        mut news: impl FnMut(&Transmission, News),
    ) -> Result<(), BadReport> {
        if self
            .reported_at
            .is_some_and(|last| received_at.since(last) < REPORT_EVERY_MIN)
        {
            return Err(BadReport::TooSoon);
        }
        let quarter = self.rtt.smoothed().unwrap_or_default() / 4;
        let reordering = quarter
            .max(REORDERING_MIN)
            .max(self.reordering.window(received_at));
        let newest_sent_at = self.log.sent_at(report.largest);
        let minimum = self.rtt.min(received_at);
        let is_full = is_queue_full(&self.queue, minimum, received_at);
        let (mut bytes, mut lost) = (0u64, 0u32);
        let Self {
            log,
            loss,
            radio_loss,
            mtu,
            lost_late,
            reordering: seen,
            ..
        } = self;
        let counts = (report.largest, report.received);
        log.report(counts, ranges.iter(), reordering, |what, how| {
            match how {
                News::Arrived => {
                    bytes += u64::from(what.bytes);
                    mtu.arrived(what.bytes, what.sent_at);
                }
                News::LateArrival => {
                    bytes += u64::from(what.bytes);
                    mtu.arrived(what.bytes, what.sent_at);
                    *lost_late += 1;
                    if let Some(newest) = newest_sent_at {
                        seen.overtaken_by(newest.since(what.sent_at), received_at);
                    }
                    loss.was_late(received_at);
                    radio_loss.was_late(received_at);
                }
                News::SettledArrived => {
                    loss.outcome(false, received_at);
                    radio_loss.outcome(false, received_at);
                }
                News::SettledLost => {
                    lost += 1;
                    mtu.lost(what.bytes, what.sent_at);
                    loss.outcome(true, received_at);
                    radio_loss.outcome(!is_full, received_at);
                }
            }
            news(what, how);
        })
        .map_err(|_| BadReport::NeverSent)?;
        self.reported_at = Some(received_at);
        self.reports += 1;
        self.unanswered = (0, None);
        self.echo(report.echo_sent_at_us, report.echo_held_us, received_at);
        self.queue
            .sample(report.delay_min_us, report.delay_mean_us, received_at);
        // Nothing says how long frames would have waited: only a queue shows that the path is full.
        let is_limited = self
            .queue
            .current(received_at)
            .is_none_or(|queue| queue < REORDERING_MIN);
        self.rate.acknowledged(bytes, received_at, is_limited);
        if let Some(rate) = self.rate.bytes_per_second() {
            self.bucket.set_delivery_rate(rate);
        }
        let share = u64::from(self.added_permille);
        self.bucket.earn(bytes.saturating_mul(share) / 1_000);
        if lost > 0 {
            self.lost += u64::from(lost);
            self.control.on_path_loss(received_at, lost);
            if !is_full {
                self.lost_at = Some(received_at);
            }
        }
        let round_trip = self.rtt.smoothed();
        self.control.on_delay(received_at, &self.queue, round_trip);
        Ok(())
    }

    /// Whether a loss was seen so lately that more are to be expected.
    pub(super) fn is_reacting(&self, now: Time) -> bool {
        self.lost_at.is_some_and(|at| now.since(at) < REACTIVE_FOR)
    }

    /// Whether the path has lost anything lately.
    pub(super) fn is_lossy(&self, now: Time) -> bool {
        self.lost_at.is_some_and(|at| now.since(at) < LOSSY_FOR)
    }

    pub(super) fn view(&self, now: Time) -> PathView {
        PathView {
            rtt_smoothed: self.rtt.smoothed(),
            rtt_variance: self.rtt.variance(),
            rtt_min: self.rtt.min(now),
            rtt_q95: self.rtt.q95(),
            rtt_count: self.rtt.count(),
            rtt_age: self.rtt.age(now),
            loss_rate: self.loss.loss_rate(),
            loss_burst: self.loss.burst_len(),
            loss_events_per_second: self.radio_loss.events_per_second(now),
            delivery_rate: self.rate.bytes_per_second(),
            queue_delay: self.queue.current(now),
            queue_gradient: self.queue.gradient(),
            lost: self.lost,
            lost_late: self.lost_late,
            echoes_refused: self.echoes_refused,
            is_competing: self.control.is_competing(),
            mtu: self.mtu.view(),
        }
    }
}
