//! Ethernet frames of the gateway's own traffic: reading what concerns us, writing what we say.
//!
//! Every byte that comes in is hostile; `smoltcp` checks lengths and checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

/// The shortest Ethernet frame, without its checksum.
const FRAME_LEN_MIN: usize = 60;

/// Hops that our datagrams may take.
const HOP_LIMIT: u8 = 64;

const UDP_HEADER_LEN: usize = 8;

/// A frame that says something to the gateway.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Who has `target`? Asked by `sender` (unspecified in a probe).
    ArpRequest {
        /// Who asks.
        sender_mac: [u8; 6],
        /// Its address.
        sender: Ipv4Addr,
        /// The address that is looked for.
        target: Ipv4Addr,
    },
    /// `sender` says that it is at `sender_mac`.
    ArpReply {
        /// Where it is.
        sender_mac: [u8; 6],
        /// Its address.
        sender: Ipv4Addr,
        /// Whom it tells.
        target_mac: [u8; 6],
    },
    /// A ping to our address.
    EchoRequest {
        /// The Ethernet address that it came from.
        source_mac: [u8; 6],
        /// Who pings.
        source: Ipv4Addr,
        /// ICMP identifier.
        ident: u16,
        /// ICMP sequence number.
        seq_no: u16,
        /// What has to be repeated.
        data: &'a [u8],
    },
    /// A datagram to our address.
    Udp {
        /// Who sent it.
        source: SocketAddrV4,
        /// UDP port it is for.
        destination_port: u16,
        /// What it says.
        payload: &'a [u8],
    },
}

/// Reads a frame; `None` if it is malformed, not for this address, or nothing we speak.
pub fn read(frame: &[u8], our_mac: [u8; 6], our_address: Ipv4Addr) -> Option<Incoming<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let source_mac = ethernet.src_addr();
    // A loop in the network brings our own frames back.
    if !source_mac.is_unicast() || source_mac == EthernetAddress(our_mac) {
        return None;
    }
    let to_us = ethernet.dst_addr() == EthernetAddress(our_mac);
    match ethernet.ethertype() {
        EthernetProtocol::Arp if to_us || ethernet.dst_addr().is_broadcast() => {
            read_arp(ethernet.payload(), source_mac)
        }
        EthernetProtocol::Ipv4 if to_us => read_ipv4(ethernet.payload(), source_mac.0, our_address),
        _ => None,
    }
}

fn read_arp(payload: &[u8], source_mac: EthernetAddress) -> Option<Incoming<'_>> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    if source_hardware_addr != source_mac {
        return None;
    }
    let sender_mac = source_hardware_addr.0;
    let sender = source_protocol_addr;
    match operation {
        ArpOperation::Request => Some(Incoming::ArpRequest {
            sender_mac,
            sender,
            target: target_protocol_addr,
        }),
        ArpOperation::Reply => Some(Incoming::ArpReply {
            sender_mac,
            sender,
            target_mac: target_hardware_addr.0,
        }),
        ArpOperation::Unknown(_) => None,
    }
}

fn read_ipv4(payload: &[u8], source_mac: [u8; 6], ours: Ipv4Addr) -> Option<Incoming<'_>> {
    let checksums = ChecksumCapabilities::default();
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    let header = Ipv4Repr::parse(&packet, &checksums).ok()?;
    let source = header.src_addr;
    let a_host = !(source.is_unspecified()
        || source.is_broadcast()
        || source.is_multicast()
        || source.is_loopback());
    if header.dst_addr != ours || source == ours || !a_host {
        return None;
    }
    let (from, to) = (IpAddress::Ipv4(source), IpAddress::Ipv4(ours));
    match header.next_header {
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            match Icmpv4Repr::parse(&icmp, &checksums).ok()? {
                Icmpv4Repr::EchoRequest {
                    ident,
                    seq_no,
                    data,
                } => Some(Incoming::EchoRequest {
                    source_mac,
                    source,
                    ident,
                    seq_no,
                    data,
                }),
                _ => None,
            }
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(packet.payload()).ok()?;
            let ports = UdpRepr::parse(&udp, &from, &to, &checksums).ok()?;
            let source = SocketAddrV4::new(source, ports.src_port);
            Some(Incoming::Udp {
                source,
                destination_port: ports.dst_port,
                payload: udp.payload(),
            })
        }
        _ => None,
    }
}

