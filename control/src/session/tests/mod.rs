//! Two gateways' sessions over a lossy wire, in virtual time.

mod refusals;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use shardgate_core::limits::{KEY_LIFETIME, KEY_SLOTS, REKEY_AFTER, REKEY_AFTER_SEALS};
use shardgate_core::wire::handshake::{INIT_LEN, MAC_LEN, TRAILER_LEN};

use self::world::{A, B, World, address};
use super::noise::Mac1Key;
use super::*;
use crate::fake::{Fake, Random};
use crate::limits;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn two_gateways_that_start_together_talk_after_two_round_trips() {
    for seed in 1..20 {
        let mut world = World::new(seed);
        let took = world.run_until(MINUTE, World::flowing);
        assert!(took < Duration::from_millis(90), "{took:?}");
        world.run(Duration::from_secs(5));
        // One of the two inits gave way.
        for side in [A, B] {
            let counters = *world.counters(side);
            assert_eq!(
                counters.completed_as_initiator + counters.completed_as_responder,
                1
            );
            assert_eq!(counters.inits_sent, 1);
            assert_eq!(world.side(side).plane.generations, [1]);
        }
        let ties = world.counters(A).rejected.of(Reject::Simultaneous)
            + world.counters(B).rejected.of(Reject::Simultaneous);
        assert_eq!(ties, 1);
    }
}

#[test]
fn the_smaller_public_key_wins_a_tie() {
    for seed in 1..10 {
        let mut world = World::new(seed);
        world.run_until(MINUTE, World::flowing);
        let smaller = if crate::keys::public(&world.keys[A]) < crate::keys::public(&world.keys[B]) {
            A
        } else {
            B
        };
        world.run(Duration::from_secs(1));
        assert_eq!(world.counters(smaller).completed_as_initiator, 1);
        assert_eq!(world.counters(1 - smaller).completed_as_responder, 1);
    }
}

#[test]
fn nothing_is_sealed_by_the_responder_before_the_key_is_confirmed() {
    let mut world = World::new(3);
    world.knows = [true, false];
    world = world.restarted();
    world.run_until(MINUTE, |world| world.counters(B).responses_sent == 1);
    assert!(world.side(B).plane.send.is_none());
    // The initiator's challenge gets lost, and all the others too.
    world.loss_percent = 100;
    world.run(Duration::from_secs(8));
    assert!(world.side(B).plane.send.is_none());
    world.loss_percent = 0;
    world.run_until(Duration::from_secs(5), World::flowing);
}

#[test]
fn keys_are_renewed_every_two_minutes_without_a_gap_or_a_new_generation() {
    let mut world = World::new(4);
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(10 * 60));
    assert_eq!(world.lost_data, 0);
    for side in [A, B] {
        let counters = world.counters(side);
        let sessions = counters.completed_as_initiator + counters.completed_as_responder;
        let expected = 1 + 600 / REKEY_AFTER.as_secs();
        assert!((expected - 1..=expected).contains(&sessions), "{sessions}");
        let plane = &world.side(side).plane;
        assert!(plane.generations.iter().all(|&generation| generation == 1));
        assert!(plane.receive.len() <= 2, "old receive keys stay");
    }
}

#[test]
fn the_responder_renews_the_keys_when_the_initiator_cannot() {
    let mut world = World::new(5);
    world.knows = [true, false];
    world = world.restarted();
    world.run_until(MINUTE, World::flowing);
    assert_eq!(world.counters(A).completed_as_initiator, 1);
    world.no_inits_from = Some(A);
    world.run(REKEY_AFTER + limits::RESPONDER_GRACE - Duration::from_millis(100));
    assert!(world.counters(A).inits_sent > 1);
    assert_eq!(world.counters(B).inits_sent, 0);
    world.run(Duration::from_secs(3));
    assert_eq!(world.counters(A).completed_as_initiator, 1);
    assert_eq!(world.counters(B).completed_as_initiator, 1);
    assert!(world.flowing());
}

#[test]
fn many_seals_bring_a_new_key() {
    let mut world = World::new(6);
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(2));
    world.side(A).plane.seals = REKEY_AFTER_SEALS + REKEY_AFTER_SEALS / 8;
    world.run(Duration::from_secs(1));
    let counters = world.counters(A);
    assert_eq!(
        counters.completed_as_initiator + counters.completed_as_responder,
        2
    );
}

