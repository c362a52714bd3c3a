//! Frames from a LAN port: their lane, the clamp of TCP's segment size, and the mark of congestion.

use shardgate_core::classify::{TcpAt, classify};
use shardgate_core::ecn::mark_ce;
use shardgate_core::lane::Lane;
use shardgate_core::mss::clamp_mss;

/// The first two bytes are the longest frame that fits a shard, the rest is a frame.
pub fn fuzz(input: &[u8]) {
    let Some((&frame_max, frame)) = input.split_first_chunk() else {
        return;
    };
    let frame_max = usize::from(u16::from_le_bytes(frame_max));
    let classified = classify(frame);
    assert_eq!(classify(frame), classified, "a flow stays in its lane");
    assert_eq!(
        classified.lane,
        Lane::for_flow(classified.class, classified.hash)
    );
    assert_eq!(classified.lane.class(), classified.class);
    assert!(!classified.is_udp || classified.tcp.is_none());
    mark(frame);
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

fn mark(frame: &[u8]) {
    let mut marked = frame.to_vec();
    let is_marked = mark_ce(&mut marked);
    assert_eq!(classify(&marked), classify(frame), "it stays in its lane");
    let changed: Vec<usize> = (0..frame.len())
        .filter(|&at| frame[at] != marked[at])
        .collect();
    let (Some(&first), true) = (changed.first(), is_marked) else {
        assert!(changed.is_empty(), "not marked, yet changed at {changed:?}");
        return;
    };
    // The IP header's second byte, behind a version and up to two tags.
    let ip = first - 1;
    assert!([14, 18, 22].contains(&ip), "{ip}");
    if frame[ip] >> 4 == 4 {
        assert!(changed.iter().all(|&at| [1, 10, 11].contains(&(at - ip))));
        let header = ip..ip + 20;
        assert_eq!(
            naive_sum(&marked[header.clone()]),
            naive_sum(&frame[header])
        );
    } else {
        assert_eq!(changed.len(), 1, "IPv6 has no checksum");
    }
    let once = marked.clone();
    assert!(mark_ce(&mut marked), "it carries the mark");
    assert_eq!(marked, once);
}

/// RFC 1071, with the two forms of zero as one.
fn naive_sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()));
    words.sum::<u32>() % 0xffff
}
