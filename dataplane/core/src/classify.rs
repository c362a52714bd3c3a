//! From an Ethernet frame to its lane, by addresses, protocol, ports and DSCP.

use core::ops::Range;

use crate::lane::{Class, Lane};

const ETHERNET_LEN: usize = 14;
const VLAN_TAG_LEN: usize = 4;
/// Tags looked through: a service and a customer tag.
const VLAN_TAGS_MAX: usize = 2;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
/// FIN, SYN, RST and ACK; of these a pure acknowledgement has the last alone.
const TCP_FLAGS: u8 = 0x17;
const TCP_ACK: u8 = 0x10;
const PORT_DNS: u16 = 53;

/// DSCP EF (RFC 3246).
const DSCP_EF: u8 = 46;
/// DSCP CS4 (RFC 2474); it and above are for traffic that somebody waits for.
const DSCP_CS4: u8 = 32;

/// A frame's lane, what it follows from, and where its TCP header is if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The lane it goes into, by this frame alone.
    pub lane: Lane,
    /// The lane's class.
    pub class: Class,
    /// Of the flow's identity: the lane of another class is
    /// [`Lane::for_flow`] of that class and this.
    pub hash: u64,
    /// Whether it is a UDP datagram with its ports, so no fragment: what
    /// [`FlowTable`](crate::flows::FlowTable) has a say in.
    pub is_udp: bool,
    /// For a TCP segment that is no later fragment: offset of the IP header and of the TCP header.
    pub tcp: Option<TcpAt>,
}

/// Offsets of a TCP segment's headers in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpAt {
    /// Where the IP header begins.
    pub ip: usize,
    /// Where the TCP header begins.
    pub tcp: usize,
    /// Whether it is IPv4.
    pub is_ipv4: bool,
}

/// A hash of a flow's identity; wyhash's mixing step over 64-bit words.
struct FlowHash(u64);

impl FlowHash {
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xa076_1d64_78bd_642f_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
}

struct Flow {
    hash: FlowHash,
    class: Class,
    is_udp: bool,
    tcp: Option<TcpAt>,
}

/// Finds a frame's lane. Frames of an unknown kind, or cut short, go by what can be read; at the
/// least by their MAC addresses.
pub fn classify(frame: &[u8]) -> Classified {
    let mut flow = Flow {
        hash: FlowHash(0x9e37_79b9_7f4a_7c15),
        class: Class::Bulk,
        is_udp: false,
        tcp: None,
    };
    if flow.ethernet(frame).is_none() {
        flow.hash.add_bytes(frame.get(..12).unwrap_or(frame));
    }
    Classified {
        lane: Lane::for_flow(flow.class, flow.hash.0),
        class: flow.class,
        hash: flow.hash.0,
        is_udp: flow.is_udp,
        tcp: flow.tcp,
    }
}

/// Where a frame's IP header begins, by its EtherType behind up to two VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpAt {
    V4(usize),
    V6(usize),
}

