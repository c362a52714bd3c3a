//! The shardgate protocol, pure: no DPDK, no clock, no thread, no socket, no `unsafe`.
//!
//! Time, packets and configuration come in as arguments; what is to be sent or delivered goes out
//! through arguments. The lcores of the dataplane and the simulator run the same types.
//!
//! | module | what it does |
//! |---|---|
//! | [`wire`] | what stands on the wire; `wire/SPEC.md` is its specification |
//! | [`classify`], [`flows`], [`lane`] | from a frame to its lane, and what its flow has to say in it |
//! | [`mss`], [`ecn`] | clamping TCP's segment size; marking congestion |
//! | [`sender`] | the packet aggregator: frames of a burst become an aggregate, that becomes n shards |
//! | [`seal`] | the right to use a nonce, and the states of a shard as types |
//! | [`receiver`] | the predictive buffer: replay window, placing, frames, lanes, holes |
//! | [`estimate`], [`congestion`] | what is known of a path; what may be added to it |
//! | [`repair`] | the sliding-window erasure code: repair shards, and rebuilding from them |
//! | [`path_mtu`] | how large packets a path carries, found by probes (RFC 8899) |
//! | [`plan`] | how much repair, how small shards, and why |
//! | [`predict`] | the [`Predictor`](predict::Predictor) trait and the fixed policy |
//! | [`buffer`], [`time`], [`seq`] | packet memory, time and wrapping numbers as values |
//! | [`limits`], [`drop_reason`] | every bound with its reason; every way to die with its name |
//!
//! A frame's way: [`classify::classify`] → [`sender::StreamSender`] → [`seal::Unsealed`] → a
//! crypto unit → the WAN → [`seal::Received`] → a crypto unit → [`seal::Opened`] →
//! [`receiver::PredictiveBuffer`] → the LAN.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod buffer;
pub mod classify;
pub mod congestion;
pub mod drop_reason;
pub mod ecn;
pub mod endpoint;
pub mod estimate;
pub mod flows;
pub mod histogram;
pub mod lane;
pub mod limits;
pub mod mss;
pub mod path_mtu;
pub mod plan;
pub mod predict;
pub mod receiver;
pub mod repair;
pub mod seal;
pub mod sender;
pub mod seq;
pub mod time;
pub mod wire;

// One file for the tests in here and those outside, which know this crate by its name.
#[cfg(test)]
extern crate self as shardgate_core;
#[cfg(test)]
#[path = "../tests/common/aead.rs"]
mod test_aead;

/// Which of `owners` lcores receives a stream. Those are the lcores that send to the same peer, in
/// the order of their streams, so whoever sends stream 0 also receives stream 0.
pub fn owner(stream: u8, owners: usize) -> usize {
    usize::from(stream) % owners.max(1)
}
