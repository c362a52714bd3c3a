//! What is drawn where a trace leaves something open.

use shardgate_core::limits::PATHS_MAX;

use super::record;
use super::{Fit, Rows, Trace, Window};
use crate::path::random::Source;
use crate::predict::channel::Channel;
use crate::predict::draft::{
    Draft, SHARD_BYTES, finish, in_order, lose, paced, reorder_in_stretches, source,
};
use crate::predict::generate::wander;

const MILLI: f64 = 1e6;
const NANOS: f64 = 1e9;
/// Shards a second where a trace has no rate: 20 Mbit/s.
const PER_SECOND: f64 = 2_000.0;
/// The last window of a trace lasts so long.
const WINDOW_S: f64 = 0.015;
/// A pause in a trace is cut to this.
const PAUSE_S: f64 = 2.0;
/// A slot of a delay trace.
const SLOT: f64 = 10.0 * MILLI;
/// The load on a link that is known by its opportunities.
const LOAD: f64 = 0.8;
/// Most wait before a link.
const QUEUE: f64 = 100.0 * MILLI;
/// Sessions of a file of fits that a channel goes through.
const SESSIONS: usize = 40;

/// How the losses of a window are spread in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    Independent,
    Bursts,
}

pub(super) fn of(trace: &Trace, count: usize, seed: u64) -> Vec<Channel> {
    let name = &trace.name;
    let drawn = |mut drafts: Vec<Draft>, name: String, return_ms: f64| {
        reorder_in_stretches(&mut drafts, seed);
        finish(name, &drafts, [return_ms; PATHS_MAX])
    };
    match &trace.rows {
        Rows::Windows(windows) => [Spread::Independent, Spread::Bursts]
            .map(|spread| {
                let (drafts, return_ms) = windows_drafts(windows, spread, count, seed);
                let how = match spread {
                    Spread::Independent => "independent losses",
                    Spread::Bursts => "losses in runs",
                };
                drawn(drafts, format!("{name} ({how})"), return_ms)
            })
            .into(),
        Rows::Fits(fits) => vec![drawn(fits_drafts(fits, count, seed), name.clone(), 15.0)],
        Rows::Delays(delays) => {
            let drafts = delays_drafts(delays, count, seed);
            vec![drawn(drafts, format!("{name} (synthetic losses)"), 15.0)]
        }
        Rows::Opportunities(times) => {
            let drafts = opportunities_drafts(times, count, seed);
            vec![drawn(drafts, format!("{name} (synthetic losses)"), 20.0)]
        }
        Rows::Arrivals(arrivals) => record::channels(name, arrivals, count),
    }
}

/// Where a stretch of `need` out of `have` begins.
fn start(have: usize, need: usize, source: &mut Source) -> usize {
    let spare = u32::try_from(have.saturating_sub(need)).unwrap_or(u32::MAX);
    source.below(spare.saturating_add(1)) as usize
}

fn windows_drafts(
    windows: &[Window],
    spread: Spread,
    count: usize,
    seed: u64,
) -> (Vec<Draft>, f64) {
    let mut source = source(seed, 20);
    let length = |index: usize| match (windows.get(index), windows.get(index + 1)) {
        (Some(this), Some(next)) => (next.at_s - this.at_s).clamp(0.0, PAUSE_S),
        _ => WINDOW_S,
    };
    let in_window =
        |index: usize| windows[index].mbit_per_s * 1e6 / 8.0 / SHARD_BYTES * length(index);
    let all: f64 = (0..windows.len()).map(in_window).sum();
    let need = (count as f64 / all.max(1.0) * windows.len() as f64) as usize;
    let first = start(windows.len(), need.max(1), &mut source);
    let shortest = windows.iter().map(|window| window.rtt_ms).reduce(f64::min);
    let half = shortest.unwrap_or_default() / 2.0;
    let (mut drafts, mut at, mut owed) = (Vec::with_capacity(count), 0.0, 0.0);
    for (index, window) in windows.iter().enumerate().skip(first) {
        let nanos = length(index) * NANOS;
        owed += in_window(index);
        let shards = (owed as usize).min(count - drafts.len());
        owed = owed.fract();
        let begin = drafts.len();
        for place in 0..shards {
            let into = (place as f64 + source.uniform()) / shards as f64;
            drafts.push(Draft {
                sent: at + into * nanos,
                // What the round trip has more than the shortest is a queue on the way out.
                delay: (window.rtt_ms - half) * MILLI,
                lost: false,
                path: 0,
            });
        }
        lose_in_window(&mut drafts[begin..], window.loss, spread, &mut source);
        at += nanos;
        if drafts.len() >= count {
            break;
        }
    }
    in_order(&mut drafts);
    (drafts, half)
}

