//! Handshake messages: the layout around the Noise bytes, and the payload inside them.
//!
//! A handshake is two datagrams of `Noise_IKpsk2_25519_AESGCM_SHA256`. Noise knows nothing of
//! indices, cheap rejection or time, so the layout adds them (SPEC.md, "Handshake"):
//!
//! ```text
//! init      header 16 | sender_index 4 | Noise 96 + payload | mac1 16 | mac2 16
//! response  header 16 | sender_index 4 | Noise 48 + payload | mac1 16 | mac2 16
//! ```
//!
//! Nothing here computes a MAC or a DH: this is the byte layout and its checks, and every byte
//! that comes in is hostile. Whoever holds the keys checks `mac1` first.

use core::fmt;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version nibble of the clear header that these layouts belong to.
pub const VERSION: u8 = 1;

/// Kind nibble of a handshake's first message.
pub const KIND_INIT: u8 = 1;

/// Kind nibble of the answer to it.
pub const KIND_RESPONSE: u8 = 2;

/// Kind nibble of a cookie reply: reserved, not sent yet.
pub const KIND_COOKIE: u8 = 3;

/// Bytes of `mac1` and of `mac2`.
pub const MAC_LEN: usize = 16;

/// Bytes in front of the Noise bytes: clear header and sender index.
pub const PREFIX_LEN: usize = 20;

/// Bytes behind the Noise bytes: `mac1` and `mac2`.
pub const TRAILER_LEN: usize = 2 * MAC_LEN;

/// What Noise adds to the payload of an init: ephemeral key 32, sealed static key 32 + 16, tag 16.
pub const INIT_NOISE_OVERHEAD: usize = 96;

/// What Noise adds to the payload of a response: ephemeral key 32, tag 16.
pub const RESPONSE_NOISE_OVERHEAD: usize = 48;

/// Bytes of the payload that this version writes, and the fewest it accepts.
pub const PAYLOAD_LEN: usize = 36;

/// Bytes of an init as this version writes it.
pub const INIT_LEN: usize = PREFIX_LEN + INIT_NOISE_OVERHEAD + PAYLOAD_LEN + TRAILER_LEN;

/// Bytes of a response as this version writes it.
pub const RESPONSE_LEN: usize = PREFIX_LEN + RESPONSE_NOISE_OVERHEAD + PAYLOAD_LEN + TRAILER_LEN;

/// The longest handshake message that is looked at: room for fields of later versions, and small
/// enough that every path carries it unfragmented.
pub const HANDSHAKE_LEN_MAX: usize = 512;

/// The longest Noise message inside one.
pub const NOISE_LEN_MAX: usize = HANDSHAKE_LEN_MAX - PREFIX_LEN - TRAILER_LEN;

// No reply is longer than its cause: a forged source address gains nothing.
const _: () = assert!(RESPONSE_LEN <= INIT_LEN);
const _: () = assert!(INIT_LEN <= HANDSHAKE_LEN_MAX);
const _: () = assert!(size_of::<Prefix>() == PREFIX_LEN);
const _: () = assert!(size_of::<RawPayload>() == PAYLOAD_LEN);

/// The clear header of every datagram, and the sender's index behind it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Prefix {
    version_kind: u8,
    stream: u8,
    path: u8,
    zero: u8,
    receiver_index: U32,
    path_number: U64,
    sender_index: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPayload {
    version_min: u8,
    version_max: u8,
    length: U16,
    sender_index: U32,
    timestamp_ns: U64,
    incarnation: U64,
    streams: u8,
    paths: u8,
    lanes: U16,
    window: U16,
    zero: U16,
    features: U32,
}

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// The first message.
    Init,
    /// The answer to it.
    Response,
}

impl HandshakeKind {
    /// The kind nibble of the clear header.
    pub const fn nibble(self) -> u8 {
        match self {
            Self::Init => KIND_INIT,
            Self::Response => KIND_RESPONSE,
        }
    }

