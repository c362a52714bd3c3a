//! What the learned predictor costs: a shard in order, a hole that opens, another look, a fate.
//!
//!     cargo bench -p shardgate-core --bench predict

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use shardgate_core::predict::{
    Engine, Fixed, Hole, ModelConfig, Outcome, Outlook, Policy, Predictor, RoundTrip,
};
use shardgate_core::time::Time;

const SHARDS: u32 = 10_000_000;
const HOLES: u32 = 1_000_000;
/// Shards between two holes.
const APART: u32 = 16;

fn outlook() -> Outlook {
    let ms = Duration::from_millis;
    Outlook {
        round_trip: Some(RoundTrip {
            smoothed: ms(40),
            variance: ms(2),
            minimum: ms(38),
        }),
        asks: true,
        repair_within: None,
    }
}

/// Half a microsecond of jitter, without a generator in the way.
fn arrive(engine: &mut Engine, shard: u32) {
    let sent_us = shard.wrapping_mul(10);
    let received = u64::from(shard) * 10_000 + 20_000_000 + u64::from(shard % 7) * 500_000;
    engine.arrived(0, sent_us, Time(received));
}

fn hole(number: u32) -> Hole {
    Hole {
        number,
        opened_at: Time(u64::from(number) * u64::from(APART) * 10_000 + 20_000_000),
        gap: 1 + number % 3,
        position: 0,
        path: 0,
        siblings: 0,
    }
}

/// What a hole turns out to be, hundreds of holes later.
fn outcome(number: u32) -> Outcome {
    if number % 3 == 2 {
        return Outcome::Lost;
    }
    let age = Duration::from_micros(u64::from(1_000 + number.wrapping_mul(7_919) % 7_000));
    Outcome::Late { age, asked: false }
}

/// Times of single calls, without what taking the time takes.
struct Times {
    nanos: Vec<u32>,
    timer: u32,
}

impl Times {
    fn new() -> Self {
        let mut empty: Vec<_> = (0..10_000).map(|_| took(Instant::now())).collect();
        empty.sort_unstable();
        Self {
            nanos: Vec::with_capacity(HOLES as usize),
            timer: empty[empty.len() / 2],
        }
    }

    fn push(&mut self, started: Instant) {
        self.nanos.push(took(started).saturating_sub(self.timer));
    }

    fn report(mut self, what: &str, out: &mut impl Write) -> std::io::Result<()> {
        self.nanos.sort_unstable();
        let at = |share: f64| self.nanos[((self.nanos.len() - 1) as f64 * share) as usize];
        let mean = self.nanos.iter().map(|&n| f64::from(n)).sum::<f64>() / self.nanos.len() as f64;
        let (p50, p999) = (at(0.5), at(0.999));
        writeln!(
            out,
            "{what:<12} {mean:>7.1} ns mean, {p50:>4} p50, {p999:>5} p99.9"
        )
    }
}

fn took(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let outlook = outlook();

    let in_order = |policy: Policy| {
        let mut engine = policy.engine();
        let started = Instant::now();
        for shard in 0..SHARDS {
            arrive(black_box(&mut engine), shard);
        }
        started.elapsed().as_nanos() as f64 / f64::from(SHARDS)
    };
    // A policy that does nothing then tells what the loop takes.
    let empty = in_order(Policy::Fixed(Fixed(Duration::ZERO)));
    let model = in_order(Policy::Model(ModelConfig::default()));
    writeln!(
        out,
        "in order     {:>7.1} ns mean, and {empty:.1} for the loop",
        model - empty
    )?;

    // All together, without a timer in between.
    let mut engine = Policy::Model(ModelConfig::default()).engine();
    let mut plans = Duration::ZERO;
    for batch in 0..HOLES / 100 {
        let holes = batch * 100..batch * 100 + 100;
        (0..100 * APART).for_each(|n| arrive(&mut engine, batch * 100 * APART + n));
        let started = Instant::now();
        for number in holes.clone() {
            black_box(engine.plan(&hole(number), &outlook, Duration::ZERO));
        }
        plans += started.elapsed();
        for number in holes {
            engine.learn(
                &hole(number),
                outcome(number),
                &outlook,
                hole(number).opened_at,
            );
        }
    }
    let hole_ns = plans.as_nanos() as f64 / f64::from(HOLES);
    writeln!(out, "hole         {hole_ns:>7.1} ns mean, 100 in a row")?;

    let mut engine = Policy::Model(ModelConfig::default()).engine();
    let (mut opened, mut looks, mut fates) = (Times::new(), Times::new(), Times::new());
    for number in 0..HOLES {
        (0..APART).for_each(|n| arrive(&mut engine, number * APART + n));
        let started = Instant::now();
        black_box(engine.plan(&hole(number), &outlook, Duration::ZERO));
        opened.push(started);
        let started = Instant::now();
        black_box(engine.plan(&hole(number), &outlook, Duration::from_millis(1)));
        looks.push(started);
        if let Some(before) = number.checked_sub(300) {
            let started = Instant::now();
            engine.learn(
                &hole(before),
                outcome(before),
                &outlook,
                hole(number).opened_at,
            );
            fates.push(started);
        }
    }
    opened.report("hole", &mut out)?;
    looks.report("look", &mut out)?;
    fates.report("fate", &mut out)
}
