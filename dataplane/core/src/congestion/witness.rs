//! Whether others share the bottleneck.

use core::time::Duration;

use crate::time::Time;

/// Reports remembered: 1.3 s of them at the shortest interval, 32 round trips on long paths.
const LOOKS: usize = 128;
/// Throughput is compared over at least this, or two round trips: a sender's bursts even out.
const WINDOW_MIN: Duration = Duration::from_millis(150);
/// A queue shorter than this may have been empty between two reports.
const STANDS_MIN: Duration = Duration::from_millis(1);
/// Throughput after a signal, to that before it, from which on others have taken the difference.
/// One flow of two equal ones that backs off by 30 % (CUBIC, RFC 9438) is left with 82 %.
const YIELDED: f64 = 0.85;
/// A series of signals that follow each other this closely is compared with what was before it.
const SERIES: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default)]
struct Look {
    at: Time,
    /// Frames sent until then.
    frames: u64,
    /// Queue delay, seconds.
    queue: f64,
}

/// What a signal has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The queue stood and our throughput fell: what we gave up, others took.
    Yielded,
    /// The queue stood and our throughput with it: nobody else is there, or all backed off.
    Kept,
}

/// Watches what signals do to our throughput while the queue stands.
///
/// A bottleneck whose queue stands works at its full rate. If it is ours alone, frames leave it as
/// fast after a signal as before: only the queue shrinks. If others share it, our signal is their
/// gain. So frames sent over time plus the change of queue delay in that time is our share of the
/// bottleneck, whatever our senders' windows do.
#[derive(Clone, Debug)]
pub struct Witness {
    looks: [Look; LOOKS],
    next: usize,
    frames: u64,
    /// When the signal was sent whose effect is being watched.
    signal_at: Option<Time>,
    /// The best throughput before a signal of this series, and when it was.
    best: Option<(f64, Time)>,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            looks: [Look::default(); LOOKS],
            next: 0,
            frames: 0,
            signal_at: None,
            best: None,
        }
    }
}

impl Witness {
    /// A bulk frame is on its way.
    pub fn frame(&mut self) {
        self.frames = self.frames.wrapping_add(1);
    }

    /// A signal was sent. One at a time is watched.
    pub fn signal(&mut self, now: Time) {
        self.signal_at.get_or_insert(now);
    }

    /// Whether the effect of a signal is still to be seen.
    pub fn is_watching(&self) -> bool {
        self.signal_at.is_some()
    }

    /// A report; what the watched signal has cost, once its effect can be seen and if the queue
    /// stood meanwhile. `noise`: how far one report's queue delay may be wrong.
    pub fn report(
        &mut self,
        queue: Duration,
        noise: Duration,
        rtt: Duration,
        now: Time,
    ) -> Option<Verdict> {
        if let Some(slot) = self.looks.get_mut(self.next % LOOKS) {
            *slot = Look {
                at: now,
                frames: self.frames,
                queue: queue.as_secs_f64(),
            };
        }
        self.next = self.next.wrapping_add(1);
        let signal_at = self.signal_at?;
        // A round trip until the sender knows, another until its new pace has shown.
        let (settled, window) = (signal_at + rtt * 2, (rtt * 2).max(WINDOW_MIN));
        if now < settled + window {
            return None;
        }
        self.signal_at = None;
        let least = noise.max(STANDS_MIN).as_secs_f64();
        let before = self.throughput(signal_at - window, signal_at, least);
        let best = self.best.filter(|best| now.since(best.1) < SERIES);
        if before.is_some_and(|before| best.is_none_or(|best| before > best.0)) {
            self.best = before.map(|before| (before, signal_at));
        } else {
            self.best = best;
        }
        self.throughput(signal_at, now, least)?;
        let after = self.throughput(settled, now, least)?;
        let (before, _) = self.best?;
        Some(if after < before * YIELDED {
            Verdict::Yielded
        } else {
            Verdict::Kept
        })
    }

    /// Frames a second that the bottleneck took from us; unknown if the queue was ever below
    /// `least` seconds, or if too little of the time was seen.
    fn throughput(&self, from: Time, to: Time, least: f64) -> Option<f64> {
        let known = self.next.min(LOOKS);
        let in_order = (0..known).filter_map(|age| self.looks.get((self.next - 1 - age) % LOOKS));
        let mut newest = None;
        let mut oldest = None;
        for look in in_order.filter(|look| look.at >= from && look.at <= to) {
            if look.queue < least {
                return None;
            }
            newest.get_or_insert(*look);
            oldest = Some(*look);
        }
        let (newest, oldest) = (newest?, oldest?);
        let seen = newest.at.since(oldest.at);
        if seen < to.since(from) * 2 / 5 {
            return None;
        }
        let worked = seen.as_secs_f64() + newest.queue - oldest.queue;
        let frames = newest.frames.wrapping_sub(oldest.frames);
        (worked > 0.0).then(|| frames as f64 / worked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const RTT: Duration = Duration::from_millis(40);

    /// Reports each 10 ms; frames and queue delay (ms) of each from its number. A signal at 1 s.
    fn watch(frames: fn(u64) -> u64, queue: fn(u64) -> u64) -> Option<Verdict> {
        let mut witness = Witness::default();
        let mut verdict = None;
        for n in 1..200 {
            (0..frames(n)).for_each(|_| witness.frame());
            let now = Time::ZERO + MS(10 * n);
            if n == 100 {
                witness.signal(now);
            }
            verdict = verdict.or(witness.report(MS(queue(n)), MS(0), RTT, now));
        }
        assert!(!witness.is_watching());
        verdict
    }

    #[test]
    fn what_leaves_the_queue_is_no_loss_of_throughput() {
        // The sender pauses for 10 ms after a round trip, and the queue shrinks by as much.
        let queue = |n| if n < 105 { 30 } else { 20 };
        let pause = |n| if n == 105 { 0 } else { 100 };
        assert_eq!(watch(pause, queue), Some(Verdict::Kept));
    }

    #[test]
    fn a_queue_that_stands_while_we_slow_down_is_others() {
        let slower = |n| if n < 105 { 100 } else { 80 };
        assert_eq!(watch(slower, |_| 30), Some(Verdict::Yielded));
    }

    #[test]
    fn an_empty_queue_says_nothing() {
        let slower = |n| if n < 105 { 100 } else { 50 };
        assert_eq!(watch(slower, |n| u64::from(n < 105) * 30), None);
    }

    #[test]
    fn small_steps_add_up() {
        let mut witness = Witness::default();
        let mut verdicts = vec![];
        for n in 1..400u64 {
            // 6 % less after each signal.
            let signals = (n / 60).min(4) as i32;
            (0..(1_000.0 * 0.94f64.powi(signals)) as u64).for_each(|_| witness.frame());
            let now = Time::ZERO + MS(10 * n);
            if n % 60 == 0 && n <= 240 {
                witness.signal(now);
            }
            verdicts.extend(witness.report(MS(30), MS(0), RTT, now));
        }
        assert_eq!(
            verdicts,
            [
                Verdict::Kept,
                Verdict::Kept,
                Verdict::Yielded,
                Verdict::Yielded
            ]
        );
    }
}
