//! The only safe wrapper over `dpdk-sys`: EAL, lcores, ports and their queues, mbufs, pools, rings,
//! crypto device discovery and the TSC.
//!
//! # What the types promise
//!
//! | type | owns | given back |
//! |---|---|---|
//! | [`Eal`] | the process's one EAL | when it and everything made from it is gone |
//! | [`LcoreHandle`] | a closure running on an lcore | joined, or waited for on drop |
//! | [`Pool`] | a share of a mempool | freed with its last share if all mbufs are home; else leaked and counted |
//! | [`Mbuf`] | one linear packet, alone | to its pool on drop; to the driver by [`TxQueue::burst`] |
//! | [`Port`] | a device | stopped and closed when it and its queues are gone |
//! | [`RxQueue`], [`TxQueue`] | one queue of a started port | with the port |
//! | [`Producer`], [`Consumer`] | one end of an SPSC ring | the last end frees what is inside, then the ring |
//!
//! A packet is owned in exactly one place: an [`Mbuf`] can be neither copied nor cloned, sending
//! takes it out of the caller's [`Burst`], and what was not taken stays there. So a double free or a
//! use after transmit does not compile:
//!
//! ```compile_fail,E0382
//! fn double_free(mbuf: shardgate_dpdk::Mbuf) {
//!     drop(mbuf);
//!     drop(mbuf);
//! }
//! ```
//! ```compile_fail,E0599
//! fn copy(mbuf: &shardgate_dpdk::Mbuf) -> shardgate_dpdk::Mbuf {
//!     mbuf.clone()
//! }
//! ```
//! ```compile_fail,E0502
//! use shardgate_core::buffer::Buffer;
//! fn use_after_transmit(queue: &mut shardgate_dpdk::TxQueue, burst: &mut shardgate_dpdk::Burst) {
//!     let data = burst[0].data();
//!     queue.burst(burst);
//!     println!("{}", data.len());
//! }
//! ```
//! A queue is in one hand, so two lcores cannot poll it:
//! ```compile_fail,E0382
//! use shardgate_dpdk::{Eal, LcoreId, RxQueue};
//! fn two_pollers(eal: &Eal, queue: RxQueue) {
//!     let first = eal.launch(LcoreId(1), move || drop(queue));
//!     let second = eal.launch(LcoreId(2), move || drop(queue));
//! }
//! ```
//!
//! # How it is laid out
//!
//! Everything crosses to C a [`Burst`] at a time: [`Mbuf`] is `repr(transparent)` over the pointer
//! that DPDK uses, so a burst is the array that C expects, and nothing is converted. [`Ring`](ring)
//! carries any [`RingItem`], which keeps the typestate wrappers of the core when a packet changes
//! lcores. The core's `Meta` travels in a dynamic field of the mbuf.
//!
//! Setting up is cold: it allocates, locks and returns [`Error`]. Bursts do none of that.
#![deny(missing_docs)]

pub mod af_packet;
pub mod cryptodev;
pub mod eal;
mod error;
pub mod lcore;
pub mod mbuf;
pub mod pool;
pub mod port;
pub mod queue;
pub mod ring;
pub mod tsc;

pub use cryptodev::{CryptoDevice, CryptoVdev};
pub use eal::{Eal, EalConfig, LcoreHandle, LogLevel};
pub use error::Error;
pub use lcore::LcoreId;
pub use mbuf::{Mbuf, free_burst};
pub use pool::{Pool, leaked_pools};
pub use port::{Port, PortConfig, PortInfo, PortStats};
pub use queue::{RxQueue, TxQueue};
pub use ring::{Consumer, Producer, RingItem, spsc};
pub use tsc::Clock;

/// Packets that cross to C in one call. 32 amortises the call and a driver's bookkeeping, and keeps
/// a burst's descriptors and headers in the first-level cache.
pub const BURST: usize = 32;

/// Up to [`BURST`] packets (or typed wrappers of packets) in one hand.
pub type Burst<T = Mbuf> = arrayvec::ArrayVec<T, BURST>;
