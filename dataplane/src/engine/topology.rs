//! Everything that is settled before a device is touched: placement, pools, sizes. What
//! `run --check` prints.

use std::fmt;

use serde::Serialize;
use shardgate_core::limits::{
    AGGREGATE_FRAMES_MAX, BACKLOG_MAX, HEADROOM, SHARDS_MAX, STREAMS_MAX,
};
use shardgate_core::repair::OPEN_MAX;
use shardgate_core::wire::OVERHEAD_IPV4;
use shardgate_dpdk::BURST;
use shardgate_dpdk::af_packet::{AfPacket, mbuf_room};

use super::EngineError;
use crate::config::{EngineConfig, PortRole};
use crate::lcore::unit::FLOWS_MAX;
use crate::placement::{Placement, PortLimits, place};

/// Packets that an SPSC ring between two lcores holds; a power of two. At 1400 bytes and 10 Gbit/s
/// that is a millisecond, the time slice of a unit that shares its CPU.
pub const RING_SIZE: usize = 1_024;

/// Frames that wait for the control thread, or for the lcore that sends its answers.
pub const CONTROL_RING_SIZE: usize = 512;

/// Datagrams that never left, on their way back to the lcore that numbered them; a power of two.
pub const UNSENT_RING_SIZE: usize = 64;

/// Descriptors of a NIC's queue; virtual devices ignore them.
pub const DESCRIPTORS: u16 = 1_024;

/// Mbufs an lcore may cache of each pool.
pub const POOL_CACHE: usize = 256;

/// DPDK lets a cache grow to 1.5 times its size.
const POOL_CACHE_MOST: usize = POOL_CACHE * 3 / 2;

/// Packets on the way between two calls on one lcore: some bursts, and what a port's way out
/// keeps pending.
const IN_HAND: usize = 8 * BURST;

/// Frames of one LAN burst and one open aggregate, while the units have no room.
const BLOCKED: usize = BURST + AGGREGATE_FRAMES_MAX;

/// Packets that wait for a port on one lcore; see [`crate::lcore::tx`].
const BACKLOG: usize = 1_024;

/// Shards kept for incomplete frames per peer at the most; a jumbo frame has seven.
const KEPT_SHARDS_MAX: usize = 8_192;

/// An mbuf beside its data.
const MBUF_OVERHEAD: usize = 256;

/// A page of memory that is no hugepage.
const PAGE: usize = 4_096;

/// Memory that DPDK wants beside pools: ports, rings, its own tables.
const MEMORY_BESIDE_POOLS_MB: usize = 64;

/// One line of the written sum of a pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolLine {
    /// Who may hold mbufs.
    pub consumer: &'static str,
    /// How many at the most.
    pub mbufs: usize,
}

/// A pool and why it has its size.
#[derive(Clone, Debug, Serialize)]
pub struct PoolPlan {
    /// The pool's name.
    pub name: &'static str,
    /// Bytes of an mbuf's data room, headroom included.
    pub data_room: usize,
    /// Who holds how many.
    pub lines: Vec<PoolLine>,
}

impl PoolPlan {
    /// Mbufs of the pool.
    pub fn mbufs(&self) -> usize {
        self.lines.iter().map(|line| line.mbufs).sum()
    }

    /// Memory that an mbuf costs. Without hugepages none crosses a page, so most of them cost a page
    /// of their own.
    fn cost(&self, hugepages: bool) -> usize {
        let mbuf = self.data_room + MBUF_OVERHEAD;
        match PAGE / mbuf {
            _ if hugepages => mbuf,
            0 => mbuf.next_multiple_of(PAGE),
            per_page => PAGE / per_page,
        }
    }

    fn megabytes(&self, hugepages: bool) -> usize {
        (self.mbufs() * self.cost(hugepages)).div_ceil(1 << 20)
    }
}

/// What will be started.
#[derive(Clone, Debug, Serialize)]
pub struct Topology {
    /// Which lcore does what.
    pub placement: Placement,
    /// Ports, as configured: name, device, role and MTU.
    pub ports: Vec<PortLine>,
    /// The pools.
    pub pools: Vec<PoolPlan>,
    /// Memory for EAL, in MiB.
    pub memory_mb: u32,
    /// Whether it is in hugepages.
    pub hugepages: bool,
    /// Streams to each peer, in the order of the peers.
    pub streams: Vec<StreamsLine>,
    /// UDP source ports of a path.
    pub flows: usize,
    /// Frames held out of order per peer.
    pub held_frames_max: usize,
    /// Shards kept for incomplete frames per peer.
    pub kept_shards_max: usize,
    /// Longest payload of a shard on any WAN port, in bytes.
    pub payload_max: usize,
}

/// A port as `--check` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct PortLine {
    /// Name in the configuration.
    pub name: String,
    /// Device arguments.
    pub device: String,
    /// `lan` or `wan`.
    pub role: &'static str,
    /// Largest L3 packet.
    pub mtu: u16,
}

