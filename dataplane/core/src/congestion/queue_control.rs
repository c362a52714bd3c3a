//! CoDel's law on a queue that is not ours.

use core::time::Duration;

use super::overflow::Overflow;
use super::witness::{Verdict, Witness};
use crate::estimate::QueueDelay;
use crate::time::Time;

/// A standing queue up to this is left alone (RFC 8289, 4.4, has 5 ms at the bottleneck itself).
const TARGET: Duration = Duration::from_millis(10);
/// On a long path the target is this part of the round trip, the upper end of RFC 8289's 5 to
/// 10 %: below it a single CUBIC flow, that backs off by 30 %, leaves the link idle until it has
/// grown back.
const TARGET_OF_RTT: u32 = 10;
/// A queue must stand for this or a round trip before the first signal.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// What is left of two clocks' reading and one frame's transmission time in a measured delay.
const NOISE: Duration = Duration::from_micros(300);
/// How far a report's least delay lies above the least of 10 s where nothing queues, in mean
/// differences of one report's from the next one's: 2.9 with one normally distributed delay a
/// report, 3.7 with 33, 3.8 with 100 (the expected least of k and of 1,000 k, and the deviation of
/// the least of k).
const JITTER_TO_BASE: u32 = 4;
/// Round trips beyond this are an echo gone astray.
const RTT_MAX: Duration = Duration::from_secs(4);
/// An empty queue, when what is asked is whether others are gone.
const EMPTY: Duration = Duration::from_millis(1);
/// From this time without an empty queue on the target shrinks, to a tenth when the base would
/// expire after 10 s.
const DRAIN_AFTER: f64 = 4.0;
const DRAIN_BEFORE: f64 = 10.0;
/// Signalling is given up after this many times three intervals in which a queue of twice the target
/// has not shrunk by a quarter.
const FRUITLESS_MAX: u32 = 8;
/// How long signals are held back when others share the bottleneck; three times as long if the
/// next attempt fails as well.
const COMPETE_FOR: Duration = Duration::from_secs(20);
const ATTEMPTS_MAX: u32 = 3;
/// How long the base is remembered that was seen before others came.
const FLOOR_FOR: Duration = Duration::from_secs(60);
/// Frames spared after each that carries a signal: whatever is measured, the control itself never
/// takes more than one in five, and never the repeats of a sender that is down to its timeouts.
const SPARED_MIN: u32 = 4;
/// Rounds of losses that signals given in vain excuse, at the most.
const EXCUSED_MAX: u32 = 4;
/// Losses passed on in a round trip at the most: a slow start that overshoots loses hundreds, and its
/// sender needs to hear of it once.
const PASS_MAX: u32 = 8;
/// Clocks drift apart by no more than 100 ppm: a microsecond each 10 ms.
const DRIFT: u128 = 10_000;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Quiet,
    Signalling {
        /// Start of the three intervals that are being watched, and the queue then.
        since: Time,
        queue: Duration,
        /// How many such times were fruitless, in a row.
        fruitless: u32,
    },
    Competing {
        until: Time,
        /// Since when the queue has been empty in each interval, and when it was last.
        empty: Option<(Time, Time)>,
    },
}

/// Losses of the path that are passed on: those of one round trip, then none for another.
///
/// What is lost in the second was sent before the senders could slow down for the first, and a
/// plain sender would not count it again either (RFC 6675). Within the first each loss is another
/// flow's as likely as not, so each is passed on: one alone would make many flows push others out.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    due: u32,
    /// When the last of them was learnt.
    noted_at: Time,
    /// When the round trip began.
    began_at: Option<Time>,
    /// Round trips whose losses are kept from the senders, which have already slowed down for a
    /// signal instead.
    excused: u32,
}

impl Pass {
    fn note(&mut self, lost: u32, now: Time) {
        self.due = self.due.saturating_add(lost).min(PASS_MAX);
        self.noted_at = now;
    }

