//! The sealed headers of source and repair shards, and the frame headers behind them.

use shardgate_core::limits::{FRAME_MAX, FRAME_MIN, SHARDS_MAX};
use shardgate_core::wire::frame::{FRAME_HEADER_LEN, FrameHeader};
use shardgate_core::wire::shard::{
    CODED_META_LEN, NO_FRAME, REPAIR_HEADER_LEN, RepairHeader, SOURCE_HEADER_LEN, SourceHeader,
    is_repair,
};

pub fn fuzz(plaintext: &[u8]) {
    let source = SourceHeader::parse(plaintext);
    let repair = RepairHeader::parse(plaintext);
    if let Ok((header, payload)) = source {
        assert_eq!(is_repair(plaintext), Some(false));
        assert_eq!(header.to_bytes(), plaintext[..SOURCE_HEADER_LEN]);
        assert_eq!(payload, &plaintext[SOURCE_HEADER_LEN..]);
        is_sound(&header, payload);
    }
    if let Ok((header, symbol)) = repair {
        assert_eq!(is_repair(plaintext), Some(true));
        assert_eq!(header.to_bytes(), plaintext[..REPAIR_HEADER_LEN]);
        assert_eq!(symbol, &plaintext[REPAIR_HEADER_LEN..]);
        assert_eq!(usize::from(header.coded_len), symbol.len());
        assert!(symbol.len() > CODED_META_LEN);
        assert!(header.repair_index < 64 && (1..=192).contains(&header.window_len));
    }
    assert!(source.is_err() || repair.is_err());
}

fn is_sound(header: &SourceHeader, payload: &[u8]) {
    assert!(!payload.is_empty() && payload.len() == usize::from(header.payload_len));
    assert!(header.shard_id < header.shard_count);
    assert!(usize::from(header.shard_count) <= SHARDS_MAX);
    let first = usize::from(header.first_frame);
    assert!(header.first_frame == NO_FRAME || first < payload.len());
    assert_eq!(header.aggregate().plus(header.shard_id.into()), header.seq);
    // A bit more or less anywhere is another checksum.
    let checksum = header.checksum(payload);
    let mut other = payload.to_vec();
    other[payload.len() / 2] ^= 1;
    assert_ne!(header.checksum(&other), checksum);
    if let Some(frame) = payload.get(first..).and_then(FrameHeader::parse) {
        assert_eq!(frame.to_bytes(), payload[first..][..FRAME_HEADER_LEN]);
        assert!((FRAME_MIN..=FRAME_MAX).contains(&usize::from(frame.len)));
    }
}
