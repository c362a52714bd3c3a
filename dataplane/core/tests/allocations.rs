//! Allocations per frame: none, from the aggregator through sealing to delivery, in order, out of
//! order and with losses, with everything that asks, repeats, repairs and reports.

#[path = "common/gateway.rs"]
mod gateway;

use std::collections::VecDeque;
use std::time::Duration;

use shardgate_core::buffer::{Buffer, BufferPool};
use shardgate_core::predict::{Engine, Policy};
use shardgate_core::receiver::FrameSink;
use shardgate_core::time::Time;

use gateway::recycled::{Pool, Recycled};
use gateway::{Gateway, Side};

const BUFFERS: usize = 3_000;
const LATE: Duration = Duration::from_millis(4);

#[derive(Default)]
struct Count(u64);

impl FrameSink<Recycled> for Count {
    fn frame(&mut self, _frame: Recycled) {
        self.0 += 1;
    }
}

fn frame(len: usize, fill: u64, pool: &mut Pool) -> Recycled {
    let mut buffer = pool.alloc().expect("the pool is large enough");
    let data = buffer.append(len).expect("fits");
    data.fill(fill as u8);
    data[12..14].copy_from_slice(&[0x08, 0x00]);
    data[14] = 0x45;
    buffer
}

/// The way there.
struct Spoiler {
    count: u64,
    late: VecDeque<(Time, Recycled)>,
}

impl Spoiler {
    /// A loss in every 60, a dozen in a row in every 700, one in 40 a few milliseconds late, the
    /// first two of a round swapped.
    fn spoil(&mut self, frames: &mut Vec<Recycled>, now: Time) {
        for index in (0..frames.len()).rev() {
            self.count += 1;
            if self.count % 60 == 17 || self.count % 700 < 12 {
                drop(frames.remove(index));
            } else if self.count % 40 == 3 {
                self.late.push_back((now + LATE, frames.remove(index)));
            }
        }
        if let [one, other, ..] = frames.as_mut_slice() {
            std::mem::swap(one, other);
        }
        while self.late.front().is_some_and(|(at, _)| *at <= now) {
            frames.extend(self.late.pop_front().map(|(_, frame)| frame));
        }
    }
}

#[test]
fn no_allocation_per_frame() {
    for policy in ["rack", "model"] {
        no_allocation_with(policy.parse().expect("a policy"));
    }
}

fn no_allocation_with(policy: Policy) {
    let mut pool = Pool::new(BUFFERS, 9_200);
    let mut here = Gateway::new(Side::Here, policy, Count::default());
    let mut there = Gateway::new(Side::There, policy, Count::default());
    let mut frames = Vec::with_capacity(BUFFERS);
    let mut way = Spoiler {
        count: 0,
        late: VecDeque::with_capacity(BUFFERS),
    };
    let mut saved = 0;
    let rounds = 2_000;

    let allocations = allocation_counter::measure(|| {
        for round in 0..rounds {
            let now = Time((round + 1) * 1_000_000);
            for (fill, len) in (round..).zip([60, 1_408, 98, 1_514, 590, 9_014, 60, 1_400]) {
                frames.push(frame(len, fill, &mut pool));
            }
            here.offer(frames.drain(..), now, &mut pool);
            here.wire.arrived(now, &mut frames);
            way.spoil(&mut frames, now);
            for frame in frames.drain(..) {
                there.take(frame, now, &mut pool);
            }
            there.poll(now, &mut pool);
            there.wire.arrived(now, &mut frames);
            for frame in frames.drain(..) {
                here.take(frame, now, &mut pool);
            }
            here.poll(now, &mut pool);
            // As an lcore does once a second.
            let model = there.endpoint.predictor_mut(0).and_then(Engine::model_mut);
            saved += model.map_or(0, |model| model.save().len());
        }
    });
    let delivered = there.sink.0;
    assert!(
        delivered > rounds * 8 * 95 / 100,
        "{delivered} of {}",
        rounds * 8
    );
    let sent = here.endpoint.outbound_stats();
    assert!(
        sent.repeats > 10 && sent.repairs > 100 && sent.reports > 100,
        "{sent:?}"
    );
    let (_, stream) = there.endpoint.received().next().expect("one stream");
    let stats = stream.stats();
    assert!(
        stats.filled_by_repair > 10 && stats.frames_assembled > 100,
        "{stats:?}"
    );
    if let Some(model) = stream.predictor().model() {
        let judged = model.reliability();
        assert!(
            saved > 0 && judged.losses > 100 && judged.late > 100,
            "{judged:?}"
        );
        assert!(judged.foretold.filled() > 100, "{judged:?}");
    }
    assert_eq!(allocations.count_total, 0, "{policy}: {allocations:?}");
    drop((here, there, way));
    assert_eq!(pool.left(), BUFFERS, "every buffer came back");
}