#[test]
fn keys_die_when_they_cannot_be_renewed() {
    let mut world = World::new(7);
    world.run_until(MINUTE, World::flowing);
    world.cut = true;
    world.run(KEY_LIFETIME + Duration::from_secs(1));
    for side in [A, B] {
        assert!(world.side(side).plane.send.is_none());
        assert!(world.side(side).plane.receive.is_empty());
    }
    world.cut = false;
    world.run_until(Duration::from_secs(5), World::flowing);
}

#[test]
fn a_gateway_that_is_killed_and_restarted_is_back_within_a_second() {
    for seed in 1..20 {
        let mut world = World::new(seed);
        world.run_until(MINUTE, World::flowing);
        world.run(Duration::from_secs(7));
        world.kill(B);
        world.run(Duration::from_millis(1300));
        world.start(B);
        let took = world.run_until(MINUTE, World::flowing);
        assert!(took < Duration::from_secs(1), "{took:?}");
        world.run(Duration::from_secs(2));
        assert_eq!(world.side(A).plane.generations, [1, 2]);
        assert_eq!(world.side(B).plane.generations, [1]);
        assert_eq!(
            world.side(A).plane.receive.len(),
            1,
            "keys of the old incarnation stay"
        );
    }
}

#[test]
fn a_restarted_gateway_that_does_not_know_us_is_found_within_5_s() {
    for (seed, away) in [(1, 1), (2, 5), (3, 20), (4, 60), (5, 170), (6, 300)] {
        let mut world = World::new(seed);
        world.knows = [true, false];
        world = world.restarted();
        world.run_until(MINUTE, World::flowing);
        world.run(Duration::from_secs(3));
        world.kill(B);
        world.run(Duration::from_secs(away));
        world.start(B);
        let took = world.run_until(MINUTE, World::flowing);
        assert!(took < Duration::from_secs(5), "{took:?} after {away} s");
    }
}

#[test]
fn an_outage_keeps_the_session() {
    let mut world = World::new(8);
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(2));
    world.cut = true;
    world.run(Duration::from_secs(20));
    for side in [A, B] {
        let side = world.side(side);
        let status = &side.sessions.status(&side.plane, side.plane.now)[0];
        assert_eq!(status.state, "silent");
    }
    assert!(world.flowing());
    world.cut = false;
    world.run(Duration::from_secs(8));
    for side in [A, B] {
        let side = world.side(side);
        let status = &side.sessions.status(&side.plane, side.plane.now)[0];
        assert_eq!(status.state, "up");
        assert_eq!(status.generation, 1);
    }
}

#[test]
fn close_ends_the_session_on_the_other_side() {
    let mut world = World::new(9);
    world.knows = [true, false];
    world = world.restarted();
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(1));
    let now = world.now;
    let side = world.sides[A].as_mut().unwrap();
    let mut fill = |_: &mut [u8]| {};
    let mut turn = Turn {
        now,
        wall_ns: 0,
        random: &mut fill,
        dataplane: &mut side.plane,
    };
    side.sessions.close(&mut turn);
    world.step();
    world.kill(A);
    world.run(Duration::from_millis(100));
    let b = &world.side(B).plane;
    assert!(b.send.is_none());
    assert_eq!(
        b.receive.len(),
        1,
        "what A sent before it closed is still on the way"
    );
    world.run(limits::CLOSE_GRACE);
    assert!(world.side(B).plane.receive.is_empty());
}

#[test]
fn a_replayed_init_is_counted_and_moves_nothing() {
    let mut world = World::new(10);
    world.knows = [true, false];
    world = world.restarted();
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(1));
    let (_, init) = world
        .captured
        .iter()
        .find(|(from, _)| *from == A)
        .cloned()
        .unwrap();
    assert_eq!(init.len(), INIT_LEN);
    let commands = world.side(B).plane.posted.len();
    for _ in 0..3 {
        world.deliver(B, address(A), &init);
    }
    assert_eq!(world.counters(B).rejected.of(Reject::Replayed), 3);
    assert_eq!(world.side(B).plane.posted.len(), commands);
}

