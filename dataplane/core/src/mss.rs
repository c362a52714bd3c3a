//! Clamping TCP's maximum segment size, so that a segment fits one shard.

use crate::classify::TcpAt;
use crate::wire::checksum;

const TCP_HEADER_LEN: usize = 20;
const FLAG_SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS option of a SYN in `frame` so that a full segment's frame has at most
/// `frame_max` bytes, and mends the TCP checksum (RFC 1624). True if something was changed.
///
/// A SYN without the option is left alone: its receiver then sends at most 536 bytes (RFC 9293),
/// which fits.
pub fn clamp_mss(frame: &mut [u8], at: TcpAt, frame_max: usize) -> bool {
    let Some(tcp) = frame.get_mut(at.tcp..) else {
        return false;
    };
    let Some(header) = tcp.first_chunk::<TCP_HEADER_LEN>() else {
        return false;
    };
    let header_len = usize::from(header[12] >> 4) * 4;
    if header[13] & FLAG_SYN == 0 || header_len < TCP_HEADER_LEN {
        return false;
    }
    // The MSS counts neither IP nor TCP options; a segment that has some carries less (RFC 6691).
    let ip_header_len = if at.is_ipv4 { 20 } else { 40 };
    let Some(mss_max) = frame_max.checked_sub(at.ip + ip_header_len + TCP_HEADER_LEN) else {
        return false;
    };
    let mss_max = u16::try_from(mss_max).unwrap_or(u16::MAX);
    let Some(value_at) = find_mss(tcp.get(..header_len).unwrap_or_default()) else {
        return false;
    };
    let old = u16::from_be_bytes([tcp[value_at], tcp[value_at + 1]]);
    if old <= mss_max {
        return false;
    }
    tcp[value_at..value_at + 2].copy_from_slice(&mss_max.to_be_bytes());
    // An option may start at an odd offset; its bytes then stand swapped in the sum.
    let in_sum = |value: u16| {
        if value_at % 2 == 0 {
            value
        } else {
            value.swap_bytes()
        }
    };
    let checksum = u16::from_be_bytes([tcp[16], tcp[17]]);
    let checksum = checksum::update(checksum, in_sum(old), in_sum(mss_max));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Offset of the MSS option's value in a TCP header.
fn find_mss(header: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER_LEN;
    loop {
        match *header.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let len = usize::from(*header.get(at + 1)?);
                if kind == OPTION_MSS && len == 4 && at + 4 <= header.len() {
                    return Some(at + 2);
                }
                if len < 2 {
                    return None;
                }
                at += len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::{fold, sum};

    const AT: TcpAt = TcpAt {
        ip: 14,
        tcp: 34,
        is_ipv4: true,
    };

    /// A SYN whose MSS option begins after `nops` no-operations; the checksum covers the TCP part.
    fn syn(nops: usize, mss: u16) -> Vec<u8> {
        let mut frame = vec![0; 34];
        let mut tcp = vec![0; 20];
        tcp[13] = FLAG_SYN;
        tcp.resize(20 + nops, OPTION_NOP);
        tcp.extend_from_slice(&[OPTION_MSS, 4]);
        tcp.extend_from_slice(&mss.to_be_bytes());
        while !tcp.len().is_multiple_of(4) {
            tcp.push(OPTION_END);
        }
        tcp[12] = ((tcp.len() / 4) as u8) << 4;
        let checksum = !fold(sum(&tcp));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        frame.extend_from_slice(&tcp);
        frame
    }

    #[test]
    fn clamps_and_keeps_the_checksum_sound_at_even_and_odd_offsets() {
        for nops in 0..4 {
            let mut frame = syn(nops, 1460);
            assert!(clamp_mss(&mut frame, AT, 1408));
            let value_at = 34 + 20 + nops + 2;
            assert_eq!(frame[value_at..value_at + 2], 1354u16.to_be_bytes());
            assert_eq!(fold(sum(&frame[34..])), 0xffff, "{nops} no-operations");
            assert!(!clamp_mss(&mut frame, AT, 1408));
        }
    }

    #[test]
    fn leaves_everything_else_alone() {
        let mut small = syn(0, 1354);
        assert!(!clamp_mss(&mut small, AT, 1408));
        let mut data = syn(0, 1460);
        data[34 + 13] = 0x10;
        assert!(!clamp_mss(&mut data, AT, 1408));
        for len in 0..58 {
            let mut cut = syn(0, 1460);
            cut.truncate(len);
            assert!(!clamp_mss(&mut cut, AT, 1408));
        }
        let mut looping = syn(2, 1460);
        looping[34 + 20] = 9;
        looping[34 + 21] = 0;
        assert!(!clamp_mss(&mut looping, AT, 1408));
    }
}
