//! The time stamp counter, and a clock made from it.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use shardgate_core::time::Time;

use crate::eal::Eal;

static HZ: AtomicU64 = AtomicU64::new(0);

/// The cycle counter of this CPU; the same on all CPUs of a machine with an invariant TSC.
#[inline]
pub fn now_cycles() -> u64 {
    // SAFETY: the instruction has no precondition in user space.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    // SAFETY: reads a counter.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe {
        dpdk_sys::shim_tsc()
    }
}

/// Cycles per second, measured while EAL started; 0 before.
pub fn hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// One reading of both clocks at the same moment.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    cycles: u64,
    at: Instant,
}

impl Reading {
    /// The tightest of a few attempts, so that an interruption between the two clocks does no harm.
    pub(crate) fn take() -> Self {
        let attempt = || {
            let before = now_cycles();
            let at = Instant::now();
            let width = now_cycles().wrapping_sub(before);
            (
                width,
                Self {
                    cycles: before.wrapping_add(width / 2),
                    at,
                },
            )
        };
        (0..8)
            .map(|_| attempt())
            .min_by_key(|&(width, _)| width)
            .unwrap_or_else(attempt)
            .1
    }
}

/// Measures the counter against the system's clock from `start` on.
///
/// EAL's own figure is rounded to 10 MHz where the processor does not state its frequency (most
/// virtual machines), which is wrong by up to 0.4 %. `eal_hz` is kept if the two are further
/// apart than that rounding explains, for then it was the measurement that was disturbed.
pub(crate) fn calibrate(start: Reading, eal_hz: u64) {
    /// Over 100 ms the error of two readings (about 50 ns) is below one part in a million.
    const BASELINE_MIN: Duration = Duration::from_millis(100);
    std::thread::sleep(BASELINE_MIN.saturating_sub(start.at.elapsed()));
    let end = Reading::take();
    let cycles = u128::from(end.cycles.wrapping_sub(start.cycles));
    let nanos = end.at.duration_since(start.at).as_nanos().max(1);
    let measured = u64::try_from(cycles * 1_000_000_000 / nanos).unwrap_or(eal_hz);
    let plausible = measured.abs_diff(eal_hz) <= (eal_hz / 100).max(10_000_000);
    HZ.store(if plausible { measured } else { eal_hz }, Ordering::Relaxed);
}

/// Turns cycles into [`Time`] since the clock's start. Copies of one clock agree on all lcores.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    hz: u64,
    /// Nanoseconds per cycle, times 2^[`SHIFT`].
    multiplier: u64,
}

/// 2^-56 of rounding is 11 ns in ten years at 2.6 GHz, and the multiplier fits 64 bits for every
/// counter faster than 4 MHz. The product is taken in 128 bits, so it cannot overflow.
const SHIFT: u32 = 56;

impl Clock {
    /// A clock whose zero is now.
    pub fn start(_eal: &Eal) -> Self {
        Self::new(now_cycles(), hz())
    }

    fn new(start: u64, hz: u64) -> Self {
        let hz = hz.max(4_000_000);
        let multiplier = (1_000_000_000u128 << SHIFT) / u128::from(hz);
        Self {
            start,
            hz,
            multiplier: u64::try_from(multiplier).unwrap_or(u64::MAX),
        }
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Time {
        self.time(now_cycles())
    }

    /// The time of a reading of the counter; zero for one before the clock's start.
    #[inline]
    pub fn time(&self, cycles: u64) -> Time {
        let elapsed = u128::from(cycles.saturating_sub(self.start));
        Time(((elapsed * u128::from(self.multiplier)) >> SHIFT) as u64)
    }

    /// How long so many cycles take.
    pub fn span(&self, cycles: u64) -> Duration {
        let nanos = (u128::from(cycles) * u128::from(self.multiplier)) >> SHIFT;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many cycles a duration takes.
    pub fn cycles(&self, duration: Duration) -> u64 {
        let cycles = duration.as_nanos() * u128::from(self.hz) / 1_000_000_000;
        u64::try_from(cycles).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with exact arithmetic over ten years, at the frequencies of slow and fast counters.
    #[test]
    fn the_clock_does_not_drift() {
        let ten_years_s = 10 * 365 * 86_400u64;
        for hz in [24_000_000, 1_000_000_000, 2_596_140_000, 5_999_999_999] {
            let clock = Clock::new(17, hz);
            for seconds in [0, 1, 60, 86_400, ten_years_s] {
                let cycles = seconds * hz + hz / 3;
                let exact = u128::from(cycles) * 1_000_000_000 / u128::from(hz);
                let error = exact - u128::from(clock.time(17 + cycles).as_nanos());
                assert!(error <= 200, "{error} ns after {seconds} s at {hz} Hz");
            }
            assert_eq!(clock.time(16), Time::ZERO);
            assert_eq!(clock.cycles(Duration::from_secs(3)), 3 * hz);
            let span = clock.span(3 * hz).as_nanos();
            assert!((2_999_999_999..=3_000_000_000).contains(&span), "{span}");
        }
    }

    #[test]
    fn the_clock_is_monotonic_over_single_cycles() {
        let clock = Clock::new(0, 2_596_140_000);
        let times: Vec<u64> = (0..10_000)
            .map(|cycles| clock.time(cycles).as_nanos())
            .collect();
        assert!(times.is_sorted());
        assert_eq!(times[2_597], 1_000);
    }
}
