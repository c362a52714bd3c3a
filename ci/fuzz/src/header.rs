//! The clear header, and the way of a datagram from the wire to its plaintext.

use shardgate_core::buffer::{Buffer, HeapBuffer};
use shardgate_core::drop_reason::DropReason;
use shardgate_core::seal::Received;
use shardgate_core::wire::header::{CLEAR_HEADER_LEN, ClearHeader, TAG_LEN};

use crate::world::Open;

pub fn fuzz(datagram: &[u8]) {
    let parsed = ClearHeader::parse(datagram);
    match parsed {
        Ok(header) => {
            assert_eq!(header.to_bytes(), datagram[..CLEAR_HEADER_LEN]);
            let nonce = header.nonce();
            assert_eq!(
                (nonce[0], nonce[1], nonce[2]),
                (header.kind as u8, header.stream, header.path)
            );
            assert_eq!(nonce[4..], header.path_number.to_be_bytes());
        }
        Err(reason) => assert!(matches!(
            reason,
            DropReason::Malformed | DropReason::Version | DropReason::Kind
        )),
    }
    let is_openable = parsed.is_ok_and(|header| {
        !header.kind.is_handshake() && datagram.len() > CLEAR_HEADER_LEN + TAG_LEN
    });
    match Received::new(HeapBuffer::from_bytes(datagram)) {
        Ok((received, header)) => {
            assert!(is_openable && parsed == Ok(header));
            let opened = received.open(&Open).expect("everything is authentic here");
            assert_eq!(opened.header(), Some(header));
            let plaintext = &datagram[CLEAR_HEADER_LEN..datagram.len() - TAG_LEN];
            assert_eq!(opened.plaintext(), plaintext);
        }
        Err((_, buffer)) => {
            assert!(!is_openable);
            assert_eq!(buffer.data(), datagram, "it is given back as it came");
        }
    }
}
