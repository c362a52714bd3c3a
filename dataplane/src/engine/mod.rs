//! The engine: starts the lcores, tells them what the control thread says, shows what they count,
//! and stops them in order.
//!
//! It lives on the main lcore, which is the control thread; nothing here is on the way of a
//! packet, except for the few that concern the gateway itself.

pub mod predictions;
pub mod shared;
mod snapshot;
mod start;
mod topology;
mod wiring;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Sender;
use serde::Serialize;
use shardgate_core::buffer::{Buffer, BufferPool, Meta};
use shardgate_core::time::Time;
use shardgate_dpdk::{Burst, Consumer, Eal, LcoreHandle, Mbuf, Pool, Producer};
use thiserror::Error;

use self::shared::{LcoreKind, LcoreReport, Phase, Shared};
pub use self::snapshot::{
    DropsByReason, LcoreSnapshot, PeerSnapshot, PoolSnapshot, PortSnapshot, Snapshot, StatsReader,
    UnitSnapshot,
};
pub use self::topology::Topology;
use crate::command::{Command, SendKey};
use crate::config::EngineConfig;
use crate::decisions::Decided;
use crate::placement::PlacementError;

/// How long draining may take.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// An engine through which nothing has moved for this long is empty.
const DRAINED_AFTER: Duration = Duration::from_millis(20);

/// Why an engine does not start, or did not stop well.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The lcores cannot be placed as asked.
    #[error("{0}")]
    Placement(#[from] PlacementError),
    /// DPDK refused.
    #[error("{0}")]
    Dpdk(#[from] shardgate_dpdk::Error),
    /// The CPUs of this process cannot be read.
    #[error("cannot tell which CPUs this process may use: {0}")]
    Cpus(std::io::Error),
}

/// Names a posted command until every lcore has carried it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What an engine leaves behind.
#[derive(Clone, Debug, Serialize)]
pub struct FinalReport {
    /// The last counters.
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// Packets that were inside when it stopped and could not leave.
    pub discarded: usize,
    /// The pools after everything has let go of them: `in_use` must be 0.
    pub pools_at_exit: Vec<PoolSnapshot>,
}

/// Ends the lcores when the engine goes away in another way than by [`Engine::stop`]: their handles
/// wait for them.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set_phase(Phase::Stop);
    }
}

/// A running dataplane.
pub struct Engine {
    /// First, so that it is dropped before the handles of the lcores.
    stop_on_drop: StopOnDrop,
    shared: Arc<Shared>,
    reader: StatsReader,
    topology: Topology,
    lcores: Vec<LcoreHandle<LcoreReport>>,
    mailboxes: Vec<Sender<(u64, Command)>>,
    /// Commands that not all lcores have got yet, oldest first.
    deferred: VecDeque<(u64, Command)>,
    /// Whether the lcores that come first have got the oldest of them.
    is_first_posted: bool,
    posted: u64,
    /// Which exception ring is looked at first.
    first_exception: usize,
    exceptions: Vec<Consumer<Mbuf>>,
    arrived: Burst,
    to_lcores: Vec<Producer<Mbuf>>,
    control_pool: Pool,
    /// Seals of each hand of each peer when its send key was installed.
    seals_before: Vec<Vec<u64>>,
    eal: Eal,
}

