//! The sealed headers of source and repair shards (SPEC §3, §4).

use zerocopy::byteorder::{BE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::drop_reason::DropReason;
use crate::limits::{SHARDS_MAX, WINDOW_MAX};
use crate::seq::Seq;

/// Set in a repair shard's flags.
pub const FLAG_REPAIR: u8 = 0x01;
/// Set in whatever is not the first transmission of its sequence number.
pub const FLAG_REPEAT: u8 = 0x02;
const FLAGS_KNOWN: u8 = FLAG_REPAIR | FLAG_REPEAT;

/// `first_frame` of a shard in which no frame starts.
pub const NO_FRAME: u16 = 0xffff;

/// Bytes of a source shard's sealed header.
pub const SOURCE_HEADER_LEN: usize = 24;

/// Bytes of a repair shard's sealed header.
pub const REPAIR_HEADER_LEN: usize = 16;

/// Bytes of a source shard that are coded beside its payload: shard_id, shard_count,
/// first_frame, payload_len, crc32c.
pub const CODED_META_LEN: usize = 10;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SourceHeaderBytes {
    flags: u8,
    shard_id: u8,
    shard_count: u8,
    zero: u8,
    seq: U32<BE>,
    same_path: U32<BE>,
    sent_at_us: U32<BE>,
    first_frame: U16<BE>,
    payload_len: U16<BE>,
    crc32c: U32<BE>,
}

const _: () = assert!(size_of::<SourceHeaderBytes>() == SOURCE_HEADER_LEN);

/// A source shard's sealed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceHeader {
    /// Whether this is anything but the first transmission of `seq`.
    pub repeat: bool,
    /// Place in the aggregate, below `shard_count`.
    pub shard_id: u8,
    /// Shards in the aggregate: n, 1 to [`SHARDS_MAX`].
    pub shard_count: u8,
    /// Place in the stream.
    pub seq: Seq,
    /// Bit i: `seq - 1 - i` was first sent on this path.
    pub same_path: u32,
    /// The sender's clock when it was numbered, in microseconds.
    pub sent_at_us: u32,
    /// Offset of the first frame that starts in the payload, or [`NO_FRAME`].
    pub first_frame: u16,
    /// Bytes of payload.
    pub payload_len: u16,
    /// CRC-32C of the coded meta fields and the payload; 0 if the sender runs without.
    pub crc32c: u32,
}

impl SourceHeader {
    /// An aggregate that is one shard: the first frame starts at the first byte, and the checksum is
    /// there. What only a sender knows, its clock and what was sent on the path before, is zero.
    pub fn single(seq: Seq, payload: &[u8]) -> Self {
        let mut header = Self {
            repeat: false,
            shard_id: 0,
            shard_count: 1,
            seq,
            same_path: 0,
            sent_at_us: 0,
            first_frame: 0,
            payload_len: payload.len() as u16,
            crc32c: 0,
        };
        header.crc32c = header.checksum(payload);
        header
    }

    /// The aggregate it belongs to: the sequence number of its shard 0.
    #[inline]
    pub fn aggregate(&self) -> Seq {
        self.seq.minus(u32::from(self.shard_id))
    }

    /// The CRC-32C (Castagnoli, inverted in and out as in RFC 3720) that must stand in the header:
    /// over shard_id, shard_count, first_frame and payload_len as they are on the wire, then the
    /// payload.
    #[inline]
    pub fn checksum(&self, payload: &[u8]) -> u32 {
        let [f0, f1] = self.first_frame.to_be_bytes();
        let [l0, l1] = self.payload_len.to_be_bytes();
        let meta = [self.shard_id, self.shard_count, f0, f1, l0, l1];
        crc32c::crc32c_append(crc32c::crc32c(&meta), payload)
    }

