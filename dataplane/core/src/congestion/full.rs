//! Is what is lost now lost to congestion?

use core::time::Duration;

use crate::estimate::QueueDelay;
use crate::time::Time;

/// Shortest and longest queue that counts as one that may be full, between them a quarter of the
/// shortest round trip: less is noise, or bursts.
const FULL_MIN: Duration = Duration::from_millis(1);
const FULL_MAX: Duration = Duration::from_millis(10);

/// A queue that was shorter within this time did not stand: a burst, or a hiccup.
const STANDING: Duration = Duration::from_millis(30);

/// Whether a path's queue is about as long as it has ever been of late: then it is full, or nearly,
/// and what is lost is lost to it, and not on the way. Half as long counts, because the longest may
/// be a hiccup of either gateway.
pub fn is_queue_full(queue: &QueueDelay, round_trip_min: Option<Duration>, now: Time) -> bool {
    let (Some(standing), Some(largest)) = (queue.standing(STANDING, now), queue.largest(now))
    else {
        return false;
    };
    let quarter = round_trip_min.map_or(FULL_MAX, |minimum| minimum / 4);
    standing >= quarter.clamp(FULL_MIN, FULL_MAX) && standing * 2 >= largest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_queue_is_full_near_its_longest() {
        let mut queue = QueueDelay::new();
        let rtt = Some(Duration::from_millis(40));
        let sample =
            |queue: &mut QueueDelay, ms: u64, delay_us| queue.sample(delay_us, delay_us, at(ms));
        assert!(!is_queue_full(&queue, rtt, at(0)), "nothing is known");
        sample(&mut queue, 0, 1_000);
        sample(&mut queue, 10, 41_000);
        assert!(!is_queue_full(&queue, rtt, at(10)), "it may be a hiccup");
        sample(&mut queue, 30, 31_000);
        sample(&mut queue, 50, 34_000);
        assert!(is_queue_full(&queue, rtt, at(50)));
        sample(&mut queue, 60, 15_000);
        assert!(!is_queue_full(&queue, rtt, at(60)), "it drains");
    }

    #[test]
    fn a_short_queue_is_full_only_on_a_short_path() {
        let mut queue = QueueDelay::new();
        queue.sample(0, 0, at(0));
        queue.sample(2_000, 2_000, at(50));
        let is_full = |rtt_ms| is_queue_full(&queue, rtt_ms, at(50));
        assert!(!is_full(Some(Duration::from_millis(40))));
        assert!(is_full(Some(Duration::from_millis(2))));
        assert!(!is_full(None));
    }
}
