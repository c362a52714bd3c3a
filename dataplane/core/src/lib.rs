//! The shardgate protocol, pure: no DPDK, no clock, no thread, no socket, no `unsafe`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod buffer;
pub mod limits;
pub mod time;
