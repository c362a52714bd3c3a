//! The gateway's own network on its WAN ports: ARP, ICMP echo, and the UDP of the handshake.
//!
//! Pure: frames come in through [`Network::handle`], frames to send come out of
//! [`Network::poll_output`]. It keeps nothing on a stranger's account: a ping is answered to the
//! Ethernet address that it came from, and neighbours are only those that a peer is reached by.

mod frames;
mod neighbours;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use serde::Serialize;
use shardgate_core::time::Time;
use tracing::warn;

use self::frames::Incoming;
use self::neighbours::Neighbours;
use crate::limits;
use crate::session::Bucket;

/// A WAN port.
pub struct WanPort {
    /// Index of the port in the dataplane.
    pub port: usize,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
    /// The router for all that is not on the link.
    pub gateway: Option<Ipv4Addr>,
    /// The port's Ethernet address.
    pub mac: [u8; 6],
}

impl WanPort {
    /// Who gets the frames for `destination`.
    fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        if on_link(self.address, self.prefix_len, destination) {
            Some(destination)
        } else {
            self.gateway
        }
    }
}

/// Are the two addresses in one network?
pub fn on_link(address: Ipv4Addr, prefix_len: u8, other: Ipv4Addr) -> bool {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(prefix_len.min(32)))
        .unwrap_or(0);
    u32::from(address) & mask == u32::from(other) & mask
}

/// Counters of the gateway's own traffic; they only grow.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct NetworkCounters {
    /// Frames that the dataplane handed up.
    pub received: u64,
    /// Frames handed down.
    pub sent: u64,
    /// Frames that the dataplane had no room for.
    pub send_ring_full: u64,
    /// Malformed frames, and frames that are nothing to us.
    pub ignored: u64,
    /// ARP requests answered.
    pub arp_replies: u64,
    /// ARP requests sent.
    pub arp_requests: u64,
    /// ARP answers that we had not asked for.
    pub arp_unasked: u64,
    /// Somebody else on the link says that it has our address.
    pub arp_conflicts: u64,
    /// Pings answered.
    pub echo_replies: u64,
    /// ARP requests and pings left unanswered, for there were too many.
    pub rate_limited: u64,
    /// Datagrams that could not be sent, for there is no way to the peer.
    pub unreachable: u64,
}

struct Port {
    settings: WanPort,
    arp_replies: Bucket,
    echo_replies: Bucket,
    conflict_warned: bool,
}

/// The gateway as a host on its WAN links.
pub struct Network {
    ports: Vec<Port>,
    listen_port: u16,
    neighbours: Neighbours,
    outputs: VecDeque<(usize, Vec<u8>)>,
    counters: NetworkCounters,
}

/// A datagram to our UDP port.
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// What it says.
    pub payload: &'a [u8],
}

impl Network {
    /// A host with these ports; `listen_port` is its one UDP port.
    pub fn new(ports: Vec<WanPort>, listen_port: u16, now: Time) -> Self {
        let port = |settings| Port {
            settings,
            arp_replies: Bucket::new(limits::ARP_REPLIES, now),
            echo_replies: Bucket::new(limits::ECHO_REPLIES, now),
            conflict_warned: false,
        };
        Self {
            ports: ports.into_iter().map(port).collect(),
            listen_port,
            neighbours: Neighbours::default(),
            outputs: VecDeque::new(),
            counters: NetworkCounters::default(),
        }
    }

