//! What is refused for good reason, and what the operator is told.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::{Dispatch, Level};

use super::*;
use crate::session::tests::world::Packet;

/// An address that nobody is configured with.
fn elsewhere() -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 66], 4600))
}

fn last_init(world: &World, from: usize) -> Vec<u8> {
    let inits = world.captured.iter().rev();
    let mut inits = inits.filter(|(by, datagram)| *by == from && datagram.len() == INIT_LEN);
    inits.next().unwrap().1.clone()
}

fn remote(world: &World, side: usize) -> Option<SocketAddr> {
    let side = world.sides[side].as_ref().unwrap();
    side.sessions.remotes().next().unwrap().2
}

/// B has learned A's address, and A's next inits are captured but do not arrive.
fn learned(seed: u64) -> World {
    let mut world = World::new(seed);
    world.knows = [true, false];
    world = world.restarted();
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(2));
    world.no_inits_from = Some(A);
    world.elsewhere = Some(elsewhere());
    assert_eq!(remote(&world, B), Some(address(A)));
    world
}

/// A's last init comes from elsewhere, and B takes that for A's address from now on.
fn assert_moves_elsewhere(world: &mut World) {
    let init = last_init(world, A);
    world.deliver(B, elsewhere(), &init);
    world.run(Duration::from_millis(100));
    assert_eq!(world.counters(B).rejected.of(Reject::Roaming), 0);
    assert_eq!(remote(world, B), Some(elsewhere()));
}

#[test]
fn a_learned_address_stays_while_the_peer_lives_there() {
    let mut world = learned(21);
    world.side(A).plane.seals = 2 * REKEY_AFTER_SEALS;
    world.step();
    let init = last_init(&world, A);
    let commands = world.side(B).plane.posted.len();
    world.deliver(B, elsewhere(), &init);
    assert_eq!(world.counters(B).rejected.of(Reject::Roaming), 1);
    assert_eq!(world.side(B).plane.posted.len(), commands);
    // It has spent nothing: from where the peer lives the same init is answered.
    world.deliver(B, address(A), &init);
    world.run(Duration::from_millis(100));
    assert_eq!(world.counters(B).rejected.total(), 1);
    assert_eq!(world.counters(B).completed_as_responder, 2);
    assert_eq!(remote(&world, B), Some(address(A)));
}

#[test]
fn a_learned_address_moves_when_the_peer_is_silent_there() {
    // A's init must win the tie with B's own.
    let a_is_smaller = |seed: &u64| {
        let world = World::new(*seed);
        crate::keys::public(&world.keys[A]) < crate::keys::public(&world.keys[B])
    };
    let mut world = learned((1..).find(a_is_smaller).unwrap());
    world.cut = true;
    world.run(limits::SILENT_AFTER + Duration::from_millis(1500));
    world.cut = false;
    assert_moves_elsewhere(&mut world);
}

#[test]
fn a_peer_that_moves_without_a_pause_is_learned_anew_when_its_keys_die() {
    for seed in 27..32 {
        let mut world = learned(seed);
        world.no_inits_from = None;
        world.moved = true;
        let found = |world: &World| remote(world, B) == Some(elsewhere());
        world.run_until(KEY_LIFETIME + Duration::from_secs(5), found);
        assert!(world.counters(B).rejected.of(Reject::Roaming) > 0);
        world.run(Duration::from_secs(5));
        assert!(world.flowing());
        let a = world.side(A);
        assert_eq!(a.sessions.status(&a.plane, a.plane.now)[0].state, "up");
    }
}

#[test]
fn a_learned_address_moves_with_a_new_incarnation() {
    let mut world = learned(22);
    world.kill(A);
    world.start(A);
    world.step();
    assert_moves_elsewhere(&mut world);
}

