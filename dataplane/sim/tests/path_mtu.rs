//! The MTU of a path is found, and found again when it shrinks or grows; chance does not fool it.

use std::time::Duration;

use shardgate_core::path_mtu::{MtuView, State};
use shardgate_core::time::Time;
use shardgate_sim::evaluate::sharded_gateways;
use shardgate_sim::gateway::ShardedGateway;
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::ProfileFile;
use shardgate_sim::tcp::{self, TcpConfig, TcpReceiver};
use shardgate_sim::traffic::{self, DatagramConfig, Schedule};
use shardgate_sim::world::{FlowId, Site, World};

fn at(seconds: f64) -> Time {
    Time::ZERO + Duration::from_secs_f64(seconds)
}

/// 50 Mbit/s, 20 ms each way, packets of up to so many bytes.
fn path(mtu: u32) -> PathProfile {
    PathProfile {
        delay_ms: 20.0,
        rate: Some(50.0),
        mtu,
        ..PathProfile::default()
    }
}

fn tunnel(path: &PathProfile, seed: u64) -> World {
    let gateways = sharded_gateways(std::slice::from_ref(path), seed);
    World::new(gateways, std::slice::from_ref(path), seed).expect("a valid profile")
}

fn mtu(world: &World, site: Site) -> MtuView {
    let gateway: &ShardedGateway = world.gateway(site).expect("a sharded gateway");
    gateway.path_view(0, world.now()).mtu
}

/// Bytes of a TCP flow that have reached B, in order and right.
fn delivered(world: &World, flow: FlowId) -> u64 {
    let receiver: &TcpReceiver = world.host(flow, Site::B).expect("a receiver");
    assert_eq!(receiver.wrong_bytes(), 0);
    receiver.delivered()
}

/// Bulk datagrams of 1,400 bytes.
fn datagrams(per_second: f64) -> DatagramConfig {
    DatagramConfig {
        schedule: Schedule::Constant {
            per_second,
            payload_len: 1_400,
        },
        ..DatagramConfig::thin()
    }
}

/// What a TCP flow delivers between two points in time, in Mbit/s.
fn goodput(world: &mut World, flow: FlowId, until: f64) -> f64 {
    let (from, before) = (world.now(), delivered(world, flow));
    world.run_until(at(until));
    let bits = (delivered(world, flow) - before) as f64 * 8.0;
    bits / 1e6 / world.now().since(from).as_secs_f64()
}

#[test]
fn a_short_path_loses_no_frame_of_its_first_second() {
    for carries in [1_492, 1_400, 1_280] {
        let mut world = tunnel(&path(carries), 1);
        let flow = traffic::add_flow(&mut world, Site::A, datagrams(500.0));
        world.run_until(at(2.0));
        assert_eq!(u32::from(mtu(&world, Site::A).mtu), carries);
        assert_eq!(mtu(&world, Site::A).state, State::SearchComplete);
        world.run_until(at(2.1));
        let stats = world.stats(flow, Site::A);
        assert!(stats.sent - stats.delivered < 60, "{stats:?}");
        // What has not come is under way.
        assert!(stats.sent - stats.delivered <= 500 / 40, "{carries}: lost");
        let dropped = world.path(Site::A, 0).expect("a path").mtu_drops;
        assert!(dropped < 60 && dropped <= mtu(&world, Site::A).probes);
    }
}

#[test]
fn a_whole_path_pays_one_burst_of_probes() {
    let mut world = tunnel(&path(1_500), 1);
    let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    world.run_until(at(1.0));
    let start = mtu(&world, Site::A);
    assert_eq!((start.mtu, start.state), (1_500, State::SearchComplete));
    assert!(start.probes <= 8, "{start:?}");
    assert!(goodput(&mut world, flow, 8.0) > 40.0);
    // Queues that overflow are no reason to ask: at most one more question, and no fall.
    let end = mtu(&world, Site::A);
    let bytes = (end.probes - start.probes) as f64 * 1_500.0;
    let sent = world.sent(Site::A).total() as f64;
    assert!(bytes < sent * 0.0005, "{end:?}: {bytes} of {sent}");
    assert_eq!(end.black_holes, 0);
}

