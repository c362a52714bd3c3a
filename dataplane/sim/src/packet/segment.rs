//! TCP segments on the wire: header, and the options that hosts use today.

use shardgate_core::wire::checksum::{fold, sum};

use super::{Ecn, Ends, PROTOCOL_TCP, TRANSPORT_AT, begin, is_sound, pseudo_header};

/// Bytes of a TCP header without options.
const TCP_LEN: usize = 20;
/// Bytes of a TCP header with timestamps (RFC 7323), as every segment here has them.
pub const TIMESTAMPED_HEADER_LEN: usize = TCP_LEN + 12;
/// Where the MSS option of a SYN stands, from the start of the TCP header.
pub const SYN_MSS_OPTION: usize = TIMESTAMPED_HEADER_LEN;
const SYN_HEADER_LEN: usize = SYN_MSS_OPTION + 12;
/// Next to timestamps there is room for three SACK blocks (RFC 2018).
const SACK_BLOCKS_MAX: usize = 3;
/// Both hosts scale windows by 2^7 (RFC 7323).
pub(crate) const WINDOW_SHIFT: u32 = 7;

const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
const OPTION_SACK: u8 = 5;
const OPTION_TIMESTAMPS: u8 = 8;

/// The flags of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;

    /// Whether all of `flags` are set.
    pub fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }
}

/// Up to three blocks of sequence numbers, each from its first byte to behind its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [(u32, u32); SACK_BLOCKS_MAX],
    count: u8,
}

impl SackBlocks {
    /// Adds a block; false if there is no room.
    pub fn push(&mut self, first: u32, end: u32) -> bool {
        let Some(block) = self.blocks.get_mut(usize::from(self.count)) else {
            return false;
        };
        *block = (first, end);
        self.count += 1;
        true
    }

    /// The blocks in the order of the option.
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.count)]
    }
}

/// A TCP segment without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// The next byte expected from the other end.
    pub ack: u32,
    /// Flags.
    pub flags: Flags,
    /// Bytes of the window; a multiple of 128, but in a SYN at most 65,535.
    pub window: u32,
    /// TSval.
    pub timestamp: u32,
    /// TSecr.
    pub echo: u32,
    /// The MSS option; only in a SYN.
    pub mss: Option<u16>,
    /// SACK blocks; none in a SYN.
    pub sack: SackBlocks,
}

impl Segment {
    /// Bytes of its TCP header.
    pub fn header_len(&self) -> usize {
        match (self.mss, self.sack.count) {
            (Some(_), _) => SYN_HEADER_LEN,
            (None, 0) => TIMESTAMPED_HEADER_LEN,
            (None, count) => TIMESTAMPED_HEADER_LEN + 4 + 8 * usize::from(count),
        }
    }

