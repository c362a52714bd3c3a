//! The TCP model over single paths: the goodput that theory and real hosts give, and a stream
//! that arrives whole whatever the path does.

mod common;

use proptest::prelude::*;
use shardgate_sim::evaluate::plain_gateways;
use shardgate_sim::path::PathProfile;
use shardgate_sim::tcp::{self, TcpConfig, TcpCounters, TcpSender};
use shardgate_sim::world::{FlowId, Site, World};

use common::{Fate, any_path, at, delivered, run_until_delivered, wires, world};

fn counters(world: &World, flow: FlowId) -> TcpCounters {
    let sender: &TcpSender = world.host(flow, Site::A).expect("a sender");
    sender.counters()
}

/// Goodput in Mbit/s of a flow through a plain tunnel over `path`, between two points in time.
fn goodput(path: &PathProfile, seed: u64, from: f64, until: f64) -> f64 {
    let mut world = world(plain_gateways(0), path, seed);
    let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    world.run_until(at(from));
    let before = delivered(&world, flow);
    world.run_until(at(until));
    assert!(world.integrity().is_sound(), "{:?}", world.integrity());
    (delivered(&world, flow) - before) as f64 * 8.0 / 1e6 / (until - from)
}

/// The mean over five seeds, 30 s each.
fn mean_goodput(path: &PathProfile) -> f64 {
    (1..=5)
        .map(|seed| goodput(path, seed, 3.0, 33.0))
        .sum::<f64>()
        / 5.0
}

/// 200 Mbit/s, 20 ms each way.
fn long(loss: f64, burst: f64) -> PathProfile {
    PathProfile {
        delay_ms: 20.0,
        rate: Some(200.0),
        loss,
        burst,
        ..PathProfile::default()
    }
}

#[test]
fn a_clean_path_is_filled() {
    // Of a full datagram of 1494 bytes, 1368 are payload: 183.1 of 200 Mbit/s.
    let got = goodput(&long(0.0, 1.0), 1, 3.0, 10.0);
    assert!((175.0..=183.2).contains(&got), "{got} Mbit/s");
}

#[test]
fn a_deep_queue_is_filled_and_slow_start_ends_before_it_overflows_far() {
    let mut world = world(plain_gateways(0), &long(0.0, 1.0), 1);
    let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    world.run_until(at(10.0));
    let lost = world.path(Site::A, 0).expect("the path").queue_drops;
    // Without HyStart the first overshoot alone costs as much as the queue holds, 661 frames.
    assert!(lost < 200, "{lost} frames");
    assert_eq!(counters(&world, flow).timeouts, 0);
    assert_eq!(
        counters(&world, flow).repeats,
        lost,
        "each loss is repeated once"
    );
}

#[test]
fn random_loss_costs_what_theory_says() {
    // CUBIC is Reno-friendly at this window and round trip (RFC 9438, 4.3), so Mathis et al.,
    // "The macroscopic behavior of the TCP congestion avoidance algorithm" (CCR 27, 1997) holds:
    // MSS / RTT * sqrt(3/2) / sqrt(p). Real hosts give 4 Mbit/s.
    let theory = |loss: f64| 1_368.0 * 8.0 / 0.04 / 1e6 * (1.5 / loss).sqrt();
    for loss in [0.01, 0.02] {
        let (got, expected) = (mean_goodput(&long(loss, 1.0)), theory(loss));
        assert!(
            (0.75 * expected..=1.25 * expected).contains(&got),
            "{got} instead of {expected} Mbit/s at {loss}"
        );
    }
}

#[test]
fn a_burst_is_one_event_and_heavy_loss_starves() {
    // 1 % in bursts of 3: a third as many events, sqrt(3) times the goodput; real hosts give 6.
    let bursts = mean_goodput(&long(0.01, 3.0));
    assert!((4.5..=7.5).contains(&bursts), "{bursts} Mbit/s");
    let heavy = mean_goodput(&long(0.05, 1.0));
    assert!((0.4..=1.6).contains(&heavy), "{heavy} Mbit/s");
}

#[test]
fn short_round_trips_and_long_ones() {
    let metro = PathProfile {
        delay_ms: 1.0,
        rate: Some(1_000.0),
        loss: 0.001,
        ..PathProfile::default()
    };
    // Mathis: 212 Mbit/s at a round trip of 2 ms; the RTT is barely above it.
    let got = goodput(&metro, 1, 1.0, 4.0);
    assert!((150.0..=260.0).contains(&got), "{got} Mbit/s");
    let far = PathProfile {
        delay_ms: 100.0,
        rate: Some(100.0),
        loss: 0.0001,
        ..PathProfile::default()
    };
    // RFC 9438, 5.2: 1.054 * RTT^(3/4) / p^(3/4) segments a round trip, here 315, or 17 Mbit/s.
    let got = (1..=3)
        .map(|seed| goodput(&far, seed, 10.0, 60.0))
        .sum::<f64>()
        / 3.0;
    assert!((11.0..=28.0).contains(&got), "{got} Mbit/s");
}

