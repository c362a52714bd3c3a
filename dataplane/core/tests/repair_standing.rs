//! The table of standing repair, measured: what is lost behind a Gilbert-Elliott channel once the
//! codec has done its work, and how long a hole stays open.
//!
//!     cargo test --release -p shardgate-core --test repair_standing -- --ignored --nocapture

#[path = "common/random.rs"]
mod random;

use std::io::Write;
use std::time::Duration;

use shardgate_core::buffer::{Buffer, HeapBuffer, HeapPool};
use shardgate_core::limits::WINDOW_MAX;
use shardgate_core::repair::{Decoder, Encoder, RepairPlan, standing, standing_residual};
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::shard::{RepairHeader, SourceHeader};
use shardgate_erasure::Coder;

use random::SplitMix;

/// Loses a share `loss` of the shards in runs of the mean length `burst`; independently if that
/// is 1.
struct Channel {
    random: SplitMix,
    enter: f64,
    stay: f64,
    bad: bool,
}

impl Channel {
    fn new(loss: f64, burst: f64, seed: u64) -> Self {
        let (enter, stay) = if burst <= 1.0 {
            (loss, loss)
        } else {
            (loss / (burst * (1.0 - loss)), 1.0 - 1.0 / burst)
        };
        Self {
            random: SplitMix(seed),
            enter,
            stay,
            bad: false,
        }
    }

    fn loses(&mut self) -> bool {
        let chance = if self.bad { self.stay } else { self.enter };
        let unit = (self.random.next() >> 11) as f64 / (1u64 << 53) as f64;
        self.bad = unit < chance;
        self.bad
    }
}

#[derive(Debug)]
struct Measured {
    /// Source shards neither received nor rebuilt, of all.
    residual: f64,
    /// Source shards sent from a lost one until it was rebuilt: mean, and of 95 in 100 not more.
    mean: f64,
    p95: usize,
}

fn measure(loss: f64, burst: f64, every: u8, window: u8, count: u32, seed: u64) -> Measured {
    let mut channel = Channel::new(loss, burst, seed);
    let mut encoder = Encoder::<HeapBuffer>::new(Coder::new(), 1);
    let mut decoder = Decoder::new(Coder::new(), 1);
    let mut pool = HeapPool::new(usize::MAX, 64);
    encoder.set_plan(Some(RepairPlan {
        every,
        window,
        delay_max: Duration::from_secs(1),
    }));
    let mut lost = 0u64;
    let mut waited = [0u64; 512];
    for number in 0..count {
        let seq = Seq(number);
        let payload = [number as u8];
        let header = SourceHeader::single(seq, &payload);
        let mut rebuilt = |shard: shardgate_core::repair::Rebuilt<'_>| {
            assert_eq!(shard.payload, [shard.header.seq.0 as u8]);
            waited[seq.distance_from(shard.header.seq) as usize] += 1;
        };
        if channel.loses() {
            lost += 1;
        } else {
            decoder.source(&header, &payload, &mut rebuilt);
        }
        encoder.add(&header, &payload, Time::ZERO, &mut pool, |symbol| {
            if !channel.loses() {
                let (header, symbol) = RepairHeader::parse(symbol.buffer.data()).expect("sound");
                decoder.repair(&header, symbol, &mut rebuilt);
            }
        });
    }
    let rebuilt: u64 = waited.iter().sum();
    let within = |share: f64| {
        let mut below = 0;
        waited.iter().position(|&count| {
            below += count;
            below as f64 >= share * rebuilt as f64
        })
    };
    let total: u64 = waited
        .iter()
        .zip(0..)
        .map(|(&count, waited)| count * waited)
        .sum();
    Measured {
        residual: (lost - rebuilt) as f64 / f64::from(count),
        mean: total as f64 / rebuilt.max(1) as f64,
        p95: within(0.95).unwrap_or(0),
    }
}

/// The quoted residual of the table's entry, and a measured one.
fn quoted_and_measured(loss: f64, burst: f64, count: u32, seed: u64) -> Option<(f64, Measured)> {
    let (every, window) = standing(loss, burst)?;
    let quoted = standing_residual(loss, burst)?;
    Some((quoted, measure(loss, burst, every, window, count, seed)))
}

#[test]
fn residuals_are_as_quoted() {
    // So many that the runs which are too long for a window are some hundred.
    for (loss, burst, count) in [
        (0.03, 3.0, 800_000),
        (0.05, 4.0, 300_000),
        (0.07, 3.0, 300_000),
        (0.1, 2.0, 160_000),
        (0.15, 1.0, 160_000),
    ] {
        let (quoted, got) = quoted_and_measured(loss, burst, count, 7).expect("an entry");
        let ratio = got.residual / quoted;
        assert!(
            (0.8..1.25).contains(&ratio),
            "loss {loss}, burst {burst}: quoted {quoted:.1e}, measured {got:?}"
        );
    }
    // Too rare to be measured here: at most a few shards of one unlucky window.
    for (loss, mean_max) in [(0.005, 14.0), (0.01, 18.0), (0.02, 14.0)] {
        let (quoted, got) = quoted_and_measured(loss, 1.0, 60_000, 8).expect("an entry");
        assert!(quoted < 2e-5 && got.residual < 5e-5, "loss {loss}: {got:?}");
        assert!(got.mean < mean_max, "loss {loss}: {got:?}");
    }
}

#[test]
#[ignore = "measures the whole table; takes minutes"]
fn entries() {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "  loss  burst   s    W   quoted   measured   mean  95 %"
    )
    .expect("stdout");
    for loss in [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15] {
        for burst in [1.0, 2.0, 3.0, 4.0, 6.0] {
            let Some((quoted, got)) = quoted_and_measured(loss, burst, 10_000_000, 2) else {
                continue;
            };
            let (every, window) = standing(loss, burst).expect("an entry");
            writeln!(
                out,
                "{:5.1} % {burst:5.1} {every:3} {window:4}   {quoted:.1e}    {:.1e} {:6.1} {:5}",
                loss * 100.0,
                got.residual,
                got.mean,
                got.p95
            )
            .expect("stdout");
        }
    }
}

#[test]
#[ignore = "prints candidates for the table; takes minutes"]
fn candidates() {
    let mut out = std::io::stdout();
    writeln!(out, "  loss  burst   s    W   residual   mean  95 %").expect("stdout");
    for (loss, overheads) in [
        (0.001, &[32u8, 24][..]),
        (0.002, &[24, 20]),
        (0.005, &[24, 20]),
        (0.01, &[20, 16, 15, 14]),
        (0.02, &[16, 13]),
        (0.03, &[12, 11]),
        (0.05, &[10, 9, 8]),
        (0.07, &[8, 7]),
        (0.1, &[6]),
        (0.15, &[6]),
    ] {
        for burst in [1.0, 2.0, 3.0, 4.0, 6.0, 8.0] {
            for &every in overheads {
                for open in [1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16] {
                    let window = every.saturating_mul(open);
                    if usize::from(window) > WINDOW_MAX {
                        continue;
                    }
                    let got = measure(loss, burst, every, window, 2_000_000, 1);
                    writeln!(
                        out,
                        "{:5.1} % {burst:5.1} {every:3} {window:4}   {:.2e} {:6.1} {:5}",
                        loss * 100.0,
                        got.residual,
                        got.mean,
                        got.p95
                    )
                    .expect("stdout");
                }
            }
        }
    }
}