    /// What Noise adds to the payload of this message, in bytes.
    pub const fn noise_overhead(self) -> usize {
        match self {
            Self::Init => INIT_NOISE_OVERHEAD,
            Self::Response => RESPONSE_NOISE_OVERHEAD,
        }
    }
}

/// Why bytes are not a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Shorter than the shortest message of its kind.
    Truncated,
    /// Longer than [`HANDSHAKE_LEN_MAX`].
    TooLong,
    /// A version nibble we do not speak.
    Version,
    /// A kind nibble that is neither init nor response.
    Kind,
    /// A field of the clear header that must be zero is not.
    Reserved,
    /// The buffer handed in for writing is too short.
    NoRoom,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated handshake message",
            Self::TooLong => "handshake message too long",
            Self::Version => "unknown protocol version",
            Self::Kind => "not a handshake message",
            Self::Reserved => "reserved field not zero",
            Self::NoRoom => "no room for the handshake message",
        })
    }
}

impl core::error::Error for HandshakeError {}

/// A handshake message whose layout is sound. Nothing in it has been authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// Which message.
    pub kind: HandshakeKind,
    /// The index of the addressee; zero in an init, for it has none yet.
    pub receiver_index: u32,
    /// The index under which the sender wants to be answered.
    pub sender_index: u32,
    /// The Noise message.
    pub noise: &'a [u8],
    /// All bytes that `mac1` covers: everything in front of it.
    pub mac1_input: &'a [u8],
    /// Keyed hash over [`mac1_input`](Self::mac1_input), under the addressee's static key.
    pub mac1: &'a [u8; MAC_LEN],
    /// Proof of address ownership; zero as long as no cookie was asked for.
    pub mac2: &'a [u8; MAC_LEN],
}

impl<'a> Handshake<'a> {
    /// Reads the layout of a UDP payload.
    ///
    /// # Errors
    /// Every way in which the bytes are not a message that this version can read.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, HandshakeError> {
        let (prefix, rest) =
            Prefix::ref_from_prefix(datagram).map_err(|_| HandshakeError::Truncated)?;
        if prefix.version_kind >> 4 != VERSION {
            return Err(HandshakeError::Version);
        }
        let kind = match prefix.version_kind & 0x0f {
            KIND_INIT => HandshakeKind::Init,
            KIND_RESPONSE => HandshakeKind::Response,
            _ => return Err(HandshakeError::Kind),
        };
        if datagram.len() > HANDSHAKE_LEN_MAX {
            return Err(HandshakeError::TooLong);
        }
        let addressed = kind == HandshakeKind::Init && prefix.receiver_index.get() != 0;
        let numbered = prefix.path_number.get() != 0;
        if addressed || numbered || prefix.stream != 0 || prefix.path != 0 || prefix.zero != 0 {
            return Err(HandshakeError::Reserved);
        }
        let (rest, mac2) = rest
            .split_last_chunk::<MAC_LEN>()
            .ok_or(HandshakeError::Truncated)?;
        let (noise, mac1) = rest
            .split_last_chunk::<MAC_LEN>()
            .ok_or(HandshakeError::Truncated)?;
        if noise.len() < kind.noise_overhead() + PAYLOAD_LEN {
            return Err(HandshakeError::Truncated);
        }
        let mac1_input = datagram
            .get(..PREFIX_LEN + noise.len())
            .ok_or(HandshakeError::Truncated)?;
        Ok(Self {
            kind,
            receiver_index: prefix.receiver_index.get(),
            sender_index: prefix.sender_index.get(),
            noise,
            mac1_input,
            mac1,
            mac2,
        })
    }
}

