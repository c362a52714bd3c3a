//! What the engine shows: everything the lcores published, by node, port, lcore, unit, peer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::histogram::{BUCKETS, LogHistogram};
use shardgate_core::path_mtu::State as MtuState;
use shardgate_core::plan::{Label, Reason};
use shardgate_core::predict::{Policy, STATE_LEN};
use shardgate_core::time::Time;
use shardgate_dpdk::{Pool, Port};

use super::predictions::{Learned, PredictorSnapshot};
use super::shared::{
    LcoreCounters, LcoreKind, LcoreShared, MtuWords, PathCounters, PlanWords, ReceiverTimes,
    RxCounters, Shared, StreamIn, StreamInShared, StreamOut, StreamOutShared,
};
use crate::decisions::Decided;
use crate::lcore::unit::UnitCounters;

/// An lcore that has not looped for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Drops by reason; reasons that never struck are there with 0.
pub type DropsByReason = BTreeMap<&'static str, u64>;

/// The engine at one moment. Counters only grow.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Nanoseconds since the engine started.
    pub time_ns: u64,
    /// Frames, datagrams and shards that died, by reason, all lcores together.
    pub drops: DropsByReason,
    /// Ports in configuration order.
    pub ports: Vec<PortSnapshot>,
    /// Pollers.
    pub lcores: Vec<LcoreSnapshot>,
    /// Crypto units.
    pub units: Vec<UnitSnapshot>,
    /// Peers in configuration order.
    pub peers: Vec<PeerSnapshot>,
    /// Pools.
    pub pools: Vec<PoolSnapshot>,
}

/// A port's counters, as its driver keeps them.
#[derive(Clone, Debug, Serialize)]
pub struct PortSnapshot {
    /// Name in the configuration.
    pub name: String,
    /// `lan` or `wan`.
    pub role: &'static str,
    /// Ethernet address.
    pub mac: String,
    /// Whether it has link.
    pub link_up: bool,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames the device dropped for want of a descriptor.
    pub rx_missed: u64,
    /// Frames received with an error.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Times an rx queue found its pool empty.
    pub rx_no_buffer: u64,
}

/// A poller's counters.
#[derive(Clone, Debug, Serialize)]
pub struct LcoreSnapshot {
    /// Lcore id.
    pub id: u32,
    /// What it is for.
    pub kind: LcoreKind,
    /// Its account of itself.
    #[serde(flatten)]
    pub counters: LcoreCounters,
    /// What it received, if it is an rx lcore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx: Option<RxCounters>,
    /// What died on it.
    pub drops: DropsByReason,
}

/// A crypto unit's counters.
#[derive(Clone, Debug, Serialize)]
pub struct UnitSnapshot {
    /// The lcore it runs on.
    pub lcore: u32,
    /// What it is.
    pub kind: &'static str,
    /// How busy it is, or the whole lcore if it receives as well, in thousandths.
    pub load_permille: Option<u16>,
    /// What it has done.
    #[serde(flatten)]
    pub counters: UnitCounters,
}

/// A peer's counters.
#[derive(Clone, Debug, Serialize)]
pub struct PeerSnapshot {
    /// Name in the configuration.
    pub name: String,
    /// Its path, as the first of our streams sees it.
    pub path: PathSnapshot,
    /// Our streams to it.
    pub streams_out: Vec<StreamOutSnapshot>,
    /// Its streams to us.
    pub streams_in: Vec<StreamInSnapshot>,
}

/// What an endpoint knows of its path.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PathSnapshot {
    /// Times, losses and rates.
    #[serde(flatten)]
    pub counters: PathCounters,
    /// How large packets it carries.
    #[serde(flatten)]
    pub mtu: MtuSnapshot,
}

/// How large packets a path carries.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct MtuSnapshot {
    /// Most bytes of an IP packet; 0 before the path is known.
    pub path_mtu_bytes: u64,
    /// How far the search for more is (RFC 8899, 5.2).
    pub path_mtu_state: &'static str,
    /// Probes sent.
    pub mtu_probes_sent: u64,
    /// Of those: echoed.
    pub mtu_probes_acked: u64,
    /// Of those: not echoed.
    pub mtu_probes_lost: u64,
    /// How often the path turned out to carry less than before.
    pub mtu_black_holes: u64,
}

