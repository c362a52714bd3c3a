use core::time::Duration;

use proptest::prelude::*;

use super::QueueControl;
use super::model::{First, Outcome, Scenario};
use crate::estimate::QueueDelay;
use crate::time::Time;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Megabits a second and round trip in milliseconds.
fn path(rate: u64, rtt: u64) -> Scenario {
    Scenario {
        rate_bps: rate * 1_000_000,
        rtt: MS(rtt),
        ..Scenario::default()
    }
}

fn plain(scenario: Scenario) -> Outcome {
    let tunnel = false;
    Scenario { tunnel, ..scenario }.run()
}

/// Megabits a second, round trip in milliseconds, buffer in multiples of both, flows in the tunnel.
type Bottleneck = (u64, u64, f64, usize);

/// The tunnel's flows alone, from `warm` to `secs` seconds: half the queue of plain flows, 95 % of
/// their goodput.
fn halves_the_queue(bottlenecks: &[Bottleneck], warm: u64, secs: u64) {
    for &(rate, rtt, buffer_bdp, controlled) in bottlenecks {
        let scenario = Scenario {
            buffer_bdp,
            controlled,
            warm,
            secs,
            ..path(rate, rtt)
        };
        let (plain, tunnel) = (plain(scenario), scenario.run());
        let said = format!("{scenario:?}\nplain {plain:?}\ntunnel {tunnel:?}");
        assert!(tunnel.mean_queue <= plain.mean_queue / 2.0, "{said}");
        assert!(tunnel.goodput >= 0.95 * plain.goodput, "{said}");
        assert!(tunnel.path_loss < 0.02, "{said}");
    }
}

#[test]
fn halves_the_queue_of_one_flow() {
    let bottlenecks = [
        (10, 40, 1.0, 1),
        (200, 40, 1.0, 1),
        (1_000, 40, 1.0, 1),
        (200, 2, 20.0, 1),
    ];
    halves_the_queue(&bottlenecks, 20, 60);
}

#[test]
fn halves_the_queue_of_several_flows() {
    let bottlenecks = [
        (10, 40, 1.0, 2),
        (10, 40, 1.0, 8),
        (200, 40, 1.0, 8),
        (1_000, 40, 1.0, 8),
        (200, 10, 4.0, 8),
        (200, 2, 20.0, 8),
    ];
    halves_the_queue(&bottlenecks, 20, 60);
}

#[test]
fn halves_the_queue_of_long_paths() {
    let bottlenecks = [
        (50, 100, 1.0, 1),
        (50, 100, 1.0, 8),
        (50, 200, 1.0, 1),
        (50, 300, 1.0, 1),
        (50, 300, 1.0, 8),
    ];
    halves_the_queue(&bottlenecks, 30, 120);
}

#[test]
fn a_buffer_shorter_than_the_target_is_found_and_its_queue_not_longer_than_without() {
    for (rate, rtt, buffer_bdp) in [
        (200, 40, 0.3),
        (50, 20, 0.3),
        (200, 10, 1.0),
        (1_000, 2, 1.0),
    ] {
        let scenario = Scenario {
            buffer_bdp,
            secs: 40,
            warm: 10,
            ..path(rate, rtt)
        };
        let (plain, tunnel) = (plain(scenario), scenario.run());
        let said = format!("{scenario:?}\nplain {plain:?}\ntunnel {tunnel:?}");
        assert!(tunnel.mean_queue <= plain.mean_queue, "{said}");
        assert!(tunnel.goodput >= 0.95 * plain.goodput, "{said}");
        assert!(tunnel.path_loss < 0.01, "{said}");
    }
}

#[test]
fn a_sender_that_overshoots_is_told_before_repair_has_hidden_it_for_long() {
    for buffer_bdp in [1.0, 4.0] {
        let scenario = Scenario {
            buffer_bdp,
            hystart: false,
            warm: 0,
            secs: 20,
            ..path(200, 40)
        };
        let tunnel = scenario.run();
        assert!(
            tunnel.path_loss < 0.03 && tunnel.unrepaired < 0.02,
            "{tunnel:?}"
        );
        assert!(tunnel.goodput > 0.9, "{tunnel:?}");
    }
}

#[test]
fn shares_with_a_plain_flow() {
    for (rate, rtt) in [(50, 20), (20, 40), (200, 10)] {
        for first in [First::Nobody, First::Tunnel, First::Others] {
            let scenario = Scenario {
                plain: 1,
                first,
                secs: 65,
                warm: 10,
                ..path(rate, rtt)
            };
            let tunnel = scenario.run();
            assert!(
                (0.35..=0.65).contains(&tunnel.share),
                "{scenario:?}\n{tunnel:?}"
            );
        }
    }
}

