//! Repair shards that wait, as equations in missing source shards, and the choice of those that
//! can be solved.
//!
//! A window is a run of numbers, so among all missing shards, in order, those of one equation are
//! a run as well. If some unknowns are determined at all, then those of some run of unknowns
//! [first, last] are by the equations that lie inside it; so it is enough to look at runs that
//! begin where an equation begins and end where one ends.

use arrayvec::ArrayVec;
use shardgate_erasure::{SOLVE_MAX, coefficient, inverse, multiply};

use super::WINDOW_MAX;
use super::bits::Bits;
use super::history::{HISTORY, is_within_reach};
use crate::seq::Seq;

/// Most equations that wait: all of two runs of losses that the most open windows cover.
pub(super) const EQUATIONS_MAX: usize = 32;

/// Some of the source shards of a window.
pub(super) type Mask = Bits<{ WINDOW_MAX.div_ceil(64) }>;

/// A repair shard of which something is missing.
#[derive(Clone, Copy)]
pub(super) struct Equation {
    pub window_start: Seq,
    pub window_len: u8,
    pub repair_index: u8,
    /// The offsets in the window of what is missing; at least one.
    pub unknown: Mask,
    /// The offsets of what is there and not yet subtracted from the symbol. It is, once, when the
    /// equation is chosen: one that is never needed costs nothing.
    pub unsubtracted: Mask,
    /// Bytes of its symbol with padding.
    pub len: usize,
}

impl Equation {
    /// The offset of `seq` in the window, or one that no mask has.
    fn offset(&self, seq: Seq) -> u32 {
        seq.0.wrapping_sub(self.window_start.0)
    }

    fn is_missing(&self, seq: Seq) -> bool {
        self.unknown.contains(self.offset(seq))
    }

    /// The missing shards with the lowest and the highest number.
    fn ends(&self) -> (Seq, Seq) {
        let (first, last) = self.unknown.ends().unwrap_or_default();
        (self.window_start.plus(first), self.window_start.plus(last))
    }

    /// The numbers of the missing shards, in order.
    fn missing(&self) -> impl Iterator<Item = Seq> + use<> {
        let start = self.window_start;
        self.unknown.iter().map(move |offset| start.plus(offset))
    }
}

/// A run of unknowns with at least as many equations inside it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    first: Seq,
    last: Seq,
}

/// As many independent equations as unknowns.
pub(super) struct System {
    /// Places in the table, in rising order.
    pub equations: ArrayVec<usize, SOLVE_MAX>,
    /// The unknowns, in order.
    pub unknowns: ArrayVec<Seq, SOLVE_MAX>,
}

/// The equations that wait, in places that their symbols have too.
pub(super) struct Equations {
    places: [Option<Equation>; EQUATIONS_MAX],
    held: usize,
}

