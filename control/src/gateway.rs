//! The control loop: between the dataplane on one side, and sessions and the gateway's own network
//! on the other.
//!
//! ```text
//! dataplane ─ frames ─► network ─ datagrams ─► sessions ─ commands ─► dataplane
//!     ▲                  │    ▲                   │
//!     └───── frames ─────┘    └──── datagrams ────┘
//! ```
//!
//! It also tells the dataplane where each peer's path leads: a path is set once the peer's address
//! and the next hop's are known, and again when one of them changes.

use shardgate_core::time::Time;
use shardgate_dataplane::command::{Command, PathAddress};
use tracing::debug;

use crate::dataplane::Dataplane;
use crate::limits;
use crate::network::{Network, NetworkCounters};
use crate::session::{HandshakeCounters, Output, SessionStatus, Sessions, Turn};

/// The only path id as long as a peer has one path.
const PATH: u8 = 0;

/// Sessions, network and paths of a gateway over its dataplane.
pub struct Gateway<D: Dataplane> {
    sessions: Sessions<D::Ticket>,
    network: Network,
    /// What the dataplane was told last, for each peer.
    paths: Vec<Option<PathAddress>>,
    frame: Vec<u8>,
    last_event: Time,
}

impl<D: Dataplane> Gateway<D> {
    /// Puts the parts together.
    pub fn new(sessions: Sessions<D::Ticket>, network: Network, now: Time) -> Self {
        let paths = sessions.remotes().map(|_| None).collect();
        Self {
            sessions,
            network,
            paths,
            frame: Vec::new(),
            last_event: now,
        }
    }

