//! Two real cores in the world: what comes out is what went in, once, and the tunnel is worth its
//! bytes.

mod common;

use proptest::prelude::*;
use shardgate_core::drop_reason::DropReason;
use shardgate_sim::evaluate::{self, Options, plain_gateways, sharded_gateways};
use shardgate_sim::gateway::ShardedGateway;
use shardgate_sim::path::PathProfile;
use shardgate_sim::tcp::{self, TcpConfig};
use shardgate_sim::traffic::{self, DatagramConfig, DatagramSink, FlowReport, Schedule};
use shardgate_sim::world::{Site, World};

use common::{Fate, any_path, at, delivered, run_until_delivered, wires, world};

fn tunnel(path: &PathProfile, seed: u64) -> World {
    world(
        sharded_gateways(std::slice::from_ref(path), seed),
        path,
        seed,
    )
}

/// 50 Mbit/s, 20 ms each way.
fn path(loss: f64, burst: f64) -> PathProfile {
    PathProfile {
        delay_ms: 20.0,
        rate: Some(50.0),
        loss,
        burst,
        ..PathProfile::default()
    }
}

fn options(warm_up_s: f64, measured_s: f64) -> Options {
    Options {
        warm_up: std::time::Duration::from_secs_f64(warm_up_s),
        measured: std::time::Duration::from_secs_f64(measured_s),
    }
}

/// Constant bit rate, bursts, video and thin flows, both ways: everything arrives on a clean path,
/// in order, and at the path's delay.
#[test]
fn every_kind_of_traffic_crosses_a_clean_path() {
    let wide = PathProfile {
        rate: Some(1_000.0),
        ..path(0.0, 1.0)
    };
    let mut world = tunnel(&wide, 1);
    let flow = |schedule, dscp| DatagramConfig {
        schedule,
        dscp,
        ..DatagramConfig::thin()
    };
    let schedules = [
        Schedule::Constant {
            per_second: 1_000.0,
            payload_len: 1_400,
        },
        Schedule::Constant {
            per_second: 200.0,
            payload_len: 20,
        },
        Schedule::OnOff {
            per_second: 2_000.0,
            payload_len: 700,
            on_s: 0.1,
            off_s: 0.1,
        },
        Schedule::Video {
            mbit_per_s: 8.0,
            per_second: 30.0,
            payload_len: 1_200,
            key_every: 30,
        },
    ];
    let mut flows = Vec::new();
    for (schedule, site) in schedules
        .into_iter()
        .flat_map(|s| [(s, Site::A), (s, Site::B)])
    {
        for dscp in [0, traffic::DSCP_EF] {
            flows.push((
                traffic::add_flow(&mut world, site, flow(schedule, dscp)),
                site,
            ));
        }
    }
    world.measure(at(0.5)..at(3.0));
    world.run_until(at(4.0));
    assert!(world.integrity().is_sound(), "{:?}", world.integrity());
    for (flow, site) in flows {
        let report = FlowReport::of(&world, flow, site, 2.5);
        assert!(report.sent > 400, "{report:?}");
        assert_eq!((report.delivered, report.residual_loss), (report.sent, 0.0));
        let p50 = report.frame_delay_ms.p50.expect("delivered");
        assert!((20.0..20.5).contains(&p50), "{report:?}");
        let bytes = world.stats(flow, site).sent_bytes as f64;
        assert!(
            (report.mbit_per_s - bytes * 8.0 / 2.5e6).abs() < 1e-9,
            "{report:?}"
        );
        let sink: &DatagramSink = world.host(flow, site.other()).expect("a sink");
        assert_eq!(sink.overtaken, 0);
    }
}

#[test]
fn what_is_sent_is_counted_by_cause_to_the_byte() {
    let mut world = tunnel(&path(0.02, 2.0), 3);
    tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    world.run_until(at(3.0));
    for site in [Site::A, Site::B] {
        assert_eq!(world.sent(site).total(), world.offered_bytes(site));
    }
    let sent = world.sent(Site::A);
    assert!(
        sent.repeats > 0 && sent.repair > 0 && sent.headers > 0,
        "{sent:?}"
    );
    assert!(world.sent(Site::B).feedback > 0);
}

