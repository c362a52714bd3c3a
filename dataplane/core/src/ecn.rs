//! Explicit congestion notification (RFC 3168) in the frames of the LAN.

use crate::classify::{IpAt, find_ip};
use crate::wire::checksum;

/// The two ECN bits: not capable, ECT(1), ECT(0), congestion experienced.
const ECN: u8 = 0b11;
const NOT_CAPABLE: u8 = 0b00;
/// Of the second byte of an IPv6 header, whose high half is the traffic class's low half.
const ECN_SHIFT_V6: u32 = 4;

/// Tells the receiver of a frame, and through it the sender, of congestion: sets CE, and mends the
/// checksum of an IPv4 header (RFC 1624). True if the frame carries CE now, be it that it did
/// before; false, and nothing changed, if its sender is not capable of ECN or if it is no IP packet
/// behind up to two VLAN tags.
pub fn mark_ce(frame: &mut [u8]) -> bool {
    match find_ip(frame) {
        Some(IpAt::V4(at)) => frame.get_mut(at..).is_some_and(mark_ipv4),
        Some(IpAt::V6(at)) => frame.get_mut(at..).is_some_and(mark_ipv6),
        None => false,
    }
}

fn mark_ipv4(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<20>() else {
        return false;
    };
    // Version 4 with at least five words of header.
    if !(0x45..=0x4f).contains(&header[0]) || header[1] & ECN == NOT_CAPABLE {
        return false;
    }
    let old = u16::from_be_bytes([header[0], header[1]]);
    let new = old | u16::from(ECN);
    if new != old {
        header[1] |= ECN;
        let checksum = u16::from_be_bytes([header[10], header[11]]);
        let checksum = checksum::update(checksum, old, new).to_be_bytes();
        header[10..12].copy_from_slice(&checksum);
    }
    true
}

fn mark_ipv6(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<40>() else {
        return false;
    };
    if header[0] >> 4 != 6 || header[1] >> ECN_SHIFT_V6 & ECN == NOT_CAPABLE {
        return false;
    }
    header[1] |= ECN << ECN_SHIFT_V6;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::{fold, sum};

    fn ethernet(tags: usize, ethertype: u16) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for tag in [0x88a8u16, 0x8100].iter().rev().take(tags).rev() {
            frame.extend_from_slice(&tag.to_be_bytes());
            frame.extend_from_slice(&[0, 7]);
        }
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame
    }

    /// An IPv4 frame with a sound header checksum and `words` words of options.
    fn ipv4(tags: usize, tos: u8, ident: u16, words: usize) -> (Vec<u8>, usize) {
        let mut frame = ethernet(tags, 0x0800);
        let at = frame.len();
        let mut header = vec![0x45 + words as u8, tos, 0, 60];
        header.extend_from_slice(&ident.to_be_bytes());
        header.extend_from_slice(&[0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        header.resize(20 + 4 * words, 1);
        let checksum = !fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend_from_slice(&header);
        frame.resize(frame.len() + 20, 0xaa);
        (frame, at)
    }

    fn ipv6(tags: usize, class: u8) -> (Vec<u8>, usize) {
        let mut frame = ethernet(tags, 0x86dd);
        let at = frame.len();
        frame.extend_from_slice(&[
            0x60 | class >> 4,
            class << 4 | 0x0b,
            0xcd,
            0xef,
            0,
            20,
            6,
            64,
        ]);
        frame.resize(frame.len() + 32 + 20, 0x11);
        (frame, at)
    }

    #[test]
    fn ipv6_is_marked_if_capable_and_nothing_else_changes() {
        for tags in 0..=2 {
            for class in 0..=255u8 {
                let (before, at) = ipv6(tags, class);
                let mut frame = before.clone();
                let capable = class & ECN != 0;
                assert_eq!(mark_ce(&mut frame), capable);
                let marked = if capable { class | ECN } else { class };
                assert_eq!(frame, ipv6(tags, marked).0);
                assert_eq!(frame[at + 1] & 0x0f, 0x0b, "the flow label stays");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let (whole, at) = ipv4(1, 0b10, 7, 0);
        for len in 0..at + 20 {
            let mut cut = whole[..len].to_vec();
            assert!(!mark_ce(&mut cut));
            assert_eq!(cut, whole[..len]);
        }
        for (offset, byte) in [(0, 0x55), (0, 0x44)] {
            let mut frame = whole.clone();
            frame[at + offset] = byte;
            let before = frame.clone();
            assert!(!mark_ce(&mut frame));
            assert_eq!(frame, before);
        }
        let mut arp = ethernet(0, 0x0806);
        arp.resize(60, 0xff);
        assert!(!mark_ce(&mut arp));
    }

    proptest! {
        #[test]
        fn ipv4_is_marked_if_capable_and_its_checksum_stays_sound(
            tags in 0usize..=2, tos: u8, ident: u16, words in 0usize..=10,
        ) {
            let (before, at) = ipv4(tags, tos, ident, words);
            let mut frame = before.clone();
            let capable = tos & ECN != NOT_CAPABLE;
            prop_assert_eq!(mark_ce(&mut frame), capable);
            prop_assert_eq!(fold(sum(&frame[at..at + 20 + 4 * words])), 0xffff);
            let marked = if capable { tos | ECN } else { tos };
            let (expected, _) = ipv4(tags, marked, ident, words);
            prop_assert_eq!(&frame, &expected);
            prop_assert_eq!(mark_ce(&mut frame), capable);
            prop_assert_eq!(frame, expected);
        }

        #[test]
        fn any_bytes_are_survived(mut frame in prop::collection::vec(any::<u8>(), 0..100), kind in 0usize..4) {
            if let Some(ethertype) = frame.get_mut(12..14) {
                ethertype.copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8]][kind]);
            }
            let before = frame.clone();
            let marked = mark_ce(&mut frame);
            prop_assert!(marked || frame == before);
            let changed = frame.iter().zip(&before).filter(|(a, b)| a != b).count();
            prop_assert!(changed <= 3);
        }
    }
}
