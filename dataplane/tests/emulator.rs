//! The emulator on real DPDK ports: drivers that receive without end and swallow what is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shardgate_dataplane::config::PollMode;
use shardgate_dataplane::emulator::{DirectionReport, EmulatorConfig, EmulatorError, run};
use shardgate_sim::path::PathProfile;

fn balance(report: &DirectionReport) {
    let dead = report.lost
        + report.queue_drops
        + report.mtu_drops
        + report.no_buffer_drops
        + report.tx_full_drops
        + report.held_at_end;
    assert_eq!(
        report.received + report.duplicated,
        report.sent + dead,
        "{report:?}"
    );
}

/// CPU time of this process in seconds: the emulator busy-polls, so this is how much it could do.
fn cpu_time() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let after_name = stat.rsplit(") ").next().expect("a command name");
    let ticks = |field: usize| {
        let text = after_name.split(' ').nth(field).expect("a field");
        text.parse::<f64>().expect("a number")
    };
    // utime and stime, proc(5).
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// One test, as EAL starts once in a process.
#[test]
fn frames_are_accounted_for_and_every_mbuf_comes_home() {
    let mut config = EmulatorConfig::new("net_null0", "net_null1");
    config.poll = PollMode::Busy;
    config.left_to_right = PathProfile {
        // Longer than a loaded machine keeps the emulator from its CPU: when it comes back it sends
        // all that has become due before it sees that it is to stop.
        delay_ms: 200.0,
        loss: 0.1,
        duplicate: 0.1,
        corrupt: 0.1,
        ..PathProfile::default()
    };
    config.held_frames = Some(20_000);
    // A queue that such a flood always overflows.
    config.right_to_left.rate = Some(10.0);

    let same = EmulatorConfig::new("net_null0,size=64", "net_null0");
    assert!(matches!(same.check(), Err(EmulatorError::SamePort(_))));
    let mut wrong = config.clone();
    wrong.right_to_left.loss = 2.0;
    let error = wrong.check().expect_err("a probability of 2").to_string();
    assert!(
        error.contains("right to left") && error.contains("loss"),
        "{error}"
    );

    let stop = Arc::new(AtomicBool::new(false));
    let stopper = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            // By what it could do, not by the clock: a loaded machine may take seconds to start it.
            let limit = Instant::now() + Duration::from_secs(60);
            while cpu_time() < 1.0 && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
        })
    };
    let report = run(&config, &stop).expect("the emulator runs");
    stopper.join().expect("the stopper");

    let (right, left) = (&report.left_to_right, &report.right_to_left);
    balance(right);
    balance(left);
    assert!(right.received > 1_000 && right.sent > 0, "{right:?}");
    assert!(
        right.lost > 0 && right.duplicated > 0 && right.corrupted > 0,
        "{right:?}"
    );
    assert!(right.held_at_end > 0, "200 ms of frames are on the way");
    assert!(left.queue_drops > 0, "{left:?}");
    assert!(right.queue.is_none(), "no rate, no queue");
    let queue = left.queue.as_ref().expect("a bottleneck");
    let samples = report.duration_s * 1e3 / queue.sample_ms;
    assert!(
        (queue.samples as f64 - samples).abs() < 3.0,
        "{queue:?} in {samples}"
    );
    assert_eq!(
        queue.window_frames.len(),
        queue.samples.div_ceil(10) as usize
    );
    // 100 frames wait and one is sent.
    assert_eq!(queue.frames.max, 101.0, "{queue:?}");
    assert!(report.duration_s > 0.1 && report.loops > 0);
    assert_eq!(shardgate_dpdk::leaked_pools(), 0);
}