impl From<MtuWords> for MtuSnapshot {
    fn from(words: MtuWords) -> Self {
        let state = MtuState::ALL.get(words.state as usize);
        Self {
            path_mtu_bytes: words.mtu,
            path_mtu_state: state.copied().unwrap_or_default().name(),
            mtu_probes_sent: words.probes,
            mtu_probes_acked: words.acked,
            mtu_probes_lost: words.lost,
            mtu_black_holes: words.black_holes,
        }
    }
}

/// A stream that is sent.
#[derive(Clone, Debug, Serialize)]
pub struct StreamOutSnapshot {
    /// Its counters.
    #[serde(flatten)]
    pub counters: StreamOut,
    /// The path, as this stream's endpoint sees it.
    pub path: PathSnapshot,
    /// What is planned for it.
    pub plan: PlanSnapshot,
}

/// The plan of a stream that is sent.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PlanSnapshot {
    /// What the path is like: `CLEAN`, `LOSSY`, `BURSTY`, `OUTAGE`.
    pub label: &'static str,
    /// Shards that a payload as long as the path allows is cut into; 0 before the first decision.
    pub n: u64,
    /// Most payload of a shard.
    pub payload_bytes: u64,
    /// Standing repair.
    pub repair: Option<RepairSnapshot>,
    /// Repair for a moment after a rare loss.
    pub reactive: Option<RepairSnapshot>,
    /// How long the first shard that no repair covers waits for one.
    pub delay_ms: u64,
    /// Share of `overhead_limit` that may be added, in thousandths.
    pub added_permille: u64,
    /// The input that led to it.
    pub reason: &'static str,
}

/// A rate of repair.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RepairSnapshot {
    /// Source shards for each repair shard.
    pub every: u64,
    /// Source shards that each covers.
    pub window: u64,
}

impl From<PlanWords> for PlanSnapshot {
    fn from(words: PlanWords) -> Self {
        let repair = |every, window| (every > 0).then_some(RepairSnapshot { every, window });
        let label = Label::ALL.get(words.label as usize);
        let reason = Reason::ALL.get(words.reason as usize);
        Self {
            label: label.copied().unwrap_or_default().name(),
            n: words.n,
            payload_bytes: words.payload_bytes,
            repair: repair(words.standing_every, words.standing_window),
            reactive: repair(words.reactive_every, words.reactive_window),
            delay_ms: words.delay_ms,
            added_permille: words.added_permille,
            reason: reason.copied().unwrap_or_default().name(),
        }
    }
}

/// A stream that is received.
#[derive(Clone, Debug, Serialize)]
pub struct StreamInSnapshot {
    /// Its counters.
    #[serde(flatten)]
    pub counters: StreamIn,
    /// From the evidence that a shard is missing until it is there, by any way.
    pub recovery: Distribution,
    /// The same for first transmissions: how late they were.
    pub lateness: Distribution,
    /// How long holes that nothing filled have held frames.
    pub hold: Distribution,
    /// Who says when its missing shards are asked for, and what that was worth.
    pub predictor: PredictorSnapshot,
}

/// A distribution of durations, within 13 %, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Distribution {
    /// How many durations.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p99_9_us: u64,
    /// Longest.
    pub max_us: u64,
}

impl From<&LogHistogram> for Distribution {
    fn from(buckets: &LogHistogram) -> Self {
        let longest = LogHistogram::middle(BUCKETS - 1).as_nanos() as u64;
        let Ok(mut histogram) = Histogram::<u64>::new_with_max(longest, 3) else {
            return Self::default();
        };
        let counts = buckets.counts().iter().enumerate();
        for (bucket, count) in counts.filter(|(_, count)| **count > 0) {
            let middle = LogHistogram::middle(bucket).as_nanos() as u64;
            // Within the bounds by construction.
            let _ = histogram.record_n(middle, *count);
        }
        let at = |quantile| histogram.value_at_quantile(quantile) / 1_000;
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: histogram.max() / 1_000,
        }
    }
}

/// A pool's state.
#[derive(Clone, Debug, Serialize)]
pub struct PoolSnapshot {
    /// Its name.
    pub name: String,
    /// Mbufs in all.
    pub size: usize,
    /// Mbufs not at home, as far as DPDK can tell while lcores have caches.
    pub in_use: usize,
}

