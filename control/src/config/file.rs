//! The configuration file as it is written: every key optional, nothing interpreted yet.
//!
//! Keys with several forms (`"auto"` or a number) are kept as TOML values, so that what is said
//! about a wrong one names the forms.

use serde::Deserialize;
use toml::Value;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub node: Node,
    pub dpdk: Dpdk,
    pub pipeline: Pipeline,
    pub port: Vec<Port>,
    pub peer: Vec<Peer>,
    pub tunnel: Tunnel,
    pub stats: Stats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    pub name: Option<String>,
    pub private_key_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpdk {
    pub lcores: Option<Value>,
    pub hugepages: Option<String>,
    pub memory_mb: Option<Value>,
    pub poll: Option<String>,
    pub extra_eal_args: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    pub rx_lcores: Option<Value>,
    pub crypto: Option<String>,
    pub crypto_lcores: Option<Value>,
    pub units: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Port {
    pub name: Option<String>,
    pub device: Option<String>,
    pub role: Option<String>,
    pub mtu: Option<u16>,
    pub address: Option<String>,
    pub gateway: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    pub name: Option<String>,
    pub public_key: Option<String>,
    pub preshared_key_file: Option<String>,
    pub mode: Option<String>,
    pub lan: Option<String>,
    pub mss_clamp: Option<bool>,
    pub path: Vec<Path>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Path {
    pub name: Option<String>,
    pub port: Option<String>,
    pub remote: Option<String>,
    pub roam: Option<bool>,
    pub flows: Option<Value>,
    pub mtu: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tunnel {
    pub listen_port: Option<u16>,
    pub ordering: Option<String>,
    pub predictor: Option<String>,
    pub shards: Option<Value>,
    pub repair: Option<Value>,
    pub retransmit: Option<bool>,
    pub interactive_hold_ms: Option<Value>,
    pub bulk_hold_ms: Option<Value>,
    pub held_frames_max: Option<Value>,
    pub reassembly_memory_mb: Option<Value>,
    pub overhead_limit: Option<Value>,
    pub queue_control: Option<bool>,
    pub retention_mb: Option<Value>,
    pub checksum: Option<bool>,
    pub state_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stats {
    pub listen: Option<String>,
    pub decisions_file: Option<String>,
    pub record_file: Option<String>,
}