/// Writes a message whose MACs are zero into `out` and returns its length: the caller computes
/// `mac1` over all but the last [`TRAILER_LEN`] bytes and puts it there with [`put_mac1`].
///
/// # Errors
/// [`HandshakeError::NoRoom`] if `out` is too short, [`HandshakeError::TooLong`] if the message
/// would exceed [`HANDSHAKE_LEN_MAX`].
pub fn emit(
    kind: HandshakeKind,
    receiver_index: u32,
    sender_index: u32,
    noise: &[u8],
    out: &mut [u8],
) -> Result<usize, HandshakeError> {
    if noise.len() > NOISE_LEN_MAX {
        return Err(HandshakeError::TooLong);
    }
    let len = PREFIX_LEN + noise.len() + TRAILER_LEN;
    let message = out.get_mut(..len).ok_or(HandshakeError::NoRoom)?;
    let prefix = Prefix {
        version_kind: VERSION << 4 | kind.nibble(),
        stream: 0,
        path: 0,
        zero: 0,
        receiver_index: U32::new(receiver_index),
        path_number: U64::new(0),
        sender_index: U32::new(sender_index),
    };
    let (head, tail) = message.split_at_mut(PREFIX_LEN);
    head.copy_from_slice(prefix.as_bytes());
    let (body, macs) = tail.split_at_mut(noise.len());
    body.copy_from_slice(noise);
    macs.fill(0);
    Ok(len)
}

/// Puts `mac1` into a message that [`emit`] wrote.
///
/// # Errors
/// [`HandshakeError::Truncated`] if the message is too short to have one.
pub fn put_mac1(message: &mut [u8], mac1: &[u8; MAC_LEN]) -> Result<(), HandshakeError> {
    let at = message
        .len()
        .checked_sub(TRAILER_LEN)
        .ok_or(HandshakeError::Truncated)?;
    let slot = message
        .get_mut(at..at + MAC_LEN)
        .ok_or(HandshakeError::Truncated)?;
    slot.copy_from_slice(mac1);
    Ok(())
}

/// What the two ends tell each other inside the handshake.
///
/// On the wire it says its own length, so that a later version can append fields: what lies
/// behind the known ones is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Oldest protocol version spoken.
    pub version_min: u8,
    /// Newest protocol version spoken.
    pub version_max: u8,
    /// The `sender_index` of the clear part again: it is authenticated only here.
    pub sender_index: u32,
    /// The initiator's growing timestamp, nanoseconds since 1970; zero in a response.
    pub timestamp_ns: u64,
    /// Random, drawn when the program starts. While it stays the same, all numbers go on.
    pub incarnation: u64,
    /// Streams the sender of this payload sends.
    pub streams: u8,
    /// Most path ids the sender of this payload uses.
    pub paths: u8,
    /// Lanes the sender of this payload uses.
    pub lanes: u16,
    /// Largest coding window, in source shards, that the sender of this payload keeps payloads for.
    pub window: u16,
    /// Bits of optional features; unknown bits are ignored.
    pub features: u32,
}

/// Why a payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// Fewer bytes than the fields of version 1, or than it says of itself.
    Truncated,
    /// `version_min` exceeds `version_max`, or no version is spoken by both.
    Version,
    /// A count of streams, paths or lanes is zero.
    Empty,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated handshake payload",
            Self::Version => "no common protocol version",
            Self::Empty => "a count in the handshake payload is zero",
        })
    }
}

impl core::error::Error for PayloadError {}