    /// Takes in a frame; a datagram to our UDP port comes back.
    pub fn handle<'a>(&mut self, now: Time, port: usize, frame: &'a [u8]) -> Option<Datagram<'a>> {
        self.counters.received += 1;
        let found = self
            .ports
            .iter_mut()
            .find(|known| known.settings.port == port);
        let incoming = found.and_then(|port| {
            let incoming = frames::read(frame, port.settings.mac, port.settings.address)?;
            Some((port, incoming))
        });
        let Some((here, incoming)) = incoming else {
            self.counters.ignored += 1;
            return None;
        };
        let (mac, ours) = (here.settings.mac, here.settings.address);
        match incoming {
            Incoming::ArpRequest {
                sender_mac,
                sender,
                target,
            } => {
                if sender == ours {
                    self.conflict(port, sender_mac);
                } else if target == ours {
                    if here.arp_replies.take(now) {
                        let reply = frames::arp_reply(mac, ours, sender_mac, sender);
                        self.outputs.push_back((port, reply));
                        self.counters.arp_replies += 1;
                    } else {
                        self.counters.rate_limited += 1;
                    }
                }
                self.neighbours.overheard(now, port, sender, sender_mac);
            }
            Incoming::ArpReply {
                sender_mac,
                sender,
                target_mac,
            } => {
                if sender == ours {
                    self.conflict(port, sender_mac);
                } else if target_mac == mac {
                    self.arp_answer(now, port, sender, sender_mac);
                } else {
                    self.neighbours.overheard(now, port, sender, sender_mac);
                }
            }
            Incoming::EchoRequest {
                source_mac,
                source,
                ident,
                seq_no,
                data,
            } => {
                if here.echo_replies.take(now) {
                    let reply = frames::echo_reply(
                        (mac, ours),
                        (source_mac, source),
                        (ident, seq_no),
                        data,
                    );
                    self.outputs.push_back((port, reply));
                    self.counters.echo_replies += 1;
                } else {
                    self.counters.rate_limited += 1;
                }
            }
            Incoming::Udp {
                source,
                destination_port,
                payload,
            } => {
                if destination_port == self.listen_port {
                    return Some(Datagram {
                        source: SocketAddr::V4(source),
                        payload,
                    });
                }
                self.counters.ignored += 1;
            }
        }
        None
    }

    fn arp_answer(&mut self, now: Time, port: usize, sender: Ipv4Addr, mac: [u8; 6]) {
        let (asked, waiting) = self.neighbours.answered(now, port, sender, mac);
        if !asked {
            self.counters.arp_unasked += 1;
            self.neighbours.overheard(now, port, sender, mac);
        }
        if let Some(mut frame) = waiting {
            if let Some(destination) = frame.get_mut(..mac.len()) {
                destination.copy_from_slice(&mac);
            }
            self.outputs.push_back((port, frame));
        }
    }

    fn conflict(&mut self, port: usize, mac: [u8; 6]) {
        self.counters.arp_conflicts += 1;
        let found = self
            .ports
            .iter_mut()
            .find(|known| known.settings.port == port);
        if let Some(here) = found.filter(|here| !here.conflict_warned) {
            here.conflict_warned = true;
            let [a, b, c, d, e, f] = mac;
            warn!(
                address = %here.settings.address,
                other = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
                "another host on the link uses our address"
            );
        }
    }

    /// The Ethernet address of the next hop to `remote`, if known; else it is looked for.
    pub fn next_hop(&mut self, now: Time, port: usize, remote: IpAddr) -> Option<[u8; 6]> {
        let hop = self.hop(port, remote)?;
        self.neighbours.find(now, port, hop)
    }

    /// Looks again where the next hop to `remote` is.
    pub fn check_next_hop(&mut self, now: Time, port: usize, remote: IpAddr) {
        if let Some(hop) = self.hop(port, remote) {
            self.neighbours.refresh(now, port, hop);
        }
    }

    fn hop(&self, port: usize, remote: IpAddr) -> Option<Ipv4Addr> {
        let IpAddr::V4(remote) = remote else {
            return None;
        };
        self.wan(port)?.next_hop(remote)
    }

    fn wan(&self, port: usize) -> Option<&WanPort> {
        self.ports
            .iter()
            .map(|port| &port.settings)
            .find(|settings| settings.port == port)
    }

    /// Our address and UDP port on a WAN port.
    pub fn local(&self, port: usize) -> Option<SocketAddr> {
        let address = self.wan(port)?.address;
        Some(SocketAddr::V4(SocketAddrV4::new(address, self.listen_port)))
    }

    /// Sends a datagram from our UDP port. As long as the next hop is unknown, the newest
    /// datagram for it waits.
    pub fn send(&mut self, now: Time, port: usize, remote: SocketAddr, payload: &[u8]) {
        let way = self.wan(port).zip(self.hop(port, remote.ip()));
        let (Some((settings, hop)), SocketAddr::V4(to)) = (way, remote) else {
            self.counters.unreachable += 1;
            return;
        };
        let from = SocketAddrV4::new(settings.address, self.listen_port);
        let mac = settings.mac;
        match self.neighbours.find(now, port, hop) {
            Some(next_hop) => {
                let frame = frames::udp(mac, next_hop, from, to, payload);
                self.outputs.push_back((port, frame));
            }
            None => {
                let frame = frames::udp(mac, [0; 6], from, to, payload);
                self.neighbours.hold(port, hop, frame);
            }
        }
    }

    /// Asks for neighbours when it is time.
    pub fn poll(&mut self, now: Time) {
        for ask in self.neighbours.poll(now) {
            let Some(settings) = self.wan(ask.port) else {
                continue;
            };
            let frame = frames::arp_request(settings.mac, settings.address, ask.target, ask.known);
            self.outputs.push_back((ask.port, frame));
            self.counters.arp_requests += 1;
        }
    }

    /// The next frame to send, and its port.
    pub fn poll_output(&mut self) -> Option<(usize, Vec<u8>)> {
        self.outputs.pop_front()
    }

    /// Notes what became of a frame from [`poll_output`](Self::poll_output).
    pub fn note_sent(&mut self, sent: bool) {
        if sent {
            self.counters.sent += 1;
        } else {
            self.counters.send_ring_full += 1;
        }
    }

    /// The counters of the gateway's own traffic.
    pub fn counters(&self) -> &NetworkCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);
    const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const NOW: Time = Time(1_000_000_000);

    fn network(gateway: Option<Ipv4Addr>) -> Network {
        let port = WanPort {
            port: 3,
            address: OURS,
            prefix_len: 24,
            gateway,
            mac: OUR_MAC,
        };
        Network::new(vec![port], 4600, NOW)
    }

    fn remote(address: [u8; 4]) -> SocketAddr {
        SocketAddr::from((address, 4600))
    }

    fn target_of_request(frame: &[u8]) -> Ipv4Addr {
        let Some(Incoming::ArpRequest { target, .. }) =
            frames::read(frame, HOST_MAC, Ipv4Addr::UNSPECIFIED)
        else {
            panic!("not an ARP request: {frame:?}");
        };
        target
    }

    #[test]
    fn prefixes_of_every_length() {
        let a = Ipv4Addr::new(10, 9, 0, 1);
        assert!(on_link(a, 0, Ipv4Addr::new(200, 1, 1, 1)));
        assert!(on_link(a, 24, Ipv4Addr::new(10, 9, 0, 254)));
        assert!(!on_link(a, 24, Ipv4Addr::new(10, 9, 1, 1)));
        assert!(on_link(a, 31, Ipv4Addr::new(10, 9, 0, 0)));
        assert!(!on_link(a, 31, Ipv4Addr::new(10, 9, 0, 2)));
        assert!(on_link(a, 32, a));
        assert!(!on_link(a, 32, Ipv4Addr::new(10, 9, 0, 0)));
    }

    #[test]
    fn a_datagram_waits_for_the_neighbour_and_leaves_when_it_answers() {
        let mut network = network(None);
        network.send(NOW, 3, remote([10, 9, 0, 2]), b"old");
        network.send(NOW, 3, remote([10, 9, 0, 2]), b"new");
        assert_eq!(network.poll_output(), None);
        network.poll(NOW);
        let (port, request) = network.poll_output().unwrap();
        assert_eq!(port, 3);
        assert_eq!(target_of_request(&request), Ipv4Addr::new(10, 9, 0, 2));
        let answer = frames::arp_reply(HOST_MAC, Ipv4Addr::new(10, 9, 0, 2), OUR_MAC, OURS);
        assert!(network.handle(NOW, 3, &answer).is_none());
        let (_, frame) = network.poll_output().unwrap();
        assert_eq!(frame[..6], HOST_MAC);
        assert!(frame.windows(3).any(|window| window == b"new"));
        assert_eq!(network.poll_output(), None);
        assert_eq!(
            network.next_hop(NOW, 3, IpAddr::from([10, 9, 0, 2])),
            Some(HOST_MAC)
        );
    }

    #[test]
    fn what_is_not_on_the_link_goes_through_the_router() {
        let mut with_router = network(Some(ROUTER));
        with_router.send(NOW, 3, remote([192, 0, 2, 7]), b"x");
        with_router.poll(NOW);
        let (_, request) = with_router.poll_output().unwrap();
        assert_eq!(target_of_request(&request), ROUTER);

        let mut without = network(None);
        without.send(NOW, 3, remote([192, 0, 2, 7]), b"x");
        without.poll(NOW);
        assert_eq!(without.poll_output(), None);
        assert_eq!(without.counters().unreachable, 1);
    }

    #[test]
    fn our_address_is_defended_and_announced_to_who_asks() {
        let mut network = network(None);
        let host = Ipv4Addr::new(10, 9, 0, 7);
        network.handle(NOW, 3, &frames::arp_request(HOST_MAC, host, OURS, None));
        let (_, reply) = network.poll_output().unwrap();
        assert_eq!(
            frames::read(&reply, HOST_MAC, host),
            Some(Incoming::ArpReply {
                sender_mac: OUR_MAC,
                sender: OURS,
                target_mac: HOST_MAC
            })
        );
        network.handle(NOW, 3, &frames::arp_request(HOST_MAC, host, ROUTER, None));
        assert_eq!(network.poll_output(), None, "somebody else's address");
        network.handle(NOW, 3, &frames::arp_request(HOST_MAC, OURS, ROUTER, None));
        assert_eq!(network.counters().arp_conflicts, 1);
    }

    #[test]
    fn floods_of_questions_are_answered_at_a_bounded_rate() {
        let mut network = network(None);
        let host = Ipv4Addr::new(10, 9, 0, 7);
        let request = frames::arp_request(HOST_MAC, host, OURS, None);
        for _ in 0..1000 {
            network.handle(NOW, 3, &request);
        }
        assert_eq!(
            network.counters().arp_replies,
            u64::from(limits::ARP_REPLIES.1)
        );
        assert_eq!(
            network.counters().rate_limited,
            1000 - u64::from(limits::ARP_REPLIES.1)
        );
        assert_eq!(network.neighbours.len(), 0, "a stranger was remembered");
    }

    #[test]
    fn only_our_udp_port_is_handed_on() {
        let mut network = network(None);
        let mut hand = |port| {
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 7), 5000);
            let to = SocketAddrV4::new(OURS, port);
            let frame = frames::udp(HOST_MAC, OUR_MAC, from, to, b"hello");
            network
                .handle(NOW, 3, &frame)
                .map(|datagram| datagram.source)
        };
        assert_eq!(hand(4600), Some(SocketAddr::from(([10, 9, 0, 7], 5000))));
        assert_eq!(hand(4601), None);
        assert_eq!(network.counters().ignored, 1);
        assert_eq!(
            network
                .handle(NOW, 9, &[0; 60])
                .map(|datagram| datagram.source),
            None
        );
    }
}
