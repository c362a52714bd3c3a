//! Handshake messages, and the payload inside them.

use shardgate_core::wire::handshake::{
    HANDSHAKE_LEN_MAX, Handshake, HandshakeKind, MAC_LEN, PAYLOAD_LEN, PREFIX_LEN, Payload,
    TRAILER_LEN, emit, put_mac1,
};
use shardgate_core::wire::header::{ClearHeader, Kind};

pub fn fuzz(bytes: &[u8]) {
    message(bytes);
    payload(bytes);
}

/// A message that parses is what its parts make when they are put together again.
fn message(bytes: &[u8]) {
    let Ok(parsed) = Handshake::parse(bytes) else {
        return;
    };
    assert!(bytes.len() <= HANDSHAKE_LEN_MAX);
    assert!(parsed.noise.len() >= parsed.kind.noise_overhead() + PAYLOAD_LEN);
    assert_eq!(parsed.mac1_input.len() + TRAILER_LEN, bytes.len());
    assert!(parsed.kind == HandshakeKind::Response || parsed.receiver_index == 0);
    let kind = match parsed.kind {
        HandshakeKind::Init => Kind::HandshakeInit,
        HandshakeKind::Response => Kind::HandshakeResponse,
    };
    let header = ClearHeader::parse(bytes).expect("the layouts begin alike");
    assert_eq!((header.kind, header.path_number), (kind, 0));
    let mut again = vec![0xaa; bytes.len()];
    let len = emit(
        parsed.kind,
        parsed.receiver_index,
        parsed.sender_index,
        parsed.noise,
        &mut again,
    );
    assert_eq!(len, Ok(bytes.len()));
    put_mac1(&mut again, parsed.mac1).expect("it is as long");
    let mac2_at = bytes.len() - MAC_LEN;
    assert_eq!(again[mac2_at..], [0; MAC_LEN]);
    assert_eq!(again[..mac2_at], bytes[..mac2_at]);
    assert_eq!(*parsed.mac2, bytes[mac2_at..]);
    assert_eq!(bytes[PREFIX_LEN..][..parsed.noise.len()], *parsed.noise);
}

/// Two payloads, one behind the other: each reads back as it is, and both agree on the version.
fn payload(bytes: &[u8]) {
    let Ok(first) = Payload::decode(bytes) else {
        return;
    };
    assert_eq!(Payload::decode(&first.encode()), Ok(first));
    assert!(first.streams > 0 && first.paths > 0 && first.lanes > 0);
    assert_eq!(first.common_version(&first), Ok(first.version_max));
    let Ok(second) = Payload::decode(bytes.get(PAYLOAD_LEN..).unwrap_or_default()) else {
        return;
    };
    let common = first.common_version(&second);
    assert_eq!(common, second.common_version(&first));
    let speaks =
        |payload: &Payload, version| (payload.version_min..=payload.version_max).contains(&version);
    match common {
        Ok(version) => assert!(speaks(&first, version) && speaks(&second, version)),
        Err(_) => {
            assert!(
                (0..=u8::MAX).all(|version| !speaks(&first, version) || !speaks(&second, version))
            );
        }
    }
}
