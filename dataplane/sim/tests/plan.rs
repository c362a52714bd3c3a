//! The plan follows a path that changes under it: up within half a second of a loss and two of another
//! round trip or rate, back within ten, and it does not waver on a path that stays.

use std::time::Duration;

use shardgate_core::buffer::HeapBuffer;
use shardgate_core::endpoint::Endpoint;
use shardgate_core::plan::{Decision, Label, Plan, Reason};
use shardgate_core::time::Time;
use shardgate_sim::evaluate::sharded_gateways;
use shardgate_sim::gateway::ShardedGateway;
use shardgate_sim::path::PathProfile;
use shardgate_sim::tcp::{self, TcpConfig};
use shardgate_sim::traffic::{self, DatagramConfig, Schedule};
use shardgate_sim::world::{Site, World};

fn at(seconds: f64) -> Time {
    Time::ZERO + Duration::from_secs_f64(seconds)
}

/// A world whose path can be changed, and the plan of the gateway at A.
struct Lab {
    world: World,
    path: PathProfile,
}

impl Lab {
    fn new(path: PathProfile, seed: u64) -> Self {
        let gateways = sharded_gateways(std::slice::from_ref(&path), seed);
        Self {
            world: World::new(gateways, std::slice::from_ref(&path), seed)
                .expect("a valid profile"),
            path,
        }
    }

    /// A flow of TCP that never runs dry.
    fn with_tcp(mut self) -> Self {
        tcp::add_flow(&mut self.world, Site::A, TcpConfig::default());
        self
    }

    /// A steady flow of so many Mbit/s in datagrams of 1,300 bytes.
    fn with_datagrams(mut self, mbit: f64) -> Self {
        let config = DatagramConfig {
            schedule: Schedule::Constant {
                per_second: mbit * 1e6 / 8.0 / 1_342.0,
                payload_len: 1_300,
            },
            ..DatagramConfig::thin()
        };
        traffic::add_flow(&mut self.world, Site::A, config);
        self
    }

    fn change(&mut self, change: impl FnOnce(&mut PathProfile)) {
        change(&mut self.path);
        self.world
            .change_path(0, &self.path)
            .expect("a valid profile");
    }

    fn run(&mut self, seconds: f64) {
        let until = self.world.now().as_nanos() as f64 / 1e9 + seconds;
        self.world.run_until(at(until));
    }

    fn endpoint(&self) -> &Endpoint<HeapBuffer> {
        let gateway: &ShardedGateway = self.world.gateway(Site::A).expect("a sharded gateway");
        gateway.endpoint()
    }

    fn plan(&self) -> Plan {
        *self.endpoint().plan()
    }

    /// Runs until the plan is as wanted; says after how many seconds.
    fn until(&mut self, seconds: f64, is_wanted: impl Fn(&Plan) -> bool) -> f64 {
        let begun = self.world.now();
        while !is_wanted(&self.plan()) {
            let took = self.world.now().since(begun).as_secs_f64();
            assert!(
                took < seconds,
                "after {took} s: {:?} {:?}\n{}",
                self.plan(),
                self.endpoint().path_view(0, self.world.now()),
                self.log(Time::ZERO)
            );
            self.run(0.01);
        }
        self.world.now().since(begun).as_secs_f64()
    }

    fn decisions(&self, from: Time) -> Vec<Decision> {
        let decisions = self.endpoint().decisions().since(0);
        let all = decisions.map(|(_, decision)| *decision);
        all.filter(|decision| decision.at >= from).collect()
    }

    /// What was decided from then on, for a failure.
    fn log(&self, from: Time) -> String {
        let line = |decision: &Decision| {
            let Decision {
                at, plan, inputs, ..
            } = decision;
            format!(
                "{:.2} s {plan:?} by rtt {} us, loss {} ppm, burst {} {}, events {}, rate {}\n",
                at.as_nanos() as f64 / 1e9,
                inputs.round_trip_us.value,
                inputs.radio_loss_ppm.value,
                inputs.burst_milli.value,
                inputs.recent_burst_milli.value,
                inputs.events_milli_per_s.value,
                inputs.delivery_bytes_per_s.value,
            )
        };
        self.decisions(from).iter().map(line).collect()
    }
}

fn path(delay_ms: f64, rate: f64, loss: f64, burst: f64) -> PathProfile {
    PathProfile {
        delay_ms,
        rate: Some(rate),
        loss,
        burst,
        ..PathProfile::default()
    }
}

/// Loss 0, 2 %, in runs of 4, and 0 again.
#[test]
fn the_plan_follows_losses_up_and_down() {
    let mut lab = Lab::new(path(10.0, 100.0, 0.0, 1.0), 1).with_datagrams(80.0);
    lab.run(3.0);
    assert_eq!(
        (lab.plan().label, lab.plan().standing),
        (Label::Clean, None)
    );
    lab.change(|path| path.loss = 0.02);
    let took = lab.until(0.5, |plan| {
        plan.label == Label::Lossy && plan.standing.is_some()
    });
    assert!(took > 0.0, "not before the loss");
    assert_eq!(lab.plan().reason, Reason::Events);
    lab.run(3.0);
    let lossy = lab.plan().standing.expect("it stands");
    lab.change(|path| path.burst = 4.0);
    lab.until(0.5, |plan| plan.label == Label::Bursty);
    lab.run(2.0);
    let bursty = lab.plan().standing.expect("it stands");
    assert!(bursty.window > lossy.window, "{bursty:?} after {lossy:?}");
    lab.change(|path| path.loss = 0.0);
    let took = lab.until(10.0, |plan| {
        plan.label == Label::Clean && plan.standing.is_none()
    });
    assert!(took > 1.0, "one step a second");
    lab.run(3.0);
    assert_eq!((lab.plan().label, lab.plan().split), (Label::Clean, 1));
}