#[test]
fn an_init_replayed_to_a_restarted_gateway_proves_nothing() {
    let mut world = World::new(11);
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(1));
    let inits: Vec<_> = world
        .captured
        .iter()
        .filter(|(_, datagram)| datagram.len() == INIT_LEN)
        .cloned()
        .collect();
    // A starts again as another incarnation, B too, and hears an init of A's former life.
    world.kill(A);
    world.start(B);
    for (from, init) in &inits {
        if *from == A {
            world.deliver(B, address(A), init);
        }
    }
    world.run(Duration::from_secs(30));
    assert!(world.side(B).plane.send.is_none());
    assert!(
        world.side(B).plane.receive.is_empty(),
        "an unconfirmed key stays"
    );
    assert_eq!(world.counters(B).unconfirmed, 1);
    world.start(A);
    world.run_until(Duration::from_secs(5), World::flowing);
}

#[test]
fn another_preshared_key_passes_nothing() {
    let mut world = World::new(12);
    world.psk = [[1; 32], [2; 32]];
    world = world.restarted();
    world.run(MINUTE);
    for side in [A, B] {
        assert!(world.side(side).plane.send.is_none());
        let counters = world.counters(side);
        assert_eq!(
            counters.completed_as_initiator + counters.completed_as_responder,
            0
        );
    }
    let refused = world.counters(A).rejected.of(Reject::Authentication)
        + world.counters(B).rejected.of(Reject::Authentication);
    assert!(refused > 0);
}

#[test]
fn a_stranger_passes_nothing() {
    let mut world = World::new(13);
    let stranger = World::new(99);
    world.run_until(MINUTE, World::flowing);
    // The stranger knows B's public key, so mac1 is right.
    let identity = Identity::new(Zeroizing::new(stranger.keys[A]));
    let settings = PeerSettings {
        name: "b".into(),
        public_key: crate::keys::public(&world.keys[B]),
        preshared_key: Zeroizing::new([0; 32]),
        port: 0,
        remote: Some(address(B)),
    };
    let mut random = Random(5);
    let mut fill = |bytes: &mut [u8]| random.fill(bytes);
    let mut plane = Fake::new(world.now);
    let mut sessions = Sessions::new(identity, vec![settings], world.now, &mut fill);
    let mut turn = Turn {
        now: world.now,
        wall_ns: 1,
        random: &mut fill,
        dataplane: &mut plane,
    };
    sessions.poll(&mut turn);
    let Some(Output::Send { datagram, .. }) = sessions.poll_output() else {
        panic!("no init")
    };
    world.deliver(B, SocketAddr::from(([10, 9, 0, 66], 4600)), &datagram);
    assert_eq!(world.counters(B).rejected.of(Reject::UnknownPeer), 1);
}

#[test]
fn an_init_from_elsewhere_is_refused_and_spends_nothing() {
    let mut world = World::new(14);
    world.knows = [true, true];
    world.cut = true;
    world.step();
    let (_, init) = world
        .captured
        .iter()
        .find(|(from, _)| *from == A)
        .cloned()
        .unwrap();
    world.deliver(B, SocketAddr::from(([10, 9, 0, 66], 4600)), &init);
    assert_eq!(world.counters(B).rejected.of(Reject::SourceAddress), 1);
    assert!(world.side(B).plane.receive.is_empty());
    // The same init from the right address is still good.
    world.deliver(B, address(A), &init);
    let refused = world.counters(B).rejected;
    assert_eq!(refused.total() - refused.of(Reject::Simultaneous), 1);
}

#[test]
fn a_flood_of_good_looking_inits_costs_a_bounded_number_of_handshakes() {
    let mut world = World::new(15);
    world.run_until(MINUTE, World::flowing);
    let mac1_key = Mac1Key::new(&crate::keys::public(&world.keys[B]));
    let mut init = world
        .captured
        .iter()
        .find(|(_, d)| d.len() == INIT_LEN)
        .unwrap()
        .1
        .clone();
    for n in 0..5000_u32 {
        init[20..24].copy_from_slice(&n.to_be_bytes());
        let end = init.len() - TRAILER_LEN;
        let mac1 = mac1_key.make(&init[..end]);
        init[end..end + MAC_LEN].copy_from_slice(&mac1);
        world.deliver(B, SocketAddr::from((n.to_be_bytes(), 4600)), &init);
    }
    let rejected = world.counters(B).rejected;
    let worked = rejected.of(Reject::Authentication);
    assert!(
        worked <= u64::from(limits::INITS_UNKNOWN_TOTAL.1),
        "{worked}"
    );
    assert_eq!(rejected.of(Reject::RateLimited), 5000 - worked);
    // The peer itself is still answered.
    world.kill(A);
    world.start(A);
    world.run_until(Duration::from_secs(1), World::flowing);
}

