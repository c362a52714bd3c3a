//! What a predictor is told: every hole's fate, once, whoever filled it and however full it is.

use core::time::Duration;

use proptest::prelude::*;

use super::tests::{Tunnel, config, frame, ms};
use crate::lane::Lane;
use crate::limits::{ASK_DEFAULT, LOOKS_MAX, LOST_AFTER, REASSEMBLY_WINDOW};
use crate::predict::{Filler, Hole, Outcome, Outlook, Plan, Predictor};
use crate::time::Time;

const MS: Duration = Duration::from_millis(1);

/// Writes down what it is told, and plans what the test wants.
#[derive(Default)]
struct Witness {
    arrived: u32,
    opened: Vec<Hole>,
    /// Hole number, age.
    looks: Vec<(u32, Duration)>,
    learned: Vec<(u32, Outcome)>,
    filled: Vec<(u32, Filler)>,
    plan: Option<fn(Duration) -> Plan>,
}

impl Predictor for Witness {
    fn arrived(&mut self, _path: u8, _sent_at_us: u32, _received_at: Time) {
        self.arrived += 1;
    }

    fn plan(&mut self, hole: &Hole, _outlook: &Outlook, age: Duration) -> Plan {
        if age.is_zero() {
            self.opened.push(*hole);
        } else {
            self.looks.push((hole.number, age));
        }
        self.plan.map_or(Plan::ask_after(MS * 10), |plan| plan(age))
    }

    fn learn(&mut self, hole: &Hole, outcome: Outcome, _outlook: &Outlook, _now: Time) {
        self.learned.push((hole.number, outcome));
    }

    fn filled(&mut self, hole: &Hole, by: Filler, _age: Duration) {
        self.filled.push((hole.number, by));
    }
}

fn tunnel(asks: bool) -> Tunnel<Witness> {
    let config = super::ReceiverConfig { asks, ..config() };
    Tunnel::predicting(config, 1_414, Witness::default())
}

/// Datagrams of a shard each.
fn datagrams(tunnel: &mut Tunnel<Witness>, count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .flat_map(|n| tunnel.send(&[(frame(n, 600), Lane(1))]))
        .collect()
}

fn witness(tunnel: &Tunnel<Witness>) -> &Witness {
    &tunnel.receiver.predictor
}

#[test]
fn a_gap_is_told_shard_by_shard() {
    let mut tunnel = tunnel(true);
    let datagrams = datagrams(&mut tunnel, 5);
    tunnel.receive(&datagrams[0], 1, ms(1));
    tunnel.receive(&datagrams[4], 1, ms(2));
    let opened = &witness(&tunnel).opened;
    let told: Vec<_> = opened
        .iter()
        .map(|hole| (hole.number, hole.gap, hole.position, hole.opened_at))
        .collect();
    assert_eq!(told, [(0, 3, 0, ms(2)), (1, 3, 1, ms(2)), (2, 3, 2, ms(2))]);
    assert!(opened.iter().all(|hole| hole.siblings == 0));
    assert_eq!(witness(&tunnel).arrived, 2);
}

