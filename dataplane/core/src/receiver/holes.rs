//! Holes: which missing shards are known to be missing, and until when they hold frames.
//!
//! A hole opens only on evidence, is asked for when the predictor says, holds frames of each class
//! until nothing can fill it in time any more, and ends filled or given up. Per class only the lowest
//! open hole matters, the *gate*. What became of the first transmission is remembered even when a
//! repeat or repair came first: that is what the predictor learns from.

use core::time::Duration;

use super::agenda::Deadline;
use super::early::EarlyClass;
use super::slots::{OpenHole, Slot, State};
use super::{Arrival, FrameSink, PredictiveBuffer};
use crate::buffer::Buffer;
use crate::lane::{CLASSES, Class};
use crate::limits::{
    ASK_AFTER_MIN, ASK_DEFAULT, LOOK_EVERY_MIN, LOOKS_MAX, LOST_AFTER, NEEDLESS_PER_SHARD,
    REASSEMBLY_WINDOW, ROUNDS_MAX, UNIT_GRACE,
};
use crate::predict::{Filler, Hole, Outcome, Outlook, Plan, Predictor, next_round};
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::shard::SourceHeader;

/// How long standing repair is waited for before a shard is asked for: repair that is on its way
/// anyway comes sooner than any answer, unless too much is missing. At most an eighth of a round
/// trip, so that waiting in vain costs little; and what somebody waits for is not made to wait.
fn repair_awaited(is_urgent: bool, outlook: &Outlook) -> Duration {
    match outlook.repair_within {
        Some(repair) if !is_urgent => {
            let round_trip = outlook.round_trip;
            repair.min(round_trip.map_or(ASK_AFTER_MIN, |rtt| rtt.smoothed / 8))
        }
        _ => Duration::ZERO,
    }
}

/// The age of a hole at which something is to be done about it next.
fn next_look(plan: &Plan, ask_after: Duration, age: Duration) -> Duration {
    let look = plan.look_after.unwrap_or(ask_after);
    look.max(age + LOOK_EVERY_MIN).min(ask_after)
}

