//! Allocations per shard in the repair codec: none, with losses, gaps and solving.

#[path = "common/recycled.rs"]
mod recycled;

use std::time::Duration;

use shardgate_core::buffer::Buffer;
use shardgate_core::repair::{Decoder, Encoder, RepairPlan};
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::shard::{RepairHeader, SourceHeader};
use shardgate_erasure::Coder;

use recycled::Pool;

const PAYLOAD_MAX: usize = 1_414;

const BUFFERS: usize = 64;

#[test]
fn no_allocation_per_shard() {
    let mut pool = Pool::new(BUFFERS, 2_048);
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
            for symbol in due.drain(..) {
                let (header, bytes) = RepairHeader::parse(symbol.buffer.data()).expect("sound");
                decoder.repair(&header, bytes, |_| rebuilt += 1);
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
    drop(encoder);
    assert_eq!(pool.left(), BUFFERS, "every buffer came back");
}
