//! How busy crypto units are.
//!
//! A unit is busy for as long as it has something in hand, so a poller that finds nothing is idle,
//! however fast it spins. While it waits for its CPU it is not: where pollers share CPUs with all
//! else, whoever sends as fast as the machine can would make every one of them look busy, and repair
//! would go where it is needed most. The load is the share of a whole CPU that the unit works for.

use core::time::Duration;

use crate::time::Time;

/// How often the load is taken.
const EVERY: Duration = Duration::from_millis(20);

/// A time as long as this weighs as much as all before it: a CPU that is gone for 20 ms makes no
/// load, one that lasts for 100 ms does.
const MEMORY: Duration = Duration::from_millis(60);

/// The load of a unit, from what it has done in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadMeter {
    seen_at: Time,
    busy: Duration,
    waited: Duration,
    load: f64,
}

impl LoadMeter {
    /// Whether a look gives anything.
    pub fn is_due(&self, now: Time) -> bool {
        now.since(self.seen_at) >= EVERY
    }

    /// Takes how long the unit has had something in hand so far, and how long it was kept from its CPU.
    /// Now and then that gives a load, in thousandths; 1,000 at the most.
    pub fn look(&mut self, now: Time, busy: Duration, waited: Duration) -> Option<u16> {
        if !self.is_due(now) {
            return None;
        }
        let passed = now.since(self.seen_at);
        let waited_now = waited.saturating_sub(self.waited).min(passed);
        // Waiting in the middle of work looks like work. All of it is taken for that: a load that
        // is told too low does less harm than repair that goes for nothing.
        let worked = busy.saturating_sub(self.busy).saturating_sub(waited_now);
        (self.seen_at, self.busy, self.waited) = (now, busy, waited);
        let share = (worked.as_secs_f64() / passed.as_secs_f64()).min(1.0);
        let weight = passed.as_secs_f64() / (passed + MEMORY).as_secs_f64();
        self.load += weight * (share - self.load);
        Some((self.load * 1e3).round() as u16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks each millisecond; each of them so much work, so much waiting.
    fn after(meter: &mut LoadMeter, from_ms: u64, ms: u64, busy_us: u64, waited_us: u64) -> u16 {
        let (busy, waited) = (meter.busy, meter.waited);
        let mut last = 0;
        for step in 1..=ms {
            let told = meter.look(
                Time((from_ms + step) * 1_000_000),
                busy + Duration::from_micros(step * busy_us),
                waited + Duration::from_micros(step * waited_us),
            );
            last = told.unwrap_or(last);
        }
        last
    }

    #[test]
    fn a_load_is_seen_within_a_tenth_of_a_second_and_gone_as_soon() {
        let mut meter = LoadMeter::default();
        assert_eq!(after(&mut meter, 0, 1_000, 300, 0), 300);
        let rising = after(&mut meter, 1_000, 100, 1_000, 0);
        assert!((800..900).contains(&rising), "{rising}");
        let more = after(&mut meter, 1_100, 400, 1_000, 0);
        assert!(more >= 995, "{more}");
        assert!(after(&mut meter, 1_500, 400, 0, 0) <= 5);
    }

    #[test]
    fn who_waits_for_a_cpu_does_not_work() {
        // Busy for 200 us in each millisecond, and kept from it for 500 in the middle of that.
        let mut meter = LoadMeter::default();
        assert_eq!(after(&mut meter, 0, 2_000, 700, 500), 200);
        // Kept from it while idle.
        assert_eq!(after(&mut meter, 2_000, 2_000, 200, 500), 0);
        // All that it gets is work, and that is half a CPU.
        assert_eq!(after(&mut meter, 4_000, 2_000, 1_000, 500), 500);
    }

    #[test]
    fn one_stall_is_no_load() {
        let mut meter = LoadMeter::default();
        after(&mut meter, 0, 1_000, 100, 0);
        let stalled = after(&mut meter, 1_000, 20, 1_000, 0);
        assert!(stalled < 400, "{stalled}");
    }

    proptest! {
        #[test]
        fn it_is_a_share_whatever_is_told(
            looks in prop::collection::vec(any::<(u32, u64, u64)>(), 1..50),
        ) {
            let (mut meter, mut now) = (LoadMeter::default(), Time::ZERO);
            for (later, busy, waited) in looks {
                now += Duration::from_nanos(later.into());
                let (busy, waited) = (Duration::from_nanos(busy), Duration::from_nanos(waited));
                if let Some(load) = meter.look(now, busy, waited) {
                    prop_assert!(load <= 1_000);
                }
            }
        }
    }
}
