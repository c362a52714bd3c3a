//! How busy a poller is: for the plan, which lets crypto units have less to do before they drop anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardgate_core::plan::LoadMeter;
use shardgate_core::time::Time;

/// How the kernel tells a thread how long it ran and how long it waited for a CPU, in nanoseconds
/// (proc(5), Documentation/scheduler/sched-stats).
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";

/// A load that others may read: in thousandths, and when it was taken.
#[derive(Debug, Default)]
pub struct SharedLoad {
    permille: AtomicU64,
    taken_at: AtomicU64,
}

impl SharedLoad {
    /// Tells of a load; only its lcore does that.
    pub fn store(&self, permille: u16, now: Time) {
        self.permille.store(permille.into(), Ordering::Relaxed);
        self.taken_at.store(now.as_nanos(), Ordering::Release);
    }

    /// The last one, and when it was taken; none before the first.
    pub fn load(&self) -> Option<(u16, Time)> {
        let taken_at = self.taken_at.load(Ordering::Acquire);
        let permille = self.permille.load(Ordering::Relaxed);
        (taken_at > 0).then_some((permille as u16, Time(taken_at)))
    }
}

/// Where it is told how long a thread waited for its CPU.
#[derive(Debug)]
enum Waiting {
    /// It has one of its own, and does not wait.
    Never,
    /// To be opened by the thread itself.
    NotOpened,
    Told(File),
    /// The kernel does not say: then nothing can be said of the load.
    Unknown,
}

impl Waiting {
    /// How long the calling thread has waited in all.
    fn so_far(&mut self) -> Option<Duration> {
        if matches!(self, Self::NotOpened) {
            *self = File::open(SCHEDSTAT).map_or(Self::Unknown, Self::Told);
        }
        match self {
            Self::Never => Some(Duration::ZERO),
            Self::Told(file) => {
                let mut text = [0; 64];
                let len = file.read_at(&mut text, 0).ok()?;
                waited(text.get(..len)?)
            }
            Self::NotOpened | Self::Unknown => None,
        }
    }
}

/// The second of three numbers.
fn waited(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let nanos = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Measures the load of the lcore it runs on.
#[derive(Debug)]
pub struct Load {
    meter: LoadMeter,
    waiting: Waiting,
}

impl Load {
    /// For an lcore that may share its CPU, or not.
    pub fn new(shares_cpu: bool) -> Self {
        Self {
            meter: LoadMeter::default(),
            waiting: if shares_cpu {
                Waiting::NotOpened
            } else {
                Waiting::Never
            },
        }
    }

    /// Whether the lcore has a CPU of its own.
    pub fn has_own_cpu(&self) -> bool {
        matches!(self.waiting, Waiting::Never)
    }

    /// Tells `shared` of the load now and then. `busy` is how long the lcore's rounds with work took so
    /// far. To be called about once a millisecond, by the lcore itself.
    pub fn look(&mut self, now: Time, busy: Duration, shared: &SharedLoad) {
        if !self.meter.is_due(now) {
            return;
        }
        let waited = self.waiting.so_far();
        let permille = waited.and_then(|waited| self.meter.look(now, busy, waited));
        if let Some(permille) = permille {
            shared.store(permille, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_long_a_thread_waited() {
        assert_eq!(waited(b"12 34567 8\n"), Some(Duration::from_nanos(34_567)));
        for wrong in [&b""[..], b"12", b"12 x 8", b"12 -1 8", b"\xff \xff 8"] {
            assert_eq!(waited(wrong), None);
        }
        let mut waiting = Waiting::NotOpened;
        let first = waiting.so_far().expect("this kernel tells");
        assert!(waiting.so_far() >= Some(first), "it only grows");
    }

    #[test]
    fn a_slow_unit_is_told_as_busy_and_an_idle_one_is_not() {
        let (mut load, shared) = (Load::new(false), SharedLoad::default());
        assert_eq!(shared.load(), None);
        // A hundred packets a millisecond: at first 2 us each, then 9.
        let mut busy = Duration::ZERO;
        let mut run = |from: u64, us: u64| {
            for ms in from..from + 500 {
                busy += Duration::from_micros(100 * us);
                load.look(Time(ms * 1_000_000), busy, &shared);
            }
            shared.load().expect("it was taken")
        };
        for (from, us, expected) in [(1, 2, 200), (501, 9, 900), (1_001, 0, 0)] {
            let (permille, taken_at) = run(from, us);
            assert!(permille.abs_diff(expected) <= 1, "{permille} of {expected}");
            assert!(Time((from + 499) * 1_000_000).since(taken_at) < Duration::from_millis(20));
        }
    }
}
