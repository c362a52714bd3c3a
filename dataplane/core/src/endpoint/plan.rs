//! How much standing repair a stream sends, by what its path does.

use core::time::Duration;

use super::path::Path;
use crate::limits::HOLD_SLACK;
use crate::repair::{RepairPlan, standing};
use crate::time::Time;

/// How a stream is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// Not at all.
    Off,
    /// As the path's losses need it.
    Auto,
    /// One repair shard for every so many source shards, over a window of so many.
    Fixed {
        /// Source shards for each repair shard.
        every: u8,
        /// Source shards that a repair shard covers.
        window: u8,
    },
}

/// Losses that are rarer than this, in events a second, are asked for, not repaired beforehand: a
/// request costs less, and holds up little.
const FREQUENT_PER_SECOND: f64 = 2.0;

/// What is lost beyond this share is repaired as if it were so much more: where much is lost, a
/// hole that repair does not close within milliseconds has others behind it before it is filled, and
/// all of them hold up the same lane.
const MARGIN_FROM: f64 = 0.02;
const MARGIN: f64 = 1.7;

/// For how long repair stands after a rare loss. Losses come together: on real links a lossy
/// 15 ms window is followed by another in 24 to 35 of 100 cases, against 0.5 to 4 otherwise.
pub(super) const REACTIVE_FOR: Duration = Duration::from_millis(100);

/// Repair after a rare loss.
const REACTIVE: (u8, u8) = (4, 16);

/// How long a thin stream's shard waits for its repair, in whole steps, so that a round trip that
/// wavers does not change the plan.
const DELAY_STEP: Duration = Duration::from_millis(10);
const DELAY_STEPS_MAX: u32 = 5;

/// The repair that is to stand on a path now.
pub(super) fn repair(mode: RepairMode, asks: bool, path: &Path, now: Time) -> Option<RepairPlan> {
    let (every, window) = match mode {
        RepairMode::Off => return None,
        RepairMode::Fixed { every, window } => (every, window),
        RepairMode::Auto => automatic(asks, path, now)?,
    };
    let round_trip = path.round_trip(now).map(|rtt| rtt.smoothed);
    // A quarter of what a frame may take: the way there, and the longest hold.
    let deadline = round_trip.unwrap_or_default() / 2 + HOLD_SLACK;
    Some(RepairPlan {
        every,
        window,
        delay_max: in_steps(deadline / 4),
    })
}

/// The plan with windows that the peer can decode; none if those are shorter than s, as a repair
/// shard covers s source shards at the least.
pub(super) fn decodable(plan: RepairPlan, window_max: u16) -> Option<RepairPlan> {
    let window = u16::from(plan.window).min(window_max) as u8;
    (window >= plan.every.max(1)).then_some(RepairPlan { window, ..plan })
}

fn in_steps(delay: Duration) -> Duration {
    let steps = delay.as_nanos() / DELAY_STEP.as_nanos();
    DELAY_STEP * steps.min(u128::from(DELAY_STEPS_MAX)) as u32
}

fn automatic(asks: bool, path: &Path, now: Time) -> Option<(u8, u8)> {
    if path.control.is_competing() {
        // Others fill the queue: what is added would only lengthen it.
        return None;
    }
    let events = path.radio_loss.events_per_second(now)?;
    if asks && events < FREQUENT_PER_SECOND {
        return path.is_reacting(now).then_some(REACTIVE);
    }
    let loss = path.radio_loss.loss_rate()?;
    standing(
        loss.max(loss * MARGIN - MARGIN_FROM * (MARGIN - 1.0)),
        path.radio_loss.burst_len().unwrap_or(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_is_longer_than_the_peer_can_decode() {
        let plan = RepairPlan {
            every: 20,
            window: 180,
            delay_max: Duration::ZERO,
        };
        let window = |max| decodable(plan, max).map(|plan| plan.window);
        assert_eq!(window(u16::MAX), Some(180));
        assert_eq!(window(64), Some(64));
        assert_eq!(window(20), Some(20));
        assert_eq!(window(19), None, "a repair shard over 20 would be sent");
        assert_eq!(window(0), None);
    }
}
