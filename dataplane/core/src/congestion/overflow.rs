//! Whether losses are the queue's doing.

use core::time::Duration;

use crate::time::Time;

/// How long a seen overflow bounds the target. Then the queue is let grow again, and if it still
/// overflows it says so.
const LIMIT_FOR: Duration = Duration::from_secs(30);
/// Time in which the loss rate of the empty queue is learned.
const LOSS_RATE_TIME: f64 = 3.0;
/// Variance of lost shards a report over that of independent losses, for bursts of three: the
/// mean burst of Gilbert's channel enters as 2B - 1.
const BURST_VARIANCE: f64 = 5.0;

/// Tells a queue that overflows from a radio that loses: an overflow happens with the queue near
/// its largest, and loses clearly more than the path does while its queue is short.
#[derive(Clone, Debug, Default)]
pub struct Overflow {
    /// Frames sent and shards lost since the last report.
    frames: u32,
    lost: u32,
    /// Losses a frame while the queue is short.
    loss_rate: f64,
    reported_at: Time,
    limit: Option<(Time, Duration)>,
}

impl Overflow {
    /// A bulk frame is on its way.
    pub fn frame(&mut self) {
        self.frames = self.frames.saturating_add(1);
    }

    /// Shards were lost on the path.
    pub fn lost(&mut self, lost: u32) {
        self.lost = self.lost.saturating_add(lost);
    }

    /// A report with the least queue delay in it, the largest of late, and what is too little to
    /// be told from no queue. True if the losses since the last report are an overflow.
    pub fn report(
        &mut self,
        queue: Duration,
        largest: Duration,
        noise: Duration,
        now: Time,
    ) -> bool {
        let (frames, lost) = (f64::from(self.frames), f64::from(self.lost));
        let expected = self.loss_rate * frames;
        let surprising = lost > expected + 3.0 * (BURST_VARIANCE * expected).sqrt() + 0.5;
        let overflows = surprising && queue >= noise && queue >= largest * 3 / 4;
        if overflows {
            self.limit = Some((now, largest));
        }
        if self.frames > 0 && (queue < noise || queue < largest / 2) {
            let passed = now.since(self.reported_at).as_secs_f64();
            let weight = 1.0 - (-passed / LOSS_RATE_TIME).exp();
            self.loss_rate += weight * (lost / frames - self.loss_rate);
        }
        self.reported_at = now;
        (self.frames, self.lost) = (0, 0);
        overflows
    }

    /// The queue delay at which the path's buffer overflows, if it did lately.
    pub fn limit(&self, now: Time) -> Option<Duration> {
        let (seen_at, limit) = self.limit?;
        (now.since(seen_at) < LIMIT_FOR).then_some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn report(overflow: &mut Overflow, lost: u32, queue: Duration, n: u64) -> bool {
        (0..170).for_each(|_| overflow.frame());
        overflow.lost(lost);
        overflow.report(queue, MS(40), MS(1), Time::ZERO + MS(10 * n))
    }

    #[test]
    fn losses_of_a_full_queue_are_an_overflow_and_name_its_size() {
        let mut overflow = Overflow::default();
        assert!(!report(&mut overflow, 0, MS(39), 1));
        assert!(
            !report(&mut overflow, 5, MS(20), 2),
            "the queue is half full"
        );
        assert_eq!(overflow.limit(Time::ZERO), None);
        let mut overflow = Overflow::default();
        assert!(report(&mut overflow, 1, MS(39), 3));
        assert_eq!(overflow.limit(Time::ZERO + MS(30_000)), Some(MS(40)));
        assert_eq!(overflow.limit(Time::ZERO + MS(30_030)), None);
    }

    #[test]
    fn a_lossy_radio_is_known_from_the_time_when_the_queue_was_short() {
        let mut overflow = Overflow::default();
        // 2 % in bursts of three or so, whatever the queue.
        let lost = |n: u64| [0, 3, 6, 0, 9, 2][n as usize % 6];
        assert!((0..1_000).all(|n| !report(&mut overflow, lost(n), MS(2), n)));
        assert!((1_000..1_100).all(|n| !report(&mut overflow, lost(n), MS(39), n)));
        assert!(report(&mut overflow, 40, MS(39), 1_101));
    }
}
