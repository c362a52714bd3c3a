//! The decision itself.

use core::time::Duration;

use super::{Held, Inputs, Label, Level, Plan, Reason, Repair, RepairMode, State, loss, split};
use crate::limits::HOLD_SLACK;
use crate::repair::entry;
use crate::time::Time;

/// Repair after a rare loss.
const REACTIVE: Repair = Repair {
    every: 4,
    window: 16,
};

/// How long a thin stream's shard waits for its repair, in whole steps, so that a round trip that
/// wavers does not change the plan.
const DELAY_STEP: Duration = Duration::from_millis(10);
const DELAY_STEPS_MAX: u8 = 5;
/// A step falls only if it would at so much more of the wait.
const DELAY_WAVER: Duration = Duration::from_millis(3);

/// From this load on, in thousandths, crypto units get less to do, before anything is dropped: n is
/// not doubled any more, and repair loses a row of its table, then two for each further twentieth.
const BUSY: u64 = 800;
const BUSY_STEP: u64 = 50;
/// It gives back what it took only if it would at so much more load: what was taken back is part of it.
const BUSY_WAVER: u64 = 100;
/// All rows there are.
const RELIEF_MAX: u8 = 10;
/// A load is that of now.
const LOAD_KEPT: Duration = Duration::from_secs(1);

/// An outage: no report came for three round trips, and for so long, although so much was sent; the
/// tail of a stream that fell silent may be lost without one.
const SILENT_MIN: Duration = Duration::from_millis(200);
const SILENT_ROUND_TRIPS: u64 = 3;
const SILENT_SENT: u64 = 8;

/// What is planned now, by what was planned, what is known, and the time. It neither keeps nor asks
/// for anything else, so the same arguments always give the same plan.
pub fn decide(before: &State, inputs: &Inputs, now: Time) -> State {
    let mut state = *before;
    state.pace.forgive(now);
    state.split_pace.forgive(now);
    state.relief_pace.forgive(now);
    state.breaker.follow(inputs, now);
    state.is_hopeless = loss::is_hopeless(inputs, state.is_hopeless);
    let is_frequent = follow_losses(&mut state, inputs, now);
    follow_load(&mut state, inputs, now);
    follow_split(&mut state, inputs, now);
    follow_delay(&mut state, inputs, now);

    let is_silent = is_silent(inputs);
    let added_permille = state.breaker.permille();
    let is_off = is_silent || added_permille == 0;
    let standing = standing(&state, inputs).filter(|_| !is_off);
    let doublings = standing.map_or(0, |_| state.split.at);
    let (split, payload) = split::cut(inputs, doublings);
    let is_rare = state.loss.at == 0 && inputs.limits.asks && !inputs.is_competing;
    let reacts = is_rare && inputs.limits.repair == RepairMode::Auto && !is_off;
    let plan = Plan {
        label: label(&state, is_silent),
        split,
        payload,
        standing,
        reactive: Some(REACTIVE)
            .filter(|_| reacts)
            .and_then(|repair| decodable(repair, inputs)),
        delay_ms: state.delay.at.min(DELAY_STEPS_MAX) * DELAY_STEP.as_millis() as u8,
        added_permille,
        reason: before.plan.reason,
    };
    state.plan = plan;
    if plan.differs(&before.plan) {
        state.plan.reason = reason(before, &state, inputs, is_frequent);
    }
    let is_right = state.split_due.since.is_none() && state.split.high_since.is_none();
    if is_right || state.split.at != before.split.at {
        state.split_at = (rate(inputs), round_trip(inputs));
    }
    state
}

/// Row and column of the repair table; whether losses are frequent.
fn follow_losses(state: &mut State, inputs: &Inputs, now: Time) -> bool {
    let (up, down) = loss::wanted(inputs);
    let since_loss = inputs.since_loss_us.known().map(Duration::from_micros);
    let is_calm = since_loss.is_none_or(|since| since >= loss::CALM);
    let State {
        loss, burst, pace, ..
    } = state;
    loss.follow(up.row, down.row, is_calm, pace, now);
    if loss.at == 0 {
        // Without repair the length of runs changes nothing that could be seen.
        burst.at = up.column;
        burst.high_since = None;
    } else {
        burst.follow(up.column, down.column, is_calm, pace, now);
    }
    up.is_frequent
}

/// What is taken back lowers the load, so it comes back step by step, and ever later if it was regretted.
fn follow_load(state: &mut State, inputs: &Inputs, now: Time) {
    let load = load(inputs);
    let (up, down) = (relief(load), relief(load + BUSY_WAVER));
    (state.relief).follow(up, down, false, &mut state.relief_pace, now);
}

fn follow_split(state: &mut State, inputs: &Inputs, now: Time) {
    let is_repaired = inputs.limits.repair == RepairMode::Auto && standing(state, inputs).is_some();
    if !is_repaired || state.relief.at > 0 {
        // Cutting without repair only raises the loss.
        state.split = Level::default();
        state.split_due = Held::default();
        return;
    }
    let (up, down) = split::wanted(inputs, state.loss.at, state.burst.at);
    let up = state.split_due.held(up, state.split.at, now);
    (state.split).follow(up, down.max(up), false, &mut state.split_pace, now);
}

