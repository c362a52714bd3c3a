//! A channel as a stream of transmissions, each with its fate.

use std::collections::VecDeque;
use std::time::Duration;

use shardgate_core::limits::PATHS_MAX;
use shardgate_core::time::Time;

/// Most transmissions of a channel: bounds what a trace makes the judge remember.
pub const SHARDS_MAX: usize = 2_000_000;

/// How many sequence numbers a shard's word about its path reaches back (SPEC §3).
const SAME_PATH_BITS: u32 = u32::BITS;
/// How far behind the newest a shard without evidence is still looked for.
const PENDING_REACH: u32 = 4_096;

/// A first transmission and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// When it was sent; never before the one before it.
    pub sent: Time,
    /// When it arrived, if it was not lost; never before it was sent.
    pub received: Option<Time>,
    /// The path it took, below [`PATHS_MAX`].
    pub path: u8,
}

impl Shard {
    /// How long it was on its way, if it arrived.
    pub fn delay(&self) -> Option<Duration> {
        self.received.map(|at| at.since(self.sent))
    }
}

/// First transmissions in the order they were sent, and what follows from their fates alone.
#[derive(Clone, Debug)]
pub struct Channel {
    name: String,
    shards: Vec<Shard>,
    return_delay: [Duration; PATHS_MAX],
    /// For each shard which of the 32 before it went the same way.
    same_path: Vec<u32>,
    /// Shards that arrived, in that order.
    arrivals: Vec<u32>,
    /// When each shard was known to be missing, in nanoseconds; [`NEVER`] if it was not.
    opened: Vec<u64>,
    /// Those that were, in the order in which the core opens their holes.
    openings: Vec<u32>,
}

/// Stands for a time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

impl Channel {
    /// A channel of these transmissions, sorted by the time they were sent, of which at most
    /// [`SHARDS_MAX`] are taken. A request takes `return_delay` of its path to get back.
    pub fn new(
        name: impl Into<String>,
        mut shards: Vec<Shard>,
        return_delay: [Duration; PATHS_MAX],
    ) -> Self {
        shards.truncate(SHARDS_MAX);
        shards.sort_by_key(|shard| shard.sent);
        let mut arrivals: Vec<u32> = (0u32..)
            .zip(&shards)
            .filter(|(_, shard)| shard.received.is_some())
            .map(|(index, _)| index)
            .collect();
        arrivals.sort_by_key(|&index| (shards[index as usize].received, index));
        let same_path = same_path(&shards);
        let (opened, openings) = opened(&shards, &arrivals, &same_path);
        Self {
            name: name.into(),
            shards,
            return_delay,
            same_path,
            arrivals,
            opened,
            openings,
        }
    }

    /// What it is called in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All transmissions, in the order they were sent.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Shards that never arrived.
    pub fn losses(&self) -> usize {
        self.shards.len() - self.arrivals.len()
    }

    /// Shards that came after they were known to be missing.
    pub fn late(&self) -> usize {
        let is_late =
            |(shard, opened): &(&Shard, &u64)| **opened != NEVER && shard.received.is_some();
        self.shards.iter().zip(&self.opened).filter(is_late).count()
    }

    /// How long a request takes to get back on a path.
    pub(super) fn return_delay(&self, path: u8) -> Duration {
        let delay = self.return_delay.get(usize::from(path));
        delay.copied().unwrap_or_default()
    }

    pub(super) fn same_path(&self) -> &[u32] {
        &self.same_path
    }

    pub(super) fn arrivals(&self) -> &[u32] {
        &self.arrivals
    }

    /// When each shard was known to be missing, by the rule of SPEC §3 alone: computed apart from
    /// the core's hole logic, so that a fault there shows as a delay.
    pub(super) fn opened(&self) -> &[u64] {
        &self.opened
    }

    /// The shards that were known to be missing, in the order of their holes.
    pub(super) fn openings(&self) -> &[u32] {
        &self.openings
    }