#[test]
fn a_path_that_shrinks_under_a_tcp_flow_is_found_within_3_s() {
    for (delay_ms, seed) in [(5.0, 1), (20.0, 2), (100.0, 3), (300.0, 4)] {
        let whole = PathProfile {
            delay_ms,
            rate: Some(10.0),
            ..path(1_500)
        };
        let mut world = tunnel(&whole, seed);
        let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
        world.run_until(at(8.0));
        let before = goodput(&mut world, flow, 10.0);
        assert!(before > 1.0, "{before}");
        let narrow = PathProfile {
            mtu: 1_300,
            ..whole
        };
        world.change_path(0, &narrow).expect("a valid profile");
        world.run_until(at(13.0));
        let view = mtu(&world, Site::A);
        assert!((1_280..=1_300).contains(&view.mtu), "{delay_ms}: {view:?}");
        assert_eq!(view.black_holes, 1);
        // A flow that has lost a window starts anew, and a round trip of 600 ms takes its time.
        let after = goodput(&mut world, flow, 14.0 + delay_ms / 20.0);
        assert!(after > before / 3.0, "{delay_ms}: {before}, then {after}");
        assert!(world.integrity().is_sound(), "{:?}", world.integrity());
    }
}

#[test]
fn every_frame_passes_once_a_smaller_path_is_found() {
    let mut world = tunnel(&path(1_500), 7);
    let flow = traffic::add_flow(&mut world, Site::A, datagrams(500.0));
    traffic::add_flow(&mut world, Site::A, DatagramConfig::thin());
    world.run_until(at(2.0));
    world.change_path(0, &path(1_300)).expect("a valid profile");
    let mut found = 2.0;
    while mtu(&world, Site::A).mtu > 1_300 {
        found += 0.01;
        world.run_until(at(found));
    }
    assert!(found < 3.0, "{found}");
    world.measure(Time::ZERO..at(10.0));
    world.run_until(at(11.0));
    let stats = world.stats(flow, Site::A);
    let lost = (stats.sent - stats.delivered) as f64;
    assert!(stats.sent > 4_900);
    assert!(lost <= 500.0 * (found - 2.0) + 1.0, "{lost} in {found}");
    let gateway: &ShardedGateway = world.gateway(Site::A).expect("a sharded gateway");
    assert!(gateway.outbound_stats().asked_too_long > 0);
    assert!(world.integrity().is_sound(), "{:?}", world.integrity());
}

#[test]
fn growth_is_found_by_the_timer() {
    let mut world = tunnel(&path(1_400), 1);
    traffic::add_flow(&mut world, Site::A, DatagramConfig::thin());
    world.run_until(at(5.0));
    assert_eq!(mtu(&world, Site::A).mtu, 1_400);
    world.change_path(0, &path(1_500)).expect("a valid profile");
    world.run_until(at(590.0));
    assert_eq!(mtu(&world, Site::A).mtu, 1_400);
    world.run_until(at(610.0));
    assert_eq!(mtu(&world, Site::A).mtu, 1_500);
}

/// Lossy paths, random and in runs, with jitter: no fall, whatever the seed.
#[test]
fn chance_is_not_taken_for_a_small_mtu() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles.toml");
    let file = ProfileFile::load(file.as_ref()).expect("a good file");
    let names = ["loss_1", "burst_1", "loss_5", "jitter_loss", "dsl_lossy"];
    for single in file.single.iter().filter(|one| names.contains(&&*one.name)) {
        // Slower than it is, so that there is time for several seeds.
        let path = PathProfile {
            rate: Some(20.0),
            ..single.path.clone()
        };
        for seed in 1..=3 {
            let mut world = tunnel(&path, seed);
            let flow = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
            traffic::add_flow(&mut world, Site::B, DatagramConfig::thin());
            let mut lowest = u16::MAX;
            for step in 2..=12u32 {
                world.run_until(at(0.5 * f64::from(step)));
                lowest = lowest
                    .min(mtu(&world, Site::A).mtu)
                    .min(mtu(&world, Site::B).mtu);
            }
            assert_eq!(lowest, 1_500, "{}, seed {seed}", single.name);
            let views = [Site::A, Site::B].map(|site| mtu(&world, site));
            assert!(views.iter().all(|view| view.black_holes == 0));
            let share = views[0].probes as f64 * 1_500.0 / world.sent(Site::A).total() as f64;
            assert!(share < 0.02, "{}: {share}", single.name);
            assert!(delivered(&world, flow) > 0);
        }
    }
}
