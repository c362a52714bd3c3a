//! The outer Ethernet, IP and UDP headers (SPEC §1).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::buffer::Buffer;
use crate::drop_reason::DropReason;
use crate::wire::checksum::{fold, sum};

/// Bytes of an Ethernet header without a VLAN tag.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_LEN: usize = 40;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_UDP: u8 = 17;
const TTL: u8 = 64;

/// Bytes of IP and UDP header in front of a datagram to `remote`.
pub fn ip_udp_len(remote: IpAddr) -> usize {
    UDP_LEN + if remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN }
}

fn pseudo_header_sum(local: IpAddr, remote: IpAddr, udp_len: usize) -> u64 {
    let addresses = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    addresses(local) + addresses(remote) + u64::from(PROTOCOL_UDP) + udp_len as u64
}

/// Everything before the datagram, worked out once per path.
#[derive(Clone, Debug)]
pub struct OuterTemplate {
    bytes: [u8; ETHERNET_LEN + IPV6_LEN + UDP_LEN],
    is_ipv4: bool,
    /// Sum of the pseudo header and the ports, without the two lengths.
    udp_sum: u64,
    /// Sum of the IPv4 header without length and checksum.
    ip_sum: u64,
}

impl OuterTemplate {
    /// A template for datagrams from `local` to `remote` through the next hop; `None` if the two
    /// addresses are of different families.
    pub fn new(
        source_mac: [u8; 6],
        next_hop: [u8; 6],
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Self> {
        let mut bytes = [0; ETHERNET_LEN + IPV6_LEN + UDP_LEN];
        bytes[..6].copy_from_slice(&next_hop);
        bytes[6..12].copy_from_slice(&source_mac);
        let ip = &mut bytes[ETHERNET_LEN..];
        let (ethertype, ip_len) = match (local.ip(), remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                ip[0] = 0x45;
                ip[6] = 0x40; // don't fragment
                ip[8] = TTL;
                ip[9] = PROTOCOL_UDP;
                ip[12..16].copy_from_slice(&local.octets());
                ip[16..20].copy_from_slice(&remote.octets());
                (ETHERTYPE_IPV4, IPV4_LEN)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                ip[0] = 0x60;
                ip[6] = PROTOCOL_UDP;
                ip[7] = TTL;
                ip[8..24].copy_from_slice(&local.octets());
                ip[24..40].copy_from_slice(&remote.octets());
                (ETHERTYPE_IPV6, IPV6_LEN)
            }
            _ => return None,
        };
        let ip_sum = sum(&ip[..ip_len]);
        ip[ip_len..ip_len + 2].copy_from_slice(&local.port().to_be_bytes());
        ip[ip_len + 2..ip_len + 4].copy_from_slice(&remote.port().to_be_bytes());
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        Some(Self {
            bytes,
            is_ipv4: local.is_ipv4(),
            udp_sum: pseudo_header_sum(local.ip(), remote.ip(), 0)
                + u64::from(local.port())
                + u64::from(remote.port()),
            ip_sum,
        })
    }

    /// Bytes it puts in front of a datagram.
    #[inline]
    pub fn header_len(&self) -> usize {
        ETHERNET_LEN + UDP_LEN + if self.is_ipv4 { IPV4_LEN } else { IPV6_LEN }
    }