    fn take(&mut self, rtt: Duration, now: Time) -> bool {
        // A sender that has been silent since has long learnt of it.
        if now.since(self.noted_at) > rtt * 2 {
            self.due = 0;
        }
        if self.due == 0 {
            return false;
        }
        let since = self.began_at.map(|at| now.since(at));
        match since {
            Some(since) if since < rtt => {}
            Some(since) if since < rtt * 2 => {
                self.due = 0;
                return false;
            }
            _ => self.began_at = Some(now),
        }
        if self.excused > 0 {
            self.excused -= 1;
            self.due = 0;
            // As if this were the second round trip: the next loss begins a first one.
            self.began_at = Some(now - rtt);
            return false;
        }
        self.due = self.due.saturating_sub(1);
        true
    }
}

/// Keeps the standing queue of a path short, by telling which frames shall carry a signal to
/// their senders: CoDel (RFC 8289) on the path's measured queue delay.
///
/// A tunnel that repairs every loss hides congestion from the senders inside. So it signals
/// itself, and by the queue alone: losses without a queue are the radio's and stay hidden.
///
/// What differs from CoDel in a router, and why (figures by the model in this folder's tests):
/// - The law sees a queue one report and a part of a round trip late, and its signal takes a round
///   trip. So the second signal waits for an interval, one and a half round trips and 20 ms; with
///   CoDel's one interval a single flow is cut twice for one queue and loses 10 to 20 % of goodput.
///   The ones after follow CoDel's square root, faster while the queue is over twice the target.
///   No signal goes out while the queue is falling fast enough to reach the target by itself.
/// - The target is 10 ms, a tenth of the round trip if that is more, and half of what the path's
///   buffer can hold once an overflow has shown it. It is never below what jitter looks like.
/// - The base is a minimum of 10 s. Many flows may hold the queue at the target for longer, and the
///   base would rise with it. So the target shrinks from the fifth second without an empty queue.
/// - A queue shorter than 1 or 2 ms cannot be told from noise. There the bound on repair is what
///   makes losses reach the senders.
/// - What no report has spoken of for an interval is forgotten: a sender down to its timeouts sends
///   one frame after a silence, and taking that would keep it down for good.
///
/// Where others hold the queue, signals only give them our share. That shows in what a signal costs:
/// the queue stands and our throughput falls after a signal. Or the queue has not shrunk however
/// long it was signalled. Then the control is *competing*: it passes on the path's own losses, those
/// of every other round trip, so that our flows back off as plain ones would, and nothing else. A
/// signal that others profited from was a step back more than plain flows take: each excuses one
/// round trip of losses. It tries again after 20, 60, then 180 s, with a second signal only once the
/// first has shown that nobody took what it gave; and at once when the queue has been empty.
#[derive(Clone, Debug, Default)]
pub struct QueueControl {
    state: State,
    interval: Duration,
    rtt: Duration,
    reported_at: Option<Time>,
    /// Of the last report.
    queue: Duration,
    target: Duration,
    is_falling: bool,
    /// Since when the queue has been above the target.
    above: Option<Time>,
    /// Signals of this spell, and when the next is due.
    signals: u32,
    next: Time,
    /// Bulk frames since the last signal.
    spared: u32,
    /// When the last spell ended, with how many signals.
    ended: Option<(Time, u32)>,
    pass: Pass,
    overflow: Overflow,
    witness: Witness,
    /// Attempts in a row that found others there, and when the last wait began.
    attempts: u32,
    competed_at: Time,
    /// The base of the clocks before others came, and when it was last seen.
    floor: Option<(i64, Time)>,
}

impl QueueControl {
    /// Signals nothing until a queue is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether others hold the queue, as far as is known.
    pub fn is_competing(&self) -> bool {
        matches!(self.state, State::Competing { .. })
    }

    /// The standing queue that is left alone.
    pub fn target(&self) -> Duration {
        self.target
    }

    /// Reports told of losses on the path. Comes before the report's [`on_delay`](Self::on_delay).
    pub fn on_path_loss(&mut self, now: Time, lost: u32) {
        self.overflow.lost(lost);
        if self.is_competing() {
            self.pass.note(lost, now);
        }
    }

