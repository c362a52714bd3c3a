//! From losses to rows and columns of the repair table.

use core::time::Duration;

use super::Inputs;
use crate::limits::{ASK_AFTER_MIN, HOLD_SLACK};
use crate::repair::{BURST_MAX, LOSS_MAX, LOSS_MIN, burst_column, loss_row};

/// Losses that are rarer than this, in events a second, are asked for, not repaired beforehand: a
/// request costs less, and holds up little.
const FREQUENT_PER_SECOND: f64 = 2.0;

/// Unless the round trips that they hold a lane up for are so much of the time: on a far path a rare
/// loss costs as much as a frequent one on a near path.
const BLOCKED_SHARE: f64 = 0.1;

/// What is lost beyond this share is repaired as if it were so much more: where much is lost, a
/// hole that repair does not close within milliseconds has others behind it before it is filled, and
/// all of them hold up the same lane.
const MARGIN_FROM: f64 = 0.02;
const MARGIN: f64 = 1.7;

/// Where no answer comes in time repair is alone, and what it leaves is lost: it is as strong as for the
/// loss so many rows further down, 2 to 3 times as much. Satellite (600 ms, 1 % in runs of 4, 50 Mbit/s),
/// one TCP flow in the simulator, two seeds: 9 Mbit/s with the row of its own, 25 with this one.
const ALONE_ROWS: u8 = 3;
const ROWS: u8 = 10;
/// And it begins before the first loss, which would end a slow start that takes such a path half a minute
/// to make good for: until the fates of so many shards have shown that nothing is lost.
const PRUDENT: u64 = 4_000;

/// Estimates waver: a level falls only if it would at so much more of loss and run length, for one event
/// in memory; with more it is less by their root, as deviations of a mean are. Events themselves have
/// the shorter memory: half as many are as good.
const WAVER: f64 = 1.0;
const WAVER_MAX: f64 = 1.5;
const WAVER_EVENTS: f64 = 2.0;
/// And it rises only if it would at so much less, for one event; with more as above.
const DOUBT: f64 = 0.7;
/// The mean of the last few runs rests on about fifteen.
const RECENT: f64 = 0.8;
/// What the estimates remember: so many shards, or so long (`estimate::LossRuns`).
const MEMORY_SHARDS: f64 = 10_000.0;
const MEMORY_SECONDS: f64 = 3.0;

/// Beyond what repair can give back: until it is so much below that again.
const HOPE: f64 = 0.8;

/// A path that has lost nothing for so long does not lose often: at two events a second that
/// happens once in 20,000 such times.
pub(super) const CALM: Duration = Duration::from_secs(5);

/// What losses ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Row of the table, from 1; 0 for no standing repair.
    pub row: u8,
    /// Column of the table, from 0.
    pub column: u8,
    /// Losses are not rare.
    pub is_frequent: bool,
}

/// What losses ask for: at once, and with all that they may waver by.
pub(super) fn wanted(inputs: &Inputs) -> (Wanted, Wanted) {
    let deviation = 1.0 / remembered(inputs).sqrt();
    let high = (1.0 + WAVER * deviation).min(WAVER_MAX);
    let low = 1.0 - DOUBT * deviation;
    (at(inputs, low, 1.0), at(inputs, high, WAVER_EVENTS))
}

/// Loss events that loss and run length rest on.
fn remembered(inputs: &Inputs) -> f64 {
    let loss = share(inputs.radio_loss_ppm.known());
    let burst = milli(inputs.burst_milli.known()).unwrap_or(1.0).max(1.0);
    let by_time = milli(inputs.events_milli_per_s.known()).unwrap_or(0.0) * MEMORY_SECONDS;
    by_time.min(MEMORY_SHARDS * loss / burst).max(1.0)
}

fn at(inputs: &Inputs, waver: f64, waver_events: f64) -> Wanted {
    let is_frequent = is_frequent(inputs, waver_events);
    let loss = share(inputs.radio_loss_ppm.known()) * waver;
    let burst = milli(inputs.burst_milli.known()).unwrap_or(1.0) * waver;
    let recent = milli(inputs.recent_burst_milli.known()).unwrap_or(1.0) * RECENT;
    let burst = burst.max(recent).max(1.0);
    let is_alone = inputs.limits.asks && !fits_a_round(round_trip(inputs));
    let alone = if is_alone { ALONE_ROWS } else { 0 };
    let row = if is_frequent && loss >= LOSS_MIN {
        loss_row(with_margin(loss)) as u8 + 1 + alone
    } else if is_alone && inputs.radio_loss_ppm.count < PRUDENT {
        1 + alone
    } else {
        0
    };
    Wanted {
        row: row.min(ROWS),
        column: burst_column(burst) as u8,
        is_frequent,
    }
}

fn with_margin(loss: f64) -> f64 {
    loss.max(loss * MARGIN - MARGIN_FROM * (MARGIN - 1.0))
}

/// Whether losses come too often to be asked for alone.
fn is_frequent(inputs: &Inputs, waver: f64) -> bool {
    let Some(events) = milli(inputs.events_milli_per_s.known()) else {
        return false;
    };
    if !inputs.limits.asks {
        return true;
    }
    let round_trip = round_trip(inputs);
    let events = events * waver;
    events >= FREQUENT_PER_SECOND
        || events * round_trip.as_secs_f64() >= BLOCKED_SHARE
        || (events > 0.0 && !fits_a_round(round_trip))
}

fn round_trip(inputs: &Inputs) -> Duration {
    Duration::from_micros(inputs.round_trip_us.known().unwrap_or_default())
}

/// Whether an answer comes within the longest hold of a bulk lane (ADR 5).
fn fits_a_round(round_trip: Duration) -> bool {
    round_trip + round_trip / 4 + ASK_AFTER_MIN <= round_trip + HOLD_SLACK
}

/// Whether more is lost, or in longer runs, than any repair of the table can give back.
pub(super) fn is_hopeless(inputs: &Inputs, was: bool) -> bool {
    let bound = if was { HOPE } else { 1.0 };
    let loss = with_margin(share(inputs.radio_loss_ppm.known()));
    let burst = milli(inputs.burst_milli.known()).unwrap_or(1.0);
    loss > LOSS_MAX * bound || burst > BURST_MAX * bound
}

/// A share from millionths; nothing known is nothing lost.
pub(super) fn share(ppm: Option<u64>) -> f64 {
    ppm.map_or(0.0, |ppm| ppm as f64 / 1e6)
}

fn milli(thousandths: Option<u64>) -> Option<f64> {
    thousandths.map(|value| value as f64 / 1e3)
}
