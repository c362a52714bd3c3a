//! What a sender does about losses and marks: reduce, repeat, and take back what was a mistake.
//!
//! | phase | begins with | window | ends when |
//! |---|---|---|---|
//! | `Open` | | grows | |
//! | `Marked` | a mark, or a probe that repaired a loss | proportional reduction | everything sent before is acknowledged |
//! | `Recovery` | a loss found by RACK | proportional reduction | the same, or it was no loss |
//! | `Loss` | a timeout | one segment, slow start | the same, or it was no loss |

use std::ops::Range;
use std::time::Duration;

use shardgate_core::time::Time;

use super::TcpSender;
use crate::packet::{Flags, Segment};
use crate::tcp::scoreboard::{AckContext, News};

/// Selectively acknowledged segments that are proof enough without waiting (RFC 8985, 6.2).
const DUP_THRESHOLD: u32 = 3;
/// Widest reordering window in quarters of the least round trip; Linux counts in a byte.
const QUARTERS_MAX: u32 = 255;
/// Recoveries for which a widened reordering window stays (RFC 8985, 6.2, step 4).
const REORDERING_PERSISTS: u32 = 16;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Open,
    Marked,
    Recovery,
    Loss,
}

/// A tail loss probe under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The first segment not sent when it left.
    pub high: u64,
    /// It carried new data, not a repeat.
    pub is_new: bool,
}

/// How to take a reduction back.
#[derive(Clone, Copy, Debug)]
struct Undo {
    /// The oldest segment outstanding then.
    una: u64,
    cwnd: u32,
    ssthresh: u32,
    /// The first repeat since: an ACK that echoes something older tells of an original.
    first_repeat: Option<u64>,
    /// Repeats not yet known to be needless.
    repeats: u32,
}

/// State of the recovery.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub phase: Phase,
    /// The first segment not sent when the phase began.
    pub high: u64,
    pub probe: Option<Probe>,
    undo: Option<Undo>,
    /// Whether the timeout may still turn out to be spurious.
    is_timeout_doubtful: bool,
    /// Proportional rate reduction: window before, delivered and sent since.
    prior_cwnd: u32,
    delivered: u32,
    sent: u32,
    /// The reordering window in quarters of the least round trip.
    reordering_quarters: u32,
    reordering_persists: u32,
    /// DSACKs count once a round: until this segment is acknowledged.
    dsack_round: Option<u64>,
}

impl Recovery {
    pub(super) fn may_probe(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Marked) && self.probe.is_none()
    }

    fn is_reducing(&self) -> bool {
        matches!(self.phase, Phase::Recovery | Phase::Marked)
    }

    pub(super) fn on_sent(&mut self) {
        self.sent += 1;
    }

    pub(super) fn on_repeat(&mut self, transmission: u64) {
        if let Some(undo) = &mut self.undo {
            undo.first_repeat.get_or_insert(transmission);
            undo.repeats += 1;
        }
    }

    /// Widens the reordering window for a needless repeat, at most once a round trip.
    fn on_dsack(&mut self, una: u64, next: u64) {
        if self.dsack_round.is_none_or(|round| una >= round) {
            self.dsack_round = Some(next);
            self.reordering_quarters = (self.reordering_quarters.max(1) + 1).min(QUARTERS_MAX);
            self.reordering_persists = REORDERING_PERSISTS;
        }
    }

    fn on_recovered(&mut self) {
        self.reordering_persists = self.reordering_persists.saturating_sub(1);
        if self.reordering_persists == 0 {
            self.reordering_quarters = 1;
        }
    }
}

impl TcpSender {
    /// Everything about losses that an ACK brings, and growth if it brings none.
    pub(super) fn recover(
        &mut self,
        segment: &Segment,
        news: &News,
        duplicate: Option<Range<u64>>,
        context: &AckContext,
    ) {
        self.on_probe_answer(news, duplicate.is_some());
        if let Some(duplicate) = duplicate {
            self.on_duplicate(&duplicate);
        }
        self.leave_phase(news, context);
        if segment.flags.has(Flags::ECE) && self.recovery.phase == Phase::Open {
            self.enter_marked();
            self.tells_reduction = true;
        }
        self.take_back(news, context);
        let lost = self.find_losses(context.now);
        if self.board.lost() > 0 && matches!(self.recovery.phase, Phase::Open | Phase::Marked) {
            self.enter_recovery();
        }
        if self.recovery.is_reducing() {
            self.reduce(news.delivered, lost, news.is_advance);
        } else if news.is_advance {
            self.grow(news.delivered, context.now);
        }
    }