    /// A report has been taken into `delay`.
    pub fn on_delay(&mut self, now: Time, delay: &QueueDelay, rtt: Option<Duration>) {
        self.rtt = rtt.unwrap_or(INTERVAL_MIN).min(RTT_MAX);
        self.interval = self.rtt.max(INTERVAL_MIN);
        if self.is_unheard(now) {
            self.forget();
        }
        self.reported_at = Some(now);
        let (Some(queue), Some(largest)) = (delay.least(now), delay.largest(now)) else {
            return;
        };
        let hidden = self.hidden(delay, now);
        let (queue, largest) = (queue + hidden, largest + hidden);
        let jitter = delay.jitter().unwrap_or_default().min(RTT_MAX);
        let noise = NOISE + jitter * JITTER_TO_BASE;
        let overflows = self.overflow.report(queue, largest, noise, now);
        self.queue = queue;
        self.target = self.target_for(delay, noise, now);
        self.is_falling = self.falls_below_target(delay);
        match self.witness.report(queue, noise, self.rtt, now) {
            Some(Verdict::Yielded) => self.compete(delay, now),
            Some(Verdict::Kept) | None => {}
        }
        if queue < self.target {
            self.above = None;
        } else {
            self.above.get_or_insert(now);
        }
        self.step(overflows, noise, delay, now);
    }

    /// Asked for each bulk frame at the entrance: true if this one shall be marked, or dropped if
    /// it cannot be.
    #[inline]
    #[must_use]
    pub fn take_signal(&mut self, now: Time) -> bool {
        self.overflow.frame();
        self.witness.frame();
        self.spared = self.spared.saturating_add(1);
        match self.state {
            State::Quiet => self.pass.take(self.rtt, now),
            State::Signalling { .. } if self.is_unheard(now) => {
                self.forget();
                false
            }
            State::Signalling { .. } => now >= self.next && self.signal(now),
            State::Competing { .. } => {
                let pass = self.pass.take(self.rtt, now);
                if pass {
                    self.witness.signal(now);
                }
                pass
            }
        }
    }

    /// Whether no report has come for so long that nothing is known of the queue now.
    fn is_unheard(&self, now: Time) -> bool {
        self.reported_at
            .is_none_or(|at| now.since(at) > self.interval)
    }

    /// A queue stands only while reports say so without a gap: what was known before one is of a
    /// queue that has drained in the silence.
    fn forget(&mut self) {
        self.above = None;
        if matches!(self.state, State::Signalling { .. }) {
            self.state = State::Quiet;
        }
    }

    fn signal(&mut self, now: Time) -> bool {
        // After a failed attempt each signal says whether there is any use in another.
        let must_wait = self.attempts > 0 && self.witness.is_watching();
        if self.is_falling || must_wait || self.spared <= SPARED_MIN {
            return false;
        }
        self.spared = 0;
        self.signals = self.signals.saturating_add(1);
        let mut wait = self.effect_time().as_secs_f64();
        if self.signals > 1 {
            let queue = self.queue.as_secs_f64().max(1e-6);
            let urgency = (2.0 * self.target.as_secs_f64() / queue).min(1.0);
            wait *= urgency / f64::from(self.signals).sqrt();
        }
        self.next = now + Duration::from_secs_f64(wait);
        self.witness.signal(now);
        true
    }

    /// Until a signal's effect on the queue is known.
    fn effect_time(&self) -> Duration {
        self.interval + self.rtt * 3 / 2 + Duration::from_millis(20)
    }

    fn target_for(&self, delay: &QueueDelay, noise: Duration, now: Time) -> Duration {
        let mut target = TARGET.max(self.rtt / TARGET_OF_RTT);
        if let Some(limit) = self.overflow.limit(now) {
            target = target.min(limit / 2);
        }
        // Others would only take what we drain.
        if self.attempts == 0 {
            let since_empty = delay.since_empty(noise.max(EMPTY), now).unwrap_or_default();
            let left = DRAIN_BEFORE - since_empty.as_secs_f64();
            target = target.mul_f64((left / (DRAIN_BEFORE - DRAIN_AFTER)).clamp(0.1, 1.0));
        }
        target.max(noise)
    }

    fn falls_below_target(&self, delay: &QueueDelay) -> bool {
        let gradient = delay.gradient().unwrap_or(0.0);
        let then = self.queue.as_secs_f64() + gradient * self.effect_time().as_secs_f64();
        then < self.target.as_secs_f64()
    }

