//! What stands on the wire; its specification is `SPEC.md` beside this file.

pub mod checksum;
pub mod feedback;
pub mod frame;
pub mod handshake;
pub mod header;
pub mod outer;
pub mod shard;

use core::net::IpAddr;

use header::{CLEAR_HEADER_LEN, TAG_LEN};
use outer::{IPV4_LEN, IPV6_LEN, UDP_LEN};
use shard::{CODED_META_LEN, REPAIR_HEADER_LEN, SOURCE_HEADER_LEN};

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// The larger of what a source and what a repair shard put around a payload: a repair shard
/// carries the coded meta fields beside the longest payload of its window.
pub(crate) const SHARD_OVERHEAD: usize =
    CLEAR_HEADER_LEN + max(SOURCE_HEADER_LEN, REPAIR_HEADER_LEN + CODED_META_LEN) + TAG_LEN;

/// Bytes of an outer IPv4 packet that are not payload: 86.
pub const OVERHEAD_IPV4: usize = IPV4_LEN + UDP_LEN + SHARD_OVERHEAD;

/// Bytes of an outer IPv6 packet that are not payload: 106.
pub const OVERHEAD_IPV6: usize = IPV6_LEN + UDP_LEN + SHARD_OVERHEAD;

/// Most payload of a shard on a path whose packets have at most `mtu` bytes, between addresses of
/// this family.
pub fn payload_max(mtu: u16, remote: IpAddr) -> usize {
    let overhead = if remote.is_ipv4() {
        OVERHEAD_IPV4
    } else {
        OVERHEAD_IPV6
    };
    usize::from(mtu).saturating_sub(overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads_are_what_the_specification_says() {
        assert_eq!((OVERHEAD_IPV4, OVERHEAD_IPV6), (86, 106));
        assert_eq!(payload_max(1500, "10.0.0.1".parse().unwrap()), 1414);
        assert_eq!(payload_max(1500, "fd00::1".parse().unwrap()), 1394);
        assert_eq!(payload_max(50, "10.0.0.1".parse().unwrap()), 0);
    }
}