    /// Whether the fields agree with each other and with the length of the payload. A rebuilt
    /// shard has to pass the same check as one that arrived.
    #[inline]
    pub(crate) fn is_sound(&self, payload_len: usize) -> bool {
        let starts_inside = self.first_frame < self.payload_len;
        let continues = self.shard_id > 0;
        usize::from(self.shard_count) <= SHARDS_MAX
            && self.shard_id < self.shard_count
            && self.payload_len > 0
            && usize::from(self.payload_len) == payload_len
            && (starts_inside || self.first_frame == NO_FRAME)
            && (self.first_frame == 0 || continues)
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; SOURCE_HEADER_LEN] {
        let bytes = SourceHeaderBytes {
            flags: if self.repeat { FLAG_REPEAT } else { 0 },
            shard_id: self.shard_id,
            shard_count: self.shard_count,
            zero: 0,
            seq: self.seq.0.into(),
            same_path: self.same_path.into(),
            sent_at_us: self.sent_at_us.into(),
            first_frame: self.first_frame.into(),
            payload_len: self.payload_len.into(),
            crc32c: self.crc32c.into(),
        };
        zerocopy::transmute!(bytes)
    }

    /// Reads the header of an opened source shard and checks it against itself and the length of
    /// what follows.
    ///
    /// # Errors
    /// [`DropReason::ShardMalformed`].
    #[inline]
    pub fn parse(plaintext: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        const MALFORMED: DropReason = DropReason::ShardMalformed;
        let (bytes, payload) =
            SourceHeaderBytes::ref_from_prefix(plaintext).map_err(|_| MALFORMED)?;
        let header = Self {
            repeat: bytes.flags & FLAG_REPEAT != 0,
            shard_id: bytes.shard_id,
            shard_count: bytes.shard_count,
            seq: Seq(bytes.seq.get()),
            same_path: bytes.same_path.get(),
            sent_at_us: bytes.sent_at_us.get(),
            first_frame: bytes.first_frame.get(),
            payload_len: bytes.payload_len.get(),
            crc32c: bytes.crc32c.get(),
        };
        let sound = bytes.flags & !FLAGS_KNOWN == 0
            && bytes.flags & FLAG_REPAIR == 0
            && bytes.zero == 0
            && header.is_sound(payload.len());
        if sound {
            Ok((header, payload))
        } else {
            Err(MALFORMED)
        }
    }
}

/// Whether an opened data shard is a repair shard; `None` if it is empty.
#[inline]
pub fn is_repair(plaintext: &[u8]) -> Option<bool> {
    plaintext.first().map(|flags| flags & FLAG_REPAIR != 0)
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RepairHeaderBytes {
    flags: u8,
    repair_index: u8,
    window_len: u8,
    zero: u8,
    window_start: U32<BE>,
    sent_at_us: U32<BE>,
    coded_len: U16<BE>,
    zero_16: U16<BE>,
}

const _: () = assert!(size_of::<RepairHeaderBytes>() == REPAIR_HEADER_LEN);

/// A repair shard's sealed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairHeader {
    /// Whether it is an answer to a request instead of standing repair.
    pub repeat: bool,
    /// Row of the Cauchy matrix, below 64.
    pub repair_index: u8,
    /// Source shards in the window, 1 to 192.
    pub window_len: u8,
    /// First source shard of the window.
    pub window_start: Seq,
    /// The sender's clock when it was numbered, in microseconds.
    pub sent_at_us: u32,
    /// Bytes of the symbol.
    pub coded_len: u16,
}

