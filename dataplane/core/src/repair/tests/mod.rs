//! Encoder and decoder together, against what was sent.

mod bounds;
mod oracle;
mod sender;

use core::time::Duration;

use shardgate_erasure::Coder;

use super::*;
use crate::buffer::{Buffer, HeapBuffer, HeapPool};
use crate::time::Time;
use crate::wire::shard::RepairHeader;

const PAYLOAD_MAX: usize = 200;

/// What a sender sends: source shards, and repair shards in their places.
enum Sent {
    Source(SourceHeader, Vec<u8>),
    Repair(RepairHeader, Vec<u8>),
}

impl Sent {
    /// The source shard of a number, as an aggregate of its own.
    fn source(seq: Seq) -> Self {
        let payload = payload(seq);
        Self::Source(SourceHeader::single(seq, &payload), payload)
    }
}

fn parsed(symbol: Symbol<HeapBuffer>) -> Sent {
    let (header, bytes) = RepairHeader::parse(symbol.buffer.data()).expect("sound");
    assert_eq!(header, symbol.header);
    Sent::Repair(header, bytes.to_vec())
}

fn plan(every: u8, window: u8) -> RepairPlan {
    RepairPlan {
        every,
        window,
        delay_max: Duration::from_millis(5),
    }
}

/// Payloads of all lengths, from a fixed generator.
fn payload(seq: Seq) -> Vec<u8> {
    let mut state = seq.0.wrapping_mul(0x9e37_79b9) | 1;
    let len = 1 + seq.0.wrapping_mul(0x85eb_ca6b) as usize % PAYLOAD_MAX;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    core::iter::repeat_with(next).take(len).collect()
}

fn stream(first: Seq, count: u32, plan: RepairPlan) -> Vec<Sent> {
    let mut encoder = Encoder::<HeapBuffer>::new(Coder::new(), PAYLOAD_MAX);
    let mut pool = HeapPool::new(usize::MAX, 2_048);
    encoder.set_plan(Some(plan));
    let mut sent = Vec::new();
    for seq in (0..count).map(|n| first.plus(n)) {
        let payload = payload(seq);
        let header = SourceHeader::single(seq, &payload);
        let mut due = Vec::new();
        encoder.add(&header, &payload, Time::ZERO, &mut pool, |symbol| {
            due.push(parsed(symbol));
        });
        sent.push(Sent::Source(header, payload));
        sent.append(&mut due);
    }
    sent
}

/// Takes a shard in, and checks whatever is rebuilt; returns what was.
fn receive(decoder: &mut Decoder, shard: &Sent) -> Vec<Seq> {
    let mut rebuilt = Vec::new();
    let solved = |shard: Rebuilt<'_>| {
        assert_eq!(shard.payload, payload(shard.header.seq));
        assert_eq!(
            shard.header,
            SourceHeader::single(shard.header.seq, shard.payload)
        );
        rebuilt.push(shard.header.seq);
    };
    match shard {
        Sent::Source(header, payload) => decoder.source(header, payload, solved),
        Sent::Repair(header, symbol) => decoder.repair(header, symbol, solved),
    }
    rebuilt
}

/// A buffer of which nothing is used yet.
fn empty() -> HeapBuffer {
    HeapBuffer::new(crate::limits::HEADROOM, 2_048)
}

/// A repair shard by request over `count` source shards from `first` on.
fn requested(first: Seq, count: u32, repair_index: u8) -> Sent {
    let payloads: Vec<_> = (0..count).map(|n| payload(first.plus(n))).collect();
    let sources = (0..count).zip(&payloads);
    let sources = sources.map(|(n, payload)| {
        (
            SourceHeader::single(first.plus(n), payload),
            payload.as_slice(),
        )
    });
    let mut buffer = empty();
    let header = combine(Coder::new(), repair_index, 7, sources, &mut buffer);
    let header = header.expect("a window");
    parsed(Symbol { header, buffer })
}

#[test]
fn every_pattern_of_sixteen_and_four() {
    let first = Seq(u32::MAX - 5 - 16);
    let sources: Vec<_> = (0..16).map(|n| Sent::source(first.plus(n))).collect();
    // One window of sixteen: by request, as a block code has it.
    let repairs: Vec<_> = (60..64).map(|index| requested(first, 16, index)).collect();
    let mut decoder = Decoder::new(Coder::new(), PAYLOAD_MAX);
    for lost in 0u32..1 << 20 {
        let (lost_sources, lost_repairs) = (lost & 0xffff, lost >> 16);
        let holes = lost_sources.count_ones();
        if holes > 4 {
            continue;
        }
        decoder.reset();
        for (bit, shard) in sources.iter().enumerate() {
            if lost_sources >> bit & 1 == 0 {
                receive(&mut decoder, shard);
            }
        }
        let mut rebuilt = 0;
        for (bit, repair) in repairs.iter().enumerate() {
            if lost_repairs >> bit & 1 == 0 {
                rebuilt += receive(&mut decoder, repair).len() as u32;
            }
        }
        let expected = if holes <= 4 - lost_repairs.count_ones() {
            holes
        } else {
            0
        };
        assert_eq!(rebuilt, expected, "{lost:05x}");
    }
    assert_eq!(decoder.stats().largest_system, 4);
    assert_eq!(decoder.stats().rebuilt_wrong, 0);
}

#[test]
fn a_window_repairs_what_the_next_repair_shards_cover() {
    let sent = stream(Seq(u32::MAX - 50), 120, plan(8, 32));
    let mut decoder = Decoder::new(Coder::new(), PAYLOAD_MAX);
    let mut rebuilt = Vec::new();
    for shard in &sent {
        let lost = matches!(shard, Sent::Source(header, _) if header.seq.0 < 3);
        if !lost {
            rebuilt.extend(receive(&mut decoder, shard));
        }
    }
    assert_eq!(rebuilt, [Seq(0), Seq(1), Seq(2)]);
    assert_eq!(decoder.stats().largest_system, 3);
}

#[test]
fn a_long_stream_uses_its_memory_again() {
    let first = Seq(u32::MAX - 1_000);
    let mut decoder = Decoder::new(Coder::new(), PAYLOAD_MAX);
    let (mut lost, mut rebuilt) = (0, 0);
    for shard in &stream(first, 3_000, plan(8, 32)) {
        if matches!(shard, Sent::Source(header, _) if header.seq.0 % 13 == 1) {
            lost += 1;
        } else {
            rebuilt += receive(&mut decoder, shard).len();
        }
    }
    // The last few wait for a repair shard that was not sent any more; at the wrap of numbers a
    // few systems are singular.
    assert!(lost - rebuilt < 4, "{rebuilt} of {lost}");
    assert_eq!(decoder.stats().rebuilt_wrong, 0);
}
