//! Frames from a LAN port: their lane, and the clamp of TCP's segment size.

use shardgate_core::classify::{TcpAt, classify};
use shardgate_core::mss::clamp_mss;

/// The first two bytes are the longest frame that fits a shard, the rest is a frame.
pub fn fuzz(input: &[u8]) {
    let Some((&frame_max, frame)) = input.split_first_chunk() else {
        return;
    };
    let frame_max = usize::from(u16::from_le_bytes(frame_max));
    let classified = classify(frame);
    assert_eq!(classify(frame), classified, "a flow stays in its lane");
    let Some(at) = classified.tcp else {
        return;
    };
    assert!(at.ip + 20 <= at.tcp && at.tcp + 4 <= frame.len(), "{at:?}");
    clamp(frame, at, frame_max);
}

fn clamp(frame: &[u8], at: TcpAt, frame_max: usize) {
    let mut clamped = frame.to_vec();
    let is_changed = clamp_mss(&mut clamped, at, frame_max);
    assert_eq!(clamped != frame, is_changed);
    assert_eq!(clamped[..at.tcp], frame[..at.tcp], "only TCP is touched");
    if !is_changed {
        return;
    }
    let differing = frame.iter().zip(&clamped).filter(|(a, b)| a != b).count();
    assert!(differing <= 4, "an option's value and a checksum");
    // What was right stays right, and what was wrong stays wrong by as much.
    assert_eq!(naive_sum(&clamped[at.tcp..]), naive_sum(&frame[at.tcp..]));
    assert_eq!(classify(&clamped), classify(frame));
    let once = clamped.clone();
    assert!(!clamp_mss(&mut clamped, at, frame_max), "once is enough");
    assert_eq!(clamped, once);
}

/// RFC 1071, with the two forms of zero as one.
fn naive_sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()));
    words.sum::<u32>() % 0xffff
}