    /// Puts the headers in front of the datagram in `buffer`, lengths and checksums included.
    /// False, and the buffer is unchanged, if the headroom is too small.
    #[must_use]
    pub fn prepend<B: Buffer>(&self, buffer: &mut B) -> bool {
        let udp_len = buffer.len() + UDP_LEN;
        let udp_sum = self.udp_sum + 2 * udp_len as u64 + sum(buffer.data());
        let Some(headers) = buffer.prepend(self.header_len()) else {
            return false;
        };
        headers.copy_from_slice(&self.bytes[..headers.len()]);
        let (length, ip_end) = if self.is_ipv4 {
            (udp_len + IPV4_LEN, ETHERNET_LEN + IPV4_LEN)
        } else {
            (udp_len, ETHERNET_LEN + IPV6_LEN)
        };
        let length = (length as u16).to_be_bytes();
        if self.is_ipv4 {
            headers[16..18].copy_from_slice(&length);
            let checksum = !fold(self.ip_sum + u64::from(u16::from_be_bytes(length)));
            headers[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            headers[18..20].copy_from_slice(&length);
        }
        let udp = &mut headers[ip_end..];
        udp[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
        let checksum = match !fold(udp_sum) {
            0 => 0xffff, // RFC 768: zero would mean "none"
            checksum => checksum,
        };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        true
    }
}

/// A UDP datagram found in an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterUdp {
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// Bytes of the frame before the datagram.
    pub payload_at: usize,
    /// Bytes of the datagram.
    pub payload_len: usize,
}

/// What an Ethernet frame on a WAN port holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// A whole UDP datagram with sound checksums.
    Udp(OuterUdp),
    /// ARP, ICMP, neighbour discovery: what the control thread may want to see.
    Control,
}

/// Looks into an Ethernet frame from a WAN port.
///
/// # Errors
/// [`DropReason::Malformed`], [`DropReason::OuterChecksum`], [`DropReason::Fragment`], and
/// [`DropReason::NotForUs`] for a protocol a gateway does not speak.
pub fn parse_outer(frame: &[u8]) -> Result<Outer, DropReason> {
    let (ethernet, packet) = frame
        .split_first_chunk::<ETHERNET_LEN>()
        .ok_or(DropReason::Malformed)?;
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => parse_ipv4(packet),
        ETHERTYPE_IPV6 => parse_ipv6(packet),
        0x0806 => Ok(Outer::Control),
        _ => Err(DropReason::NotForUs),
    }
}

fn parse_ipv4(packet: &[u8]) -> Result<Outer, DropReason> {
    let fixed = packet
        .first_chunk::<IPV4_LEN>()
        .ok_or(DropReason::Malformed)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len {
        return Err(DropReason::Malformed);
    }
    // What lies behind the packet is Ethernet padding.
    let packet = packet.get(..total_len).ok_or(DropReason::Malformed)?;
    let (header, body) = packet
        .split_at_checked(header_len)
        .ok_or(DropReason::Malformed)?;
    if fold(sum(header)) != 0xffff {
        return Err(DropReason::OuterChecksum);
    }
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
    match fixed[9] {
        PROTOCOL_UDP => parse_udp(
            Ipv4Addr::new(s0, s1, s2, s3).into(),
            Ipv4Addr::new(d0, d1, d2, d3).into(),
            body,
            ETHERNET_LEN + header_len,
        ),
        1 => Ok(Outer::Control),
        _ => Err(DropReason::NotForUs),
    }
}

fn parse_ipv6(packet: &[u8]) -> Result<Outer, DropReason> {
    let (header, body) = packet
        .split_first_chunk::<IPV6_LEN>()
        .ok_or(DropReason::Malformed)?;
    let body_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let body = body.get(..body_len).ok_or(DropReason::Malformed)?;
    let address = |at: usize| -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(octets).into()
    };
    match header[6] {
        PROTOCOL_UDP => parse_udp(address(8), address(24), body, ETHERNET_LEN + IPV6_LEN),
        58 => Ok(Outer::Control),
        44 => Err(DropReason::Fragment),
        _ => Err(DropReason::NotForUs),
    }
}