fn lose_in_window(drafts: &mut [Draft], loss: f64, spread: Spread, source: &mut Source) {
    if loss <= 0.0 || drafts.is_empty() {
        return;
    }
    if spread == Spread::Independent {
        for draft in drafts {
            draft.lost = source.uniform() < loss;
        }
        return;
    }
    // As many as it was, rounded by chance, in one run.
    let exact = loss * drafts.len() as f64;
    let lost = (exact as usize + usize::from(source.uniform() < exact.fract())).min(drafts.len());
    let begin = start(drafts.len(), lost, source);
    for draft in &mut drafts[begin..begin + lost] {
        draft.lost = true;
    }
}

fn fits_drafts(fits: &[Fit], count: usize, seed: u64) -> Vec<Draft> {
    let mut source = source(seed, 21);
    let mut drafts = paced(count, PER_SECOND, 0.0, &mut source);
    let part = count.div_ceil(SESSIONS).max(1);
    for (turn, drafts) in (0u64..).zip(drafts.chunks_mut(part)) {
        let index = source.below(u32::try_from(fits.len()).unwrap_or(u32::MAX)) as usize;
        let Some(fit) = fits.get(index) else { break };
        for draft in &mut *drafts {
            draft.delay = fit.delay_ms * MILLI;
        }
        if fit.to_bad > 0.0 && fit.to_good > 0.0 {
            let loss = fit.to_bad / (fit.to_bad + fit.to_good);
            lose(drafts, loss, 1.0 / fit.to_good, seed ^ turn << 32);
        }
    }
    wander(&mut drafts, 5.0, seed);
    in_order(&mut drafts);
    drafts
}

fn delays_drafts(delays: &[f64], count: usize, seed: u64) -> Vec<Draft> {
    let mut source = source(seed, 22);
    let mut drafts = paced(count, PER_SECOND, 0.0, &mut source);
    let slots = (count as f64 / PER_SECOND * NANOS / SLOT) as usize;
    let first = start(delays.len(), slots, &mut source);
    for draft in &mut drafts {
        let slot = first + (draft.sent / SLOT) as usize;
        // A trace that is too short begins again.
        let ms = delays.get(slot % delays.len().max(1));
        draft.delay = ms.copied().unwrap_or_default() * MILLI;
    }
    in_order(&mut drafts);
    lose(&mut drafts, 0.005, 3.0, seed);
    drafts
}

/// A link that takes one shard at each opportunity, those that wait first.
fn opportunities_drafts(times: &[f64], count: usize, seed: u64) -> Vec<Draft> {
    const BASE_MS: f64 = 20.0;
    let mut source = source(seed, 23);
    let span = times.last().copied().unwrap_or_default() - times.first().copied().unwrap_or(0.0);
    let per_second = times.len() as f64 / (span / 1e3).max(1e-3) * LOAD;
    let mut drafts = paced(count, per_second.clamp(1.0, 1e5), BASE_MS, &mut source);
    let first = start(times.len(), (count as f64 / LOAD) as usize, &mut source);
    let origin = times.get(first).copied().unwrap_or_default();
    let mut next = first;
    for index in 0..drafts.len() {
        let draft = &mut drafts[index];
        let leaves = |next: usize| times.get(next).map(|at| (at - origin) * MILLI);
        while leaves(next).is_some_and(|at| at < draft.sent) {
            next += 1;
        }
        let Some(at) = leaves(next) else {
            drafts.truncate(index);
            break;
        };
        if at > draft.sent + QUEUE {
            draft.lost = true;
        } else {
            draft.delay += at - draft.sent;
            next += 1;
        }
    }
    in_order(&mut drafts);
    lose(&mut drafts, 0.005, 3.0, seed);
    drafts
}
