//! The hosts' frames: real Ethernet, IPv4, UDP and TCP, so that a gateway classifies, clamps and
//! marks them as it would on a LAN.
//!
//! ```text
//! 0         14        34                    UDP: 42   TCP: 34 + header
//! | Ethernet | IPv4    | UDP or TCP header  | payload |
//! ```

mod segment;

pub use segment::{Flags, SYN_MSS_OPTION, SackBlocks, Segment, TIMESTAMPED_HEADER_LEN};

use shardgate_core::wire::checksum::{fold, sum};

use crate::world::Address;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Where the transport header begins.
pub const TRANSPORT_AT: usize = ETHERNET_LEN + IPV4_LEN;
/// Bytes of a UDP datagram's frame before its payload.
pub const UDP_PAYLOAD_AT: usize = TRANSPORT_AT + UDP_LEN;
/// Protocol numbers of IANA.
pub(crate) const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TTL: u8 = 64;

/// The two congestion bits of an IP header (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// The transport does not understand marks.
    NotCapable,
    /// It does.
    Capable,
    /// Congestion was experienced.
    Marked,
}

impl Ecn {
    fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0b00,
            Self::Capable => 0b10,
            Self::Marked => 0b11,
        }
    }

    /// The mark of an IPv4 frame.
    pub fn of(frame: &[u8]) -> Self {
        match frame.get(ETHERNET_LEN + 1).map_or(0, |tos| tos & 0b11) {
            0b00 => Self::NotCapable,
            0b11 => Self::Marked,
            _ => Self::Capable,
        }
    }
}

/// Both ends of a frame's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends it.
    pub from: Address,
    /// For whom.
    pub to: Address,
}

