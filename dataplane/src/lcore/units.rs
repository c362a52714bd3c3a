//! How an rx lcore reaches the crypto units: its own, or those on other lcores over SPSC rings.

use std::sync::atomic::Ordering;

use shardgate_core::limits::UNIT_LAG_MAX;
use shardgate_core::seal::{Opened, Received, Unsealed};
use shardgate_core::time::Time;
use shardgate_dpdk::{BURST, Burst, Mbuf, Producer, RingItem};

use super::tx::Tx;
use super::unit::Unit;
use crate::engine::shared::Shared;

/// How far a unit has got with what it was handed.
#[derive(Default)]
struct Progress {
    /// Packets handed over so far.
    handed: u64,
    /// How many had been handed over at some time: once the unit has done as many, it has caught up
    /// with that time.
    mark: (u64, Time),
    settled: Time,
}

impl Progress {
    /// The time before which everything handed over has been dealt with; the unit has done `done`
    /// packets, and `waiting` more are about to be handed over.
    fn settled(&mut self, now: Time, waiting: usize, done: u64) -> Time {
        let (count, time) = self.mark;
        if done >= self.handed && waiting == 0 {
            self.settled = now;
            self.mark = (self.handed, now);
        } else if done >= count {
            self.settled = time;
            self.mark = (self.handed + waiting as u64, now);
        }
        // A unit that is stuck cannot hold everybody up.
        self.settled.max(now - UNIT_LAG_MAX)
    }
}

/// A ring to one of several lcores.
struct Branch<T: RingItem> {
    ring: Producer<T>,
    burst: Burst<T>,
    progress: Progress,
}

impl<T: RingItem> Branch<T> {
    fn flush(&mut self) {
        self.progress.handed += self.ring.push(&mut self.burst) as u64;
    }
}

/// Rings to the same stage of several lcores, served round robin.
pub struct RoundRobin<T: RingItem> {
    branches: Vec<Branch<T>>,
    next: usize,
}

impl<T: RingItem> RoundRobin<T> {
    /// Serves these rings in turn.
    pub fn new(rings: Vec<Producer<T>>) -> Self {
        let branch = |ring| Branch {
            ring,
            burst: Burst::new(),
            progress: Progress::default(),
        };
        Self {
            branches: rings.into_iter().map(branch).collect(),
            next: 0,
        }
    }

    /// How many more packets can be handed over without any finding its ring full.
    #[inline]
    fn credit(&self) -> usize {
        let room = |branch: &Branch<T>| branch.ring.free().saturating_sub(branch.burst.len());
        self.branches.iter().map(room).min().unwrap_or(0) * self.branches.len()
    }

    /// Hands a packet to the next unit. The caller has reserved credit for it.
    #[inline]
    fn push(&mut self, packet: T) {
        let index = self.next;
        self.next = if index + 1 == self.branches.len() {
            0
        } else {
            index + 1
        };
        let branch = &mut self.branches[index];
        if branch.burst.is_full() {
            branch.flush();
        }
        branch.burst.push(packet);
    }

    #[inline]
    fn flush(&mut self) {
        for branch in &mut self.branches {
            if !branch.burst.is_empty() {
                branch.flush();
            }
        }
    }

    /// The time before which everything handed over has been dealt with; `done` says how many
    /// packets the unit with an index has done.
    fn settled(&mut self, now: Time, done: impl Fn(usize) -> u64) -> Time {
        let branches = self.branches.iter_mut().enumerate();
        let settled = branches
            .map(|(unit, branch)| branch.progress.settled(now, branch.burst.len(), done(unit)));
        settled.min().unwrap_or(now)
    }
}

/// The crypto units as an rx lcore sees them.
pub enum Units {
    /// It is one itself.
    Inline(Box<Unit>),
    /// They run on lcores of their own.
    Lcores {
        /// Where shards go to be sealed.
        seal: RoundRobin<Unsealed<Mbuf>>,
        /// Where datagrams go to be opened.
        open: RoundRobin<Received<Mbuf>>,
    },
}

