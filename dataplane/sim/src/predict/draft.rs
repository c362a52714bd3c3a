//! Building blocks of channels: sending, losing, queueing, and what brings shards out of order.

use std::ops::Range;
use std::time::Duration;

use shardgate_core::limits::PATHS_MAX;
use shardgate_core::time::Time;

use super::channel::{Channel, SHARDS_MAX, Shard};
use crate::path::LossProcess;
use crate::path::random::{Source, Stream};
use crate::seeds::seed_for;

/// Bytes of a shard on a link, for what a rate makes of it.
pub(super) const SHARD_BYTES: f64 = 1_250.0;

const NANOS: f64 = 1e9;
const MILLI: f64 = 1e6;

/// A transmission in the making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    /// All in nanoseconds.
    pub sent: f64,
    pub delay: f64,
    pub lost: bool,
    pub path: u8,
}

/// How a link brings shards out of order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mechanism {
    /// Crypto units take turns and are not equally fast, and the slowest stalls so often a second, for
    /// so many milliseconds on average.
    Units {
        count: usize,
        stalls: f64,
        stall: f64,
    },
    /// A share of shards is late, each by itself, by a uniform time in milliseconds.
    Stragglers { share: f64, min: f64, max: f64 },
    /// One of two carriers of a radio stops for multiples of 8 ms, so often a second, and then lets
    /// go what has gathered, in order.
    Quanta { per_second: f64 },
    /// Runs of shards take a route that is longer by so many milliseconds.
    Routes { share: f64, more: f64 },
}

/// Draws for one part of a channel.
pub(super) fn source(seed: u64, part: u64) -> Source {
    Source::new(seed_for(seed, &[0x7072_6564, part]), Stream::Reorder)
}

pub(super) fn exponential(source: &mut Source, mean: f64) -> f64 {
    -mean * (1.0 - source.uniform()).ln()
}

pub(super) fn between(source: &mut Source, range: Range<f64>) -> f64 {
    range.start + (range.end - range.start) * source.uniform()
}

/// Any order of magnitude in a range as likely as another.
fn magnitude(source: &mut Source, range: Range<f64>) -> f64 {
    between(source, range.start.ln()..range.end.ln()).exp()
}

/// `count` shards at `per_second`, half of each gap certain and half exponential, at most
/// [`SHARDS_MAX`].
pub(super) fn paced(
    count: usize,
    per_second: f64,
    delay_ms: f64,
    source: &mut Source,
) -> Vec<Draft> {
    let gap = NANOS / per_second;
    let mut sent = 0.0;
    (0..count.min(SHARDS_MAX))
        .map(|_| {
            sent += gap / 2.0 + exponential(source, gap / 2.0);
            Draft {
                sent,
                delay: delay_ms * MILLI,
                lost: false,
                path: 0,
            }
        })
        .collect()
}

/// Loses shards as a two-state chain does.
pub(super) fn lose(shards: &mut [Draft], loss: f64, burst: f64, seed: u64) {
    let mut process = LossProcess::new(loss, burst, seed);
    for shard in shards {
        shard.lost |= process.next_is_lost();
    }
}

/// Nothing overtakes: what comes behind waits, on each path.
pub(super) fn in_order(shards: &mut [Draft]) {
    let mut last = [0.0f64; PATHS_MAX];
    for shard in shards {
        let last = &mut last[usize::from(shard.path) % PATHS_MAX];
        *last = last.max(shard.sent + shard.delay);
        shard.delay = *last - shard.sent;
    }
}

/// Brings shards out of order.
pub(super) fn reorder(shards: &mut [Draft], mechanism: Mechanism, source: &mut Source) {
    match mechanism {
        Mechanism::Units {
            count,
            stalls,
            stall,
        } => units(shards, count, stalls, stall, source),
        Mechanism::Stragglers { share, min, max } => {
            for shard in shards {
                // Drawn for all, so that a share does not move the others' luck.
                let (chance, more) = (source.uniform(), between(source, min..max));
                if chance < share {
                    shard.delay += more * MILLI;
                }
            }
        }
        Mechanism::Quanta { per_second } => quanta(shards, per_second, source),
        Mechanism::Routes { share, more } => routes(shards, share, more, source),
    }
}

fn units(shards: &mut [Draft], count: usize, stalls: f64, stall: f64, source: &mut Source) {
    const SERVICE: f64 = 30_000.0;
    let Some(first) = shards.first() else { return };
    let mut next = first.sent + exponential(source, NANOS / stalls);
    let mut free = vec![0.0f64; count.max(1)];
    for (index, shard) in shards.iter_mut().enumerate() {
        let unit = index % free.len();
        if unit + 1 == free.len() && shard.sent >= next {
            free[unit] = next + exponential(source, stall * MILLI);
            next = free[unit].max(shard.sent) + exponential(source, NANOS / stalls);
        }
        // Each is slower than the one before it.
        let service = SERVICE * (unit + 1) as f64 * between(source, 0.7..1.3);
        free[unit] = free[unit].max(shard.sent) + service;
        shard.delay += free[unit] - shard.sent;
    }
}