    fn on_duplicate(&mut self, duplicate: &Range<u64>) {
        self.recovery.on_dsack(self.board.una(), self.board.next());
        if let Some(undo) = &mut self.recovery.undo
            && undo.una <= duplicate.start
        {
            undo.repeats = undo.repeats.saturating_sub(1);
        }
    }

    /// RFC 8985, 7.4: a probe that was a repeat, and was needed, hid a loss.
    fn on_probe_answer(&mut self, news: &News, has_duplicate: bool) {
        let Some(probe) = self.recovery.probe else {
            return;
        };
        let una = self.board.una();
        if una < probe.high {
            return;
        }
        if probe.is_new || has_duplicate {
            self.recovery.probe = None;
        } else if una > probe.high {
            self.recovery.probe = None;
            if !news.is_advance || self.recovery.phase != Phase::Open {
                return;
            }
            self.enter_marked();
            self.cwnd = self.ssthresh;
            self.recovery.phase = Phase::Open;
        }
    }

    /// Ends a phase when all that was outstanding at its start is acknowledged.
    fn leave_phase(&mut self, news: &News, context: &AckContext) {
        let (una, high) = (self.board.una(), self.recovery.high);
        let is_over = match self.recovery.phase {
            Phase::Open => false,
            // The echo ends with the first segment after, which told of the reduction.
            Phase::Marked => una > high,
            Phase::Recovery | Phase::Loss => una >= high,
        };
        if !is_over {
            return;
        }
        let was = std::mem::take(&mut self.recovery.phase);
        if matches!(was, Phase::Recovery | Phase::Loss) && self.is_mistake(news, context) {
            self.undo();
            return;
        }
        match was {
            Phase::Open => {}
            Phase::Loss => self.recovery.on_recovered(),
            Phase::Marked => self.cwnd = self.cwnd.min(self.ssthresh),
            Phase::Recovery => {
                self.cwnd = self.ssthresh;
                self.recovery.on_recovered();
            }
        }
    }

    /// Whether the episode has turned out to be none: what was repeated came by its first
    /// transmission (RFC 4015), or every repeat came twice (RFC 3708).
    fn is_mistake(&self, news: &News, context: &AckContext) -> bool {
        self.recovery.undo.is_some_and(|undo| {
            let by_timestamp =
                news.is_advance && undo.first_repeat.is_some_and(|first| context.echo < first);
            by_timestamp || (undo.first_repeat.is_some() && undo.repeats == 0)
        })
    }

    /// Takes an episode back while it lasts, or after it.
    fn take_back(&mut self, news: &News, context: &AckContext) {
        match self.recovery.phase {
            Phase::Recovery => {
                let may = self.board.repeating() == 0 || !news.is_advance;
                if may && self.is_mistake(news, context) {
                    self.undo();
                }
            }
            Phase::Loss => {
                // RFC 5682, step 3b: what was never repeated has arrived.
                let is_spurious = self.recovery.is_timeout_doubtful && news.is_original;
                if is_spurious || self.is_mistake(news, context) {
                    self.undo();
                }
                if self.board.next() > self.recovery.high && news.is_sack {
                    self.recovery.is_timeout_doubtful = false;
                }
            }
            Phase::Open => {
                let undo = self.recovery.undo;
                if undo.is_some_and(|undo| undo.first_repeat.is_some() && undo.repeats == 0) {
                    self.undo();
                }
            }
            Phase::Marked => {}
        }
    }

    fn undo(&mut self) {
        let Some(undo) = self.recovery.undo.take() else {
            return;
        };
        self.cwnd = self.cwnd.max(undo.cwnd);
        self.ssthresh = self.ssthresh.max(undo.ssthresh);
        self.board.forgive_losses();
        self.recovery.phase = Phase::Open;
        self.recovery.is_timeout_doubtful = false;
        self.counters.undone += 1;
    }