    /// How many paths it uses, from the largest id.
    pub(super) fn paths(&self) -> u8 {
        let largest = self.shards.iter().map(|shard| shard.path).max();
        largest.map_or(1, |path| path.saturating_add(1))
    }
}

fn same_path(shards: &[Shard]) -> Vec<u32> {
    let mut words = [0u32; PATHS_MAX];
    let mut before = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = usize::from(shard.path) % PATHS_MAX;
        before.push(words[path]);
        for word in &mut words {
            *word <<= 1;
        }
        words[path] |= 1;
    }
    // What was before the first is nobody's; that nothing is missing there does no harm.
    if let Some(first) = shards.first()
        && shards.iter().all(|shard| shard.path == first.path)
    {
        before.fill(u32::MAX);
    }
    before
}

fn opened(shards: &[Shard], arrivals: &[u32], same_path: &[u32]) -> (Vec<u64>, Vec<u32>) {
    let mut openings = Vec::new();
    let mut newest = 0;
    let mut opened = vec![NEVER; shards.len()];
    let mut has_come = vec![false; shards.len()];
    // Per path: how far its shards were looked at, and which of those were out of reach.
    let mut looked = [0usize; PATHS_MAX];
    let mut pending: [VecDeque<u32>; PATHS_MAX] = Default::default();
    for &arrival in arrivals {
        let Shard { path, received, .. } = shards[arrival as usize];
        let path = usize::from(path) % PATHS_MAX;
        has_come[arrival as usize] = true;
        for index in looked[path]..arrival as usize {
            if usize::from(shards[index].path) % PATHS_MAX == path && !has_come[index] {
                pending[path].push_back(index as u32);
            }
        }
        looked[path] = looked[path].max(arrival as usize);
        let from = openings.len();
        let reaches_all = same_path[arrival as usize] == u32::MAX;
        pending[path].retain(|&index| {
            let back = arrival.wrapping_sub(index);
            if has_come[index as usize] || (index < arrival && back > PENDING_REACH && !reaches_all)
            {
                return false;
            }
            let is_shown = index < arrival && (reaches_all || back <= SAME_PATH_BITS);
            if is_shown {
                opened[index as usize] = received.map_or(NEVER, Time::as_nanos);
                openings.push(index);
            }
            !is_shown
        });
        // A shard that is not the newest goes through those before it backwards.
        if arrival < newest {
            openings[from..].reverse();
        }
        newest = newest.max(arrival);
    }
    (opened, openings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(fates: &[(u64, Option<u64>, u8)]) -> Channel {
        let shards = fates
            .iter()
            .map(|&(sent, received, path)| Shard {
                sent: Time(sent),
                received: received.map(Time),
                path,
            })
            .collect();
        Channel::new("test", shards, [Duration::ZERO; PATHS_MAX])
    }

    #[test]
    fn a_hole_opens_when_a_later_shard_of_its_path_comes() {
        // The second is lost, the third late behind the fourth.
        let one = channel(&[
            (0, Some(10), 0),
            (1, None, 0),
            (2, Some(20), 0),
            (3, Some(13), 0),
        ]);
        assert_eq!(one.opened(), [NEVER, 13, 13, NEVER]);
        assert_eq!((one.losses(), one.late()), (1, 1));
        assert_eq!(one.arrivals(), [0, 3, 2]);
        let two = channel(&[
            (0, Some(50), 1),
            (1, Some(10), 0),
            (2, None, 1),
            (3, Some(13), 0),
            (4, Some(60), 1),
        ]);
        assert_eq!(
            two.opened(),
            [NEVER, NEVER, 60, NEVER, NEVER],
            "the other path says nothing"
        );
        assert_eq!(two.same_path()[4], 0b1010);
    }

    #[test]
    fn what_is_out_of_reach_opens_only_where_all_went_one_way() {
        let far = |path: u8| {
            let mut fates = vec![(0, None, 1)];
            fates.extend((1..40).map(|at| (at, Some(at + 10), path)));
            fates.push((40, Some(55), 1));
            channel(&fates).opened()[0]
        };
        assert_eq!(far(0), NEVER);
        assert_eq!(far(1), 11);
    }
}
