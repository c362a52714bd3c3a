//! What the control program asks of the dataplane: plain, validated data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shardgate_core::endpoint::RepairMode;
use shardgate_core::predict::Policy;

use crate::record::Recorder;

/// Everything an [`Engine`](crate::engine::Engine) needs to start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Distinguishes this process's EAL from others on the machine.
    pub file_prefix: String,
    /// Ports, in configuration order; a port is named by its index from here on.
    pub ports: Vec<PortSpec>,
    /// Peers, in configuration order; a peer is named by its index from here on.
    pub peers: Vec<PeerSpec>,
    /// Lcores, units, memory and polling.
    pub pipeline: PipelineSpec,
    /// Sharding, order and bounds.
    pub tunnel: TunnelSpec,
    /// Where what arrives from the first peer is noted.
    pub recorder: Option<Arc<Recorder>>,
    /// What models of earlier runs have learned.
    pub learned: Vec<LearnedSpec>,
}

/// What the model of a stream has learned in an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedSpec {
    /// The peer that sends the stream, by index.
    pub peer: u16,
    /// The stream.
    pub stream: u8,
    /// As the model saved it.
    pub state: Arc<[u8]>,
}

/// A DPDK port.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Name in the configuration.
    pub name: String,
    /// PCI address or vdev arguments.
    pub device: String,
    /// Which side of the tunnel it is on.
    pub role: PortRole,
    /// Largest L3 packet, in bytes, without the Ethernet header.
    pub mtu: u16,
}

/// Which side of the tunnel a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// Plaintext frames of a site.
    Lan,
    /// Sealed datagrams.
    Wan {
        /// The gateway's own address on this port.
        address: IpAddr,
    },
}

/// A far gateway.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Name in the configuration.
    pub name: String,
    /// Index of the LAN port it is joined to.
    pub lan: usize,
    /// Whether TCP's MSS is clamped so that a segment fits one shard.
    pub mss_clamp: bool,
    /// What its path is called.
    pub path: String,
    /// The path's MTU, at most its port's; `None` lets probes find it.
    pub mtu: Option<u16>,
}

/// Where the crypto units run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CryptoPlacement {
    /// On dedicated lcores, over SPSC rings.
    Lcores,
    /// On the rx lcore itself.
    Inline,
}

/// How an lcore waits for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PollMode {
    /// Never sleeps.
    Busy,
    /// Yields while there is traffic, then sleeps 50 µs between looks.
    Adaptive,
}

/// Whether hugepages are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// Use them if enough are free.
    Auto,
    /// Refuse to start without.
    Required,
    /// Do not use them.
    Off,
}

/// Lcores, units, memory and polling. `None` means "auto".
#[derive(Clone, Debug)]
pub struct PipelineSpec {
    /// Lcore ids in EAL core-list syntax already expanded (`"0-3"` is `[0, 1, 2, 3]`); the first
    /// is the control lcore.
    pub lcores: Option<Vec<u32>>,
    /// Lcores that poll ports.
    pub rx_lcores: Option<Vec<u32>>,
    /// Lcores that run crypto units; meaningless with [`CryptoPlacement::Inline`].
    pub crypto_lcores: Option<Vec<u32>>,
    /// Where units run; `None` lets the placement decide.
    pub crypto: Option<CryptoPlacement>,
    /// How lcores wait; `None` is adaptive when more lcores poll than there are CPUs.
    pub poll: Option<PollMode>,
    /// Whether hugepages are used.
    pub hugepages: bool,
    /// EAL memory in MiB; `None` is the written sum of all pools.
    pub memory_mb: Option<u32>,
    /// Passed to EAL as they are.
    pub extra_eal_args: Vec<String>,
}

/// What holds frames of a lane behind a hole, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// Order is kept inside a lane.
    Lane,
    /// Nothing is ever held.
    None,
}

/// Sharding, order and bounds.
#[derive(Clone, Debug)]
pub struct TunnelSpec {
    /// UDP port of the gateway.
    pub listen_port: u16,
    /// UDP source ports per path; `None` is one per rx lcore.
    pub flows: Option<u8>,
    /// Fewest and most shards an aggregate is cut into; `min = 1, max = 64` lets the MTU decide.
    pub shards: (u8, u8),
    /// Whether lanes are kept in order.
    pub ordering: Ordering,
    /// When missing shards are asked for.
    pub policy: Policy,
    /// Upper bound of a hold in an interactive lane.
    pub interactive_hold: Duration,
    /// Upper bound of a hold in a bulk lane; `None` follows the path's round trip.
    pub bulk_hold: Option<Duration>,
    /// Whether missing shards are asked for, and sent again.
    pub retransmit: bool,
    /// How much repair is sent beforehand.
    pub repair: RepairMode,
    /// Share of what a path delivers that may be added to it, 0 to 1.
    pub overhead_limit: f64,
    /// Memory for shards that may be asked for, per peer and rx lcore, in bytes.
    pub retention_bytes: usize,
    /// Whether the bottleneck's queue is kept short.
    pub queue_control: bool,
    /// Out-of-order frames held per peer; per lane a quarter of that.
    pub held_frames_max: usize,
    /// Memory for incomplete and held frames, per peer, in bytes.
    pub reassembly_memory_bytes: usize,
    /// CRC-32C of every shard beside the AEAD tag.
    pub checksum: bool,
}