/// How many sequence numbers a shard's `same_path` speaks of.
const SAME_PATH_BITS: u32 = u32::BITS;

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// Claims the slots of `missing` shards after `newest`, as holes where there is evidence: the
    /// shard that just came says which of the last 32 were first sent on its own path, and is
    /// itself evidence for its own aggregate. What lies further back than its word reaches is a
    /// hole if all it speaks of went the same way.
    pub(super) fn open_gap(
        &mut self,
        newest: Seq,
        missing: u32,
        header: &SourceHeader,
        path: u8,
        now: Time,
    ) {
        let frame = self.open_frame(newest);
        let after_newest = self.shards_after(newest);
        for step in 1..=missing {
            let seq = newest.plus(step);
            let early = frame.and_then(|frame| frame.in_shard(step));
            let back = missing - step;
            let is_sibling = back < u32::from(header.shard_id);
            let on_path = if back < SAME_PATH_BITS {
                header.same_path >> back & 1 == 1
            } else {
                header.same_path == u32::MAX
            };
            let (slot, forgotten) = self.slots.claim(seq);
            slot.state = State::Unknown;
            self.forget(forgotten);
            self.unknown += 1;
            if on_path || is_sibling {
                let hole = Hole {
                    position: step - 1,
                    siblings: u8::from(is_sibling) + u8::from(step <= after_newest),
                    ..self.hole(missing, path, now)
                };
                self.open_hole(seq, hole, early);
            }
        }
    }

    /// How many shards of its aggregate come after a shard that was placed.
    fn shards_after(&self, seq: Seq) -> u32 {
        match self.slots.get(seq).map(|slot| &slot.state) {
            Some(State::Placed(placed)) => {
                u32::from(placed.shard_count).saturating_sub(u32::from(placed.shard_id) + 1)
            }
            _ => 0,
        }
    }

    /// A hole of which only so much is known.
    fn hole(&self, gap: u32, path: u8, opened_at: Time) -> Hole {
        Hole {
            number: self.stats.holes as u32,
            opened_at,
            gap,
            position: 0,
            path,
            siblings: 0,
        }
    }

    /// Opens holes that were gaps without evidence until this shard spoke of them.
    pub(super) fn attribute(&mut self, header: &SourceHeader, path: u8, now: Time) {
        let shard_id = u32::from(header.shard_id);
        let siblings = 1u32.checked_shl(shard_id).map_or(u32::MAX, |bit| bit - 1);
        let mut evidence = header.same_path | siblings;
        while evidence != 0 {
            let back = evidence.trailing_zeros();
            evidence &= evidence - 1;
            let seq = header.seq.minus(back + 1);
            let is_unknown = |slot: &Slot<B>| matches!(slot.state, State::Unknown);
            if self.slots.get(seq).is_some_and(is_unknown) {
                let early = self.early_class(seq);
                let siblings = u8::from(back < shard_id);
                let hole = self.hole(1, path, now);
                self.open_hole(seq, Hole { siblings, ..hole }, early);
            }
        }
    }

    /// Notes that everything from `first` to `last` has been sent on `path`: what has not come is
    /// missing. Bounded by the distance of the two, which the caller bounds.
    pub(super) fn known_sent(&mut self, first: Seq, last: Seq, path: u8, now: Time) {
        let newest = *self.newest.get_or_insert(first.minus(1));
        let ahead = last.distance_from(newest);
        if !(1 - REASSEMBLY_WINDOW as i32..=(REASSEMBLY_WINDOW / 2) as i32).contains(&ahead) {
            // A shard that is so far ahead would be a new start; this is only hearsay. One that is
            // so far behind could not be placed, and a gate there would be far from where it ends.
            return;
        }
        for step in 1..=u32::try_from(ahead).unwrap_or(0) {
            let (slot, forgotten) = self.slots.claim(newest.plus(step));
            slot.state = State::Unknown;
            self.forget(forgotten);
            self.unknown += 1;
            self.newest = Some(newest.plus(step));
        }
        if ahead > 0 {
            self.age_floor(last);
        }
        let mut seq = first;
        while self.unknown > 0 && !last.is_before(seq) {
            let early = self.early_class(seq);
            self.open_hole(seq, self.hole(ahead.max(1) as u32, path, now), early);
            seq = seq.plus(1);
        }
    }

    /// Whether a loss is to be passed on to those inside: when a full queue dropped it, and once in a
    /// round trip. A tunnel that repaired all of those would keep its senders from ever slowing down.
    fn passes_on(&self, path: u8, now: Time) -> bool {
        if !self.config.passes_on {
            return false;
        }
        let round_trip = self.outlook.round_trip;
        let is_due = self
            .passed_on_at
            .is_none_or(|at| now.since(at) >= round_trip.map_or(ASK_DEFAULT, |rtt| rtt.smoothed));
        let minimum = round_trip.map(|rtt| rtt.minimum);
        let arrivals = self.arrivals.get(usize::from(path));
        is_due && arrivals.is_some_and(|arrivals| arrivals.is_queue_full(minimum, now))
    }

    fn early_class(&self, seq: Seq) -> Option<EarlyClass> {
        self.open_frame(seq.minus(1))?.in_shard(1)
    }

    fn open_hole(&mut self, seq: Seq, known: Hole, early: Option<EarlyClass>) {
        let now = known.opened_at;
        let passed_on = self.passes_on(known.path, now);
        let is_urgent = early.is_some_and(EarlyClass::is_urgent);
        let repair = repair_awaited(is_urgent, &self.outlook);
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        if !matches!(slot.state, State::Unknown) {
            return;
        }
        let plan = self.predictor.plan(&known, &self.outlook, Duration::ZERO);
        let ask_after = plan.ask_after.max(repair);
        let mut hold = self.config.hold_bounds.hold(ask_after, &self.outlook);
        if passed_on {
            hold = [Duration::ZERO; CLASSES];
            self.passed_on_at = Some(now);
            self.stats.holes_passed_on += 1;
        }
        let mut hole = OpenHole {
            known,
            ask_after,
            asked_at: Time::ZERO,
            looks: 1,
            judged: false,
            release_at: hold.map(|hold| now + hold),
            given_up: false,
            asks: 0,
            not_sent: false,
            passed_on,
            early: None,
        };
        if let Some(early) = early {
            hole.classify(early, now);
            self.stats.holes_classified += 1;
        }
        slot.state = State::Hole(hole);
        self.unknown = self.unknown.saturating_sub(1);
        self.stats.holes += 1;
        let is_all = early.filter(|early| early.is_all);
        for class in Class::ALL {
            let gate = &mut self.gates[class.index()];
            let holds = is_all.is_none_or(|early| early.class == class);
            if holds && gate.is_none_or(|gate| seq.is_before(gate)) {
                *gate = Some(seq);
            }
        }
        let round_trip = self
            .outlook
            .round_trip
            .map_or(ASK_DEFAULT, |rtt| rtt.smoothed);
        let is_noted = (!self.outlook.asks
            || self.agenda.add(
                now + next_look(&plan, ask_after, Duration::ZERO),
                seq,
                Deadline::Ask(1),
            ))
            && self
                .agenda
                .add(now + round_trip + LOST_AFTER, seq, Deadline::Verdict);
        self.stats.holes_unnoted += u64::from(!is_noted);
    }

    /// A missing shard is there.
    pub(super) fn fill(&mut self, hole: &OpenHole, arrival: Arrival, now: Time) {
        // By the times they were received: a shard that only its unit was late with has no age.
        let age = now.since(hole.known.opened_at);
        match arrival {
            Arrival::Repeat => {
                self.stats.filled_by_repeat += 1;
                if hole.asks > 0 {
                    let after = now.since(hole.asked_at);
                    self.predictor
                        .filled(&hole.known, Filler::Repeat { after }, age);
                }
            }
            Arrival::Rebuilt => {
                self.stats.filled_by_repair += 1;
                self.predictor.filled(&hole.known, Filler::Repair, age);
            }
            Arrival::Original => {}
        }
        if hole.given_up {
            self.stats.late += 1;
        } else if arrival != Arrival::Original {
            self.stats.holes_recovered += 1;
        } else if age <= UNIT_GRACE {
            self.stats.holes_by_units += 1;
        } else {
            self.stats.holes_filled += 1;
        }
        if age > UNIT_GRACE {
            self.histograms.recovery.record(age);
        }
        if arrival == Arrival::Original {
            self.learn_late(hole.known, hole.asks > 0, now);
        }
    }

    /// The first transmission of a shard came after its hole had opened.
    pub(super) fn learn_late(&mut self, hole: Hole, asked: bool, now: Time) {
        let age = now.since(hole.opened_at);
        if age <= UNIT_GRACE {
            self.predictor.retract(&hole);
            return;
        }
        self.histograms.lateness.record(age);
        if asked {
            self.stats.asked_needlessly += 1;
            self.needless = self.needless.saturating_sub(NEEDLESS_PER_SHARD);
        }
        let outcome = Outcome::Late { age, asked };
        self.predictor.learn(&hole, outcome, &self.outlook, now);
    }

    /// Meets the deadlines of holes that have come.
    pub(super) fn keep_appointments(&mut self, now: Time) {
        while let Some((seq, deadline)) = self.agenda.next_due(now) {
            match deadline {
                Deadline::Ask(round) => self.ask(seq, round, now),
                Deadline::Verdict => self.decide_about(seq, now),
            }
        }
    }

    /// Asks for a shard if it is still missing and may still come, and if that is still the plan.
    fn ask(&mut self, seq: Seq, round: u8, now: Time) {
        let is_gone = self.floor.is_some_and(|floor| seq.is_before(floor));
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        let State::Hole(hole) = &mut slot.state else {
            return;
        };
        if is_gone || hole.not_sent || hole.passed_on {
            return;
        }
        let age = now.since(hole.known.opened_at);
        if hole.asks == 0 && age < hole.ask_after {
            let mut next = hole.ask_after;
            if hole.looks < LOOKS_MAX {
                hole.looks += 1;
                let plan = self.predictor.plan(&hole.known, &self.outlook, age);
                let is_urgent = hole.early.is_some_and(EarlyClass::is_urgent);
                let repair = repair_awaited(is_urgent, &self.outlook);
                hole.ask_after = plan.ask_after.max(repair);
                next = next_look(&plan, hole.ask_after, age);
                // A plan to ask sooner brings the answer sooner; nothing is held for longer than it
                // was meant to be.
                let hold = self.config.hold_bounds.hold(hole.ask_after, &self.outlook);
                for (release_at, hold) in hole.release_at.iter_mut().zip(hold) {
                    *release_at = (*release_at).min(hole.known.opened_at + hold);
                }
            }
            if age < hole.ask_after {
                let next = hole.known.opened_at + next;
                self.agenda.add(next, seq, Deadline::Ask(round));
                return;
            }
        }
        if self.wanted.is_full() || self.needless < NEEDLESS_PER_SHARD {
            // As long as anything waits for it: a stream that is silent earns no more requests.
            if hole.release_at.iter().any(|&at| now < at) {
                self.stats.asks_deferred += 1;
                self.agenda
                    .add(now + ASK_DEFAULT, seq, Deadline::Ask(round));
            }
            return;
        }
        hole.asks = round;
        if round == 1 {
            hole.asked_at = now;
        }
        // First what somebody waits for: a message that is cut short is cut at its end.
        let is_urgent = hole.early.is_some_and(EarlyClass::is_urgent);
        let at = if is_urgent { 0 } else { self.wanted.len() };
        self.wanted.insert(at, seq);
        self.stats.asks += 1;
        if round < ROUNDS_MAX {
            let next = now + next_round(ASK_AFTER_MIN, &self.outlook);
            self.agenda.add(next, seq, Deadline::Ask(round + 1));
        }
    }

    /// The first transmission has not come for so long that it is lost.
    fn decide_about(&mut self, seq: Seq, now: Time) {
        let Some(slot) = self.slots.get_mut(seq) else {
            return;
        };
        let hole = match &mut slot.state {
            State::Hole(hole) if !hole.not_sent => {
                hole.judged = true;
                hole.known
            }
            State::Placed(placed) => match &mut placed.filled {
                Some(filled) => {
                    filled.judged = true;
                    filled.known
                }
                None => return,
            },
            _ => return,
        };
        self.learn_lost(&hole, now);
    }

    /// The first transmission of a shard will not come any more.
    pub(super) fn learn_lost(&mut self, hole: &Hole, now: Time) {
        self.predictor
            .learn(hole, Outcome::Lost, &self.outlook, now);
    }

    /// The sender says that a shard was numbered and never left: nobody waits for it, and it
    /// teaches nothing.
    pub(super) fn close_hole(&mut self, seq: Seq) {
        if let Some(slot) = self.slots.get_mut(seq)
            && let State::Hole(hole) = &mut slot.state
            && !hole.not_sent
        {
            hole.not_sent = true;
            hole.release_at = [Time::ZERO; CLASSES];
            self.stats.holes_not_sent += 1;
        }
    }

    /// Moves each gate past holes that were filled or have held for long enough, and lets go what
    /// waited for them.
    pub(super) fn advance_gates(&mut self, now: Time, sink: &mut impl FrameSink<B>) {
        let Some(newest) = self.newest else {
            return;
        };
        let mut moved = false;
        for class in Class::ALL.map(Class::index) {
            let Some(mut seq) = self.gates[class] else {
                continue;
            };
            let from = seq;
            loop {
                // The newest itself may be missing: the sender said how far it went.
                if newest.is_before(seq) {
                    self.gates[class] = None;
                    break;
                }
                let is_gone = self.floor.is_some_and(|floor| seq.is_before(floor));
                if let Some(slot) = self.slots.get_mut(seq)
                    && let State::Hole(hole) = &mut slot.state
                {
                    if is_gone {
                        hole.release_at = [Time::ZERO; CLASSES];
                    }
                    if now < hole.release_at[class] {
                        self.gates[class] = Some(seq);
                        break;
                    }
                    if hole.release_at.iter().all(|&at| at <= now) && !hole.given_up {
                        hole.given_up = true;
                        self.stats.holes_given_up += 1;
                        let held = hole.release_at.iter().max().copied().unwrap_or_default();
                        self.histograms
                            .hold
                            .record(held.since(hole.known.opened_at));
                    }
                }
                seq = seq.plus(1);
            }
            moved |= self.gates[class] != Some(from);
        }
        if moved {
            self.lanes.release_all(&self.gates, sink);
        }
    }
}
