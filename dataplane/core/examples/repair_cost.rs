//! What the repair codec costs per source shard of 1,400 bytes, in nanoseconds.
//!
//!     cargo run --release -p shardgate-core --example repair_cost

#[path = "../tests/common/recycled.rs"]
mod recycled;

use std::io::Write;
use std::time::{Duration, Instant};

use shardgate_core::buffer::Buffer;
use shardgate_core::repair::{Decoder, Encoder, RepairPlan};
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::shard::{RepairHeader, SourceHeader};
use shardgate_erasure::Coder;

use recycled::Pool;

const PAYLOAD: usize = 1_400;
const SHARDS: u32 = 400_000;

/// More than there are open windows.
const BUFFERS: usize = 32;

fn ns_per_shard(started: Instant) -> f64 {
    started.elapsed().as_nanos() as f64 / f64::from(SHARDS)
}

fn encode(coder: Coder, every: u8, window: u8) -> f64 {
    let payload = vec![0x5a; PAYLOAD];
    let header = SourceHeader::single(Seq(0), &payload);
    let mut pool = Pool::new(BUFFERS, 2_048);
    let mut encoder = Encoder::new(coder, PAYLOAD);
    encoder.set_plan(Some(RepairPlan {
        every,
        window,
        delay_max: Duration::from_secs(1),
    }));
    let started = Instant::now();
    for number in 0..SHARDS {
        let seq = Seq(number);
        let header = SourceHeader { seq, ..header };
        encoder.add(&header, &payload, Time::ZERO, &mut pool, drop);
    }
    let ns = ns_per_shard(started);
    drop(encoder);
    assert_eq!(pool.left(), BUFFERS, "every buffer came back");
    ns
}

fn receive(coder: Coder) -> f64 {
    let payload = vec![0x5a; PAYLOAD];
    let header = SourceHeader::single(Seq(0), &payload);
    let mut decoder = Decoder::new(coder, PAYLOAD);
    let started = Instant::now();
    for number in 0..SHARDS {
        let seq = Seq(number);
        decoder.source(&SourceHeader { seq, ..header }, &payload, |_| ());
    }
    ns_per_shard(started)
}

/// From the repair shard that completes a system to the last of its shards: microseconds.
fn solve(coder: Coder, losses: u32) -> f64 {
    let (every, window, rounds) = (8u32, 32u32, 2_000u32);
    let payload = vec![0x5a; PAYLOAD];
    let mut pool = Pool::new(BUFFERS, 2_048);
    let mut encoder = Encoder::new(coder, PAYLOAD);
    encoder.set_plan(Some(RepairPlan {
        every: every as u8,
        window: window as u8,
        delay_max: Duration::from_secs(1),
    }));
    let mut decoder = Decoder::new(coder, PAYLOAD);
    let (mut spent, mut rebuilt) = (Duration::ZERO, 0);
    for number in 0..rounds * 64 {
        let header = SourceHeader::single(Seq(number), &payload);
        if number % 64 >= losses {
            decoder.source(&header, &payload, |_| ());
        }
        let mut due = None;
        encoder.add(&header, &payload, Time::ZERO, &mut pool, |symbol| {
            due = Some(symbol.buffer);
        });
        if let Some(buffer) = due {
            let (header, symbol) = RepairHeader::parse(buffer.data()).expect("sound");
            let started = Instant::now();
            let before = rebuilt;
            decoder.repair(&header, symbol, |_| rebuilt += 1);
            if rebuilt > before {
                spent += started.elapsed();
            }
        }
    }
    assert_eq!(rebuilt, rounds * losses);
    spent.as_nanos() as f64 / 1e3 / f64::from(rounds)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for coder in [Some(Coder::portable()), Coder::isal()]
        .into_iter()
        .flatten()
    {
        writeln!(out, "{}:", coder.name())?;
        for (every, window) in [(8, 8), (8, 32), (8, 64), (16, 64)] {
            let ns = encode(coder, every, window);
            writeln!(
                out,
                "  encode, s = {every}, W = {window}: {ns:.0} ns per shard"
            )?;
        }
        let ns = receive(coder);
        writeln!(out, "  receive, nothing missing: {ns:.0} ns per shard")?;
        for losses in [1, 2, 4] {
            let us = solve(coder, losses);
            writeln!(out, "  solve {losses} of 32: {us:.1} us")?;
        }
    }
    Ok(())
}