    /// RFC 8985, 6.2, steps 4 and 5; how many losses.
    fn find_losses(&mut self, now: Time) -> u32 {
        let window = self.reordering_window();
        let (lost, next) = self.board.detect_losses(window, now);
        self.reordering_at = next;
        lost
    }

    fn reordering_window(&self) -> Duration {
        if !self.board.is_reordered() {
            let is_recovering = matches!(self.recovery.phase, Phase::Recovery | Phase::Loss);
            if is_recovering || self.board.sacked() >= DUP_THRESHOLD {
                return Duration::ZERO;
            }
        }
        let quarter = self.rtt.min().unwrap_or_default() / 4;
        let window = quarter * self.recovery.reordering_quarters.max(1);
        window.min(self.rtt.smoothed().unwrap_or_default())
    }

    /// What was waited for has not come.
    pub(super) fn reordering_timer(&mut self, now: Time) {
        self.find_losses(now);
        if self.board.lost() == 0 {
            return;
        }
        if matches!(self.recovery.phase, Phase::Open | Phase::Marked) {
            self.enter_recovery();
        }
        if self.recovery.is_reducing() {
            self.reduce(0, 1, false);
        }
        self.arm_timeout(now);
    }

    /// A congestion event: the threshold falls now, the window while ACKs come in.
    fn begin_reduction(&mut self) {
        self.recovery.prior_cwnd = self.cwnd;
        self.recovery.delivered = 0;
        self.recovery.sent = 0;
        self.recovery.high = self.board.next();
        self.recovery.probe = None;
        self.ssthresh = self.cubic.on_congestion(self.cwnd);
        self.counters.reductions += 1;
    }

    fn remember_for_undo(&mut self) {
        self.recovery.undo = Some(Undo {
            una: self.board.una(),
            cwnd: self.cwnd,
            ssthresh: self.ssthresh,
            first_repeat: None,
            repeats: 0,
        });
    }

    fn enter_marked(&mut self) {
        self.recovery.undo = None;
        self.begin_reduction();
        self.recovery.phase = Phase::Marked;
    }

    fn enter_recovery(&mut self) {
        if self.recovery.phase == Phase::Marked {
            // Reduced already; only the repeats are new.
            self.recovery.undo = None;
            self.recovery.high = self.board.next();
        } else {
            self.remember_for_undo();
            self.begin_reduction();
        }
        self.recovery.phase = Phase::Recovery;
        self.probe_at = None;
    }

    pub(super) fn enter_loss(&mut self, now: Time) {
        let is_new = self.recovery.phase == Phase::Open || self.board.una() >= self.recovery.high;
        if is_new {
            self.remember_for_undo();
            self.begin_reduction();
        }
        self.cubic.on_timeout();
        self.recovery.high = self.board.next();
        self.recovery.phase = Phase::Loss;
        self.recovery.is_timeout_doubtful = true;
        self.recovery.probe = None;
        self.board.time_out(now);
        self.cwnd = self.board.in_flight() + 1;
    }

    /// Proportional rate reduction (RFC 6937, with its reduction bound of slow start).
    fn reduce(&mut self, delivered: u32, lost: u32, is_advance: bool) {
        let recovery = &mut self.recovery;
        recovery.delivered += delivered;
        let in_flight = self.board.in_flight();
        let sent = recovery.sent;
        let mut allowed = if in_flight > self.ssthresh {
            let share = u64::from(recovery.delivered) * u64::from(self.ssthresh);
            (share.div_ceil(u64::from(recovery.prior_cwnd.max(1))) as u32).saturating_sub(sent)
        } else {
            let extra = u32::from(is_advance && lost == 0);
            let catch_up = recovery.delivered.saturating_sub(sent).max(delivered) + extra;
            catch_up.min(self.ssthresh - in_flight)
        };
        if sent == 0 {
            // The first repeat leaves at once.
            allowed = allowed.max(1);
        }
        self.cwnd = in_flight + allowed;
    }
}