    /// One round of everything; true if there may be more to do at once.
    pub fn turn(
        &mut self,
        dataplane: &mut D,
        wall_ns: u64,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> bool {
        let now = dataplane.now();
        let mut turn = Turn {
            now,
            wall_ns,
            random,
            dataplane,
        };
        for _ in 0..limits::FRAMES_PER_TURN {
            let Some(port) = turn.dataplane.receive(&mut self.frame) else {
                break;
            };
            self.last_event = now;
            if let Some(datagram) = self.network.handle(now, port, &self.frame) {
                self.sessions
                    .handle(&mut turn, port, datagram.source, datagram.payload);
            }
        }
        self.sessions.poll(&mut turn);
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Send {
                    port,
                    remote,
                    datagram,
                } => {
                    self.network.send(now, port, remote, &datagram);
                }
                Output::CheckNextHop { port, remote } => {
                    self.network.check_next_hop(now, port, remote.ip());
                }
            }
        }
        self.set_paths(now, turn.dataplane);
        self.network.poll(now);
        while let Some((port, frame)) = self.network.poll_output() {
            self.last_event = now;
            let sent = turn.dataplane.send(port, &frame);
            self.network.note_sent(sent);
        }
        self.sessions.busy() || now.since(self.last_event) < limits::BUSY_AFTER_EVENT
    }

    /// Tells the dataplane about paths whose addresses have become known, or have changed.
    fn set_paths(&mut self, now: Time, dataplane: &mut D) {
        for ((peer, port, remote), known) in self.sessions.remotes().zip(&mut self.paths) {
            let Some(remote) = remote else { continue };
            let Some(next_hop) = self.network.next_hop(now, port, remote.ip()) else {
                continue;
            };
            let Some(local) = self.network.local(port) else {
                continue;
            };
            let address = PathAddress {
                port,
                local,
                remote,
                next_hop,
            };
            if *known != Some(address) {
                *known = Some(address);
                debug!(peer, %remote, "path set");
                dataplane.post(Command::SetPath {
                    peer,
                    path: PATH,
                    address: Some(address),
                });
            }
        }
    }

    /// Tells all peers that we stop; the ticket is acknowledged when the lcores have said so.
    pub fn close(
        &mut self,
        dataplane: &mut D,
        wall_ns: u64,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<D::Ticket> {
        let now = dataplane.now();
        self.sessions.close(&mut Turn {
            now,
            wall_ns,
            random,
            dataplane,
        })
    }

    /// How every session stands.
    pub fn sessions(&self, dataplane: &D) -> Vec<SessionStatus> {
        self.sessions.status(dataplane, dataplane.now())
    }

    /// What became of handshake messages.
    pub fn handshake_counters(&self) -> &HandshakeCounters {
        self.sessions.counters()
    }

    /// The gateway's own traffic.
    pub fn network_counters(&self) -> &NetworkCounters {
        self.network.counters()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use zeroize::Zeroizing;

    use super::*;
    use crate::fake::{Fake, Random, Sealed};
    use crate::keys;
    use crate::network::WanPort;
    use crate::session::{Identity, PeerSettings};

    const PORT: usize = 2;
    const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
    const DELAY: Duration = Duration::from_millis(10);

    enum Packet {
        Frame(Vec<u8>),
        Data(Sealed, PathAddress),
    }

    struct Side {
        gateway: Gateway<Fake>,
        plane: Fake,
        mac: [u8; 6],
    }

    /// Two gateways on one Ethernet link.
    struct Link {
        sides: [Side; 2],
        keys: [[u8; 32]; 2],
        random: Random,
        now: Time,
        loss_percent: u32,
        wire: BTreeMap<(Time, u64), (usize, Packet)>,
        sent: u64,
        arp_frames: usize,
    }

    fn side(
        at: usize,
        keys: &[[u8; 32]; 2],
        mac: [u8; 6],
        knows_other: bool,
        random: &mut Random,
        now: Time,
    ) -> Side {
        let other = 1 - at;
        let peer = PeerSettings {
            name: "peer".into(),
            public_key: keys::public(&keys[other]),
            preshared_key: Zeroizing::new([5; 32]),
            port: PORT,
            remote: knows_other.then(|| SocketAddr::from((ADDRESSES[other], 4600))),
        };
        let wan = WanPort {
            port: PORT,
            address: ADDRESSES[at],
            prefix_len: 24,
            gateway: None,
            mac,
        };
        let identity = Identity::new(Zeroizing::new(keys[at]));
        let sessions = Sessions::new(identity, vec![peer], now, &mut |bytes| random.fill(bytes));
        let mut plane = Fake::new(now);
        plane.needs_path = true;
        let gateway = Gateway::new(sessions, Network::new(vec![wan], 4600, now), now);
        Side {
            gateway,
            plane,
            mac,
        }
    }

    impl Link {
        fn new(seed: u64, knows_other: [bool; 2]) -> Self {
            let mut random = Random(seed | 1);
            let mut keys = [[0; 32]; 2];
            keys.iter_mut().for_each(|key| random.fill(key));
            let now = Time(1_000_000_000);
            let mut make = |at: usize| {
                let mac = [2, 0, 0, 0, 0, at as u8 + 1];
                side(at, &keys, mac, knows_other[at], &mut random, now)
            };
            let sides = [make(0), make(1)];
            Self {
                sides,
                keys,
                random,
                now,
                loss_percent: 0,
                wire: BTreeMap::new(),
                sent: 0,
                arp_frames: 0,
            }
        }

        /// One millisecond.
        fn step(&mut self) {
            self.now += Duration::from_millis(1);
            while let Some(entry) = self.wire.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, packet) = entry.remove();
                let side = &mut self.sides[to];
                match packet {
                    Packet::Frame(frame) => {
                        let to_it = frame[..6] == side.mac || frame[..6] == [0xff; 6];
                        if to_it {
                            side.plane.frames_in.push_back((PORT, frame));
                        }
                    }
                    Packet::Data(sealed, path) => {
                        let local = SocketAddr::from((ADDRESSES[to], 4600));
                        assert_eq!(path.remote, local);
                        if path.next_hop == side.mac {
                            side.plane.open(sealed);
                        }
                    }
                }
            }
            for at in [0, 1] {
                let random = &mut self.random;
                let side = &mut self.sides[at];
                side.plane.now = self.now;
                let wall_ns = self.now.as_nanos();
                side.gateway
                    .turn(&mut side.plane, wall_ns, &mut |bytes| random.fill(bytes));
                let frames = std::mem::take(&mut side.plane.frames_out);
                let sealed = std::mem::take(&mut side.plane.out);
                let path = side.plane.path;
                for (port, frame) in frames {
                    assert_eq!(port, PORT);
                    self.arp_frames += usize::from(frame[12..14] == [8, 6]);
                    self.transmit(at, Packet::Frame(frame));
                }
                for sealed in sealed {
                    self.transmit(at, Packet::Data(sealed, path.unwrap()));
                }
            }
        }

        fn transmit(&mut self, from: usize, packet: Packet) {
            if !self.random.chance(self.loss_percent) {
                self.sent += 1;
                self.wire
                    .insert((self.now + DELAY, self.sent), (1 - from, packet));
            }
        }

        /// Both sides hear each other under keys that are in use.
        fn up(&self) -> bool {
            self.sides.iter().all(|side| {
                let status = &side.gateway.sessions(&side.plane)[0];
                let fresh = status.last_heard_ms.is_some_and(|ms| ms < 1200.0);
                status.state == "up" && fresh
            })
        }

        fn run_until_up(&mut self, limit: Duration) -> Duration {
            let begun = self.now;
            while !self.up() {
                assert!(self.now.since(begun) < limit, "not up after {limit:?}");
                self.step();
            }
            self.now.since(begun)
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.step();
            }
        }
    }

    #[test]
    fn two_gateways_find_each_other_on_a_link() {
        let mut link = Link::new(1, [true, true]);
        let took = link.run_until_up(Duration::from_secs(1));
        // ARP, init, response, challenge, and the echo: five ways.
        assert!(took < 6 * DELAY + Duration::from_millis(20), "{took:?}");
        for at in [0, 1] {
            let path = link.sides[at].plane.path.unwrap();
            assert_eq!(path.next_hop, link.sides[1 - at].mac);
            assert_eq!(path.local, SocketAddr::from((ADDRESSES[at], 4600)));
            assert_eq!(path.port, PORT);
        }
    }

    #[test]
    fn a_gateway_learns_the_address_of_its_peer() {
        let mut link = Link::new(2, [true, false]);
        assert_eq!(
            link.sides[1].gateway.sessions(&link.sides[1].plane)[0].state,
            "waiting"
        );
        link.run_until_up(Duration::from_secs(1));
        let path = link.sides[1].plane.path.unwrap();
        assert_eq!(path.remote, SocketAddr::from((ADDRESSES[0], 4600)));
        assert_eq!(path.next_hop, link.sides[0].mac);
    }

    #[test]
    fn a_gateway_that_comes_back_with_another_mac_is_found() {
        for (seed, knows_other) in [(3, [true, true]), (4, [true, false])] {
            let mut link = Link::new(seed, knows_other);
            link.run_until_up(Duration::from_secs(1));
            link.run(Duration::from_secs(3));
            let (now, keys) = (link.now, link.keys);
            link.sides[1] = side(
                1,
                &keys,
                [2, 0, 0, 0, 0, 77],
                knows_other[1],
                &mut link.random,
                now,
            );
            assert!(!link.up());
            link.run_until_up(Duration::from_secs(6));
            link.run(Duration::from_secs(2));
            assert_eq!(
                link.sides[0].plane.path.unwrap().next_hop,
                [2, 0, 0, 0, 0, 77]
            );
        }
    }

    #[test]
    fn loss_delays_and_does_not_prevent() {
        for seed in 10..20 {
            let mut link = Link::new(seed, [true, true]);
            link.loss_percent = 30;
            link.run_until_up(Duration::from_secs(20));
        }
    }

    #[test]
    fn an_idle_link_stays_quiet() {
        let mut link = Link::new(5, [true, true]);
        link.run_until_up(Duration::from_secs(1));
        link.arp_frames = 0;
        let sent = link.sent;
        link.run(Duration::from_secs(100));
        assert!(link.up());
        // A refresh and its answer for each side every 30 s.
        assert!(link.arp_frames <= 16, "{}", link.arp_frames);
        // A challenge and its echo for each side every second.
        assert!(link.sent - sent < 450, "{}", link.sent - sent);
    }
}
