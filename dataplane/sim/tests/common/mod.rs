//! What several tests of the world need.

use std::time::Duration;

use proptest::prelude::*;
use shardgate_core::time::Time;
use shardgate_core::wire::checksum;
use shardgate_sim::gateway::{Gateway, Output, SentBytes};
use shardgate_sim::path::PathProfile;
use shardgate_sim::tcp::TcpReceiver;
use shardgate_sim::world::{FlowId, Site, World};

/// A point in virtual time.
pub fn at(seconds: f64) -> Time {
    Time::ZERO + Duration::from_secs_f64(seconds)
}

/// A world over one path.
pub fn world(gateways: [Box<dyn Gateway>; 2], path: &PathProfile, seed: u64) -> World {
    World::new(gateways, std::slice::from_ref(path), seed).expect("a valid profile")
}

/// Any path short of one that loses everything.
pub fn any_path() -> impl Strategy<Value = PathProfile> {
    let pace = (0.0..80.0, 0.0..20.0, prop::option::of(1.0..300.0));
    let harm = (0.0..0.2, 1.0..3.0, 0.0..0.2, 0.0..0.2, 0.0..0.1);
    (pace, harm).prop_map(
        |((delay_ms, jitter_ms, rate), (loss, burst, reorder, duplicate, corrupt))| PathProfile {
            delay_ms,
            jitter_ms,
            rate,
            loss,
            burst,
            reorder,
            duplicate,
            corrupt,
            ..PathProfile::default()
        },
    )
}

/// Bytes of a TCP flow from A that have reached the receiver at B, in order and right.
pub fn delivered(world: &World, flow: FlowId) -> u64 {
    let receiver: &TcpReceiver = world.host(flow, Site::B).expect("a receiver");
    assert_eq!(receiver.wrong_bytes(), 0);
    receiver.delivered()
}

/// Runs until B has all `bytes` of a flow, or for so long that it never will.
///
/// A timeout backs off to two minutes, and a path that loses a fifth makes dozens of them.
pub fn run_until_delivered(world: &mut World, flow: FlowId, bytes: u64) {
    let mut until = 1.0;
    while delivered(world, flow) < bytes && until < 50_000.0 {
        world.run_until(at(until));
        until *= 1.5;
    }
}

/// What a [`Wire`] does to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes as it is.
    Pass,
    /// It does not go.
    Drop,
    /// It gets a congestion mark, if its transport understands it.
    Mark,
}

/// No tunnel at all: frames are datagrams. `fate` sees each frame with its number, from 0.
pub struct Wire<F> {
    fate: F,
    count: u64,
    sent: SentBytes,
    /// Frames marked.
    pub marked: u64,
}

impl<F> Wire<F> {
    pub fn new(fate: F) -> Self {
        Self {
            fate,
            count: 0,
            sent: SentBytes::default(),
            marked: 0,
        }
    }
}

impl<F: FnMut(u64, &[u8]) -> Fate + 'static> Gateway for Wire<F> {
    fn handle_lan(&mut self, frame: &[u8], _now: Time, out: &mut Output) {
        let fate = (self.fate)(self.count, frame);
        self.count += 1;
        if fate == Fate::Drop {
            return;
        }
        let datagram = out.datagram(0);
        datagram.extend_from_slice(frame);
        self.sent.frames += frame.len() as u64;
        if fate == Fate::Mark && frame[15] & 0b11 == 0b10 {
            self.marked += 1;
            let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
            let checksum = checksum::update(word(24), word(14), word(14) | 0b11);
            datagram[15] |= 0b11;
            datagram[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    fn handle_wan(&mut self, _path: u8, datagram: &[u8], _now: Time, out: &mut Output) {
        out.frame().extend_from_slice(datagram);
    }

    fn poll(&mut self, _now: Time, _out: &mut Output) {}

    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    fn sent(&self) -> SentBytes {
        self.sent
    }
}

/// Two wires, of which that at A has the given effect.
pub fn wires(fate: impl FnMut(u64, &[u8]) -> Fate + 'static) -> [Box<dyn Gateway>; 2] {
    [
        Box::new(Wire::new(fate)),
        Box::new(Wire::new(|_, _: &[u8]| Fate::Pass)),
    ]
}