fn parse_udp(
    source: IpAddr,
    destination: IpAddr,
    body: &[u8],
    at: usize,
) -> Result<Outer, DropReason> {
    let header = body.first_chunk::<UDP_LEN>().ok_or(DropReason::Malformed)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let udp_len = usize::from(word(4));
    if udp_len < UDP_LEN {
        return Err(DropReason::Malformed);
    }
    let datagram = body.get(..udp_len).ok_or(DropReason::Malformed)?;
    let checksum_absent = word(6) == 0 && source.is_ipv4();
    let total = pseudo_header_sum(source, destination, udp_len) + sum(datagram);
    if !checksum_absent && fold(total) != 0xffff {
        return Err(DropReason::OuterChecksum);
    }
    Ok(Outer::Udp(OuterUdp {
        source: SocketAddr::new(source, word(0)),
        destination: SocketAddr::new(destination, word(2)),
        payload_at: at + UDP_LEN,
        payload_len: udp_len - UDP_LEN,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::HeapBuffer;

    fn sealed(local: &str, remote: &str, payload: &[u8]) -> HeapBuffer {
        let template = OuterTemplate::new(
            [2; 6],
            [4; 6],
            local.parse().unwrap(),
            remote.parse().unwrap(),
        )
        .unwrap();
        let mut buffer = HeapBuffer::from_bytes(payload);
        assert!(template.prepend(&mut buffer));
        assert_eq!(buffer.len(), template.header_len() + payload.len());
        buffer
    }

    #[test]
    fn what_is_built_parses_and_one_flipped_bit_does_not() {
        for (local, remote) in [
            ("10.9.0.1:4600", "10.9.0.2:4601"),
            ("[fd00::1]:4600", "[fd00::2]:4601"),
        ] {
            for payload in [&b""[..], b"x", b"odd", b"even", &[0xff; 1413]] {
                let mut buffer = sealed(local, remote, payload);
                let Ok(Outer::Udp(udp)) = parse_outer(buffer.data()) else {
                    panic!("{local}: {:?}", parse_outer(buffer.data()));
                };
                assert_eq!(udp.source, local.parse().unwrap());
                assert_eq!(udp.destination, remote.parse().unwrap());
                assert_eq!(&buffer.data()[udp.payload_at..][..udp.payload_len], payload);
                let last = buffer.len() - 1;
                buffer.data_mut()[last] ^= 0x10;
                assert!(parse_outer(buffer.data()).is_err());
            }
        }
    }

    #[test]
    fn ipv4_vector() {
        let buffer = sealed("10.9.0.1:4600", "10.9.0.2:4600", b"ab");
        assert_eq!(
            buffer.data()[ETHERNET_LEN..],
            [
                0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0x26, 0xbb, 10, 9, 0, 1, 10, 9, 0,
                2, //
                0x11, 0xf8, 0x11, 0xf8, 0, 10, 0x66, 0x73, b'a', b'b'
            ]
        );
    }

    #[test]
    fn padding_is_not_payload_and_short_frames_are_malformed() {
        let buffer = sealed("10.9.0.1:4600", "10.9.0.2:4600", b"ab");
        let mut padded = buffer.data().to_vec();
        padded.resize(60, 0);
        assert!(matches!(parse_outer(&padded), Ok(Outer::Udp(udp)) if udp.payload_len == 2));
        for len in 0..buffer.len() {
            assert!(parse_outer(&buffer.data()[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn fragments_and_foreign_protocols_are_named() {
        let buffer = sealed("10.9.0.1:4600", "10.9.0.2:4600", b"ab");
        let change = |at: usize, value: u8| {
            let mut frame = buffer.data().to_vec();
            frame[at] = value;
            frame[24] = 0;
            frame[25] = 0;
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            parse_outer(&frame)
        };
        assert_eq!(change(20, 0x20), Err(DropReason::Fragment));
        assert_eq!(change(21, 0x01), Err(DropReason::Fragment));
        assert_eq!(change(23, 6), Err(DropReason::NotForUs));
        assert_eq!(change(23, 1), Ok(Outer::Control));
        assert_eq!(change(14, 0x44), Err(DropReason::Malformed));
        assert_eq!(change(14, 0x55), Err(DropReason::Malformed));
    }
}