/// Looks through the VLAN tags. The header itself may be cut short.
pub(crate) fn find_ip(frame: &[u8]) -> Option<IpAt> {
    let mut at = ETHERNET_LEN;
    for _ in 0..=VLAN_TAGS_MAX {
        match word(frame, at - 2)? {
            0x8100 | 0x88a8 => at += VLAN_TAG_LEN,
            0x0800 => return Some(IpAt::V4(at)),
            0x86dd => return Some(IpAt::V6(at)),
            _ => return None,
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Flow {
    fn ethernet(&mut self, frame: &[u8]) -> Option<()> {
        match find_ip(frame)? {
            IpAt::V4(at) => self.ipv4(frame, at),
            IpAt::V6(at) => self.ipv6(frame, at),
        }
    }

    fn ipv4(&mut self, frame: &[u8], at: usize) -> Option<()> {
        let header = frame.get(at..)?.first_chunk::<20>()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        self.hash.add_bytes(&header[12..20]);
        self.dscp(header[1] >> 2);
        let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        if !is_fragment && header_len >= 20 {
            let end = at + usize::from(u16::from_be_bytes([header[2], header[3]]));
            self.transport(frame, at..end, at + header_len, header[9], true);
        } else {
            self.hash.add(u64::from(header[9]));
        }
        Some(())
    }

    fn ipv6(&mut self, frame: &[u8], at: usize) -> Option<()> {
        let header = frame.get(at..)?.first_chunk::<40>()?;
        self.hash.add_bytes(&header[8..40]);
        self.dscp((u16::from_be_bytes([header[0], header[1]]) >> 6 & 0x3f) as u8);
        let end = at + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        self.transport(frame, at..end, at + 40, header[6], false);
        Some(())
    }

    fn dscp(&mut self, dscp: u8) {
        if dscp == DSCP_EF || dscp >= DSCP_CS4 {
            self.class = Class::Interactive;
        }
    }

    fn transport(
        &mut self,
        frame: &[u8],
        ip: Range<usize>,
        at: usize,
        protocol: u8,
        is_ipv4: bool,
    ) {
        self.hash.add(u64::from(protocol));
        if matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) {
            self.class = Class::Interactive;
        }
        if !matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
            return;
        }
        let (Some(source), Some(destination)) = (word(frame, at), word(frame, at + 2)) else {
            return;
        };
        self.hash
            .add(u64::from(source) << 16 | u64::from(destination));
        self.is_udp = protocol == PROTOCOL_UDP;
        if self.is_udp && (source == PORT_DNS || destination == PORT_DNS) {
            self.class = Class::Interactive;
        }
        if protocol == PROTOCOL_TCP {
            if is_pure_ack(frame, at, ip.end) {
                self.class = Class::Interactive;
            }
            self.tcp = Some(TcpAt {
                ip: ip.start,
                tcp: at,
                is_ipv4,
            });
        }
    }
}

/// Whether a TCP segment, from `at` to the IP packet's `end`, does nothing but acknowledge.
///
/// Acknowledgements are cumulative: one that is missing says nothing that the next does not. Held in
/// order behind a hole they would add a round trip to the one that their sender measures, so they
/// do not share the lane of the data of their flow.
fn is_pure_ack(frame: &[u8], at: usize, end: usize) -> bool {
    let (Some(offset), Some(flags)) = (frame.get(at + 12), frame.get(at + 13)) else {
        return false;
    };
    let header_len = usize::from(offset >> 4) * 4;
    flags & TCP_FLAGS == TCP_ACK && at + header_len == end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 frame: VLAN tags, DSCP, protocol and ports as given.
    fn frame(tags: &[u16], dscp: u8, protocol: u8, ports: (u16, u16)) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend_from_slice(&tag.to_be_bytes());
            frame.extend_from_slice(&[0, 7]);
        }
        frame.extend_from_slice(&[8, 0, 0x45, dscp << 2, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend_from_slice(&ports.0.to_be_bytes());
        frame.extend_from_slice(&ports.1.to_be_bytes());
        frame.resize(frame.len() + 16, 0);
        frame
    }

    #[test]
    fn class_follows_dscp_icmp_and_dns() {
        let class =
            |dscp, protocol, ports| classify(&frame(&[], dscp, protocol, ports)).lane.class();
        assert_eq!(class(0, PROTOCOL_TCP, (1, 2)), Class::Bulk);
        assert_eq!(class(46, PROTOCOL_TCP, (1, 2)), Class::Interactive);
        assert_eq!(class(32, PROTOCOL_UDP, (1, 2)), Class::Interactive);
        assert_eq!(class(31, PROTOCOL_UDP, (1, 2)), Class::Bulk);
        assert_eq!(class(0, PROTOCOL_ICMP, (0, 0)), Class::Interactive);
        assert_eq!(class(0, PROTOCOL_UDP, (53, 40000)), Class::Interactive);
        assert_eq!(class(0, PROTOCOL_TCP, (53, 40000)), Class::Bulk);
    }

    #[test]
    fn says_what_the_lane_follows_from() {
        let udp = classify(&frame(&[], 0, PROTOCOL_UDP, (1, 2)));
        assert!(udp.is_udp && udp.class == Class::Bulk);
        assert_eq!(udp.lane, Lane::for_flow(udp.class, udp.hash));
        let dns = classify(&frame(&[], 0, PROTOCOL_UDP, (1, PORT_DNS)));
        assert!(dns.is_udp && dns.class == Class::Interactive && dns.hash != udp.hash);
        assert!(!classify(&frame(&[], 0, PROTOCOL_TCP, (1, 2))).is_udp);
        let mut fragment = frame(&[], 0, PROTOCOL_UDP, (1, 2));
        fragment[20] = 0x20;
        assert!(!classify(&fragment).is_udp);
    }

    #[test]
    fn pure_acknowledgements_do_not_wait_with_data() {
        let class = |flags: u8, offset: u8, total_len: u8| {
            let mut frame = frame(&[], 0, PROTOCOL_TCP, (1, 2));
            frame[17] = total_len;
            frame.resize(80, 0);
            frame[34 + 12] = offset << 4;
            frame[34 + 13] = flags;
            classify(&frame).lane.class()
        };
        assert_eq!(class(0x10, 5, 40), Class::Interactive);
        assert_eq!(
            class(0x18, 8, 52),
            Class::Interactive,
            "with options, and pushed"
        );
        assert_eq!(class(0x10, 5, 41), Class::Bulk, "data");
        assert_eq!(class(0x12, 5, 40), Class::Bulk, "SYN");
        assert_eq!(class(0x11, 5, 40), Class::Bulk, "FIN");
        assert_eq!(class(0x14, 5, 40), Class::Bulk, "RST");
        assert_eq!(class(0x00, 5, 40), Class::Bulk);
        assert_eq!(
            class(0x10, 4, 40),
            Class::Bulk,
            "a header that is too short"
        );
    }

    #[test]
    fn a_flow_stays_in_its_lane_and_flows_spread() {
        let lane = |port| classify(&frame(&[], 0, PROTOCOL_UDP, (port, 2))).lane;
        assert_eq!(lane(1), lane(1));
        let mut seen = [false; 256];
        (1000..3000).for_each(|port| seen[lane(port).index()] = true);
        assert_eq!(seen.iter().filter(|&&s| s).count(), 192);
    }

    #[test]
    fn tags_are_looked_through_and_tcp_is_found() {
        for (tags, at) in [(&[][..], 14), (&[0x8100], 18), (&[0x88a8, 0x8100], 22)] {
            let classified = classify(&frame(tags, 0, PROTOCOL_TCP, (1, 2)));
            assert_eq!(
                classified.tcp,
                Some(TcpAt {
                    ip: at,
                    tcp: at + 20,
                    is_ipv4: true
                })
            );
        }
        assert_eq!(
            classify(&frame(&[0x8100; 3], 0, PROTOCOL_TCP, (1, 2))).tcp,
            None
        );
    }

    #[test]
    fn any_bytes_have_a_lane() {
        let whole = frame(&[0x8100], 0, PROTOCOL_TCP, (1, 2));
        for len in 0..whole.len() {
            classify(&whole[..len]);
        }
    }
}