#[test]
fn random_loss_is_hidden_and_costs_little() {
    for (loss, burst) in [(0.01, 1.0), (0.02, 3.0), (0.05, 1.0)] {
        let path = path(loss, burst);
        let (mut plain, mut sharded) = (0.0, 0.0);
        for seed in 1..=3 {
            let run = |gateways| {
                let paths = std::slice::from_ref(&path);
                let outcome = evaluate::run(paths, gateways, seed, options(1.5, 2.5), &mut |_| {})
                    .expect("a valid profile");
                assert_eq!(outcome.broken_frames, 0);
                outcome
            };
            plain += run(&plain_gateways).goodput_mbit_per_s;
            let outcome = run(&|seed| sharded_gateways(std::slice::from_ref(&path), seed));
            sharded += outcome.goodput_mbit_per_s;
            assert!(outcome.residual_loss < loss / 2.0, "{outcome:?}");
        }
        assert!(
            sharded > 4.0 * plain,
            "{sharded} against {plain} Mbit/s at {loss} in runs of {burst}"
        );
    }
}

#[test]
fn a_spoiled_datagram_is_dropped_by_name() {
    let path = PathProfile {
        corrupt: 0.05,
        duplicate: 0.05,
        ..path(0.0, 1.0)
    };
    let mut world = tunnel(&path, 2);
    tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    world.run_until(at(3.0));
    let gateway: &ShardedGateway = world.gateway(Site::B).expect("a sharded gateway");
    let drops = gateway.drops();
    assert!(drops.get(DropReason::OuterChecksum) > 10);
    assert!(drops.get(DropReason::Replayed) > 10);
    assert!(world.integrity().is_sound(), "{:?}", world.integrity());
}

/// The oracle itself: a wire that lets everything through also lets through what a tunnel must
/// not.
#[test]
fn without_a_tunnel_the_oracle_sees_copies_and_errors() {
    let path = PathProfile {
        corrupt: 0.05,
        duplicate: 0.05,
        ..path(0.0, 1.0)
    };
    let mut world = world(wires(|_, _| Fate::Pass), &path, 2);
    traffic::add_flow(&mut world, Site::A, DatagramConfig::thin());
    world.run_until(at(20.0));
    let integrity = world.integrity();
    assert!((25..80).contains(&integrity.wrong), "{integrity:?}");
    assert!((25..80).contains(&integrity.twice), "{integrity:?}");
}

#[test]
fn same_seed_same_outcome() {
    let path = PathProfile {
        jitter_ms: 3.0,
        reorder: 0.01,
        duplicate: 0.01,
        corrupt: 0.01,
        ..path(0.02, 2.0)
    };
    let run = |seed| {
        let gateways = |seed| sharded_gateways(std::slice::from_ref(&path), seed);
        evaluate::run(
            std::slice::from_ref(&path),
            &gateways,
            seed,
            options(0.4, 0.4),
            &mut |_| {},
        )
        .expect("a valid profile")
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// Keys live for three minutes; a session goes on for as long as there is traffic.
#[test]
fn a_long_run_outlives_its_keys() {
    let mut world = tunnel(&path(0.01, 1.0), 1);
    let flow = traffic::add_flow(&mut world, Site::A, DatagramConfig::thin());
    world.measure(at(290.0)..at(299.0));
    world.run_until(at(300.0));
    let stats = world.stats(flow, Site::A);
    assert_eq!(stats.sent, 450);
    assert!(stats.loss() < 0.01, "{}", stats.loss());
}

/// What is left of a flow after its timeouts must not be let go for a queue that was there once:
/// found by the property below.
#[test]
fn a_flow_comes_back_from_its_timeouts() {
    let path = PathProfile {
        delay_ms: 44.331072709044186,
        jitter_ms: 17.105166017182963,
        loss: 0.1917652458903493,
        burst: 2.912462587136556,
        corrupt: 0.09594613675373277,
        ..PathProfile::default()
    };
    let mut world = tunnel(&path, 5_275_574_360_030_672_240);
    let config = TcpConfig {
        bytes: Some(116_755),
        ..TcpConfig::default()
    };
    let flow = tcp::add_flow(&mut world, Site::A, config);
    traffic::add_flow(&mut world, Site::B, DatagramConfig::thin());
    world.run_until(at(60.0));
    assert_eq!(delivered(&world, flow), 116_755);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// In order, complete, nothing wrong, nothing twice, whatever the path does.
    #[test]
    fn a_stream_arrives_whole(
        seed: u64,
        bytes in 1u64..300_000,
        path in any_path(),
    ) {
        let mut world = tunnel(&path, seed);
        let config = TcpConfig { bytes: Some(bytes), ..TcpConfig::default() };
        let flow = tcp::add_flow(&mut world, Site::A, config);
        traffic::add_flow(&mut world, Site::B, DatagramConfig::thin());
        run_until_delivered(&mut world, flow, bytes);
        prop_assert_eq!(delivered(&world, flow), bytes);
        prop_assert!(world.integrity().is_sound(), "{:?}", world.integrity());
    }
}