    fn step(&mut self, overflows: bool, noise: Duration, delay: &QueueDelay, now: Time) {
        match self.state {
            State::Quiet => self.step_quiet(overflows, now),
            State::Signalling {
                since,
                queue,
                fruitless,
            } => {
                if self.queue < self.target {
                    self.ended = Some((now, self.signals));
                    self.state = State::Quiet;
                } else if now.since(since) >= self.interval * 3 {
                    let stands = self.queue >= (queue * 3 / 4).max(self.target * 2);
                    let fruitless = if stands { fruitless + 1 } else { 0 };
                    self.watch(fruitless, now);
                    if fruitless >= FRUITLESS_MAX {
                        self.compete(delay, now);
                    }
                }
            }
            State::Competing { until, empty } => {
                // Whoever holds a queue keeps it from emptying; jitter lifts single reports.
                let recent = empty.filter(|(_, last)| now.since(*last) < self.interval);
                let empty = if self.queue < noise.max(EMPTY) {
                    Some((recent.map_or(now, |(since, _)| since), now))
                } else {
                    recent
                };
                if empty.is_some_and(|(since, _)| now.since(since) >= self.interval * 3) {
                    self.attempts = 0;
                    self.state = State::Quiet;
                } else if now >= until {
                    self.state = State::Quiet;
                } else {
                    self.state = State::Competing { until, empty };
                }
            }
        }
        // An attempt that has lasted was a success.
        if !self.is_competing() && now.since(self.competed_at) >= self.hold() {
            self.attempts = 0;
        }
        if self.is_competing() {
            self.competed_at = now;
        }
    }

    fn step_quiet(&mut self, overflows: bool, now: Time) {
        let stands = self
            .above
            .is_some_and(|since| now.since(since) >= self.interval);
        if stands || overflows && self.queue >= self.target {
            // As CoDel: a spell soon after another goes on where that one was.
            let recent = self
                .ended
                .filter(|(at, _)| now.since(*at) < self.interval * 8);
            self.signals = recent.map_or(0, |(_, signals)| signals.saturating_sub(2));
            self.next = now;
            self.watch(0, now);
        } else if overflows {
            // A full queue that looks short: the base is wrong, and others made it so.
            self.pass.note(u32::from(self.pass.due == 0), now);
        }
    }

    fn watch(&mut self, fruitless: u32, now: Time) {
        self.state = State::Signalling {
            since: now,
            queue: self.queue,
            fruitless,
        };
    }

    fn compete(&mut self, delay: &QueueDelay, now: Time) {
        let (empty, waited_until) = match self.state {
            State::Competing { until, empty } => (empty, until),
            _ => {
                self.attempts = (self.attempts + 1).min(ATTEMPTS_MAX);
                self.pass.due = 0;
                self.pass.excused = (self.pass.excused + self.signals).min(EXCUSED_MAX);
                (None, now)
            }
        };
        let until = waited_until.max(now + self.hold());
        self.state = State::Competing { until, empty };
        if self.floor.is_none() {
            self.floor = delay.base_us(now).map(|base| (base, now));
        }
    }

    fn hold(&self) -> Duration {
        COMPETE_FOR * 3u32.pow(self.attempts.clamp(1, ATTEMPTS_MAX) - 1)
    }

    /// How much of the queue others have hidden in the base by never letting it empty.
    fn hidden(&mut self, delay: &QueueDelay, now: Time) -> Duration {
        let (Some((floor, seen_at)), Some(base)) = (self.floor, delay.base_us(now)) else {
            return Duration::ZERO;
        };
        let age = now.since(seen_at);
        let drifted = floor.saturating_add((age.as_micros() / DRIFT) as i64);
        let above = u64::try_from(base.saturating_sub(drifted)).unwrap_or(0);
        let above = Duration::from_micros(above);
        if above <= EMPTY / 2 {
            self.floor = (self.attempts > 0).then_some((base, now));
            return Duration::ZERO;
        }
        if age > FLOOR_FOR {
            self.floor = None;
            return Duration::ZERO;
        }
        above
    }
}