/// Round trips of 10 ms, 100 ms, and 10 ms again, on a path that loses. A thin flow says little of the
/// rate, so either may be named as what led to it.
#[test]
fn n_follows_the_round_trip() {
    let mut lab = Lab::new(path(5.0, 20.0, 0.03, 1.0), 1).with_datagrams(2.0);
    lab.run(6.0);
    assert_eq!(lab.plan().split, 1, "{}", lab.log(Time::ZERO));
    lab.change(|path| path.delay_ms = 50.0);
    lab.until(0.5, |plan| {
        plan.delay_ms == 50 && plan.reason == Reason::RoundTrip
    });
    lab.until(1.5, |plan| plan.split == 2 && plan.payload == 707);
    lab.run(4.0);
    lab.change(|path| path.delay_ms = 5.0);
    lab.until(10.0, |plan| plan.split == 1 && plan.standing.is_some());
}

/// 10 Mbit/s, a quarter of it, and 10 again, filled by one TCP flow.
#[test]
fn n_follows_the_rate() {
    for seed in 1..=3 {
        let mut lab = Lab::new(path(50.0, 10.0, 0.02, 1.0), seed).with_tcp();
        lab.run(8.0);
        assert_eq!(lab.plan().split, 1, "{}", lab.log(Time::ZERO));
        lab.change(|path| path.rate = Some(2.5));
        lab.until(2.0, |plan| plan.split == 2);
        lab.run(4.0);
        lab.change(|path| path.rate = Some(10.0));
        lab.until(10.0, |plan| plan.split == 1);
    }
}

#[test]
fn a_steady_path_changes_its_plan_rarely() {
    for (loss, burst) in [(0.0004, 1.0), (0.014, 2.5), (0.05, 1.0)] {
        let mut lab = Lab::new(path(10.0, 20.0, loss, burst), 3).with_datagrams(10.0);
        lab.run(20.0);
        let begun = lab.world.now();
        lab.run(60.0);
        let changes = lab.decisions(begun).len();
        assert!(
            changes <= 6,
            "{loss} in runs of {burst}:\n{}",
            lab.log(begun)
        );
    }
}

/// Units that get slow have less to do, and once they are fast again as much as before.
#[test]
fn a_slow_unit_takes_back_repair() {
    let mut lab = Lab::new(path(20.0, 80.0, 0.02, 1.0), 3).with_datagrams(20.0);
    let slow = |lab: &mut Lab, micros| {
        let gateway: &mut ShardedGateway = lab.world.gateway_mut(Site::A).expect("sharded");
        gateway.set_seal_time(Duration::from_micros(micros));
    };
    // Some 2,000 shards a second.
    slow(&mut lab, 50);
    lab.run(6.0);
    let before = lab.plan();
    let by_load = |lab: &Lab, from| {
        let all = lab.decisions(from).into_iter();
        all.filter(|it| it.plan.reason == Reason::Crypto)
            .collect::<Vec<_>>()
    };
    assert!(before.standing.is_some(), "{}", lab.log(Time::ZERO));
    assert!(
        by_load(&lab, Time::ZERO).is_empty(),
        "{}",
        lab.log(Time::ZERO)
    );
    let slowed = lab.world.now();
    slow(&mut lab, 450);
    let share = |plan: &Plan| plan.standing.map_or(0.0, |it| 1.0 / f64::from(it.every));
    let took = lab.until(0.5, |plan| share(plan) < share(&before));
    let decisions = by_load(&lab, slowed);
    let load = decisions.first().map(|it| it.inputs.crypto_permille);
    let load = load.unwrap_or_else(|| panic!("{took} s: {}", lab.log(slowed)));
    assert!(
        (800..=1_000).contains(&load.value) && load.age_us < 50_000,
        "{load:?}"
    );
    assert!(load.count > 100, "one every 20 ms: {load:?}");
    let fast = lab.world.now();
    slow(&mut lab, 50);
    lab.until(20.0, |plan| share(plan) >= share(&before));
    assert!(!by_load(&lab, fast).is_empty(), "{}", lab.log(fast));
}

/// What was decided is decided again from its record; on a clean path nothing is added.
#[test]
fn decisions_replay() {
    let mut lab = Lab::new(path(20.0, 20.0, 0.02, 2.0), 4).with_tcp();
    lab.run(5.0);
    lab.change(|path| path.loss = 0.0);
    lab.run(15.0);
    let decisions = lab.decisions(Time::ZERO);
    assert!(decisions.len() > 5, "{}", lab.log(Time::ZERO));
    for (earlier, decision) in decisions.iter().zip(&decisions[1..]) {
        assert_eq!(decision.replay(), decision.plan);
        assert_eq!(decision.before.plan, earlier.plan, "nothing lies between");
    }
}