#[test]
fn reordering_is_learned_and_mistakes_are_taken_back() {
    let path = PathProfile {
        jitter_ms: 2.0,
        rate: Some(50.0),
        ..long(0.0, 1.0)
    };
    let mut world = world(plain_gateways(0), &path, 1);
    let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    world.run_until(at(15.0));
    let tcp = counters(&world, flow);
    let lost = world.path(Site::A, 0).expect("the path").queue_drops;
    assert!(tcp.undone > 0, "{tcp:?}");
    // A few needless repeats until the reordering window is wide enough.
    assert!(tcp.repeats <= lost + 60, "{tcp:?}, {lost} frames lost");
    let rate = delivered(&world, flow) as f64 * 8.0 / 1e6 / 15.0;
    assert!(rate > 30.0, "{rate} Mbit/s");
}

#[test]
fn marks_reduce_the_window_and_cost_nothing() {
    let config = TcpConfig {
        ecn: true,
        ..TcpConfig::default()
    };
    // A mark on every 5,000th frame, far from any loss.
    let mark = |number: u64, _: &[u8]| {
        if number % 5_000 == 4_999 {
            Fate::Mark
        } else {
            Fate::Pass
        }
    };
    let path = long(0.0, 1.0);
    let mut world = world(wires(mark), &path, 1);
    let flow = tcp::add_flow(&mut world, Site::A, config);
    world.run_until(at(8.0));
    let tcp = counters(&world, flow);
    let marks = tcp.segments / 5_000;
    assert!(marks > 5, "{tcp:?}");
    assert_eq!((tcp.repeats, tcp.undone), (0, 0), "{tcp:?}");
    assert!(
        tcp.reductions.abs_diff(marks) <= 1,
        "{tcp:?}: one for each of {marks}"
    );
    assert!(world.integrity().is_sound());
}

#[test]
fn the_last_segment_is_probed_for_and_a_lost_window_timed_out_on() {
    let config = TcpConfig {
        bytes: Some(1_448 * 10),
        ..TcpConfig::default()
    };
    let run = |first: u64, last: u64| {
        // Frames 0 and 1 open the connection.
        let fate = move |number: u64, _: &[u8]| {
            if (first + 2..=last + 2).contains(&number) {
                Fate::Drop
            } else {
                Fate::Pass
            }
        };
        let mut world = world(wires(fate), &long(0.0, 1.0), 1);
        let flow = tcp::add_flow(&mut world, Site::A, config);
        world.run_until(at(0.36));
        let early = delivered(&world, flow);
        world.run_until(at(3.0));
        assert_eq!(delivered(&world, flow), 14_480);
        (early, counters(&world, flow))
    };
    let (early, tail) = run(9, 9);
    assert_eq!(
        (early, tail.probes, tail.timeouts, tail.repeats),
        (14_480, 1, 0, 1),
        "{tail:?}"
    );
    // The probe too.
    let (_, dead) = run(0, 10);
    assert_eq!((dead.probes, dead.timeouts), (1, 1), "{dead:?}");
}

#[test]
fn same_seed_same_run() {
    let run = |seed| {
        let path = PathProfile {
            jitter_ms: 1.0,
            duplicate: 0.01,
            corrupt: 0.01,
            reorder: 0.01,
            ..long(0.01, 2.0)
        };
        let mut world = world(plain_gateways(0), &path, seed);
        let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
        world.run_until(at(3.0));
        let paths = [Site::A, Site::B].map(|site| world.path(site, 0).expect("a path"));
        let delay = world.stats(flow, Site::A).delay_mean_ms();
        (
            counters(&world, flow),
            paths,
            delivered(&world, flow),
            delay,
        )
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// In order and complete, whatever the path does short of losing everything.
    #[test]
    fn a_stream_arrives_whole(
        seed: u64,
        bytes in 1u64..300_000,
        ecn: bool,
        path in any_path(),
    ) {
        let mut world = world(plain_gateways(0), &path, seed);
        let config = TcpConfig { bytes: Some(bytes), ecn, ..TcpConfig::default() };
        let flow = tcp::add_flow(&mut world, Site::A, config);
        run_until_delivered(&mut world, flow, bytes);
        prop_assert_eq!(delivered(&world, flow), bytes, "{:?}", counters(&world, flow));
        prop_assert!(world.integrity().is_sound(), "{:?}", world.integrity());
    }
}
