//! The receiver's side: what arrives, and what is rebuilt from it.

use arrayvec::ArrayVec;
use shardgate_erasure::{Coder, SOLVE_MAX};

use super::equations::{EQUATIONS_MAX, Equation, Equations, Mask, Run, System};
use super::history::{HISTORY, History, is_within_reach};
use super::{WINDOW_MAX, coded_meta, padded, parse_coded};
use crate::seq::Seq;
use crate::wire::shard::{CODED_META_LEN, RepairHeader, SourceHeader};

/// How far a window may reach ahead of everything seen: one window, all of it lost.
const AHEAD_MAX: i32 = WINDOW_MAX as i32;

/// Runs per call that look solvable and prove singular. Each costs its choice only: symbols are
/// not touched before the system is known to be regular.
const SINGULAR_MAX: usize = 4;

/// Multiply-accumulates per call after which no further system is begun; what can be solved
/// then waits for the next shard. The systems of an ordinary burst stay far below.
const WORK_MAX: usize = 1_024;

/// A source shard that was rebuilt and matched its checksum.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt<'a> {
    /// Its header as it was sent; `same_path` and `sent_at_us`, which are not coded, are zero.
    pub header: SourceHeader,
    /// Its payload.
    pub payload: &'a [u8],
}

/// What became of repair shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecoderStats {
    /// Repair shards that came.
    pub equations: u64,
    /// Of those: nothing was missing in the window when it came, or nothing any more later.
    pub needless: u64,
    /// A header that contradicts itself, a window that reaches too far ahead, or a symbol that is
    /// too long, or shorter than a source shard in its window.
    pub malformed: u64,
    /// Something missing was already out of reach when it came, or went there while it waited.
    pub too_old: u64,
    /// The same repair shard was waiting already.
    pub repeated: u64,
    /// Given up for a newer one, all places being taken.
    pub crowded_out: u64,
    /// Source shards rebuilt.
    pub rebuilt: u64,
    /// Source shards rebuilt wrong, or without a checksum; none of them was released.
    pub rebuilt_wrong: u64,
    /// Systems that looked solvable.
    pub systems: u64,
    /// Those of them whose equations were not independent, at that time.
    pub singular: u64,
    /// Unknowns of the largest system solved.
    pub largest_system: u64,
}

/// Rebuilds the lost source shards of one stream.
///
/// Memory is fixed: 512 source shards and 32 repair shards, about 780 kB at 1,414 bytes of
/// payload. It is indexed by number; nothing in a repair shard makes it grow.
///
/// Work is bounded, whatever an authenticated peer sends. A repair shard costs 192 look-ups; over
/// its life at most 192 multiply-accumulates to subtract what is there, and e ≤ 16 as its share of
/// solving for e. Per call, no system is begun after 1,024 multiply-accumulates, and one takes at
/// most 16 · 192 + 16²; at most 32 systems succeed, as each uses up an equation, and at most 4 fail.
pub struct Decoder {
    coder: Coder,
    history: History,
    pub(super) equations: Equations,
    /// The symbols of the equations, by place.
    symbols: Box<[u8]>,
    stride: usize,
    newest: Option<Seq>,
    /// Whether something may be solvable that was not looked at.
    changed: bool,
    stats: DecoderStats,
}

impl Decoder {
    /// A decoder for payloads of up to so many bytes. Allocates all that it will ever need.
    pub fn new(coder: Coder, payload_max: usize) -> Self {
        let stride = padded(CODED_META_LEN + payload_max.min(usize::from(u16::MAX)));
        Self {
            coder,
            history: History::new(stride),
            equations: Equations::new(),
            symbols: vec![0; EQUATIONS_MAX * stride].into_boxed_slice(),
            stride,
            newest: None,
            changed: false,
            stats: DecoderStats::default(),
        }
    }