impl Payload {
    /// The payload as bytes.
    pub fn encode(&self) -> [u8; PAYLOAD_LEN] {
        let raw = RawPayload {
            version_min: self.version_min,
            version_max: self.version_max,
            length: U16::new(PAYLOAD_LEN as u16),
            sender_index: U32::new(self.sender_index),
            timestamp_ns: U64::new(self.timestamp_ns),
            incarnation: U64::new(self.incarnation),
            streams: self.streams,
            paths: self.paths,
            lanes: U16::new(self.lanes),
            window: U16::new(self.window),
            zero: U16::new(0),
            features: U32::new(self.features),
        };
        let mut bytes = [0; PAYLOAD_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Reads a payload that has been authenticated; fields behind the known ones are skipped.
    ///
    /// # Errors
    /// When it is shorter than it must be, or says something that no sound peer says.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let (raw, _) = RawPayload::ref_from_prefix(bytes).map_err(|_| PayloadError::Truncated)?;
        let length = usize::from(raw.length.get());
        if length < PAYLOAD_LEN || length > bytes.len() {
            return Err(PayloadError::Truncated);
        }
        if raw.version_min > raw.version_max {
            return Err(PayloadError::Version);
        }
        if raw.streams == 0 || raw.paths == 0 || raw.lanes.get() == 0 {
            return Err(PayloadError::Empty);
        }
        Ok(Self {
            version_min: raw.version_min,
            version_max: raw.version_max,
            sender_index: raw.sender_index.get(),
            timestamp_ns: raw.timestamp_ns.get(),
            incarnation: raw.incarnation.get(),
            streams: raw.streams,
            paths: raw.paths,
            lanes: raw.lanes.get(),
            window: raw.window.get(),
            features: raw.features.get(),
        })
    }

    /// The newest version that both ends speak.
    ///
    /// # Errors
    /// [`PayloadError::Version`] if there is none.
    pub fn common_version(&self, peer: &Self) -> Result<u8, PayloadError> {
        let newest = self.version_max.min(peer.version_max);
        let oldest = self.version_min.max(peer.version_min);
        if oldest <= newest {
            Ok(newest)
        } else {
            Err(PayloadError::Version)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload() -> Payload {
        Payload {
            version_min: 1,
            version_max: 1,
            sender_index: 0x0102_0304,
            timestamp_ns: 0x1112_1314_1516_1718,
            incarnation: 0x2122_2324_2526_2728,
            streams: 2,
            paths: 1,
            lanes: 256,
            window: 128,
            features: 0x3132_3334,
        }
    }

    #[test]
    fn sizes_are_those_of_the_specification() {
        assert_eq!(INIT_LEN, 184);
        assert_eq!(RESPONSE_LEN, 136);
    }

    #[test]
    fn an_init_byte_for_byte() {
        let noise = [0xaa; INIT_NOISE_OVERHEAD + PAYLOAD_LEN];
        let mut out = [0xff; INIT_LEN];
        let len = emit(HandshakeKind::Init, 0, 0x0506_0708, &noise, &mut out).unwrap();
        assert_eq!(len, INIT_LEN);
        put_mac1(&mut out[..len], &[0xbb; MAC_LEN]).unwrap();
        assert_eq!(
            out[..PREFIX_LEN],
            [
                0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8
            ]
        );
        assert_eq!(out[PREFIX_LEN..152], noise);
        assert_eq!(out[152..168], [0xbb; 16]);
        assert_eq!(out[168..], [0; 16]);

        let parsed = Handshake::parse(&out).unwrap();
        assert_eq!(parsed.kind, HandshakeKind::Init);
        assert_eq!(parsed.sender_index, 0x0506_0708);
        assert_eq!(parsed.noise, noise);
        assert_eq!(parsed.mac1_input, &out[..152]);
        assert_eq!(parsed.mac1, &[0xbb; 16]);
        assert_eq!(parsed.mac2, &[0; 16]);
    }

    #[test]
    fn a_response_byte_for_byte() {
        let noise = [0xcc; RESPONSE_NOISE_OVERHEAD + PAYLOAD_LEN];
        let mut out = [0; RESPONSE_LEN];
        emit(HandshakeKind::Response, 0x0a0b_0c0d, 9, &noise, &mut out).unwrap();
        assert_eq!(
            out[..PREFIX_LEN],
            [
                0x12, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9
            ]
        );
        let parsed = Handshake::parse(&out).unwrap();
        assert_eq!(parsed.kind, HandshakeKind::Response);
        assert_eq!(parsed.receiver_index, 0x0a0b_0c0d);
    }

    #[test]
    fn a_payload_byte_for_byte() {
        let bytes = payload().encode();
        assert_eq!(
            bytes,
            [
                1, 1, 0, 36, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21,
                0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 2, 1, 1, 0, 0, 128, 0, 0, 0x31, 0x32,
                0x33, 0x34
            ]
        );
        assert_eq!(Payload::decode(&bytes), Ok(payload()));
    }

    #[test]
    fn fields_of_later_versions_are_skipped_by_length() {
        let mut bytes = payload().encode().to_vec();
        bytes[3] = 40;
        assert_eq!(Payload::decode(&bytes), Err(PayloadError::Truncated));
        bytes.extend([7; 4]);
        assert_eq!(Payload::decode(&bytes), Ok(payload()));
        bytes[3] = 35;
        assert_eq!(Payload::decode(&bytes), Err(PayloadError::Truncated));
    }

    #[test]
    fn payloads_that_make_no_sense_are_refused() {
        let refused = |change: fn(&mut Payload)| {
            let mut wrong = payload();
            change(&mut wrong);
            Payload::decode(&wrong.encode()).unwrap_err()
        };
        assert_eq!(refused(|p| p.version_min = 2), PayloadError::Version);
        assert_eq!(refused(|p| p.streams = 0), PayloadError::Empty);
        assert_eq!(refused(|p| p.paths = 0), PayloadError::Empty);
        assert_eq!(refused(|p| p.lanes = 0), PayloadError::Empty);
    }

    #[test]
    fn the_newest_common_version_wins() {
        let range = |version_min, version_max| Payload {
            version_min,
            version_max,
            ..payload()
        };
        assert_eq!(range(1, 3).common_version(&range(2, 5)), Ok(3));
        assert_eq!(range(2, 5).common_version(&range(1, 3)), Ok(3));
        assert_eq!(
            range(1, 1).common_version(&range(2, 2)),
            Err(PayloadError::Version)
        );
        assert_eq!(
            range(2, 2).common_version(&range(1, 1)),
            Err(PayloadError::Version)
        );
    }

    #[test]
    fn every_reserved_field_is_checked() {
        let noise = [0; INIT_NOISE_OVERHEAD + PAYLOAD_LEN];
        let mut good = [0; INIT_LEN];
        emit(HandshakeKind::Init, 0, 1, &noise, &mut good).unwrap();
        for at in 1..16 {
            let mut bad = good;
            bad[at] = 1;
            assert_eq!(
                Handshake::parse(&bad).unwrap_err(),
                HandshakeError::Reserved,
                "{at}"
            );
        }
        let mut bad = good;
        bad[0] = 0x21;
        assert_eq!(Handshake::parse(&bad).unwrap_err(), HandshakeError::Version);
        for kind in [0, 3, 4, 5, 15] {
            bad[0] = 0x10 | kind;
            assert_eq!(Handshake::parse(&bad).unwrap_err(), HandshakeError::Kind);
        }
    }

    #[test]
    fn length_is_bounded_on_both_sides() {
        let noise = [0; NOISE_LEN_MAX];
        let mut out = [0; HANDSHAKE_LEN_MAX + 1];
        let len = emit(HandshakeKind::Init, 0, 1, &noise, &mut out).unwrap();
        assert_eq!(len, HANDSHAKE_LEN_MAX);
        assert!(Handshake::parse(&out[..len]).is_ok());
        assert_eq!(Handshake::parse(&out).unwrap_err(), HandshakeError::TooLong);
        assert_eq!(
            Handshake::parse(&out[..INIT_LEN - 1]).unwrap_err(),
            HandshakeError::Truncated
        );
        assert!(Handshake::parse(&out[..INIT_LEN]).is_ok());
        assert_eq!(
            emit(
                HandshakeKind::Init,
                0,
                1,
                &noise,
                &mut out[..HANDSHAKE_LEN_MAX - 1]
            ),
            Err(HandshakeError::NoRoom)
        );
        assert_eq!(
            emit(
                HandshakeKind::Init,
                0,
                1,
                &[0; NOISE_LEN_MAX + 1],
                &mut [0; 1024]
            ),
            Err(HandshakeError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_parsed_but_never_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
            first in any::<u8>(),
        ) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first & 0x13;
            }
            if let Ok(parsed) = Handshake::parse(&bytes) {
                prop_assert_eq!(parsed.mac1_input.len() + TRAILER_LEN, bytes.len());
                prop_assert!(parsed.noise.len() >= parsed.kind.noise_overhead() + PAYLOAD_LEN);
            }
            if let Ok(payload) = Payload::decode(&bytes) {
                prop_assert!(payload.version_min <= payload.version_max);
            }
        }
    }
}
