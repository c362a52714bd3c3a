//! Raw bindings to DPDK. Everything here is `unsafe`; `shardgate-dpdk` is the safe wrapper and the
//! only user.
//!
//! Three pieces, and nothing else:
//!
//! - bindgen over an allowlist of functions (in `build.rs`): all of `rte_.*` gives 26,000 lines that
//!   do not compile, and nobody could read them;
//! - a C shim (`shim/`), compiled with DPDK's own flags, that turns DPDK's static inlines into
//!   calls on whole bursts, and flattens the structures whose layout differs between DPDK versions;
//! - the mirror of [`rte_mbuf`] below: the fields that Rust touches, each checked against the real
//!   header when this crate is compiled.
//!
//! Linkage is shared: EAL loads the drivers in DPDK's plugin folder at start.
#![no_std]
#![allow(non_camel_case_types, non_upper_case_globals)]

use core::ffi::c_void;
use core::mem::offset_of;

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// A ring of mbufs that are free; opaque.
#[repr(C)]
pub struct rte_mempool {
    _opaque: [u8; 0],
}

/// A lock-free queue of pointers; opaque.
#[repr(C)]
pub struct rte_ring {
    _opaque: [u8; 0],
}

/// Options of an rx queue; only ever null, which stands for the driver's defaults.
#[repr(C)]
pub struct rte_eth_rxconf {
    _opaque: [u8; 0],
}

/// Options of a tx queue; only ever null, which stands for the driver's defaults.
#[repr(C)]
pub struct rte_eth_txconf {
    _opaque: [u8; 0],
}

/// The part of DPDK's packet buffer that Rust touches: the first cache line, without the fields of
/// the receive descriptor that nobody reads. The real structure has anonymous unions whose
/// generated names change with the DPDK version; these fields have not moved since 20.11.
#[repr(C, align(64))]
pub struct rte_mbuf {
    /// Start of the segment's memory.
    pub buf_addr: *mut c_void,
    _buf_iova: u64,
    /// Where the data starts, from `buf_addr`.
    pub data_off: u16,
    /// Owners of the segment.
    pub refcnt: u16,
    /// Segments of the packet.
    pub nb_segs: u16,
    /// Port it was received on.
    pub port: u16,
    /// Offload features.
    pub ol_flags: u64,
    _packet_type: u32,
    /// Bytes of the packet, all segments.
    pub pkt_len: u32,
    /// Bytes of data in this segment.
    pub data_len: u16,
    /// VLAN tag that the driver took out of the data.
    pub vlan_tci: u16,
    _hash: [u32; 2],
    _vlan_tci_outer: u16,
    /// Bytes of the segment's memory.
    pub buf_len: u16,
    /// The pool it goes back to.
    pub pool: *mut rte_mempool,
    _second_cache_line: [u64; 8],
}

const _: () = {
    assert!(size_of::<rte_mbuf>() == SHIM_MBUF_SIZE as usize);
    assert!(offset_of!(rte_mbuf, buf_addr) == SHIM_MBUF_BUF_ADDR as usize);
    assert!(offset_of!(rte_mbuf, data_off) == SHIM_MBUF_DATA_OFF as usize);
    assert!(offset_of!(rte_mbuf, refcnt) == SHIM_MBUF_REFCNT as usize);
    assert!(offset_of!(rte_mbuf, nb_segs) == SHIM_MBUF_NB_SEGS as usize);
    assert!(offset_of!(rte_mbuf, port) == SHIM_MBUF_PORT as usize);
    assert!(offset_of!(rte_mbuf, ol_flags) == SHIM_MBUF_OL_FLAGS as usize);
    assert!(offset_of!(rte_mbuf, pkt_len) == SHIM_MBUF_PKT_LEN as usize);
    assert!(offset_of!(rte_mbuf, data_len) == SHIM_MBUF_DATA_LEN as usize);
    assert!(offset_of!(rte_mbuf, vlan_tci) == SHIM_MBUF_VLAN_TCI as usize);
    assert!(offset_of!(rte_mbuf, buf_len) == SHIM_MBUF_BUF_LEN as usize);
    assert!(offset_of!(rte_mbuf, pool) == SHIM_MBUF_POOL as usize);
    assert!(offset_of!(rte_mbuf, _second_cache_line) <= SHIM_MBUF_DYNFIELD1 as usize);
};