    /// Notes a source shard that was placed, and hands over what can be rebuilt now.
    pub fn source(
        &mut self,
        header: &SourceHeader,
        payload: &[u8],
        solved: impl FnMut(Rebuilt<'_>),
    ) {
        let behind = self
            .newest
            .map_or(0, |newest| newest.distance_from(header.seq));
        if behind >= HISTORY as i32 || self.history.has(header.seq) {
            return;
        }
        self.advance(header.seq);
        if self
            .history
            .insert(header.seq, &coded_meta(header), payload)
            && self.equations.len() > 0
        {
            self.found(header.seq);
            self.solve(solved);
        }
    }

    /// Notes a repair shard, and hands over what can be rebuilt now.
    pub fn repair(
        &mut self,
        header: &RepairHeader,
        symbol: &[u8],
        solved: impl FnMut(Rebuilt<'_>),
    ) {
        self.stats.equations += 1;
        let window_len = u32::from(header.window_len);
        let sound = (1..=WINDOW_MAX as u32).contains(&window_len)
            && usize::from(header.coded_len) == symbol.len()
            && symbol.len() > CODED_META_LEN
            && padded(symbol.len()) <= self.stride;
        let last = header.window_start.plus(window_len.wrapping_sub(1));
        let ahead = self.newest.map_or(0, |newest| last.distance_from(newest));
        if !sound || ahead > AHEAD_MAX {
            self.stats.malformed += 1;
            return;
        }
        let newest = match self.newest {
            Some(newest) if ahead <= 0 => newest,
            _ => last,
        };
        if !is_within_reach(header.window_start, newest) {
            self.stats.too_old += 1;
            return;
        }
        let mut unknown = Mask::EMPTY;
        for offset in 0..window_len {
            if !self.history.has(header.window_start.plus(offset)) {
                unknown.insert(offset);
            }
        }
        if unknown.is_empty() {
            self.stats.needless += 1;
            return;
        }
        self.advance(last);
        self.hold(header, symbol, unknown);
        self.solve(solved);
    }

    /// Whether a repair shard is held that covers this missing source shard, so that it may be
    /// rebuilt soon.
    #[cfg(test)]
    pub(super) fn recoverable_soon(&self, seq: Seq) -> bool {
        self.equations.wait_for(seq)
    }

    /// Forgets all shards: the peer has begun anew. Keeps the memory and the counts.
    pub fn reset(&mut self) {
        self.history.reset();
        self.equations.reset();
        self.newest = None;
        self.changed = false;
    }

    /// What became of repair shards.
    pub fn stats(&self) -> DecoderStats {
        self.stats
    }

    /// Moves the newest number ahead and drops what that leaves behind.
    fn advance(&mut self, seq: Seq) {
        if self.newest.is_none_or(|newest| newest.is_before(seq)) {
            self.newest = Some(seq);
            if self.equations.len() > 0 {
                self.stats.too_old += self.equations.expire(seq);
            }
        }
    }

    /// Notes in all equations that a source shard is there.
    fn found(&mut self, seq: Seq) {
        let (touched, dropped) = self.equations.found(seq);
        self.changed |= touched > dropped;
        self.stats.needless += dropped;
    }

    /// Keeps a repair shard as an equation.
    fn hold(&mut self, header: &RepairHeader, symbol: &[u8], unknown: Mask) {
        let (window_start, window_len) = (header.window_start, header.window_len);
        let repair_index = header.repair_index;
        let same = |held: &Equation| {
            (held.window_start, held.window_len, held.repair_index)
                == (window_start, window_len, repair_index)
        };
        if self.equations.iter().any(same) {
            self.stats.repeated += 1;
            return;
        }
        let (place, crowded) = self.equations.make_room();
        self.stats.crowded_out += u64::from(crowded);
        let Some(room) = self.symbols.get_mut(place * self.stride..) else {
            return;
        };
        let Some((to_symbol, padding)) = room
            .get_mut(..self.stride)
            .and_then(|room| room.split_at_mut_checked(symbol.len()))
        else {
            return;
        };
        to_symbol.copy_from_slice(symbol);
        // A system is as long as its longest symbol, so the whole place is made ready.
        padding.fill(0);
        self.equations.insert(
            place,
            Equation {
                window_start,
                window_len,
                repair_index,
                unknown,
                unsubtracted: Mask::below(u32::from(window_len)).without(&unknown),
                len: padded(symbol.len()),
            },
        );
        self.changed = true;
    }

    /// Solves whatever can be, one system after the other: each may make the next one smaller.
    fn solve(&mut self, mut solved: impl FnMut(Rebuilt<'_>)) {
        let Some(newest) = self.newest.filter(|_| self.changed) else {
            return;
        };
        let mut tried: ArrayVec<Run, SINGULAR_MAX> = ArrayVec::new();
        let (mut work, mut singular) = (0, 0);
        while let Some(run) = self.equations.next_run(newest, &tried) {
            if work >= WORK_MAX {
                return;
            }
            self.stats.systems += 1;
            match self.equations.choose(run) {
                Some(system) => {
                    work += self.solve_system(&system, &mut solved);
                    tried.clear();
                }
                None => {
                    self.stats.singular += 1;
                    singular += 1;
                    if singular == SINGULAR_MAX {
                        break;
                    }
                    tried.push(run);
                }
            }
        }
        self.changed = false;
    }

    /// Solves a regular system and uses its equations up; returns its multiply-accumulates.
    fn solve_system(&mut self, system: &System, solved: &mut impl FnMut(Rebuilt<'_>)) -> usize {
        let size = system.unknowns.len();
        let (work, longest) = self.subtract_known(system);
        let Some(len) = longest else {
            return work;
        };
        let mut factors: ArrayVec<u8, { SOLVE_MAX * SOLVE_MAX }> = ArrayVec::new();
        for &place in &system.equations {
            let row = self.equations.row(place, &system.unknowns);
            factors.extend(row.into_iter().take(size));
            self.equations.remove(place);
        }
        let mut symbols: ArrayVec<&mut [u8], SOLVE_MAX> = ArrayVec::new();
        for (place, symbol) in self.symbols.chunks_exact_mut(self.stride).enumerate() {
            if system.equations.contains(&place) {
                symbols.extend(symbol.get_mut(..len));
            }
        }
        // The equations were chosen as independent ones, so this cannot fail.
        let is_solved = self.coder.solve(&factors, &mut symbols).is_ok();
        let mut found: ArrayVec<Seq, SOLVE_MAX> = ArrayVec::new();
        let unknowns = system.unknowns.iter().filter(|_| is_solved);
        for (&seq, symbol) in unknowns.zip(&symbols) {
            match parse_coded(seq, symbol) {
                Some((header, payload))
                    if self.history.insert(seq, &coded_meta(&header), payload) =>
                {
                    found.push(seq);
                    solved(Rebuilt { header, payload });
                }
                _ => self.stats.rebuilt_wrong += 1,
            }
        }
        drop(symbols);
        self.stats.rebuilt += found.len() as u64;
        self.stats.largest_system = self.stats.largest_system.max(size as u64);
        for seq in found {
            self.found(seq);
        }
        work + size * size
    }

    /// Subtracts from the equations of a system what is there of their windows. Returns the
    /// multiply-accumulates, and the length of the longest symbol, unless an equation was
    /// contradicted by a source shard and had to be dropped.
    fn subtract_known(&mut self, system: &System) -> (usize, Option<usize>) {
        let (mut work, mut longest) = (0, Some(0));
        for &place in &system.equations {
            let symbol = self.symbols.get_mut(place * self.stride..);
            let (Some(equation), Some(symbol)) = (self.equations.get_mut(place), symbol) else {
                return (work, None);
            };
            work += equation.unsubtracted.count() as usize;
            if subtract(self.coder, &self.history, equation, symbol) {
                longest = longest.map(|longest: usize| longest.max(equation.len));
            } else {
                self.equations.remove(place);
                self.stats.malformed += 1;
                longest = None;
            }
        }
        (work, longest)
    }
}

/// Subtracts from an equation's symbol everything of its window that is there; false if a source
/// shard is longer than the symbol, which no honest sum is.
fn subtract(coder: Coder, history: &History, equation: &mut Equation, symbol: &mut [u8]) -> bool {
    let Some(symbol) = symbol.get_mut(..equation.len) else {
        return false;
    };
    for offset in equation.unsubtracted.iter() {
        let seq = equation.window_start.plus(offset);
        let factor = shardgate_erasure::coefficient(seq.0, equation.repair_index);
        let subtracted = history
            .get(seq)
            .is_some_and(|coded| coder.multiply_accumulate(factor, coded, symbol).is_ok());
        if !subtracted {
            return false;
        }
    }
    equation.unsubtracted = Mask::EMPTY;
    true
}