/// Who has `target`? Asked of everybody, or of `asked` alone.
pub fn arp_request(
    our_mac: [u8; 6],
    ours: Ipv4Addr,
    target: Ipv4Addr,
    asked: Option<[u8; 6]>,
) -> Vec<u8> {
    let to = asked.map_or(EthernetAddress::BROADCAST, EthernetAddress);
    let unknown = EthernetAddress([0; 6]);
    arp(
        ArpOperation::Request,
        (our_mac, ours),
        (asked.map_or(unknown, EthernetAddress), target),
        to,
    )
}

/// We have `ours`.
pub fn arp_reply(our_mac: [u8; 6], ours: Ipv4Addr, asker_mac: [u8; 6], asker: Ipv4Addr) -> Vec<u8> {
    let to = EthernetAddress(asker_mac);
    arp(ArpOperation::Reply, (our_mac, ours), (to, asker), to)
}

fn arp(
    operation: ArpOperation,
    (source_mac, source): ([u8; 6], Ipv4Addr),
    (target_mac, target): (EthernetAddress, Ipv4Addr),
    to: EthernetAddress,
) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(source_mac),
        source_protocol_addr: source,
        target_hardware_addr: target_mac,
        target_protocol_addr: target,
    };
    ethernet(
        source_mac,
        to,
        EthernetProtocol::Arp,
        arp.buffer_len(),
        |payload| {
            arp.emit(&mut ArpPacket::new_unchecked(payload));
        },
    )
}

