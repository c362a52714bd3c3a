//! Into how small shards a payload is cut.
//!
//! Repair closes a hole when s more shards have left for each loss of its run. On a path that carries
//! few shards a second that is long, and smaller shards make it shorter for the price of their
//! headers. So n rises with runs, and with the round trip that asking would take instead; the price is
//! bounded by the loss, and n falls as the rate rises. Without repair cutting only raises the loss.

use super::Inputs;
use crate::limits::SHARD_PAYLOAD_MIN;
use crate::repair::{burst_at, entry};
use crate::wire::OVERHEAD_IPV4;

/// Source shards that leave until the next repair shard, where little is lost.
const BETWEEN_REPAIRS: f64 = 20.0;

/// What a hole may take to close where the round trip is [`FAR`] or more, in seconds: about what repair
/// by time takes. Where it is shorter, asking is, and a hole may take longer. With less, n rises on
/// paths that a flow could fill, where headers are missed and more shards are more losses: at 5 ms one
/// of 40 Mbit/s and 2 % of loss (`dsl_lossy`) gave its flow 23 instead of 30 Mbit/s in the simulator, at
/// 25 ms one of 20 Mbit/s with jitter and 2 % of loss 6.7 instead of 9.8.
const CLOSED_WITHIN: f64 = 0.04;
const FAR: f64 = 0.04;

/// n doubles this often: 1, 2, 4. With an MTU of 1500 headers are too dear for more than 2.
const DOUBLINGS_MAX: u8 = 2;

/// A level falls only if it would at a rate lower by this much, and a round trip longer by as much.
const WAVER: f64 = 1.5;

/// Doublings of n that path and losses ask for at this row and column of the repair table: at once,
/// and with all that figures may waver by.
pub(super) fn wanted(inputs: &Inputs, row: u8, column: u8) -> (u8, u8) {
    (at(inputs, row, column, 1.0), at(inputs, row, column, WAVER))
}

fn at(inputs: &Inputs, row: u8, column: u8, waver: f64) -> u8 {
    let payload = f64::from(inputs.limits.payload_max);
    let (Some(rate), Some(round_trip), Some(row)) = (
        inputs.delivery_bytes_per_s.known(),
        inputs.round_trip_us.known(),
        row.checked_sub(1),
    ) else {
        return 0;
    };
    let headers = OVERHEAD_IPV4 as f64;
    let per_second = rate as f64 / waver / (payload + headers);
    let within = CLOSED_WITHIN * (FAR / (round_trip as f64 * waver / 1e6)).max(1.0);
    // A run of several needs as many repair shards, but comes more rarely.
    let needed = burst_at(column.into()).sqrt() * BETWEEN_REPAIRS / (per_second * within);
    // Headers may cost as much again as repair does.
    let repair = entry(row.into(), 0).map_or(0.0, |(every, _)| 1.0 / f64::from(every));
    let affordable = 1.0 + repair * payload / headers;
    // Whole doublings.
    let needed = needed.log2().floor();
    let affordable = affordable.log2().floor();
    needed.min(affordable).clamp(0.0, DOUBLINGS_MAX.into()) as u8
}

/// Shards of a payload as long as the path allows after so many doublings, and their payload.
pub(super) fn cut(inputs: &Inputs, doublings: u8) -> (u8, u16) {
    let payload_max = inputs.limits.payload_max;
    let fitting = (usize::from(payload_max) / SHARD_PAYLOAD_MIN).max(1);
    let fitting = u8::try_from(fitting).unwrap_or(u8::MAX);
    let wanted = 1u8 << doublings.min(DOUBLINGS_MAX);
    let split = wanted.min(inputs.limits.shards_max).min(fitting).max(1);
    (split, payload_max.div_ceil(split.into()))
}