impl Units {
    /// How many shards can be handed over now.
    #[inline]
    pub fn seal_credit(&self, tx: &[Option<Tx>], wan_ports: &[usize]) -> usize {
        match self {
            Units::Inline(_) => {
                let credit = |port: &usize| tx.get(*port)?.as_ref().map(Tx::credit);
                wan_ports.iter().filter_map(credit).min().unwrap_or(0)
            }
            Units::Lcores { seal, .. } => seal.credit(),
        }
    }

    /// Hands over a shard to be sealed and sent. The caller has reserved credit for it.
    #[inline]
    pub fn seal(&mut self, shard: Unsealed<Mbuf>, tx: &mut [Option<Tx>]) {
        match self {
            Units::Inline(unit) => {
                if let Some((port, datagram)) = unit.seal(shard)
                    && let Some(Some(tx)) = tx.get_mut(port)
                {
                    tx.push(datagram);
                }
            }
            Units::Lcores { seal, .. } => seal.push(shard),
        }
    }

    /// Whether a burst of datagrams can be handed over now.
    #[inline]
    pub fn can_open_burst(&self) -> bool {
        match self {
            Units::Inline(_) => true,
            Units::Lcores { open, .. } => open.credit() >= BURST,
        }
    }

    /// What an inline unit could not send.
    #[inline]
    pub fn take_unsent(&mut self) -> Option<Mbuf> {
        match self {
            Units::Inline(unit) => unit.unsent.pop(),
            Units::Lcores { .. } => None,
        }
    }

    /// Hands over a datagram to be opened; an inline unit returns it with the rx lcore it goes to.
    #[inline]
    pub fn open(&mut self, datagram: Received<Mbuf>) -> Option<(usize, Opened<Mbuf>)> {
        match self {
            Units::Inline(unit) => unit.open(datagram),
            Units::Lcores { open, .. } => {
                open.push(datagram);
                None
            }
        }
    }

    /// The time before which everything received here has been opened, or has died: now, less what
    /// the units still have in hand.
    pub fn settled(&mut self, now: Time, shared: &Shared, rx_index: usize) -> Time {
        match self {
            Units::Inline(_) => now,
            Units::Lcores { open, .. } => {
                let units = &shared.lcores[shared.rx_lcores..];
                open.settled(now, |unit| {
                    units[unit].dealt_with[rx_index].load(Ordering::Acquire)
                })
            }
        }
    }

    /// Hands over what was gathered for each unit.
    #[inline]
    pub fn flush(&mut self) {
        if let Units::Lcores { seal, open } = self {
            seal.flush();
            open.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn what_a_unit_has_in_hand_is_not_settled() {
        let mut unit = Progress::default();
        assert_eq!(unit.settled(ms(1), 0, 0), ms(1), "nothing was handed over");
        unit.handed = 8;
        assert_eq!(
            unit.settled(ms(2), 0, 0),
            ms(1),
            "the 8 came after the first look"
        );
        assert_eq!(unit.settled(ms(3), 0, 7), ms(1));
        unit.handed = 16;
        assert_eq!(
            unit.settled(ms(4), 0, 8),
            ms(2),
            "it has caught up with the second look"
        );
        assert_eq!(unit.settled(ms(5), 0, 16), ms(5), "and now with everything");
        assert_eq!(
            unit.settled(ms(6), 1, 16),
            ms(5),
            "but one more is about to come"
        );
    }

    #[test]
    fn a_stuck_unit_is_waited_for_no_longer_than_the_limit() {
        let mut unit = Progress {
            handed: 1,
            ..Progress::default()
        };
        unit.settled(ms(1), 0, 0);
        assert_eq!(unit.settled(ms(90), 0, 0), Time::ZERO);
        let lag = UNIT_LAG_MAX.as_millis() as u64;
        assert_eq!(unit.settled(ms(1_000), 0, 0), ms(1_000 - lag));
    }
}