fn quanta(shards: &mut [Draft], per_second: f64, source: &mut Source) {
    const QUANTUM: f64 = 8.0 * MILLI;
    let mut blocked_until = 0.0f64;
    let Some(mut next) = shards.first().map(|shard| shard.sent + shard.delay) else {
        return;
    };
    next += exponential(source, NANOS / per_second);
    let mut released = 0.0f64;
    for shard in shards {
        let at = shard.sent + shard.delay;
        while at >= next {
            let mut quanta = 1.0;
            while quanta < 4.0 && source.uniform() < 0.25 {
                quanta += 1.0;
            }
            blocked_until = next + quanta * QUANTUM;
            next = blocked_until + exponential(source, NANOS / per_second);
        }
        if source.uniform() < 0.5 {
            released = released.max(at.max(blocked_until));
            shard.delay = released - shard.sent;
        }
    }
}

fn routes(shards: &mut [Draft], share: f64, more: f64, source: &mut Source) {
    const RUN: f64 = 8.0;
    let mut is_longer = false;
    let leave = 1.0 / RUN;
    let enter = (leave * share / (1.0 - share).max(0.01)).min(1.0);
    for shard in shards {
        let chance = if is_longer { leave } else { enter };
        is_longer ^= source.uniform() < chance;
        if is_longer {
            shard.delay += more * MILLI;
        }
    }
}

/// What a trace without order in it gets: stretches of 12 s, each with another mechanism, and as
/// often weak as strong: strengths are spread evenly over their orders of magnitude.
pub(super) fn reorder_in_stretches(shards: &mut [Draft], seed: u64) {
    const STRETCH: f64 = 12.0 * NANOS;
    let mut source = source(seed, 11);
    let turn = source.below(4);
    let mut rest = shards;
    let mut stretch = 0;
    while let Some(first) = rest.first() {
        let end = first.sent + STRETCH;
        let count = rest.partition_point(|shard| shard.sent < end).max(1);
        let (now, later) = rest.split_at_mut(count);
        let mechanism = match (turn + stretch) % 4 {
            0 => Mechanism::Stragglers {
                share: magnitude(&mut source, 0.001..0.05),
                min: 1.0,
                max: between(&mut source, 4.0..12.0),
            },
            1 => Mechanism::Quanta {
                per_second: magnitude(&mut source, 0.2..3.0),
            },
            2 => Mechanism::Units {
                count: 2 + source.below(3) as usize,
                stalls: magnitude(&mut source, 0.5..15.0),
                stall: between(&mut source, 1.0..4.0),
            },
            _ => Mechanism::Routes {
                share: magnitude(&mut source, 0.002..0.1),
                more: between(&mut source, 1.0..6.0),
            },
        };
        reorder(now, mechanism, &mut source);
        (rest, stretch) = (later, stretch + 1);
    }
}

/// The channel that drafts make.
pub(super) fn finish(name: String, drafts: &[Draft], return_ms: [f64; PATHS_MAX]) -> Channel {
    let time = |nanos: f64| Time(nanos.clamp(0.0, 9e18) as u64);
    let shards = drafts
        .iter()
        .map(|draft| Shard {
            sent: time(draft.sent),
            received: (!draft.lost).then(|| time(draft.sent + draft.delay.max(0.0))),
            path: draft.path,
        })
        .collect();
    let delays = return_ms.map(|ms| Duration::from_nanos((ms.clamp(0.0, 1e4) * MILLI) as u64));
    Channel::new(name, shards, delays)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafts(seed: u64) -> Vec<Draft> {
        paced(20_000, 1_000.0, 20.0, &mut source(seed, 0))
    }

    fn overtaken(drafts: &[Draft]) -> usize {
        finish("test".into(), drafts, [10.0; PATHS_MAX]).late()
    }

    #[test]
    fn shards_are_paced_at_their_rate() {
        let drafts = drafts(1);
        let seconds = drafts.last().unwrap().sent / NANOS;
        assert!((19.5..20.5).contains(&seconds), "{seconds} s for 20 s");
        assert!(drafts.is_sorted_by(|a, b| a.sent < b.sent));
    }

    #[test]
    fn every_mechanism_brings_shards_out_of_order_and_a_queue_in_order() {
        let all = [
            Mechanism::Units {
                count: 3,
                stalls: 20.0,
                stall: 4.0,
            },
            Mechanism::Stragglers {
                share: 0.05,
                min: 1.0,
                max: 8.0,
            },
            Mechanism::Quanta { per_second: 2.0 },
            Mechanism::Routes {
                share: 0.05,
                more: 4.0,
            },
        ];
        for mechanism in all {
            let mut drafts = drafts(2);
            assert_eq!(overtaken(&drafts), 0);
            reorder(&mut drafts, mechanism, &mut source(2, 1));
            let late = overtaken(&drafts);
            assert!((50..8_000).contains(&late), "{mechanism:?}: {late}");
            assert!(drafts.iter().all(|draft| draft.delay > 20.0 * MILLI - 1.0));
            in_order(&mut drafts);
            assert_eq!(overtaken(&drafts), 0, "{mechanism:?}");
        }
        let mut drafts = drafts(3);
        reorder_in_stretches(&mut drafts, 3);
        assert!(overtaken(&drafts) > 20);
    }

    #[test]
    fn losses_have_their_rate_and_runs() {
        let mut drafts = drafts(4);
        lose(&mut drafts, 0.1, 5.0, 4);
        let lost = drafts.iter().filter(|draft| draft.lost).count();
        let runs = drafts
            .windows(2)
            .filter(|two| !two[0].lost && two[1].lost)
            .count();
        assert!((1_600..2_400).contains(&lost), "{lost}");
        assert!((4.0..6.0).contains(&(lost as f64 / runs as f64)));
    }
}