/// A quarter of what a frame may take: the way there, and the longest hold.
fn follow_delay(state: &mut State, inputs: &Inputs, now: Time) {
    let deadline = Duration::from_micros(round_trip(inputs)) / 2 + HOLD_SLACK;
    let steps = |delay: Duration| {
        let steps = delay.as_nanos() / DELAY_STEP.as_nanos();
        steps.min(DELAY_STEPS_MAX.into()) as u8
    };
    let (up, down) = (steps(deadline / 4), steps(deadline / 4 + DELAY_WAVER));
    if inputs.limits.repair == RepairMode::Auto && state.loss.at == 0 {
        // Nothing waits: the figure is only to be right when repair begins.
        state.delay.at = up;
        state.delay.high_since = None;
        return;
    }
    state.delay.follow(up, down, false, &mut state.pace, now);
}

fn standing(state: &State, inputs: &Inputs) -> Option<Repair> {
    let repair = match inputs.limits.repair {
        RepairMode::Off => return None,
        RepairMode::Fixed { every, window } => Repair { every, window },
        RepairMode::Auto => {
            if inputs.is_competing || state.is_hopeless {
                // Others fill the queue: what is added would only lengthen it. Or it gives back too
                // little.
                return None;
            }
            let row = state.loss.at.checked_sub(1)?;
            // What gives back too little does not become worth it by the load.
            entry(row.into(), state.burst.at.into())?;
            let row = row.checked_sub(state.relief.at)?;
            let (every, window) = entry(row.into(), state.burst.at.into())?;
            Repair { every, window }
        }
    };
    decodable(repair, inputs)
}

/// The repair with windows that the peer can decode; none if those are shorter than s, as a repair
/// shard covers s source shards at the least.
fn decodable(repair: Repair, inputs: &Inputs) -> Option<Repair> {
    let window = u16::from(repair.window).min(inputs.limits.window_max) as u8;
    (window >= repair.every.max(1)).then_some(Repair { window, ..repair })
}

/// Rows of the repair table that so much load of the crypto units takes back.
fn relief(load: u64) -> u8 {
    let above = load.checked_sub(BUSY);
    above.map_or(0, |above| {
        (1 + 2 * (above / BUSY_STEP)).min(RELIEF_MAX.into()) as u8
    })
}

fn load(inputs: &Inputs) -> u64 {
    let load = inputs.crypto_permille.within(LOAD_KEPT);
    load.unwrap_or_default().min(1_000)
}

fn rate(inputs: &Inputs) -> u64 {
    inputs.delivery_bytes_per_s.known().unwrap_or_default()
}

fn round_trip(inputs: &Inputs) -> u64 {
    inputs.round_trip_us.known().unwrap_or_default()
}

fn is_silent(inputs: &Inputs) -> bool {
    let silence = Duration::from_micros(inputs.unanswered_us);
    let round_trips = round_trip(inputs).saturating_mul(SILENT_ROUND_TRIPS);
    let is_long = silence > SILENT_MIN.max(Duration::from_micros(round_trips));
    is_long && inputs.unanswered >= SILENT_SENT
}

fn label(state: &State, is_silent: bool) -> Label {
    match (is_silent, state.loss.at, state.burst.at) {
        (true, ..) => Label::Outage,
        (_, 0, _) => Label::Clean,
        (.., 0) => Label::Lossy,
        _ => Label::Bursty,
    }
}

/// Which input led from one plan to another.
fn reason(before: &State, after: &State, inputs: &Inputs, is_frequent: bool) -> Reason {
    let (old, new) = (&before.plan, &after.plan);
    let is_outage = |plan: &Plan| plan.label == Label::Outage;
    if is_outage(old) != is_outage(new) {
        Reason::Silence
    } else if old.split != 0 && old.added_permille != new.added_permille {
        Reason::Breaker
    } else if before.relief.at != after.relief.at
        && (old.standing != new.standing || old.split != new.split)
    {
        Reason::Crypto
    } else if before.loss.at != after.loss.at {
        let began_or_ended = before.loss.at == 0 || after.loss.at == 0;
        let is_lossy = inputs.radio_loss_ppm.known() > Some(0);
        if began_or_ended && is_lossy && is_frequent == (after.loss.at > 0) {
            Reason::Events
        } else {
            Reason::Loss
        }
    } else if before.burst.at != after.burst.at && new.standing != old.standing {
        Reason::Burst
    } else if before.is_hopeless != after.is_hopeless {
        Reason::Loss
    } else if old.split == 0 {
        Reason::Start
    } else if old.standing.is_some() != new.standing.is_some() || old.reactive != new.reactive {
        Reason::Queue
    } else if before.split.at != after.split.at {
        rate_or_round_trip(before.split_at, (rate(inputs), round_trip(inputs)))
    } else if before.delay.at != after.delay.at {
        Reason::RoundTrip
    } else {
        Reason::Limits
    }
}

/// Which of the two has changed more since n did.
fn rate_or_round_trip(before: (u64, u64), now: (u64, u64)) -> Reason {
    let ratio = |a: u64, b: u64| {
        let (low, high) = (a.min(b).max(1), a.max(b).max(1));
        high as f64 / low as f64
    };
    if ratio(before.0, now.0) >= ratio(before.1, now.1) {
        Reason::Rate
    } else {
        Reason::RoundTrip
    }
}
