//! The plan of a stream: from what is known of its path to what it sends.

use core::time::Duration;

use super::path::Path;
use crate::plan::{Decision, Decisions, Figure, Inputs, Limits, Plan, State, decide};
use crate::repair::RepairPlan;
use crate::time::Time;

/// How often a decision is made: as often as reports come at the most.
const DECIDE_EVERY: Duration = Duration::from_millis(10);

/// What is planned for a stream, and how that came about.
#[derive(Default)]
pub(super) struct Planner {
    state: State,
    decided_at: Time,
    decisions: Decisions,
}

impl Planner {
    pub(super) fn is_due(&self, now: Time) -> bool {
        now.since(self.decided_at) >= DECIDE_EVERY
    }

    /// Decides anew; says whether anything has changed.
    pub(super) fn decide(&mut self, inputs: &Inputs, now: Time) -> bool {
        self.decided_at = now;
        let before = self.state;
        self.state = decide(&before, inputs, now);
        let plan = self.state.plan;
        let has_changed = plan != before.plan;
        if has_changed {
            self.decisions.note(Decision {
                at: now,
                before,
                inputs: *inputs,
                plan,
            });
        }
        has_changed
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.state.plan
    }

    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// The repair that is due now.
    pub(super) fn repair(&self, path: &Path, now: Time) -> Option<RepairPlan> {
        let plan = self.plan();
        let reactive = || plan.reactive.filter(|_| path.is_reacting(now));
        let repair = plan.standing.or_else(reactive)?;
        Some(RepairPlan {
            every: repair.every,
            window: repair.window,
            delay_max: Duration::from_millis(plan.delay_ms.into()),
        })
    }
}

/// What is known of a path. `crypto` is the load of this machine's units.
pub(super) fn inputs(path: &Path, limits: Limits, crypto: Figure, now: Time) -> Inputs {
    let Path {
        rtt,
        loss,
        radio_loss,
        rate,
        queue,
        ..
    } = path;
    let micros = |time: Option<Duration>| {
        time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    };
    let scaled = |value: Option<f64>, scale: f64| value.map(|value| (value * scale).round() as u64);
    let of_rtt = |value| Figure::new(micros(value), rtt.count(), rtt.age(now));
    let of_radio = |value| Figure::new(value, radio_loss.count(), radio_loss.age(now));
    let (unanswered, since) = path.unanswered();
    Inputs {
        limits,
        round_trip_us: of_rtt(rtt.smoothed()),
        round_trip_min_us: of_rtt(rtt.min(now)),
        loss_ppm: Figure::new(scaled(loss.loss_rate(), 1e6), loss.count(), loss.age(now)),
        radio_loss_ppm: of_radio(scaled(radio_loss.loss_rate(), 1e6)),
        burst_milli: of_radio(scaled(radio_loss.burst_len(), 1e3)),
        recent_burst_milli: of_radio(scaled(radio_loss.recent_burst_len(), 1e3)),
        events_milli_per_s: of_radio(scaled(radio_loss.events_per_second(now), 1e3)),
        since_loss_us: of_radio(micros(radio_loss.since_loss(now))),
        delivery_bytes_per_s: Figure::new(rate.bytes_per_second(), rate.count(), rate.age(now)),
        queue_us: Figure::new(micros(queue.current(now)), queue.count(), queue.age(now)),
        crypto_permille: crypto,
        reports: path.reports,
        unanswered: unanswered.into(),
        unanswered_us: micros(since.map(|since| now.since(since))).unwrap_or_default(),
        is_competing: path.control.is_competing(),
    }
}