/// Names that do not change.
pub(super) struct Names {
    pub ports: Vec<(String, &'static str)>,
    pub peers: Vec<String>,
    pub policy: Policy,
}

/// Reads what the lcores publish, from any thread.
#[derive(Clone)]
pub struct StatsReader(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    names: Names,
    /// Gone once the engine has stopped.
    devices: Mutex<Option<Devices>>,
}

pub(super) struct Devices {
    pub ports: Vec<Port>,
    pub pools: Vec<Pool>,
}

impl StatsReader {
    pub(super) fn new(shared: Arc<Shared>, names: Names, devices: Devices) -> Self {
        Self(Arc::new(Inner {
            shared,
            names,
            devices: Mutex::new(Some(devices)),
        }))
    }

    /// Lets go of the devices, so that they can be closed.
    pub(super) fn release(&self) -> Option<Devices> {
        self.0
            .devices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Everything, now.
    pub fn snapshot(&self) -> Snapshot {
        let Inner {
            shared,
            names,
            devices,
        } = &*self.0;
        let devices = devices.lock().unwrap_or_else(PoisonError::into_inner);
        let mut drops = Drops::default();
        shared
            .lcores
            .iter()
            .for_each(|lcore| drops.merge(&lcore.drops.load()));
        let ports = devices.as_ref().map_or(&[][..], |devices| &devices.ports);
        let pools = devices.as_ref().map_or(&[][..], |devices| &devices.pools);
        Snapshot {
            time_ns: shared.clock.now().as_nanos(),
            drops: by_reason(&drops),
            ports: names
                .ports
                .iter()
                .zip(&shared.ports)
                .zip(ports)
                .map(|(((name, role), known), port)| {
                    let stats = port.stats().unwrap_or_default();
                    let mac: Vec<_> = known.mac.iter().map(|b| format!("{b:02x}")).collect();
                    PortSnapshot {
                        name: name.clone(),
                        role,
                        mac: mac.join(":"),
                        link_up: port.link_up(),
                        rx_frames: stats.ipackets,
                        rx_bytes: stats.ibytes,
                        tx_frames: stats.opackets,
                        tx_bytes: stats.obytes,
                        rx_missed: stats.imissed,
                        rx_errors: stats.ierrors,
                        tx_errors: stats.oerrors,
                        rx_no_buffer: stats.rx_nombuf,
                    }
                })
                .collect(),
            lcores: shared.lcores.iter().map(lcore).collect(),
            units: shared
                .lcores
                .iter()
                .filter(|lcore| lcore.is_unit)
                .map(|lcore| UnitSnapshot {
                    lcore: lcore.id,
                    kind: "software",
                    load_permille: lcore.load.load().map(|(permille, _)| permille),
                    counters: lcore.unit.load(),
                })
                .collect(),
            peers: names
                .peers
                .iter()
                .zip(&shared.peers)
                .map(|(name, peer)| PeerSnapshot {
                    name: name.clone(),
                    path: peer.streams_out.first().map(path).unwrap_or_default(),
                    streams_out: peer.streams_out.iter().map(stream_out).collect(),
                    streams_in: (peer.streams_in.iter())
                        .filter_map(|stream| stream_in(stream, names.policy))
                        .collect(),
                })
                .collect(),
            pools: pools
                .iter()
                .map(|pool| PoolSnapshot {
                    name: pool.name().to_owned(),
                    size: pool.size(),
                    in_use: pool.in_use(),
                })
                .collect(),
        }
    }

    /// Whether every lcore loops and every port has link.
    ///
    /// # Errors
    /// The reason why not.
    pub fn health(&self) -> Result<(), String> {
        let Inner {
            shared,
            names,
            devices,
        } = &*self.0;
        let now = shared.clock.now();
        for lcore in &shared.lcores {
            let silent = now.since(lcore.last_round());
            if silent > STUCK_AFTER {
                let seconds = silent.as_secs_f32();
                return Err(format!(
                    "lcore {} has not looped for {seconds:.1} s",
                    lcore.id
                ));
            }
        }
        let devices = devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(devices) = &*devices else {
            return Err("stopping".to_owned());
        };
        for ((name, _), port) in names.ports.iter().zip(&devices.ports) {
            if !port.link_up() {
                return Err(format!("port {name} has no link"));
            }
        }
        Ok(())
    }

    /// What the models of a peer's streams have learned, as they saved it: by stream, without those
    /// that have not learned anything yet. A copy that was made while its lcore wrote does not have the
    /// checksum that it should.
    pub fn learned(&self, peer: usize) -> Vec<(u8, [u8; STATE_LEN])> {
        let streams = self.0.shared.peers.get(peer);
        let streams = streams.into_iter().flat_map(|peer| &peer.streams_in);
        (0..)
            .zip(streams.map(|stream| stream.learned.load()))
            .filter(|(_, learned)| *learned != Learned::default())
            .map(|(stream, Learned(state))| (stream, state))
            .collect()
    }

    /// The lcores' clock.
    pub fn now(&self) -> Time {
        self.0.shared.clock.now()
    }

    /// The next change of a plan that was not taken yet; those of one stream come in order.
    pub fn take_decision(&self) -> Option<Decided> {
        self.0.shared.decisions.take()
    }

    /// Changes of plans that found no room on their way here.
    pub fn decisions_missed(&self) -> u64 {
        self.0.shared.decisions.missed()
    }

    /// The MTU that is used towards a peer, as its first stream has found it; 0 before its path is
    /// known.
    pub fn path_mtu(&self, peer: usize) -> u64 {
        let peer = self.0.shared.peers.get(peer);
        let first = peer.and_then(|peer| peer.streams_out.first());
        first.map_or(0, |stream| stream.mtu.load().mtu)
    }

    pub(super) fn last_heard_ns(&self, peer: usize) -> u64 {
        let Some(peer) = self.0.shared.peers.get(peer) else {
            return 0;
        };
        let data = peer.streams_in.iter();
        let data = data.map(|stream| stream.counters.load().last_heard_ns);
        let feedback = peer.streams_out.iter();
        let feedback = feedback.map(|stream| stream.path.load().last_heard_ns);
        data.chain(feedback).max().unwrap_or(0)
    }

    /// What each endpoint has sealed for a peer.
    pub(super) fn numbered(&self, peer: usize) -> Vec<u64> {
        let Some(peer) = self.0.shared.peers.get(peer) else {
            return vec![];
        };
        let streams = peer.streams_out.iter();
        streams
            .map(|stream| stream.counters.load().numbered)
            .collect()
    }

    pub(super) fn take_closed(&self, peer: usize) -> bool {
        let peer = self.0.shared.peers.get(peer);
        peer.is_some_and(|peer| peer.closed.swap(false, Ordering::AcqRel))
    }
}

fn lcore(lcore: &LcoreShared) -> LcoreSnapshot {
    LcoreSnapshot {
        id: lcore.id,
        kind: lcore.kind,
        counters: lcore.counters.load(),
        rx: (lcore.kind == LcoreKind::Rx).then(|| lcore.rx.load()),
        drops: by_reason(&lcore.drops.load()),
    }
}

fn path(stream: &StreamOutShared) -> PathSnapshot {
    PathSnapshot {
        counters: stream.path.load(),
        mtu: stream.mtu.load().into(),
    }
}

fn stream_out(stream: &StreamOutShared) -> StreamOutSnapshot {
    StreamOutSnapshot {
        counters: stream.counters.load(),
        path: path(stream),
        plan: stream.plan.load().into(),
    }
}

/// A stream, if anything of it has come.
fn stream_in(stream: &StreamInShared, policy: Policy) -> Option<StreamInSnapshot> {
    let counters = stream.counters.load();
    let ReceiverTimes(times) = stream.times.load();
    (counters.last_heard_ns > 0).then(|| StreamInSnapshot {
        counters,
        recovery: Distribution::from(&times.recovery),
        lateness: Distribution::from(&times.lateness),
        hold: Distribution::from(&times.hold),
        predictor: PredictorSnapshot::new(policy, &stream.predictions.load()),
    })
}

fn by_reason(drops: &Drops) -> DropsByReason {
    DropReason::ALL
        .iter()
        .map(|&reason| (reason.name(), drops.get(reason)))
        .collect()
}