/// The answer to a ping.
pub fn echo_reply(
    (our_mac, ours): ([u8; 6], Ipv4Addr),
    (their_mac, theirs): ([u8; 6], Ipv4Addr),
    (ident, seq_no): (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoReply {
        ident,
        seq_no,
        data,
    };
    let header = ipv4(ours, theirs, IpProtocol::Icmp, icmp.buffer_len());
    let checksums = ChecksumCapabilities::default();
    ipv4_frame(our_mac, their_mac, &header, |payload| {
        icmp.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
    })
}

/// A UDP datagram.
pub fn udp(
    our_mac: [u8; 6],
    next_hop: [u8; 6],
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    let ports = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let header = ipv4(
        *from.ip(),
        *to.ip(),
        IpProtocol::Udp,
        UDP_HEADER_LEN + payload.len(),
    );
    ipv4_frame(our_mac, next_hop, &header, |bytes| {
        ports.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &IpAddress::Ipv4(*from.ip()),
            &IpAddress::Ipv4(*to.ip()),
            payload.len(),
            |room| room.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, next_header: IpProtocol, payload_len: usize) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header,
        payload_len,
        hop_limit: HOP_LIMIT,
    }
}

fn ipv4_frame(
    our_mac: [u8; 6],
    their_mac: [u8; 6],
    header: &Ipv4Repr,
    write: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let len = header.buffer_len() + header.payload_len;
    let to = EthernetAddress(their_mac);
    ethernet(our_mac, to, EthernetProtocol::Ipv4, len, |bytes| {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        header.emit(&mut packet, &ChecksumCapabilities::default());
        write(packet.payload_mut());
    })
}

fn ethernet(
    our_mac: [u8; 6],
    dst_addr: EthernetAddress,
    ethertype: EthernetProtocol,
    payload_len: usize,
    write: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let header = EthernetRepr {
        src_addr: EthernetAddress(our_mac),
        dst_addr,
        ethertype,
    };
    let len = header.buffer_len() + payload_len;
    let mut frame = vec![0; len.max(FRAME_LEN_MIN)];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    header.emit(&mut ethernet);
    if let Some(payload) = ethernet.payload_mut().get_mut(..payload_len) {
        write(payload);
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

    fn from_them(payload: &[u8]) -> Vec<u8> {
        udp(
            THEIR_MAC,
            OUR_MAC,
            SocketAddrV4::new(THEIRS, 4600),
            SocketAddrV4::new(OURS, 4601),
            payload,
        )
    }

    #[test]
    fn a_datagram_is_read_as_it_was_written() {
        for payload in [&b"handshake"[..], &[7; 184], b""] {
            assert_eq!(
                read(&from_them(payload), OUR_MAC, OURS),
                Some(Incoming::Udp {
                    source: SocketAddrV4::new(THEIRS, 4600),
                    destination_port: 4601,
                    payload,
                })
            );
        }
    }

    #[test]
    fn a_datagram_byte_for_byte() {
        let frame = from_them(b"handshake payload!");
        assert_eq!(frame.len(), 14 + 20 + 8 + 18);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        assert_eq!(frame[14..24], [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17]);
        // Checksums, worked out independently: the sum over header and pseudo header is 0xffff.
        let sum = |bytes: &[u8]| {
            let mut sum: u32 = 0;
            for pair in bytes.chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum
        };
        assert_eq!(sum(&frame[14..34]), 0xffff);
        let mut pseudo = frame[26..34].to_vec();
        pseudo.extend([0, 17, 0, 26]);
        pseudo.extend(&frame[34..]);
        assert_eq!(sum(&pseudo), 0xffff);
    }

    #[test]
    fn corruption_is_noticed() {
        let frame = from_them(b"handshake payload!");
        for at in 14..frame.len() {
            // The two bytes of a UDP checksum of zero would mean "no checksum".
            let mut corrupt = frame.clone();
            corrupt[at] ^= 0x10;
            assert_eq!(read(&corrupt, OUR_MAC, OURS), None, "byte {at}");
        }
        assert_eq!(read(&frame, THEIR_MAC, OURS), None);
        assert_eq!(read(&frame, OUR_MAC, THEIRS), None);
    }

    #[test]
    fn arp_is_read_as_it_was_written() {
        let request = arp_request(THEIR_MAC, THEIRS, OURS, None);
        assert_eq!(request.len(), FRAME_LEN_MIN);
        assert_eq!(request[..6], [0xff; 6]);
        assert_eq!(
            read(&request, OUR_MAC, OURS),
            Some(Incoming::ArpRequest {
                sender_mac: THEIR_MAC,
                sender: THEIRS,
                target: OURS
            })
        );
        let reply = arp_reply(THEIR_MAC, THEIRS, OUR_MAC, OURS);
        assert_eq!(
            read(&reply, OUR_MAC, OURS),
            Some(Incoming::ArpReply {
                sender_mac: THEIR_MAC,
                sender: THEIRS,
                target_mac: OUR_MAC
            })
        );
        assert_eq!(read(&request, THEIR_MAC, OURS), None, "our own frame");
        // Somebody speaks for another Ethernet address.
        let mut forged = reply;
        forged[11] = 9;
        assert_eq!(read(&forged, OUR_MAC, OURS), None);
    }

    #[test]
    fn a_ping_is_answered_with_its_own_words() {
        let icmp = Icmpv4Repr::EchoRequest {
            ident: 7,
            seq_no: 9,
            data: b"payload",
        };
        let header = ipv4(THEIRS, OURS, IpProtocol::Icmp, icmp.buffer_len());
        let frame = ipv4_frame(THEIR_MAC, OUR_MAC, &header, |payload| {
            icmp.emit(
                &mut Icmpv4Packet::new_unchecked(payload),
                &ChecksumCapabilities::default(),
            );
        });
        assert_eq!(
            read(&frame, OUR_MAC, OURS),
            Some(Incoming::EchoRequest {
                source_mac: THEIR_MAC,
                source: THEIRS,
                ident: 7,
                seq_no: 9,
                data: b"payload"
            })
        );
        let reply = echo_reply((OUR_MAC, OURS), (THEIR_MAC, THEIRS), (7, 9), b"payload");
        let ethernet = EthernetFrame::new_checked(&reply).unwrap();
        assert_eq!(ethernet.dst_addr().0, THEIR_MAC);
        let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(packet.dst_addr(), THEIRS);
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert_eq!(
            Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap(),
            Icmpv4Repr::EchoReply {
                ident: 7,
                seq_no: 9,
                data: b"payload"
            }
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            mut frame in proptest::collection::vec(any::<u8>(), 0..120),
            ethertype in prop_oneof![Just([8, 0]), Just([8, 6]), any::<[u8; 2]>()],
            protocol in prop_oneof![Just(1), Just(17), any::<u8>()],
        ) {
            for (at, byte) in OUR_MAC.iter().chain(&THEIR_MAC).chain(&ethertype).enumerate() {
                if let Some(slot) = frame.get_mut(at) {
                    *slot = *byte;
                }
            }
            if let Some(slot) = frame.get_mut(14) {
                *slot = 0x40 | (*slot & 0x0f);
            }
            if let Some(slot) = frame.get_mut(23) {
                *slot = protocol;
            }
            read(&frame, OUR_MAC, OURS);
        }

        #[test]
        fn truncated_frames_are_refused(cut in 0..60_usize) {
            let frame = from_them(b"handshake payload!");
            prop_assert_eq!(read(&frame[..cut], OUR_MAC, OURS), None);
        }
    }
}
