//! Allocations per shard in the repair codec: none, with losses, gaps and solving.

use std::time::Duration;

use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer};
use shardgate_core::limits::HEADROOM;
use shardgate_core::repair::{Decoder, Encoder, RepairPlan};
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::shard::{REPAIR_HEADER_LEN, RepairHeader, SourceHeader};
use shardgate_erasure::Coder;

const PAYLOAD_MAX: usize = 1_414;

/// A pool to which the test gives buffers back.
struct Shelf(Vec<HeapBuffer>);

impl BufferPool for Shelf {
    type Buffer = HeapBuffer;

    fn alloc(&mut self) -> Option<HeapBuffer> {
        self.0.pop()
    }
}

#[test]
fn no_allocation_per_shard() {
    let fresh = || HeapBuffer::new(HEADROOM, 2_048);
    let mut pool = Shelf((0..64).map(|_| fresh()).collect());
    let mut encoder = Encoder::new(Coder::new(), PAYLOAD_MAX);
    let mut decoder = Decoder::new(Coder::new(), PAYLOAD_MAX);
    let plan = RepairPlan {
        every: 8,
        window: 32,
        delay_max: Duration::from_millis(1),
    };
    encoder.set_plan(Some(plan));
    let payload = vec![0x5a; PAYLOAD_MAX];
    let mut due = Vec::with_capacity(4);
    let mut rebuilt = 0u64;

    let allocations = allocation_counter::measure(|| {
        for number in 0..4_000u32 {
            let len = 1 + number as usize * 37 % PAYLOAD_MAX;
            let payload = &payload[..len];
            let header = SourceHeader::single(Seq(number), payload);
            let now = Time(u64::from(number) * 100_000);
            encoder.add(&header, payload, now, &mut pool, |symbol| due.push(symbol));
            if number % 50 == 0 {
                encoder.poll(now + plan.delay_max, |symbol| due.push(symbol));
            }
            if number % 40 > 3 {
                decoder.source(&header, payload, |_| rebuilt += 1);
            }
            for mut symbol in due.drain(..) {
                let (header, bytes) = RepairHeader::parse(symbol.buffer.data()).expect("sound");
                decoder.repair(&header, bytes, |_| rebuilt += 1);
                let len = symbol.buffer.len() - REPAIR_HEADER_LEN;
                assert!(symbol.buffer.trim_front(REPAIR_HEADER_LEN));
                assert!(symbol.buffer.trim_back(len));
                pool.0.push(symbol.buffer);
            }
            if number == 2_000 {
                encoder.set_plan(None);
                encoder.set_plan(Some(RepairPlan { every: 5, ..plan }));
                decoder.reset();
            }
        }
    });
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
    assert!(rebuilt > 300, "{rebuilt} rebuilt");
    assert!(encoder.stats().by_count > 400 && encoder.stats().by_time > 0);
    assert_eq!(decoder.stats().rebuilt_wrong, 0);
}