    /// Writes the frame; `fill` is given the zeroed payload.
    pub fn write(
        &self,
        frame: &mut Vec<u8>,
        ends: Ends,
        ecn: Ecn,
        payload_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let header_len = self.header_len();
        begin(frame, ends, PROTOCOL_TCP, 0, ecn, header_len + payload_len);
        let tcp = &mut frame[TRANSPORT_AT..];
        tcp[..2].copy_from_slice(&ends.from.port.to_be_bytes());
        tcp[2..4].copy_from_slice(&ends.to.port.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = ((header_len / 4) as u8) << 4;
        tcp[13] = self.flags.0;
        let window = if self.flags.has(Flags::SYN) {
            self.window
        } else {
            self.window >> WINDOW_SHIFT
        };
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        tcp[14..16].copy_from_slice(&window.to_be_bytes());
        self.write_options(&mut tcp[TCP_LEN..header_len]);
        fill(&mut tcp[header_len..]);
        let checksum = !fold(pseudo_header(frame, PROTOCOL_TCP) + sum(&frame[TRANSPORT_AT..]));
        frame[TRANSPORT_AT + 16..TRANSPORT_AT + 18].copy_from_slice(&checksum.to_be_bytes());
    }

    fn write_options(&self, options: &mut [u8]) {
        options.fill(OPTION_NOP);
        options[2..4].copy_from_slice(&[OPTION_TIMESTAMPS, 10]);
        options[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        options[8..12].copy_from_slice(&self.echo.to_be_bytes());
        let rest = &mut options[12..];
        if let Some(mss) = self.mss {
            rest[..2].copy_from_slice(&[OPTION_MSS, 4]);
            rest[2..4].copy_from_slice(&mss.to_be_bytes());
            rest[5..8].copy_from_slice(&[OPTION_WINDOW_SCALE, 3, WINDOW_SHIFT as u8]);
            rest[10..12].copy_from_slice(&[OPTION_SACK_PERMITTED, 2]);
        } else if self.sack.count > 0 {
            rest[2..4].copy_from_slice(&[OPTION_SACK, 2 + 8 * self.sack.count]);
            for (bytes, (first, end)) in rest[4..].chunks_mut(8).zip(self.sack.as_slice()) {
                bytes[..4].copy_from_slice(&first.to_be_bytes());
                bytes[4..].copy_from_slice(&end.to_be_bytes());
            }
        }
    }

    /// Reads a sound TCP frame: its segment and its payload.
    pub fn read(frame: &[u8]) -> Option<(Self, &[u8])> {
        if !is_sound(frame) || frame.get(TRANSPORT_AT - 11) != Some(&PROTOCOL_TCP) {
            return None;
        }
        let tcp = &frame[TRANSPORT_AT..];
        let header = tcp.first_chunk::<TCP_LEN>()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = tcp.get(TCP_LEN..header_len)?;
        let flags = Flags(header[13]);
        let window = u32::from(u16::from_be_bytes([header[14], header[15]]));
        let mut segment = Self {
            seq: word(header, 4)?,
            ack: word(header, 8)?,
            flags,
            window: if flags.has(Flags::SYN) {
                window
            } else {
                window << WINDOW_SHIFT
            },
            ..Self::default()
        };
        segment.read_options(options)?;
        Some((segment, &tcp[header_len..]))
    }

    fn read_options(&mut self, mut options: &[u8]) -> Option<()> {
        while let Some(&kind) = options.first() {
            if kind == OPTION_NOP {
                options = &options[1..];
                continue;
            }
            let len = usize::from(*options.get(1)?);
            let body = options.get(2..len)?;
            match kind {
                OPTION_TIMESTAMPS => {
                    (self.timestamp, self.echo) = (word(body, 0)?, word(body, 4)?);
                }
                OPTION_MSS => self.mss = Some(u16::from_be_bytes(*body.first_chunk()?)),
                OPTION_SACK => {
                    for block in body.chunks_exact(8) {
                        self.sack.push(word(block, 0)?, word(block, 4)?);
                    }
                }
                _ => {}
            }
            options = options.get(len..)?;
        }
        Some(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardgate_core::classify::classify;
    use shardgate_core::mss::clamp_mss;

    use super::super::{Address, digest};
    use super::*;
    use crate::world::Site;

    fn ends() -> Ends {
        Ends {
            from: Address {
                site: Site::B,
                number: 3,
                port: 5_201,
            },
            to: Address {
                site: Site::A,
                number: 3,
                port: 40_003,
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            seq: u32, ack: u32, timestamp: u32, echo: u32, window in 0u32..65_536,
            sack in prop::collection::vec(any::<(u32, u32)>(), 0..=SACK_BLOCKS_MAX), payload_len in 0usize..1_500,
        ) {
            let mut segment = Segment {
                seq, ack, timestamp, echo, window: window << WINDOW_SHIFT,
                flags: Flags(Flags::ACK | Flags::ECE), ..Segment::default()
            };
            for (first, end) in sack {
                prop_assert!(segment.sack.push(first, end));
            }
            let mut frame = Vec::new();
            segment.write(&mut frame, ends(), Ecn::Capable, payload_len, |payload| payload.fill(0xa5));
            let (read, payload) = Segment::read(&frame).expect("a sound segment");
            prop_assert_eq!(read, segment);
            prop_assert_eq!(payload, vec![0xa5; payload_len]);
            prop_assert_eq!(Ecn::of(&frame), Ecn::Capable);
        }
    }

    #[test]
    fn a_clamped_syn_is_the_same_to_the_oracle_and_sound() {
        let segment = Segment {
            flags: Flags(Flags::SYN),
            window: 65_535,
            mss: Some(1_460),
            ..Segment::default()
        };
        let mut frame = Vec::new();
        segment.write(&mut frame, ends(), Ecn::NotCapable, 0, |_| {});
        let before = digest(&frame);
        let at = classify(&frame).tcp.expect("a TCP segment");
        assert!(clamp_mss(&mut frame, at, 1_434));
        let (read, _) = Segment::read(&frame).expect("still sound");
        assert_eq!(read.mss, Some(1_380));
        assert_eq!(digest(&frame), before);
        frame[TRANSPORT_AT + 4] ^= 1;
        assert_ne!(digest(&frame), before);
    }
}
