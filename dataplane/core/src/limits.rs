//! Every bound of the protocol core, in one place, each with its reason.

/// Bytes every pool keeps free before a packet's data: DPDK's own default. The outer headers
/// (62 bytes with IPv6), the clear and the sealed header (40) and a frame header (6) go there.
pub const HEADROOM: usize = 128;