impl Engine {
    /// Works out everything that can be without touching a device.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn check(config: &EngineConfig) -> Result<Topology, EngineError> {
        Topology::plan(config, &start::cpus()?)
    }

    /// Starts the dataplane; the calling thread becomes its main lcore.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        start::start(&config)
    }

    /// What was started.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The lcores' clock.
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// A port's Ethernet address.
    pub fn port_mac(&self, port: usize) -> [u8; 6] {
        self.shared.ports.get(port).map_or([0; 6], |port| port.mac)
    }

    /// Copies the next frame that concerns the gateway itself into `frame`: a handshake, ARP, ICMP.
    /// Returns its port and when it arrived.
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Option<(usize, Time)> {
        self.pass_on_deferred();
        if self.arrived.is_empty() {
            // In turn, so that a flood on one queue does not shut out the others.
            let rings = self.exceptions.len();
            self.first_exception = (self.first_exception + 1) % rings.max(1);
            for step in 0..rings {
                let ring = &mut self.exceptions[(self.first_exception + step) % rings];
                if ring.pop(&mut self.arrived) > 0 {
                    break;
                }
            }
        }
        let mbuf = self.arrived.pop_at(0)?;
        frame.clear();
        frame.extend_from_slice(mbuf.data());
        Some((usize::from(mbuf.meta().port), mbuf.meta().rx_time))
    }

    /// Hands an Ethernet frame to an lcore that sends on `port`; false if it cannot take it now.
    pub fn send(&mut self, port: usize, frame: &[u8]) -> bool {
        let Some(queues) = self.topology.placement.ports.get(port) else {
            return false;
        };
        let lcore = self
            .topology
            .placement
            .rx
            .iter()
            .position(|id| queues.rx.first() == Some(id));
        let (Some(ring), Some(mut mbuf)) = (
            lcore.and_then(|lcore| self.to_lcores.get_mut(lcore)),
            self.control_pool.alloc(),
        ) else {
            return false;
        };
        let Some(room) = mbuf.append(frame.len()) else {
            return false;
        };
        room.copy_from_slice(frame);
        mbuf.set_meta(Meta {
            port: port as u8,
            ..Meta::default()
        });
        let mut burst = Burst::new();
        burst.push(mbuf);
        ring.push(&mut burst) == 1
    }

    /// Posts a command to every lcore. Crypto lcores get it first, so that nothing is numbered under
    /// a key that a unit does not have; a key is retired the other way round.
    pub fn post(&mut self, command: Command) -> Ticket {
        if let Command::InstallSendKey(SendKey { peer, .. }) = &command
            && let Some(before) = self.seals_before.get_mut(usize::from(*peer))
        {
            *before = self.reader.numbered(usize::from(*peer));
        }
        self.posted += 1;
        self.deferred.push_back((self.posted, command));
        self.pass_on_deferred();
        Ticket(self.posted)
    }

    fn post_to(&self, kind: LcoreKind, number: u64, command: &Command) {
        for (lcore, mailbox) in self.shared.lcores.iter().zip(&self.mailboxes) {
            if lcore.kind == kind {
                // The mailbox is unbounded and its lcore lives as long as the engine.
                let _ = mailbox.send((number, command.clone()));
            }
        }
    }

    /// Gives the lcores that come second what those that come first have carried out. One command
    /// after the other: every lcore sees all of them in the order they were posted.
    fn pass_on_deferred(&mut self) {
        while let Some((number, command)) = self.deferred.front() {
            let is_retirement = matches!(
                command,
                Command::RetireSendKey { .. } | Command::RetireReceiveKey { .. }
            );
            let (first, second) = if is_retirement {
                (LcoreKind::Rx, LcoreKind::Crypto)
            } else {
                (LcoreKind::Crypto, LcoreKind::Rx)
            };
            if !self.is_first_posted {
                self.post_to(first, *number, command);
                self.is_first_posted = true;
            }
            if !self.carried_out(Some(first), *number) {
                return;
            }
            self.post_to(second, *number, command);
            self.deferred.pop_front();
            self.is_first_posted = false;
        }
    }

    fn carried_out(&self, kind: Option<LcoreKind>, number: u64) -> bool {
        let concerned = |lcore: &&shared::LcoreShared| kind.is_none_or(|kind| lcore.kind == kind);
        let carried_out =
            |lcore: &shared::LcoreShared| lcore.carried_out.load(Ordering::Acquire) >= number;
        self.shared.lcores.iter().filter(concerned).all(carried_out)
    }

    /// True when every lcore has carried out a command.
    pub fn acknowledged(&mut self, ticket: Ticket) -> bool {
        self.pass_on_deferred();
        self.carried_out(None, ticket.0)
    }

    /// True once something was opened under this receive key.
    pub fn confirmed(&self, receiver_index: u32) -> bool {
        self.shared.is_confirmed(receiver_index)
    }

    /// Seals under a peer's send key, as if every hand that shares it had sealed as often as the
    /// busiest: each may seal only its part of what the key is good for.
    pub fn seals(&self, peer: u16) -> u64 {
        let numbered = self.reader.numbered(usize::from(peer));
        let before = self.seals_before.get(usize::from(peer));
        let before = before
            .into_iter()
            .flatten()
            .copied()
            .chain(std::iter::repeat(0));
        let since = numbered
            .iter()
            .zip(before)
            .map(|(now, before)| now.saturating_sub(before));
        since.max().unwrap_or(0) * numbered.len() as u64
    }

    /// True if the peer has said that it stops; forgets it.
    pub fn take_closed(&mut self, peer: u16) -> bool {
        self.reader.take_closed(usize::from(peer))
    }

    /// When something of the peer was opened last.
    pub fn last_heard(&self, peer: u16) -> Option<Time> {
        match self.reader.last_heard_ns(usize::from(peer)) {
            0 => None,
            nanos => Some(Time(nanos)),
        }
    }

    /// How many streams go to a peer.
    pub fn streams(&self, peer: u16) -> u8 {
        self.topology
            .streams
            .get(usize::from(peer))
            .map_or(0, |line| line.sent_by.len() as u8)
    }

    /// The next change of a plan that was not taken yet.
    pub fn take_decision(&self) -> Option<Decided> {
        self.reader.take_decision()
    }

    /// All counters, now.
    pub fn snapshot(&self) -> Snapshot {
        self.reader.snapshot()
    }

    /// Whether every lcore loops and every port has link.
    ///
    /// # Errors
    /// The reason why not.
    pub fn health(&self) -> Result<(), String> {
        self.reader.health()
    }

    /// Reads counters from other threads.
    pub fn reader(&self) -> StatsReader {
        self.reader.clone()
    }

    /// Stops: takes nothing more from LANs, lets out what is inside, ends the lcores, closes the
    /// devices.
    ///
    /// # Errors
    /// [`EngineError::Dpdk`] if an lcore panicked.
    pub fn stop(self) -> Result<FinalReport, EngineError> {
        for phase in [Phase::Drain, Phase::Release] {
            self.shared.set_phase(phase);
            self.wait_until_still();
        }
        self.shared.set_phase(Phase::Stop);
        let Self {
            reader,
            lcores,
            exceptions,
            arrived,
            to_lcores,
            control_pool,
            eal,
            stop_on_drop: _stopped,
            ..
        } = self;
        let mut discarded = 0;
        for lcore in lcores {
            discarded += lcore.join()?.discarded;
        }
        drop((exceptions, arrived, to_lcores));
        let mut snapshot = reader.snapshot();
        let mut pools_at_exit = vec![];
        if let Some(devices) = reader.release() {
            drop(devices.ports);
            pools_at_exit = devices.pools.iter().map(pool_state).collect();
            drop(devices.pools);
        }
        snapshot.pools.clone_from(&pools_at_exit);
        drop(control_pool);
        drop(eal);
        Ok(FinalReport {
            snapshot,
            discarded,
            pools_at_exit,
        })
    }

    /// Waits until no lcore moves packets any more.
    fn wait_until_still(&self) {
        let packets = || -> u64 {
            self.shared
                .lcores
                .iter()
                .map(|lcore| lcore.counters.load().packets)
                .sum()
        };
        let begun = self.now();
        let (mut last, mut still_since) = (packets(), begun);
        while self.now().since(begun) < DRAIN_MAX {
            std::thread::sleep(Duration::from_millis(2));
            let now = packets();
            if now != last {
                (last, still_since) = (now, self.now());
            } else if self.now().since(still_since) >= DRAINED_AFTER {
                return;
            }
        }
    }
}

fn pool_state(pool: &Pool) -> PoolSnapshot {
    PoolSnapshot {
        name: pool.name().to_owned(),
        size: pool.size(),
        in_use: pool.in_use(),
    }
}