/// A peer's streams as `--check` prints them.
#[derive(Clone, Debug, Serialize)]
pub struct StreamsLine {
    /// Name in the configuration.
    pub peer: String,
    /// The rx lcore that sends each stream.
    pub sent_by: Vec<u32>,
}

impl Topology {
    /// Works everything out; `cpus` are those the process may use.
    ///
    /// # Errors
    /// [`EngineError::Placement`], [`EngineError::Dpdk`] for device arguments that cannot be.
    pub fn plan(config: &EngineConfig, cpus: &[u32]) -> Result<Self, EngineError> {
        let limits = config
            .ports
            .iter()
            .map(assumed_limits)
            .collect::<Result<Vec<_>, EngineError>>()?;
        let placement = place(&config.pipeline, cpus, &limits)?;
        Self::with_placement(config, placement)
    }

    /// The same with queues given out anew, now that the devices have told their limits.
    pub fn replan(self, config: &EngineConfig, limits: &[PortLimits]) -> Result<Self, EngineError> {
        let mut placement = self.placement;
        placement.assign_queues(limits);
        Self::with_placement(config, placement)
    }

    fn with_placement(config: &EngineConfig, placement: Placement) -> Result<Self, EngineError> {
        let streams: Vec<_> = config
            .peers
            .iter()
            .map(|peer| StreamsLine {
                peer: peer.name.clone(),
                sent_by: serving(&placement, peer.lan),
            })
            .collect();
        let flows = config.tunnel.flows.map_or(placement.rx.len(), usize::from);
        let mut topology = Self {
            ports: config.ports.iter().map(port_line).collect(),
            pools: vec![],
            memory_mb: 0,
            hugepages: config.pipeline.hugepages,
            streams,
            flows: flows.clamp(1, FLOWS_MAX),
            held_frames_max: 0,
            kept_shards_max: 0,
            payload_max: 0,
            placement,
        };
        topology.plan_memory(config);
        Ok(topology)
    }

    /// The written sum: one line per consumer.
    fn plan_memory(&mut self, config: &EngineConfig) {
        let mtu_max = |is_lan: bool| {
            let mtus = config
                .ports
                .iter()
                .filter(|port| (port.role == PortRole::Lan) == is_lan);
            mtus.map(|port| port.mtu).max().unwrap_or(1_500)
        };
        let shard_room = mbuf_room(mtu_max(false)).max(HEADROOM + 2_048);
        // Rebuilt shards are frames in the making.
        let frame_room = mbuf_room(mtu_max(true)).max(shard_room);
        let peers = config.peers.len().max(1);
        // Half of the memory for frames that wait, half for shards of incomplete ones.
        let half = config.tunnel.reassembly_memory_bytes / 2;
        let room = |data_room: usize| (half / (data_room + MBUF_OVERHEAD)).max(64);
        self.payload_max = usize::from(mtu_max(false)).saturating_sub(OVERHEAD_IPV4);
        self.held_frames_max = config.tunnel.held_frames_max.min(room(frame_room));
        self.kept_shards_max = KEPT_SHARDS_MAX.min(room(shard_room));
        let rx = self.placement.rx.len();
        let units = self.placement.crypto.len();
        let lcores = rx + units + 1;
        let queues = |is_lan: bool, is_rx: bool| -> usize {
            let ports = self.placement.ports.iter().zip(&config.ports);
            ports
                .filter(|(_, port)| (port.role == PortRole::Lan) == is_lan)
                .map(|(queues, _)| {
                    if is_rx {
                        queues.rx.len()
                    } else {
                        queues.tx.len()
                    }
                })
                .sum()
        };
        let line = |consumer, mbufs| PoolLine { consumer, mbufs };
        let descriptors = usize::from(DESCRIPTORS);
        let backlogs = line(
            "waiting for a port",
            (rx + units) * config.ports.len() * BACKLOG,
        );
        let seal_rings = line("rings to units, to seal", rx * units * RING_SIZE);
        let owners = self
            .placement
            .ports
            .iter()
            .map(|port| (rx + units) - port.tx.len().min(rx + units));
        let tx_rings = line("rings to tx owners", owners.sum::<usize>() * RING_SIZE);
        let held = line("held out of order", peers * self.held_frames_max);
        let in_hand = line("in hand on lcores", lcores * IN_HAND);
        let caches = line("lcore caches", lcores * POOL_CACHE_MOST);
        let tx = line(
            "tx queues",
            (queues(false, false) + queues(true, false)) * descriptors,
        );
        self.pools = vec![
            PoolPlan {
                name: "frames",
                data_room: frame_room,
                lines: vec![
                    line("LAN rx queues", queues(true, true) * descriptors),
                    tx.clone(),
                    backlogs.clone(),
                    tx_rings.clone(),
                    seal_rings.clone(),
                    line("waiting for units", peers * rx * BLOCKED),
                    line("bursts that are paced", peers * rx * BACKLOG_MAX),
                    held.clone(),
                    in_hand.clone(),
                    caches.clone(),
                ],
            },
            PoolPlan {
                name: "shards",
                data_room: shard_room,
                lines: vec![
                    line("WAN rx queues", queues(false, true) * descriptors),
                    tx,
                    backlogs,
                    tx_rings,
                    seal_rings,
                    line("rings to units, to open", rx * units * RING_SIZE),
                    line("rings from units, opened", rx * (units + rx) * RING_SIZE),
                    line(
                        "rings from units, unsent",
                        rx * units * (UNSENT_RING_SIZE + BURST),
                    ),
                    line(
                        "control rings and thread",
                        (2 * rx) * CONTROL_RING_SIZE + BURST,
                    ),
                    held,
                    line("incomplete frames", peers * self.kept_shards_max),
                    line("open repair windows", peers * rx * (OPEN_MAX + SHARDS_MAX)),
                    in_hand,
                    caches,
                ],
            },
        ];
        let pools: usize = self
            .pools
            .iter()
            .map(|pool| pool.megabytes(self.hugepages))
            .sum();
        let sum = (pools + MEMORY_BESIDE_POOLS_MB) as u32;
        self.memory_mb = config.pipeline.memory_mb.unwrap_or(sum);
    }