/// CUBIC itself takes minutes to share evenly here: two plain ones are at 0.36 to 0.62 after one.
#[test]
fn is_not_pushed_out_where_sharing_takes_long() {
    for first in [First::Nobody, First::Tunnel, First::Others] {
        let scenario = Scenario {
            plain: 1,
            first,
            secs: 65,
            warm: 10,
            ..path(200, 40)
        };
        let tunnel = scenario.run();
        assert!(
            (0.3..=0.65).contains(&tunnel.share),
            "{scenario:?}\n{tunnel:?}"
        );
    }
}

#[test]
fn many_flows_leave_room_for_a_single_plain_one() {
    let scenario = Scenario {
        plain: 1,
        controlled: 4,
        secs: 65,
        warm: 10,
        ..path(20, 40)
    };
    let tunnel = scenario.run();
    assert!((0.6..=0.88).contains(&tunnel.share), "{tunnel:?}");
}

#[test]
fn controls_the_queue_again_when_others_have_gone() {
    let scenario = Scenario {
        plain: 1,
        plain_until: 30,
        secs: 90,
        warm: 45,
        ..path(50, 20)
    };
    let tunnel = scenario.run();
    let alone = plain(Scenario {
        plain: 0,
        ..scenario
    });
    assert!(
        tunnel.mean_queue < 0.75 * alone.mean_queue,
        "{tunnel:?} {alone:?}"
    );
    let during = Scenario {
        secs: 30,
        warm: 10,
        ..scenario
    }
    .run();
    assert!(
        during.competing > 0.5 && tunnel.competing < 0.5,
        "{during:?} {tunnel:?}"
    );
}

#[test]
fn a_lossy_radio_is_signalled_no_more_than_a_clean_one() {
    for random_loss in [0.01, 0.05] {
        let clean = Scenario {
            secs: 40,
            warm: 10,
            ..path(200, 40)
        };
        let lossy = Scenario {
            random_loss,
            ..clean
        };
        let (clean, lossy, plain) = (clean.run(), lossy.run(), plain(lossy));
        let said = format!("{clean:?}\n{lossy:?}\n{plain:?}");
        assert!(lossy.signals_per_s <= 1.5 * clean.signals_per_s, "{said}");
        assert!(
            lossy.goodput > 0.8 * clean.goodput && plain.goodput < 0.1,
            "{said}"
        );
    }
}

/// Runs the control on reports each 10 ms whose least and mean delay (us) come from their number;
/// frames and losses of a report. How many signals it gave.
fn open_loop(
    reports: u64,
    mut delay: impl FnMut(u64) -> (u32, u32),
    frames: u32,
    lost: u32,
) -> u32 {
    let (mut control, mut queue) = (QueueControl::new(), QueueDelay::new());
    let mut signals = 0;
    for n in 1..=reports {
        let now = Time::ZERO + MS(10 * n);
        let (min, mean) = delay(n);
        queue.sample(min, mean, now);
        control.on_path_loss(now, lost);
        control.on_delay(now, &queue, Some(MS(40)));
        for frame in 0..frames {
            let at = now + Duration::from_micros(u64::from(frame) * 50);
            signals += u32::from(control.take_signal(at));
        }
    }
    signals
}

#[test]
fn jitter_and_losses_without_a_queue_are_never_signalled() {
    let mut state = 7u64;
    let mut uniform = move |below: u32| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(below)) as u32
    };
    // Many packets a report: the least of them was hardly delayed.
    assert_eq!(
        open_loop(12_000, |_| (uniform(300), 10_000 + uniform(500)), 100, 3),
        0
    );
    // One packet a report, delayed by up to 20 ms.
    let mut sparse = |_| {
        let delay = uniform(20_000);
        (delay, delay)
    };
    assert_eq!(open_loop(12_000, &mut sparse, 1, 1), 0);
}

/// Normally distributed delays: the base is the least of thousands and lies far below the least of
/// a report, the farther the fewer packets it is about.
#[test]
fn normal_jitter_is_no_queue_and_nobody_elses_whatever_is_sent() {
    let mut state = 11u64;
    let mut normal = || {
        // The sum of twelve uniform ones (Irwin-Hall), in deviations of 3 ms around 30 ms.
        let sum: f64 = (0..12)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f64 / f64::from(1 << 24)
            })
            .sum();
        (30_000.0 + 3_000.0 * (sum - 6.0)) as u32
    };
    for seconds in [1u64, 5, 20] {
        let (mut control, mut queue) = (QueueControl::new(), QueueDelay::new());
        let mut signals = 0;
        for n in 0..12_000u64 {
            let now = Time::ZERO + MS(10 * n);
            // Much is sent for some time, then little, and so on.
            let packets = if n / (100 * seconds) % 2 == 0 { 33 } else { 2 };
            let delays: Vec<u32> = (0..packets).map(|_| normal()).collect();
            let mean = delays.iter().sum::<u32>() / packets;
            queue.sample(*delays.iter().min().unwrap(), mean, now);
            control.on_path_loss(now, u32::from(n % 3 == 0));
            control.on_delay(now, &queue, Some(MS(60)));
            signals += (0..packets).filter(|_| control.take_signal(now)).count();
            assert!(!control.is_competing(), "at {now:?}");
        }
        // A flow that is signalled every ten seconds does not notice.
        assert!(signals <= 12, "{signals} signals, {seconds} s each");
    }
}