#[test]
fn a_forged_response_does_not_end_an_attempt() {
    let mut world = World::new(16);
    world.knows = [true, false];
    world = world.restarted();
    world.captured.clear();
    world.run_until(MINUTE, |world| {
        world.captured.iter().any(|(from, _)| *from == B)
    });
    let (_, response) = world
        .captured
        .iter()
        .find(|(from, _)| *from == B)
        .cloned()
        .unwrap();
    let mut forged = response.clone();
    forged[40] ^= 1;
    let mac1_key = Mac1Key::new(&crate::keys::public(&world.keys[A]));
    let end = forged.len() - TRAILER_LEN;
    let mac1 = mac1_key.make(&forged[..end]);
    forged[end..end + MAC_LEN].copy_from_slice(&mac1);
    world.deliver(A, address(B), &forged);
    assert_eq!(world.counters(A).rejected.of(Reject::Authentication), 1);
    let took = world.run_until(MINUTE, World::flowing);
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(world.counters(A).inits_sent, 1);
}

#[test]
fn corrupt_and_truncated_messages_are_counted_and_keep_nothing() {
    let mut world = World::new(17);
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(1));
    let free = world.side(B).sessions.shared.indices.free();
    let commands = world.side(B).plane.posted.len();
    let before = world.counters(B).rejected.total();
    let mut tried = 0;
    for (_, datagram) in world.captured.clone() {
        for at in 0..datagram.len() {
            let mut corrupt = datagram.clone();
            corrupt[at] ^= 0x40;
            world.deliver(B, address(A), &corrupt);
            world.deliver(B, address(A), &datagram[..at]);
            tried += 2;
        }
    }
    assert_eq!(world.counters(B).rejected.total() - before, tried);
    assert_eq!(world.side(B).plane.posted.len(), commands);
    assert_eq!(world.side(B).sessions.shared.indices.free(), free);
}

#[test]
fn no_response_is_longer_than_its_init() {
    let mut world = World::new(18);
    world.run_until(MINUTE, World::flowing);
    let lengths: Vec<_> = world.captured.iter().map(|(_, d)| d.len()).collect();
    assert!(lengths.iter().all(|&len| len <= INIT_LEN));
    assert!(lengths.iter().any(|&len| len < INIT_LEN));
}

#[test]
fn slots_come_back() {
    let mut world = World::new(19);
    world.run_until(MINUTE, World::flowing);
    for _ in 0..50 {
        world.kill(B);
        world.start(B);
        world.run(Duration::from_secs(6));
    }
    assert!(world.flowing());
    world.run(KEY_LIFETIME);
    let side = world.side(A);
    assert!(side.sessions.shared.indices.free() >= KEY_SLOTS - 1 - 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever the wire does, when it is good again the tunnel flows again.
    #[test]
    fn sessions_recover_from_any_history(
        seed in any::<u64>(),
        knows_b in any::<bool>(),
        events in proptest::collection::vec((0..6_u8, 50..4000_u64), 1..20),
    ) {
        let mut world = World::new(seed);
        world.knows = [true, knows_b];
        world = world.restarted();
        for (event, pause_ms) in events {
            match event {
                0 => world.kill(A),
                1 => world.kill(B),
                2 => world.start(A),
                3 => world.start(B),
                4 => world.loss_percent = 40,
                _ => world.cut = !world.cut,
            }
            world.run(Duration::from_millis(pause_ms));
        }
        world.cut = false;
        world.loss_percent = 0;
        for side in [A, B] {
            if world.sides[side].is_none() {
                world.start(side);
            }
        }
        world.run_until(Duration::from_secs(12), World::flowing);
        world.run(Duration::from_secs(3));
        prop_assert!(world.flowing());
    }
}