impl Equations {
    pub(super) fn new() -> Self {
        Self {
            places: [None; EQUATIONS_MAX],
            held: 0,
        }
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.held
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Equation> {
        self.places.iter().flatten()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Equation> {
        self.places.get_mut(place)?.as_mut()
    }

    /// A free place; if there is none, that of the equation whose window begins first, and true.
    pub(super) fn make_room(&mut self) -> (usize, bool) {
        if let Some(place) = self.places.iter().position(Option::is_none) {
            return (place, false);
        }
        let reference = self.iter().next().map_or(Seq(0), |held| held.window_start);
        let age = |held: &Option<Equation>| {
            held.map(|equation| equation.window_start.distance_from(reference))
        };
        let eldest = (0..EQUATIONS_MAX).min_by_key(|&place| age(&self.places[place]));
        let place = eldest.unwrap_or(0);
        self.remove(place);
        (place, true)
    }

    /// Puts an equation into a free place.
    pub(super) fn insert(&mut self, place: usize, equation: Equation) {
        if self.places[place].replace(equation).is_none() {
            self.held += 1;
        }
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Equation> {
        let removed = self.places.get_mut(place)?.take();
        self.held -= usize::from(removed.is_some());
        removed
    }

    /// Drops the equations for which `keep` is false; returns how many.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Equation) -> bool) -> u64 {
        let mut dropped = 0;
        for place in self.places.iter_mut().filter(|place| place.is_some()) {
            if !place.as_mut().is_some_and(&mut keep) {
                *place = None;
                self.held -= 1;
                dropped += 1;
            }
        }
        dropped
    }

    /// Notes that a source shard is there now. Returns in how many equations it was missing, and
    /// how many of them are dropped because nothing is missing in them any more.
    pub(super) fn found(&mut self, seq: Seq) -> (u64, u64) {
        let mut touched = 0;
        let dropped = self.retain(|equation| {
            let offset = equation.offset(seq);
            if equation.unknown.remove(offset) {
                touched += 1;
                equation.unsubtracted.insert(offset);
            }
            !equation.unknown.is_empty()
        });
        (touched, dropped)
    }

    /// Drops what is of no use once `newest` is the newest number; returns how many.
    pub(super) fn expire(&mut self, newest: Seq) -> u64 {
        self.retain(|equation| is_within_reach(equation.window_start, newest))
    }

    /// Whether an equation waits for this source shard.
    #[cfg(test)]
    pub(super) fn wait_for(&self, seq: Seq) -> bool {
        self.iter().any(|equation| equation.is_missing(seq))
    }

    /// The run of fewest unknowns, at most [`SOLVE_MAX`], with as many equations inside it, if
    /// there is one that is not in `tried`. All unknowns lie within [`HISTORY`] of `newest`.
    ///
    /// At most [`EQUATIONS_MAX`]² steps.
    pub(super) fn next_run(&self, newest: Seq, tried: &[Run]) -> Option<Run> {
        let fewest = self.iter().map(|equation| equation.unknown.count());
        if fewest.min()? as usize > self.held.min(SOLVE_MAX) {
            return None;
        }
        let base = newest.minus(HISTORY - 1);
        let mut unknowns: Bits<{ HISTORY as usize / 64 }> = Bits::EMPTY;
        let mut runs: ArrayVec<(u32, u32), EQUATIONS_MAX> = ArrayVec::new();
        for equation in self.iter() {
            let offset = |seq: Seq| seq.0.wrapping_sub(base.0);
            let (first, last) = equation.ends();
            unknowns.insert_all(offset(equation.window_start), &equation.unknown);
            runs.push((offset(first), offset(last)));
        }
        runs.sort_unstable_by_key(|&(_, last)| last);
        let mut best: Option<(u32, Run)> = None;
        for &(first, _) in &runs {
            let mut inside = 0;
            for &(other_first, last) in &runs {
                if other_first < first {
                    continue;
                }
                inside += 1;
                let size = unknowns.count_within(first, last);
                if size > SOLVE_MAX as u32 || best.is_some_and(|(fewest, _)| size >= fewest) {
                    break;
                }
                let run = Run {
                    first: base.plus(first),
                    last: base.plus(last),
                };
                if size <= inside && !tried.contains(&run) {
                    best = Some((size, run));
                    break;
                }
            }
        }
        best.map(|(_, run)| run)
    }

    /// As many independent equations inside a run as it has unknowns; nothing if there are not
    /// so many *yet*.
    ///
    /// At most [`EQUATIONS_MAX`] times [`SOLVE_MAX`]² multiplications.
    pub(super) fn choose(&self, run: Run) -> Option<System> {
        let inside = |equation: &Equation| {
            let (first, last) = equation.ends();
            !first.is_before(run.first) && !run.last.is_before(last)
        };
        let mut unknowns: ArrayVec<Seq, SOLVE_MAX> = ArrayVec::new();
        for equation in self.iter().filter(|equation| inside(equation)) {
            for seq in equation.missing() {
                if !unknowns.contains(&seq) {
                    unknowns.try_push(seq).ok()?;
                }
            }
        }
        unknowns.sort_unstable_by_key(|seq| seq.distance_from(run.first));
        let mut basis = Basis::default();
        let mut equations = ArrayVec::new();
        for (place, equation) in self.places.iter().enumerate() {
            let Some(equation) = equation.as_ref().filter(|equation| inside(equation)) else {
                continue;
            };
            if equations.len() < unknowns.len() && basis.extend(row(equation, &unknowns)) {
                equations.push(place);
            }
        }
        // One without equations would use none up.
        let is_regular = !equations.is_empty() && equations.len() == unknowns.len();
        is_regular.then_some(System {
            equations,
            unknowns,
        })
    }

    /// The factors of `unknowns` in an equation.
    pub(super) fn row(&self, place: usize, unknowns: &[Seq]) -> [u8; SOLVE_MAX] {
        let equation = self.places.get(place).and_then(Option::as_ref);
        equation.map_or([0; SOLVE_MAX], |equation| row(equation, unknowns))
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

fn row(equation: &Equation, unknowns: &[Seq]) -> [u8; SOLVE_MAX] {
    let mut factors = [0; SOLVE_MAX];
    for (factor, &seq) in factors.iter_mut().zip(unknowns) {
        if equation.is_missing(seq) {
            *factor = coefficient(seq.0, equation.repair_index);
        }
    }
    factors
}

/// Rows found independent so far, each reduced by those before it and scaled to begin with 1;
/// a row stands at the column where it begins.
#[derive(Default)]
struct Basis([Option<[u8; SOLVE_MAX]>; SOLVE_MAX]);

impl Basis {
    /// Adds a row, if it is independent of those that are there.
    fn extend(&mut self, mut row: [u8; SOLVE_MAX]) -> bool {
        for (column, place) in self.0.iter_mut().enumerate() {
            let lead = row[column];
            if lead == 0 {
                continue;
            }
            let Some(reduced) = place else {
                let scale = inverse(lead);
                row.iter_mut()
                    .for_each(|cell| *cell = multiply(*cell, scale));
                *place = Some(row);
                return true;
            };
            for (cell, &other) in row.iter_mut().zip(reduced.iter()) {
                *cell ^= multiply(lead, other);
            }
        }
        false
    }
}