    /// The plan of a pool.
    pub fn pool(&self, name: &str) -> Option<&PoolPlan> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// The rx lcores that poll a LAN port, each once, in the order of their queues: the ith sends
/// stream i of the peer that is joined to the port.
pub fn serving(placement: &Placement, lan: usize) -> Vec<u32> {
    let mut serving = vec![];
    for &lcore in placement.ports.get(lan).map_or(&[][..], |port| &port.rx) {
        if !serving.contains(&lcore) && serving.len() < STREAMS_MAX {
            serving.push(lcore);
        }
    }
    serving
}

fn port_line(port: &crate::config::PortSpec) -> PortLine {
    PortLine {
        name: port.name.clone(),
        device: port.device.clone(),
        role: if port.role == PortRole::Lan {
            "lan"
        } else {
            "wan"
        },
        mtu: port.mtu,
    }
}

/// What a device can probably do, by its driver's name: the device itself is asked at the start.
fn assumed_limits(port: &crate::config::PortSpec) -> Result<PortLimits, EngineError> {
    let is_lan = port.role == PortRole::Lan;
    let driver = port.device.split(',').next().unwrap_or_default();
    let is = |name: &str| driver.starts_with(name);
    if let Some(device) = AfPacket::parse(&port.device)? {
        let queues = device.queue_pairs()?;
        return Ok(PortLimits {
            rx_queues_max: queues,
            tx_queues_max: queues,
            queues_are_paired: true,
            is_kernel_backed: true,
            is_lan,
        });
    }
    let is_kernel_backed = is("net_tap") || is("net_af_xdp") || is("net_pcap");
    // One tap queue: the driver spreads flows over all that are open, rx and tx alike.
    let queues = if is_kernel_backed { 1 } else { 16 };
    Ok(PortLimits {
        rx_queues_max: queues,
        tx_queues_max: queues,
        queues_are_paired: is("net_tap"),
        is_kernel_backed,
        is_lan,
    })
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.placement.fmt(f)?;
        writeln!(f, "ports")?;
        for (port, queues) in self.ports.iter().zip(&self.placement.ports) {
            let list = |lcores: &[u32]| {
                lcores
                    .iter()
                    .map(u32::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            writeln!(
                f,
                "  {:<8} {} mtu {}, rx by lcore {}, tx by lcore {}  ({})",
                port.name,
                port.role,
                port.mtu,
                list(&queues.rx),
                list(&queues.tx),
                port.device
            )?;
        }
        writeln!(f, "streams")?;
        for line in &self.streams {
            for (stream, lcore) in line.sent_by.iter().enumerate() {
                writeln!(f, "  {:<8} stream {stream} by lcore {lcore}", line.peer)?;
            }
        }
        writeln!(f, "pools")?;
        for pool in &self.pools {
            writeln!(
                f,
                "  {:<8} {:>6} mbufs of {} bytes, {} each in memory, {} MiB",
                pool.name,
                pool.mbufs(),
                pool.data_room,
                pool.cost(self.hugepages),
                pool.megabytes(self.hugepages)
            )?;
            for line in pool.lines.iter().filter(|line| line.mbufs > 0) {
                writeln!(f, "           {:>6} {}", line.mbufs, line.consumer)?;
            }
        }
        writeln!(f, "memory   {} MiB", self.memory_mb)
    }
}
