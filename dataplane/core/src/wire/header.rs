//! The clear header and the nonce (SPEC §2).

use zerocopy::byteorder::{BE, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::drop_reason::DropReason;

/// The protocol's version, in the high nibble of every datagram's first byte.
pub const VERSION: u8 = 1;

/// Bytes of a nonce: AES-GCM's 96 bits.
pub const NONCE_LEN: usize = 12;

/// Bytes of an AEAD tag.
pub const TAG_LEN: usize = 16;

/// What a datagram is, in the low nibble of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// First handshake message.
    HandshakeInit = 1,
    /// Second handshake message.
    HandshakeResponse = 2,
    /// "Prove your address first."
    HandshakeCookie = 3,
    /// A source or a repair shard.
    Data = 4,
    /// Reports, probes and requests about a stream.
    Feedback = 5,
}

impl Kind {
    fn from_nibble(nibble: u8) -> Option<Self> {
        Some(match nibble {
            1 => Kind::HandshakeInit,
            2 => Kind::HandshakeResponse,
            3 => Kind::HandshakeCookie,
            4 => Kind::Data,
            5 => Kind::Feedback,
            _ => return None,
        })
    }

    /// True for what the control thread handles and no unit opens.
    pub fn is_handshake(self) -> bool {
        !matches!(self, Kind::Data | Kind::Feedback)
    }
}

/// The clear header as it stands on the wire: 16 bytes, authenticated as AAD.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ClearHeaderBytes {
    version_kind: u8,
    stream: u8,
    path: u8,
    zero: u8,
    receiver_index: U32<BE>,
    path_number: U64<BE>,
}

/// Bytes of the clear header.
pub const CLEAR_HEADER_LEN: usize = 16;

const _: () = assert!(size_of::<ClearHeaderBytes>() == CLEAR_HEADER_LEN);

/// The clear header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClearHeader {
    /// What the datagram is.
    pub kind: Kind,
    /// The stream it belongs to, or for feedback is about.
    pub stream: u8,
    /// The sender's id for the path.
    pub path: u8,
    /// Names peer and key at the receiver.
    pub receiver_index: u32,
    /// Counts transmissions on (kind, stream, path).
    pub path_number: u64,
}

impl ClearHeader {
    /// Reads the header at the start of a datagram.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] if it is too short or a reserved byte is set,
    /// [`DropReason::Version`], [`DropReason::Kind`].
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let (bytes, _) =
            ClearHeaderBytes::ref_from_prefix(datagram).map_err(|_| DropReason::Malformed)?;
        if bytes.version_kind >> 4 != VERSION {
            return Err(DropReason::Version);
        }
        let kind = Kind::from_nibble(bytes.version_kind & 0x0f).ok_or(DropReason::Kind)?;
        if bytes.zero != 0 {
            return Err(DropReason::Malformed);
        }
        Ok(Self {
            kind,
            stream: bytes.stream,
            path: bytes.path,
            receiver_index: bytes.receiver_index.get(),
            path_number: bytes.path_number.get(),
        })
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; CLEAR_HEADER_LEN] {
        let bytes = ClearHeaderBytes {
            version_kind: VERSION << 4 | self.kind as u8,
            stream: self.stream,
            path: self.path,
            zero: 0,
            receiver_index: self.receiver_index.into(),
            path_number: self.path_number.into(),
        };
        zerocopy::transmute!(bytes)
    }

    /// The nonce: `kind:8 stream:8 path:8 0:8 path_number:64`. Unique per key as long as no
    /// (kind, stream, path) hands out a path number twice.
    #[inline]
    pub fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = self.kind as u8;
        nonce[1] = self.stream;
        nonce[2] = self.path;
        nonce[4..].copy_from_slice(&self.path_number.to_be_bytes());
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: ClearHeader = ClearHeader {
        kind: Kind::Data,
        stream: 2,
        path: 3,
        receiver_index: 0x0102_0304,
        path_number: 0x1112_1314_1516_1718,
    };

    #[test]
    fn header_vector() {
        let bytes = HEADER.to_bytes();
        assert_eq!(
            bytes,
            [
                0x14, 2, 3, 0, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18
            ]
        );
        assert_eq!(ClearHeader::parse(&bytes), Ok(HEADER));
        assert_eq!(
            HEADER.nonce(),
            [4, 2, 3, 0, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        let good = HEADER.to_bytes();
        assert_eq!(ClearHeader::parse(&good[..15]), Err(DropReason::Malformed));
        let mut bytes = good;
        bytes[0] = 0x24;
        assert_eq!(ClearHeader::parse(&bytes), Err(DropReason::Version));
        bytes[0] = 0x10;
        assert_eq!(ClearHeader::parse(&bytes), Err(DropReason::Kind));
        bytes = good;
        bytes[3] = 1;
        assert_eq!(ClearHeader::parse(&bytes), Err(DropReason::Malformed));
    }
}