#[test]
fn a_standing_queue_is_signalled_and_a_passing_one_is_not() {
    let burst = |n: u64| {
        if n % 50 < 8 {
            (30_000, 35_000)
        } else {
            (100, 4_000)
        }
    };
    assert_eq!(open_loop(2_000, burst, 50, 0), 0);
    let standing = |n: u64| if n < 100 { (0, 0) } else { (30_000, 35_000) };
    assert!(open_loop(200, standing, 50, 0) >= 3);
}

/// One frame for each timeout, reported with the delay that jitter gave it: taking such a frame
/// would keep its flow down for good.
#[test]
fn a_flow_down_to_its_timeouts_is_left_alone() {
    let (mut control, mut queue) = (QueueControl::new(), QueueDelay::new());
    let mut now = Time::ZERO;
    let mut signals = 0;
    for n in 0..100 {
        now += MS(10);
        let delay = if n < 50 { 0 } else { 30_000 };
        queue.sample(delay, delay, now);
        control.on_delay(now, &queue, Some(MS(40)));
        signals += (0..10).filter(|_| control.take_signal(now)).count();
    }
    assert!(signals > 0, "a spell has begun");
    for wait in [200, 400, 800, 1_600, 3_200] {
        now += MS(wait);
        assert!(!control.take_signal(now), "after {wait} ms");
        now += MS(40);
        queue.sample(30_000, 30_000, now);
        control.on_path_loss(now, 1);
        control.on_delay(now, &queue, Some(MS(40)));
    }
}

#[test]
fn a_path_that_gets_longer_is_soon_not_taken_for_a_queue() {
    for controlled in [1, 4] {
        let same = Scenario {
            controlled,
            secs: 60,
            warm: 15,
            ..path(50, 40)
        };
        let longer = Scenario {
            longer: MS(30),
            ..same
        };
        let (same, longer) = (same.run(), longer.run());
        assert!(longer.goodput > 0.7 * same.goodput, "{same:?} {longer:?}");
    }
}

proptest! {
    #[test]
    fn survives_any_reports(
        steps in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>(), any::<Option<u64>>()), 1..200),
    ) {
        let (mut control, mut queue) = (QueueControl::new(), QueueDelay::new());
        let mut then = Time::ZERO;
        for (min, mean, time, lost, rtt) in steps {
            // Mostly forward, at times anywhere.
            let now = if time % 8 == 0 { Time(time) } else { Time(then.0.wrapping_add(time % 100_000_000)) };
            queue.sample(min % 200_000, mean, now);
            control.on_path_loss(now, lost);
            control.on_delay(now, &queue, rtt.map(Duration::from_nanos));
            let _ = control.take_signal(now);
            then = now;
        }
    }

    /// Between two reports, at most one signal is given for each that the law lets pass.
    #[test]
    fn signals_are_rare_whatever_the_queue(
        delays in prop::collection::vec(0u32..200_000, 500..1_500),
        frames in 1u32..100,
    ) {
        let reports = delays.len() as u32;
        let delay = |n: u64| (delays[n as usize - 1], delays[n as usize - 1]);
        let signals = open_loop(u64::from(reports), delay, frames, 0);
        prop_assert!(signals <= reports / 4, "{signals}");
        prop_assert!(signals <= reports * frames / 5, "{signals} of {}", reports * frames);
    }
}

/// `cargo nextest run --release -p shardgate-core --run-ignored only cost_of_a_frame --no-capture`
#[test]
#[ignore = "a measurement"]
fn cost_of_a_frame() {
    let (mut control, mut queue) = (QueueControl::new(), QueueDelay::new());
    for name in ["quiet", "signalling"] {
        let delay = if name == "quiet" { 0 } else { 30_000 };
        let mut signals = 0u64;
        let mut spent = Duration::ZERO;
        for n in 1..=2_000u64 {
            let now = Time::ZERO + MS(10 * n);
            queue.sample(delay, delay, now);
            control.on_delay(now, &queue, Some(MS(40)));
            let started = std::time::Instant::now();
            for frame in 0..10_000u64 {
                signals +=
                    u64::from(control.take_signal(core::hint::black_box(Time(now.0 + frame))));
            }
            spent += started.elapsed();
        }
        let nanos = spent.as_nanos() as f64 / 2e7;
        eprintln!("take_signal, {name}: {nanos:.2} ns ({signals} signals)");
    }
}
