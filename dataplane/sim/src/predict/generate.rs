//! The project's own channels: seeded, one for each way in which a WAN goes wrong.

use shardgate_core::limits::PATHS_MAX;

use super::channel::Channel;
use super::draft::{
    Draft, Mechanism, SHARD_BYTES, between, exponential, finish, in_order, lose, paced, reorder,
    reorder_in_stretches, source,
};

const MILLI: f64 = 1e6;
const NANOS: f64 = 1e9;
/// Shards a second, where a channel has no rate of its own: 20 Mbit/s.
const PER_SECOND: f64 = 2_000.0;

/// A channel's recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// 5 % of shards 1 to 8 ms late, 1 % lost, 20 ms one way.
    Stragglers,
    /// Unequal crypto units on a short path with few losses.
    Units,
    /// A radio: losses in runs, and bursts held for multiples of 8 ms.
    Radio,
    /// Two unequal paths with a longer route inside each.
    Paths,
    /// Outages of 30 to 400 ms on a path with stragglers.
    Outages,
    /// Bandwidth that steps, and a queue that overflows.
    Steps,
    /// Heavy losses in long runs.
    Runs,
    /// A path that changes: its delay jumps, and so does how it reorders.
    Changes,
}

impl Recipe {
    /// Knobs are tuned on these.
    pub const TUNED_ON: [Recipe; 4] = [Self::Units, Self::Outages, Self::Runs, Self::Changes];
    /// And reported on these, unless traces are given.
    pub const REPORTED_ON: [Recipe; 4] = [Self::Stragglers, Self::Radio, Self::Paths, Self::Steps];

    /// The channel's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stragglers => "stragglers",
            Self::Units => "units",
            Self::Radio => "radio",
            Self::Paths => "paths",
            Self::Outages => "outages",
            Self::Steps => "steps",
            Self::Runs => "runs",
            Self::Changes => "changes",
        }
    }

    /// `count` shards of the channel.
    pub fn channel(self, count: usize, seed: u64) -> Channel {
        let seed = crate::seeds::seed_for(seed, &[self as u64]);
        let mut returns = [20.0; PATHS_MAX];
        let drafts = match self {
            Self::Stragglers => stragglers(count, seed),
            Self::Units => {
                returns = [5.0; PATHS_MAX];
                units(count, seed)
            }
            Self::Radio => radio(count, seed),
            Self::Paths => {
                returns[1] = 45.0;
                paths(count, seed)
            }
            Self::Outages => outages(count, seed),
            Self::Steps => steps(count, seed),
            Self::Runs => runs(count, seed),
            Self::Changes => changes(count, seed),
        };
        finish(self.name().into(), &drafts, returns)
    }
}

const LATE: Mechanism = Mechanism::Stragglers {
    share: 0.05,
    min: 1.0,
    max: 8.0,
};

fn stragglers(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, PER_SECOND, 20.0, &mut source(seed, 0));
    reorder(&mut drafts, LATE, &mut source(seed, 1));
    lose(&mut drafts, 0.01, 1.0, seed);
    drafts
}

fn units(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, 2.0 * PER_SECOND, 5.0, &mut source(seed, 0));
    let mechanism = Mechanism::Units {
        count: 3,
        stalls: 20.0,
        stall: 3.0,
    };
    reorder(&mut drafts, mechanism, &mut source(seed, 1));
    lose(&mut drafts, 0.005, 1.0, seed);
    drafts
}

fn radio(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, PER_SECOND, 20.0, &mut source(seed, 0));
    wander(&mut drafts, 6.0, seed);
    in_order(&mut drafts);
    let mechanism = Mechanism::Quanta { per_second: 2.0 };
    reorder(&mut drafts, mechanism, &mut source(seed, 1));
    lose(&mut drafts, 0.01, 3.0, seed);
    drafts
}

fn paths(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, 2.0 * PER_SECOND, 20.0, &mut source(seed, 0));
    let mut turns = source(seed, 1);
    let (mut short, mut long): (Vec<Draft>, Vec<Draft>) = (Vec::new(), Vec::new());
    for mut draft in drafts.drain(..) {
        if turns.uniform() < 0.65 {
            short.push(draft);
        } else {
            (draft.path, draft.delay) = (1, 45.0 * MILLI);
            long.push(draft);
        }
    }
    lose(&mut short, 0.01, 1.0, seed);
    lose(&mut long, 0.02, 4.0, seed ^ 1);
    for (part, drafts, more) in [(2, &mut short, 3.0), (3, &mut long, 6.0)] {
        let mechanism = Mechanism::Routes { share: 0.04, more };
        reorder(drafts, mechanism, &mut source(seed, part));
    }
    short.append(&mut long);
    short.sort_by(|a, b| a.sent.total_cmp(&b.sent));
    short
}