#[test]
fn a_session_with_a_former_incarnation_is_dropped() {
    let mut world = World::new(23);
    world.run_until(MINUTE, World::flowing);
    world.run(Duration::from_secs(2));
    // A renews the keys, and what would confirm them to B is held back.
    world.side(A).plane.seals = 2 * REKEY_AFTER_SEALS;
    let before = world.counters(A).completed_as_initiator;
    world.run_until(MINUTE, |world| {
        world.counters(A).completed_as_initiator > before
    });
    let index = world.side(A).plane.send.unwrap().0;
    let held: Vec<_> = world
        .wire
        .extract_if(.., |_, (to, _, _)| *to == B)
        .filter_map(|(_, (_, _, packet))| match packet {
            Packet::Data(sealed) if sealed.index == index => Some(sealed),
            _ => None,
        })
        .collect();
    assert!(!held.is_empty());
    // A starts again, and B finds it.
    world.kill(A);
    world.start(A);
    world.no_inits_from = Some(A);
    world.run_until(Duration::from_secs(9), World::flowing);
    assert_eq!(world.side(B).plane.generations, [1, 2]);
    for sealed in held {
        assert!(world.side(B).plane.open(sealed));
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.counters(B).superseded, 1);
    assert_eq!(world.side(B).plane.generations, [1, 2]);
    assert!(world.side(B).plane.retired.iter().any(|&old| old == index));
    assert!(world.flowing());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn to(log: Log) -> Dispatch {
    tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_ansi(false)
        .with_writer(move || log.clone())
        .finish()
        .into()
}

/// The warnings that `run` causes.
fn warnings(run: impl FnOnce()) -> Vec<String> {
    // As long as there is only one subscriber, a line that is first met on a thread without it (by
    // another test) is switched off for all threads: so there are always two more.
    static OTHERS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [(); 2].map(|()| to(Log::default())));
    LazyLock::force(&OTHERS);
    tracing::callsite::rebuild_interest_cache();
    let log = Log::default();
    tracing::dispatcher::with_default(&to(log.clone()), run);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The lines that contain all of these.
fn with<'a>(lines: &'a [String], parts: &[&str]) -> Vec<&'a String> {
    let all = |line: &&String| parts.iter().all(|part| line.contains(part));
    lines.iter().filter(all).collect()
}

#[test]
fn a_wrong_public_key_of_ours_is_named_once_in_10_s() {
    let lines = warnings(|| {
        let mut world = World::new(24);
        world.step();
        // For B, not for A.
        let init = last_init(&world, A);
        for _ in 0..3 {
            world.deliver(A, elsewhere(), &init);
        }
        world.run(Duration::from_secs(9));
        world.deliver(A, elsewhere(), &init);
        world.run(Duration::from_secs(1));
        world.deliver(A, elsewhere(), &init);
        assert_eq!(world.counters(A).rejected.of(Reject::Mac1), 5);
    });
    let named = with(&lines, &["another public key", "10.9.0.66:4600"]);
    assert_eq!(named.len(), 2, "{lines:?}");
}

#[test]
fn a_wrong_preshared_key_is_named_and_so_is_the_lack_of_an_answer() {
    let lines = warnings(|| {
        let mut world = World::new(25);
        world.psk = [[1; 32], [2; 32]];
        world.knows = [true, false];
        world = world.restarted();
        world.run(Duration::from_secs(9));
    });
    let named = with(&lines, &["wrong preshared key", "10.9.0.2:4600"]);
    assert_eq!(named.len(), 1, "{lines:?}");
    let unanswered = with(&lines, &["5 inits without an answer", "10.9.0.2:4600"]);
    assert_eq!(unanswered.len(), 1, "{lines:?}");
}

#[test]
fn an_unknown_public_key_is_shown() {
    let mut offered = String::new();
    let lines = warnings(|| {
        let mut world = World::new(26);
        world.keys[A] = [7; 32];
        offered = crate::keys::to_text(&crate::keys::public(&world.keys[A]));
        // B still knows A by its former key.
        world.start(A);
        world.run(Duration::from_secs(5));
        assert!(world.counters(B).rejected.of(Reject::UnknownPeer) > 1);
    });
    let named = with(
        &lines,
        &["no peer is configured", &offered, "10.9.0.1:4600"],
    );
    assert_eq!(named.len(), 1, "{lines:?}");
}
