//! How an lcore waits: busy, or so that several pollers share a CPU without starving each other.

use std::time::Duration;

use shardgate_core::time::Time;

use crate::config::PollMode;

/// Traffic this recent keeps an adaptive poller awake. Staying awake for a millisecond instead
/// cost a fifth of the throughput, and more than half with crypto lcores, on CPUs that hosts and
/// gateways share: who yields still takes its turn.
const AWAKE_AFTER_TRAFFIC: Duration = Duration::from_micros(50);

/// How long an adaptive poller sleeps between looks; sleeping less costs more than it gains.
const SLEEP: Duration = Duration::from_micros(50);

/// Timers of this process may be late by so much; Linux's default of 50 µs would double the sleep.
const TIMER_SLACK_NS: &str = "1000";

/// Lets the threads that are started from now on sleep as exactly as the kernel can.
///
/// Without permission the kernel's default stays, which costs latency and nothing else.
pub fn tighten_timers() {
    if let Err(error) = std::fs::write("/proc/self/timerslack_ns", TIMER_SLACK_NS) {
        tracing::debug!(%error, "timer slack stays as it is");
    }
}

/// What an lcore does between two rounds of its loop.
pub struct Idler {
    mode: PollMode,
    last_traffic: Time,
}

impl Idler {
    /// An idler that has seen no traffic.
    pub fn new(mode: PollMode) -> Self {
        Self {
            mode,
            last_traffic: Time::ZERO,
        }
    }

    /// After a round at `now` that moved packets, or did not.
    #[inline]
    pub fn after_round(&mut self, now: Time, moved_packets: bool) {
        if moved_packets {
            self.last_traffic = now;
        }
        match self.mode {
            PollMode::Busy => std::hint::spin_loop(),
            PollMode::Adaptive if moved_packets => {}
            PollMode::Adaptive if now.since(self.last_traffic) < AWAKE_AFTER_TRAFFIC => {
                std::thread::yield_now();
            }
            PollMode::Adaptive => std::thread::sleep(SLEEP),
        }
    }
}