impl RepairHeader {
    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; REPAIR_HEADER_LEN] {
        let bytes = RepairHeaderBytes {
            flags: FLAG_REPAIR | if self.repeat { FLAG_REPEAT } else { 0 },
            repair_index: self.repair_index,
            window_len: self.window_len,
            zero: 0,
            window_start: self.window_start.0.into(),
            sent_at_us: self.sent_at_us.into(),
            coded_len: self.coded_len.into(),
            zero_16: 0.into(),
        };
        zerocopy::transmute!(bytes)
    }

    /// Reads the header of an opened repair shard and checks it against itself and the length of
    /// what follows.
    ///
    /// # Errors
    /// [`DropReason::ShardMalformed`].
    pub fn parse(plaintext: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        const MALFORMED: DropReason = DropReason::ShardMalformed;
        let (bytes, symbol) =
            RepairHeaderBytes::ref_from_prefix(plaintext).map_err(|_| MALFORMED)?;
        let header = Self {
            repeat: bytes.flags & FLAG_REPEAT != 0,
            repair_index: bytes.repair_index,
            window_len: bytes.window_len,
            window_start: Seq(bytes.window_start.get()),
            sent_at_us: bytes.sent_at_us.get(),
            coded_len: bytes.coded_len.get(),
        };
        let sound = bytes.flags & !FLAGS_KNOWN == 0
            && bytes.flags & FLAG_REPAIR != 0
            && bytes.zero == 0
            && bytes.zero_16.get() == 0
            && header.repair_index < 64
            && (1..=WINDOW_MAX).contains(&usize::from(header.window_len))
            && usize::from(header.coded_len) > CODED_META_LEN
            && usize::from(header.coded_len) == symbol.len();
        if sound {
            Ok((header, symbol))
        } else {
            Err(MALFORMED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SourceHeader {
        SourceHeader {
            repeat: false,
            shard_id: 1,
            shard_count: 3,
            seq: Seq(0x0a0b_0c0d),
            same_path: 0xffff_fffe,
            sent_at_us: 0x0102_0304,
            first_frame: 2,
            payload_len: 9,
            crc32c: 0,
        }
    }

    #[test]
    fn source_vector() {
        let mut header = source();
        header.crc32c = header.checksum(b"123456789");
        let bytes = header.to_bytes();
        assert_eq!(
            bytes[..20],
            [
                0, 1, 3, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0xff, 0xff, 0xff, 0xfe, 1, 2, 3, 4, 0, 2, 0, 9
            ]
        );
        // CRC-32C("123456789") is 0xe3069283 (RFC 3720, B.4); here six bytes of header precede it.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            header.crc32c,
            crc32c::crc32c(&[
                1, 3, 0, 2, 0, 9, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'9'
            ])
        );
        let mut shard = bytes.to_vec();
        shard.extend_from_slice(b"123456789");
        assert_eq!(SourceHeader::parse(&shard), Ok((header, &b"123456789"[..])));
        assert_eq!(header.aggregate(), Seq(0x0a0b_0c0c));
    }

    #[test]
    fn an_aggregate_of_one_shard_is_sound() {
        let header = SourceHeader::single(Seq(7), b"123456789");
        let shard = [&header.to_bytes(), &b"123456789"[..]].concat();
        assert_eq!(SourceHeader::parse(&shard), Ok((header, &b"123456789"[..])));
        assert_eq!(header.aggregate(), Seq(7));
        assert_eq!(header.crc32c, header.checksum(b"123456789"));
    }

    #[test]
    fn unsound_source_headers_are_refused() {
        let spoil: [fn(&mut SourceHeader); 6] = [
            |h| h.shard_id = 3,
            |h| h.shard_count = 65,
            |h| h.payload_len = 8,
            |h| h.first_frame = 9,
            |h| h.first_frame = 0x8000,
            |h| h.shard_id = 0,
        ];
        for change in spoil {
            let mut header = source();
            change(&mut header);
            let mut shard = header.to_bytes().to_vec();
            shard.extend_from_slice(b"123456789");
            assert_eq!(
                SourceHeader::parse(&shard),
                Err(DropReason::ShardMalformed),
                "{header:?}"
            );
        }
        for (byte, value) in [(0, 0x80), (0, FLAG_REPAIR), (3, 1)] {
            let mut shard = source().to_bytes().to_vec();
            shard.extend_from_slice(b"123456789");
            shard[byte] = value;
            assert_eq!(SourceHeader::parse(&shard), Err(DropReason::ShardMalformed));
        }
        assert_eq!(
            SourceHeader::parse(&[0; 23]),
            Err(DropReason::ShardMalformed)
        );
    }

    #[test]
    fn repair_vector() {
        let header = RepairHeader {
            repeat: true,
            repair_index: 5,
            window_len: 128,
            window_start: Seq(0x0102_0304),
            sent_at_us: 0x0506_0708,
            coded_len: 12,
        };
        let mut shard = header.to_bytes().to_vec();
        assert_eq!(shard, [3, 5, 128, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 12, 0, 0]);
        shard.extend_from_slice(&[0x55; 12]);
        assert_eq!(RepairHeader::parse(&shard), Ok((header, &[0x55; 12][..])));
        assert_eq!(is_repair(&shard), Some(true));
        for (byte, value) in [(1, 64), (2, 0), (2, 193), (3, 1), (13, 11), (15, 1), (0, 0)] {
            let mut bad = shard.clone();
            bad[byte] = value;
            assert_eq!(
                RepairHeader::parse(&bad),
                Err(DropReason::ShardMalformed),
                "byte {byte}"
            );
        }
    }
}
