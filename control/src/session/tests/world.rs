//! Two sides, a wire between them, and the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use shardgate_core::time::Time;
use shardgate_core::wire::handshake::INIT_LEN;
use zeroize::Zeroizing;

use crate::fake::{Fake, Random, Sealed};
use crate::session::{HandshakeCounters, Identity, Output, PeerSettings, Sessions, Turn};

pub const A: usize = 0;
pub const B: usize = 1;

pub fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, side as u8 + 1], 4600))
}

/// What travels between the two.
#[derive(Clone, Debug)]
pub enum Packet {
    Handshake(Vec<u8>),
    Data(Sealed),
}

pub struct Side {
    pub sessions: Sessions<usize>,
    pub plane: Fake,
}

pub struct World {
    pub sides: [Option<Side>; 2],
    pub keys: [[u8; 32]; 2],
    pub psk: [[u8; 32]; 2],
    /// Whether a side is configured with the other's address.
    pub knows: [bool; 2],
    pub wall_ns: [u64; 2],
    pub now: Time,
    pub delay: Duration,
    pub loss_percent: u32,
    pub cut: bool,
    /// Another address that handshakes may be sent to: it leads to the same side.
    pub elsewhere: Option<SocketAddr>,
    /// A is at `elsewhere` now, and no longer at its own address.
    pub moved: bool,
    pub no_inits_from: Option<usize>,
    pub random: Random,
    pub wire: BTreeMap<(Time, u64), (usize, SocketAddr, Packet)>,
    pub sent: u64,
    /// Every handshake datagram ever sent, and by whom.
    pub captured: Vec<(usize, Vec<u8>)>,
    /// Data that arrived and did not open.
    pub lost_data: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed | 1);
        let mut keys = [[0; 32]; 2];
        for key in &mut keys {
            random.fill(key);
        }
        let mut world = Self {
            sides: [None, None],
            keys,
            psk: [[0; 32]; 2],
            knows: [true, true],
            wall_ns: [1_700_000_000_000_000_000; 2],
            now: Time(5_000_000_000),
            delay: Duration::from_millis(20),
            loss_percent: 0,
            cut: false,
            elsewhere: None,
            moved: false,
            no_inits_from: None,
            random,
            wire: BTreeMap::new(),
            sent: 0,
            captured: Vec::new(),
            lost_data: 0,
        };
        world.start(A);
        world.start(B);
        world
    }

    /// Both sides again, with what the test changed.
    pub fn restarted(mut self) -> Self {
        self.start(A);
        self.start(B);
        self
    }

    pub fn start(&mut self, side: usize) {
        let peer = PeerSettings {
            name: format!("side-{}", 1 - side),
            public_key: crate::keys::public(&self.keys[1 - side]),
            preshared_key: Zeroizing::new(self.psk[side]),
            port: 0,
            remote: self.knows[side].then_some(address(1 - side)),
        };
        let identity = Identity::new(Zeroizing::new(self.keys[side]));
        let random = &mut self.random;
        let sessions = Sessions::new(identity, vec![peer], self.now, &mut |bytes| {
            random.fill(bytes)
        });
        self.sides[side] = Some(Side {
            sessions,
            plane: Fake::new(self.now),
        });
    }

    pub fn kill(&mut self, side: usize) {
        self.sides[side] = None;
    }

    pub fn side(&mut self, side: usize) -> &mut Side {
        self.sides[side].as_mut().unwrap()
    }

    pub fn counters(&self, side: usize) -> &HandshakeCounters {
        self.sides[side].as_ref().unwrap().sessions.counters()
    }

    pub fn transmit(&mut self, from: usize, packet: Packet) {
        let init = matches!(&packet, Packet::Handshake(datagram) if datagram.len() == INIT_LEN);
        if init && self.no_inits_from == Some(from) {
            return;
        }
        if self.cut || self.random.chance(self.loss_percent) {
            return;
        }
        self.sent += 1;
        let at = (self.now + self.delay, self.sent);
        let source = match self.elsewhere {
            Some(elsewhere) if self.moved && from == A => elsewhere,
            _ => address(from),
        };
        self.wire.insert(at, (1 - from, source, packet));
    }

    /// Hands a datagram to a side, as if it had come from `source`.
    pub fn deliver(&mut self, to: usize, source: SocketAddr, datagram: &[u8]) {
        let wall_ns = self.wall(to);
        let random = &mut self.random;
        let Some(side) = &mut self.sides[to] else {
            return;
        };
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let mut turn = Turn {
            now: self.now,
            wall_ns,
            random: &mut fill,
            dataplane: &mut side.plane,
        };
        side.sessions.handle(&mut turn, 0, source, datagram);
    }

    pub fn wall(&self, side: usize) -> u64 {
        self.wall_ns[side] + self.now.as_nanos()
    }

    /// One millisecond.
    pub fn step(&mut self) {
        self.now += Duration::from_millis(1);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, source, packet) = entry.remove();
            match packet {
                Packet::Handshake(datagram) => self.deliver(to, source, &datagram),
                Packet::Data(sealed) => {
                    let opened = self.sides[to]
                        .as_mut()
                        .is_some_and(|side| side.plane.open(sealed));
                    self.lost_data += u64::from(!opened);
                }
            }
        }
        for at in [A, B] {
            let wall_ns = self.wall(at);
            let random = &mut self.random;
            let Some(side) = &mut self.sides[at] else {
                continue;
            };
            side.plane.now = self.now;
            let mut fill = |bytes: &mut [u8]| random.fill(bytes);
            let mut turn = Turn {
                now: self.now,
                wall_ns,
                random: &mut fill,
                dataplane: &mut side.plane,
            };
            side.sessions.poll(&mut turn);
            let mut sealed = std::mem::take(&mut side.plane.out);
            let remote = side.sessions.remotes().find_map(|(_, _, remote)| remote);
            if self.moved && at == B && remote != self.elsewhere {
                sealed.clear();
            }
            let mut packets: Vec<_> = sealed.into_iter().map(Packet::Data).collect();
            while let Some(output) = side.sessions.poll_output() {
                if let Output::Send {
                    remote, datagram, ..
                } = output
                {
                    assert!(remote == address(1 - at) || Some(remote) == self.elsewhere);
                    self.captured.push((at, datagram.clone()));
                    if !self.moved || at == A || Some(remote) == self.elsewhere {
                        packets.push(Packet::Handshake(datagram));
                    }
                }
            }
            for packet in packets {
                self.transmit(at, packet);
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, and says how long that took; fails after `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < limit, "not done after {limit:?}");
            self.step();
        }
        self.now.since(start)
    }

    /// Both sides can seal what the other opens.
    pub fn flowing(&self) -> bool {
        let [Some(a), Some(b)] = &self.sides else {
            return false;
        };
        let opens = |from: &Side, to: &Side| {
            from.plane.send.is_some_and(|(index, key)| {
                to.plane
                    .receive
                    .get(&index)
                    .is_some_and(|(known, _)| *known == key)
            })
        };
        opens(a, b) && opens(b, a)
    }
}