/// Begins `frame` with Ethernet and IPv4 headers, and room for `transport_len` zero bytes.
fn begin(frame: &mut Vec<u8>, ends: Ends, protocol: u8, dscp: u8, ecn: Ecn, transport_len: usize) {
    frame.clear();
    frame.extend_from_slice(&ends.to.mac());
    frame.extend_from_slice(&ends.from.mac());
    frame.extend_from_slice(&ETHERTYPE_IPV4);
    let total = (IPV4_LEN + transport_len) as u16;
    let [high, low] = total.to_be_bytes();
    let tos = dscp << 2 | ecn.bits();
    // Don't fragment: path MTU discovery is what hosts do.
    frame.extend_from_slice(&[0x45, tos, high, low, 0, 0, 0x40, 0, TTL, protocol, 0, 0]);
    frame.extend_from_slice(&ends.from.ip());
    frame.extend_from_slice(&ends.to.ip());
    let checksum = !fold(sum(&frame[ETHERNET_LEN..]));
    frame[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
    frame.resize(TRANSPORT_AT + transport_len, 0);
}

/// The sum over the pseudo header (RFC 9293, 3.1) of an IPv4 frame.
fn pseudo_header(frame: &[u8], protocol: u8) -> u64 {
    let addresses = frame.get(ETHERNET_LEN + 12..TRANSPORT_AT).unwrap_or(&[]);
    let len = frame.len().saturating_sub(TRANSPORT_AT);
    sum(addresses) + u64::from(protocol) + len as u64
}

/// Writes a UDP frame whose payload of `payload_len` bytes begins with `number` and goes on with a
/// pattern of it; at least 8 bytes.
pub fn write_udp(frame: &mut Vec<u8>, ends: Ends, dscp: u8, number: u64, payload_len: usize) {
    let udp_len = UDP_LEN + payload_len.max(8);
    begin(frame, ends, PROTOCOL_UDP, dscp, Ecn::NotCapable, udp_len);
    let udp = &mut frame[TRANSPORT_AT..];
    udp[..2].copy_from_slice(&ends.from.port.to_be_bytes());
    udp[2..4].copy_from_slice(&ends.to.port.to_be_bytes());
    udp[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
    let mut word = number;
    for chunk in udp[UDP_LEN..].chunks_mut(8) {
        chunk.copy_from_slice(&word.to_be_bytes()[..chunk.len()]);
        word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ number;
    }
    let checksum = match !fold(pseudo_header(frame, PROTOCOL_UDP) + sum(&frame[TRANSPORT_AT..])) {
        0 => 0xffff, // RFC 768: zero would mean "none"
        checksum => checksum,
    };
    frame[TRANSPORT_AT + 6..TRANSPORT_AT + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether a host would take the frame: an IPv4 frame of the right length whose IP and transport
/// checksums hold.
pub fn is_sound(frame: &[u8]) -> bool {
    let Some(ip) = frame.get(ETHERNET_LEN..TRANSPORT_AT) else {
        return false;
    };
    let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    frame[12..14] == ETHERTYPE_IPV4
        && ip[0] == 0x45
        && ETHERNET_LEN + len == frame.len()
        && fold(sum(ip)) == 0xffff
        && fold(pseudo_header(frame, ip[9]) + sum(&frame[TRANSPORT_AT..])) == 0xffff
}

/// A hash of what a tunnel must not change in a frame: all but the congestion bits with the IP
/// checksum over them, and but the segment size in a SYN with TCP's checksum.
///
/// Those may change on purpose (RFC 6040, MSS clamping); [`is_sound`] then says that the change
/// was done properly.
pub fn digest(frame: &[u8]) -> u64 {
    if frame.len() < TRANSPORT_AT + 20 || frame[12..14] != ETHERTYPE_IPV4 {
        return hash(frame);
    }
    let mut hash = Digest::new(frame.len());
    let mut headers = [0; TRANSPORT_AT + 20];
    headers.copy_from_slice(&frame[..TRANSPORT_AT + 20]);
    headers[ETHERNET_LEN + 1] &= !0b11;
    headers[ETHERNET_LEN + 10..ETHERNET_LEN + 12].fill(0);
    let mut rest = TRANSPORT_AT + 20;
    if headers[ETHERNET_LEN + 9] == PROTOCOL_TCP && headers[TRANSPORT_AT + 13] & Flags::SYN != 0 {
        headers[TRANSPORT_AT + 16..TRANSPORT_AT + 18].fill(0);
        // The segment size stands behind the timestamps in every SYN of these hosts.
        hash.add(
            frame
                .get(rest..TRANSPORT_AT + SYN_MSS_OPTION)
                .unwrap_or(&[]),
        );
        rest = TRANSPORT_AT + SYN_MSS_OPTION + 4;
    }
    hash.add(&headers);
    hash.add(frame.get(rest..).unwrap_or(&[]));
    hash.finish()
}

/// A 64-bit hash of all of `bytes`.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Digest::new(bytes.len());
    hash.add(bytes);
    hash.finish()
}

/// A 64-bit hash over four lanes, so that a processor works on them at once; not keyed, as nobody
/// attacks an oracle.
struct Digest([u64; 4]);

const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

fn mix(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(MULTIPLIER);
    mixed ^ mixed >> 32
}

impl Digest {
    fn new(len: usize) -> Self {
        Self([1, 2, 3, 4].map(|lane| mix(len as u64, lane)))
    }

    fn add(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut last = [0; 32];
        last[..rest.len()].copy_from_slice(rest);
        for block in blocks.iter().chain([&last]) {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in self.0.iter_mut().zip(words) {
                *lane = mix(*lane, u64::from_le_bytes(*word));
            }
        }
    }

    fn finish(self) -> u64 {
        self.0.into_iter().fold(0, mix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Site;

    fn ends() -> Ends {
        Ends {
            from: Address {
                site: Site::A,
                number: 1,
                port: 40_001,
            },
            to: Address {
                site: Site::B,
                number: 1,
                port: 5_201,
            },
        }
    }

    #[test]
    fn a_datagram_is_sound_until_any_bit_flips() {
        let mut frame = Vec::new();
        write_udp(&mut frame, ends(), 46, 7, 101);
        assert_eq!(frame.len(), UDP_PAYLOAD_AT + 101);
        assert!(is_sound(&frame));
        let whole = digest(&frame);
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            // MAC addresses are under the FCS alone, which nobody carries through a tunnel.
            assert!(bit < 12 * 8 || !is_sound(&frame), "bit {bit}");
            let is_mutable = [24, 25].contains(&(bit / 8)) || (bit / 8 == 15 && bit % 8 < 2);
            assert_eq!(digest(&frame) == whole, is_mutable, "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn numbers_give_different_datagrams() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        write_udp(&mut one, ends(), 0, 1, 8);
        write_udp(&mut two, ends(), 0, 2, 8);
        assert_ne!(digest(&one), digest(&two));
    }

    #[test]
    fn runts_are_hashed_and_refused() {
        for len in 0..60 {
            let frame = vec![1; len];
            assert!(!is_sound(&frame));
            assert_eq!(digest(&frame), digest(&frame.clone()));
        }
    }
}