#[test]
fn neighbours_of_the_same_aggregate_are_siblings() {
    let mut tunnel = tunnel(true);
    let datagrams = tunnel.send(&[(frame(1, 6_000), Lane(1))]);
    assert_eq!(datagrams.len(), 5);
    tunnel.receive(&datagrams[0], 1, ms(1));
    tunnel.receive(&datagrams[3], 1, ms(2));
    let siblings = witness(&tunnel).opened.iter().map(|hole| hole.siblings);
    assert_eq!(siblings.collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn what_comes_late_is_late_and_what_never_comes_is_lost_once() {
    let mut tunnel = tunnel(false);
    let datagrams = datagrams(&mut tunnel, 4);
    tunnel.receive(&datagrams[0], 1, ms(1));
    tunnel.receive(&datagrams[3], 1, ms(2));
    tunnel.receive(&datagrams[1], 1, ms(5));
    let late = |ms| Outcome::Late {
        age: MS * ms,
        asked: false,
    };
    assert_eq!(witness(&tunnel).learned, [(0, late(3))]);
    let verdict = ms(2) + ASK_DEFAULT + LOST_AFTER;
    tunnel.poll(verdict - Duration::from_nanos(1));
    assert_eq!(witness(&tunnel).learned.len(), 1);
    tunnel.poll(verdict);
    tunnel.poll(verdict + MS * 1_000);
    assert_eq!(witness(&tunnel).learned[1..], [(1, Outcome::Lost)]);
    // A straggler corrects it.
    tunnel.receive(&datagrams[2], 1, ms(1_300));
    assert_eq!(witness(&tunnel).learned[2..], [(1, late(1_298))]);
}

#[test]
fn a_hole_that_leaves_the_window_unjudged_is_lost() {
    let mut tunnel = tunnel(false);
    let count = REASSEMBLY_WINDOW as u32 + 2;
    let datagrams = datagrams(&mut tunnel, count);
    tunnel.receive(&datagrams[0], 1, ms(1));
    for datagram in &datagrams[2..] {
        tunnel.receive(datagram, 1, ms(2));
    }
    assert_eq!(witness(&tunnel).learned, [(0, Outcome::Lost)]);
    tunnel.poll(ms(10_000));
    assert_eq!(witness(&tunnel).learned.len(), 1);
}

#[test]
fn a_plan_is_looked_at_again_and_may_change() {
    // At first in 40 ms with a look after 4; then at once.
    type Case = (fn(Duration) -> Plan, &'static [u64], u64);
    let plans: [Case; 2] = [
        (
            |age| Plan {
                look_after: age.is_zero().then_some(MS * 4),
                ..Plan::ask_after(if age.is_zero() { MS * 40 } else { MS * 3 })
            },
            &[4],
            4,
        ),
        // Forever a little later: the looks are bounded.
        (
            |age| Plan {
                look_after: Some(age + MS),
                ..Plan::ask_after(age + MS * 2)
            },
            &[1, 2, 3, 4, 5],
            7,
        ),
    ];
    for (plan, looks, asked_at) in plans {
        let mut tunnel = tunnel(true);
        tunnel.receiver.predictor.plan = Some(plan);
        let datagrams = datagrams(&mut tunnel, 3);
        tunnel.receive(&datagrams[0], 1, ms(0));
        tunnel.receive(&datagrams[2], 1, ms(0));
        for at in 0..asked_at {
            tunnel.poll(ms(at));
            assert_eq!(tunnel.receiver.stats().asks, 0, "at {at} ms");
        }
        tunnel.poll(ms(asked_at));
        assert_eq!(tunnel.receiver.stats().asks, 1);
        let told: Vec<_> = looks.iter().map(|&look| (0, MS * look as u32)).collect();
        assert_eq!(witness(&tunnel).looks, told);
        assert!(looks.len() < usize::from(LOOKS_MAX));
    }
}

proptest! {
    /// Whatever is lost, late or duplicated: each hole is planned once at age zero, and ends as
    /// `Late` or `Lost`, at most one `Late` after a `Lost`.
    #[test]
    fn every_hole_has_one_fate(
        fates in prop::collection::vec((0u8..10, 1u64..400), 20..120),
        asks in any::<bool>(),
    ) {
        let mut tunnel = tunnel(asks);
        let datagrams = datagrams(&mut tunnel, fates.len() as u32 + 1);
        let mut arrivals = vec![(0, 0)];
        for (index, (kind, delay)) in fates.iter().enumerate() {
            let sent = index as u64 + 1;
            match kind {
                0 | 1 => {}
                2 | 3 => arrivals.push((sent + delay, index + 1)),
                4 => arrivals.extend([(sent, index + 1), (sent + delay, index + 1)]),
                _ => arrivals.push((sent, index + 1)),
            }
        }
        arrivals.sort_unstable();
        for (at, index) in arrivals {
            tunnel.poll(ms(at));
            tunnel.receive(&datagrams[index], 1, ms(at));
        }
        tunnel.poll(ms(5_000));
        let told = witness(&tunnel);
        prop_assert_eq!(told.opened.len() as u64, tunnel.receiver.stats().holes);
        for (index, hole) in told.opened.iter().enumerate() {
            prop_assert_eq!(hole.number, index as u32);
            let fates: Vec<_> = told
                .learned
                .iter()
                .filter(|(number, _)| *number == hole.number)
                .map(|(_, outcome)| *outcome)
                .collect();
            let is_one = matches!(
                fates[..],
                [_] | [Outcome::Lost, Outcome::Late { .. }]
            );
            prop_assert!(is_one, "{} {:?}", index, fates);
        }
    }
}
