//! When the loop may sleep.
//!
//! Busy polling of several programs on few CPUs starves all of them, sleeping costs latency, and
//! yielding to a program that computes costs a whole time slice, milliseconds. So:
//!
//! | after a look | the loop |
//! |---|---|
//! | that found or sent something | looks again at once |
//! | with a departure within 120 µs | yields: a sleep could end too late |
//! | with a later departure ahead | sleeps 50 µs: arrivals can wait, and it keeps its claim to the CPU |
//! | with nothing held, traffic within the last millisecond | yields |
//! | else | sleeps 50 µs |

use std::fs;
use std::time::Duration;

use shardgate_core::time::Time;

use crate::config::PollMode;

/// For how long after the last packet the loop yields instead of sleeping.
const AWAKE: Duration = Duration::from_millis(1);
/// One sleep. A sleep under 50 µs costs more CPU and is no earlier.
const SLEEP: Duration = Duration::from_micros(50);
/// The longest that a sleep takes with its timer slack and the way back to a CPU, mostly.
const SLEEP_TAKES: Duration = Duration::from_micros(120);
/// The kernel may end a sleep so much later; the default is 50 µs.
const TIMER_SLACK_NS: &str = "1000";

/// Decides between two looks at the queues.
#[derive(Debug)]
pub(super) struct Pacer {
    mode: PollMode,
    last_traffic: Time,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Poll,
    Yield,
    Sleep,
}

impl Pacer {
    pub fn new(mode: PollMode) -> Self {
        if mode == PollMode::Adaptive {
            tighten_timer_slack();
        }
        Self {
            mode,
            last_traffic: Time::ZERO,
        }
    }

    /// Waits as long as nobody misses anything: `next` is the next departure, `traffic` whether
    /// this look found or sent anything.
    pub fn wait(&mut self, now: Time, traffic: bool, next: Option<Time>) {
        match self.step(now, traffic, next) {
            Step::Poll => (),
            Step::Yield => std::thread::yield_now(),
            Step::Sleep => std::thread::sleep(SLEEP),
        }
    }

    fn step(&mut self, now: Time, traffic: bool, next: Option<Time>) -> Step {
        if self.mode == PollMode::Busy {
            return Step::Poll;
        }
        if traffic {
            // More may have come meanwhile; yielding now would cost a time slice of somebody else.
            self.last_traffic = now;
            return Step::Poll;
        }
        let awake = match next {
            Some(departure) => departure <= now + SLEEP_TAKES,
            None => now.since(self.last_traffic) < AWAKE,
        };
        if awake { Step::Yield } else { Step::Sleep }
    }
}

/// Lets this thread's sleeps end in time. Where the kernel refuses, they are 50 µs longer.
fn tighten_timer_slack() {
    // A link of the form `pid/task/tid`; the file is in the thread's own folder of /proc.
    let thread = fs::read_link("/proc/thread-self").ok();
    let tid = thread.as_deref().and_then(|path| path.file_name());
    if let Some(tid) = tid.and_then(|tid| tid.to_str())
        && let Err(error) = fs::write(format!("/proc/{tid}/timerslack_ns"), TIMER_SLACK_NS)
    {
        tracing::debug!("timer slack stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_only_when_nothing_happens_and_nothing_is_due() {
        let mut pacer = Pacer::new(PollMode::Adaptive);
        let start = Time(1_000_000_000);
        assert_eq!(pacer.step(start, true, None), Step::Poll);
        let soon = start + Duration::from_micros(999);
        assert_eq!(pacer.step(soon, false, None), Step::Yield);
        let far = Some(soon + SLEEP_TAKES + Duration::from_nanos(1));
        assert_eq!(pacer.step(soon, false, far), Step::Sleep);
        let near = Some(soon + SLEEP_TAKES);
        assert_eq!(pacer.step(soon, false, near), Step::Yield);
        let idle = start + Duration::from_millis(1);
        assert_eq!(pacer.step(idle, false, None), Step::Sleep);
        assert_eq!(pacer.step(idle, false, Some(Time::ZERO)), Step::Yield);
        assert_eq!(
            Pacer::new(PollMode::Busy).step(idle, false, None),
            Step::Poll
        );
    }

    #[test]
    fn timer_slack_is_this_threads_own() {
        std::thread::spawn(|| {
            tighten_timer_slack();
            let own = fs::read_link("/proc/thread-self").expect("proc");
            let tid = own
                .file_name()
                .expect("a thread")
                .to_string_lossy()
                .into_owned();
            match fs::read_to_string(format!("/proc/{tid}/timerslack_ns")) {
                Ok(slack) => assert_eq!(slack.trim(), TIMER_SLACK_NS),
                Err(error) => eprintln!("skipped: no timer slack here: {error}"),
            }
        })
        .join()
        .expect("the thread");
    }
}