fn outages(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, PER_SECOND, 20.0, &mut source(seed, 0));
    reorder(&mut drafts, LATE, &mut source(seed, 1));
    lose(&mut drafts, 0.003, 1.0, seed);
    let mut draws = source(seed, 2);
    let (mut begin, mut end) = (0.0, 0.0);
    for draft in &mut drafts {
        if draft.sent > end {
            begin = draft.sent + exponential(&mut draws, 4.0 * NANOS);
            end = begin + between(&mut draws, 30.0..400.0) * MILLI;
        }
        draft.lost |= (begin..end).contains(&draft.sent);
    }
    drafts
}

/// A link whose rate steps every few seconds, under a load that does not.
fn steps(count: usize, seed: u64) -> Vec<Draft> {
    const QUEUE: f64 = 80.0 * MILLI;
    let mut drafts = paced(count, PER_SECOND, 20.0, &mut source(seed, 0));
    let mut draws = source(seed, 1);
    let (mut rate, mut until, mut idle_at) = (30.0, 0.0, 0.0f64);
    for draft in &mut drafts {
        if draft.sent >= until {
            rate = between(&mut draws, 16.0..40.0);
            until = draft.sent + between(&mut draws, 1.0..6.0) * NANOS;
        }
        let wait = (idle_at - draft.sent).max(0.0);
        if wait > QUEUE {
            draft.lost = true;
            continue;
        }
        idle_at = draft.sent + wait + SHARD_BYTES * 8.0 / (rate * 1e6) * NANOS;
        draft.delay += idle_at - draft.sent;
    }
    let mechanism = Mechanism::Stragglers {
        share: 0.02,
        min: 1.0,
        max: 10.0,
    };
    reorder(&mut drafts, mechanism, &mut draws);
    lose(&mut drafts, 0.004, 1.0, seed);
    drafts
}

fn runs(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, PER_SECOND, 35.0, &mut source(seed, 0));
    let mechanism = Mechanism::Routes {
        share: 0.03,
        more: 5.0,
    };
    reorder(&mut drafts, mechanism, &mut source(seed, 1));
    lose(&mut drafts, 0.05, 8.0, seed);
    drafts
}

fn changes(count: usize, seed: u64) -> Vec<Draft> {
    let mut drafts = paced(count, PER_SECOND, 0.0, &mut source(seed, 0));
    let mut draws = source(seed, 1);
    let (mut delay, mut until) = (20.0, 0.0);
    for draft in &mut drafts {
        if draft.sent >= until {
            delay = between(&mut draws, 8.0..60.0);
            until = draft.sent + between(&mut draws, 8.0..25.0) * NANOS;
        }
        draft.delay = delay * MILLI;
    }
    in_order(&mut drafts);
    reorder_in_stretches(&mut drafts, seed);
    lose(&mut drafts, 0.01, 2.0, seed);
    drafts
}

/// A delay that wanders between zero and so many milliseconds more.
pub(super) fn wander(drafts: &mut [Draft], more_ms: f64, seed: u64) {
    let mut draws = source(seed, 7);
    let (mut at, mut before) = (0.0f64, 0.0);
    for draft in drafts {
        // Forgets itself within half a second.
        let share = ((draft.sent - before) / (0.5 * NANOS)).min(1.0);
        at += share * -at + (2.0 * share).sqrt() * draws.normal() / 2.0;
        before = draft.sent;
        draft.delay += (0.5 + at).clamp(0.0, 1.0) * more_ms * MILLI;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_channels_lose_and_reorder_and_are_the_same_each_time() {
        for recipe in [Recipe::TUNED_ON, Recipe::REPORTED_ON].concat() {
            let channel = recipe.channel(30_000, 1);
            let name = channel.name();
            assert_eq!(channel.shards().len(), 30_000, "{name}");
            let per_1000 = |count: usize| count as f64 / 30.0;
            let (lost, late) = (per_1000(channel.losses()), per_1000(channel.late()));
            assert!((2.0..150.0).contains(&lost), "{name}: {lost} lost");
            assert!((2.5..200.0).contains(&late), "{name}: {late} late");
            assert_eq!(channel.shards(), recipe.channel(30_000, 1).shards());
            assert_ne!(channel.shards(), recipe.channel(30_000, 2).shards());
        }
    }
}
