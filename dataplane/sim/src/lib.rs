//! The world around a gateway, in numbers: what a WAN path does to frames.
//!
//! # The path model
//!
//! [`path::PathModel`] is one direction of one path. It takes `now` and the size of a frame and
//! answers when the frame departs at the far end, once or twice, with which bits flipped, or why
//! it never does. It holds no frames, reads no clock and does no I/O, so the same model runs in
//! virtual time in the simulator and in real time in the WAN emulator. A frame meets the parts of
//! the model in the order in which a real link has them:
//!
//! ```text
//!  offer ─► MTU ─► drop-tail queue ─► link at `rate` ─► loss ─► delay + jitter (+ reorder) ─► departure
//!                                                          └─► the same again for a duplicate
//! ```
//!
//! Loss lies behind the bottleneck: a lost frame has used its share of the link, as on a radio.
//!
//! # Profiles
//!
//! [`path::PathProfile`] holds the parameters; [`profiles`] reads them from a TOML file of single
//! paths and pairs and takes the `FILE:NAME` of the command line.
//!
//! # Determinism
//!
//! Same profile, seed and offers: same verdicts. Every part of the model draws from a stream of
//! its own, so adding jitter to a profile does not move its losses, and two profiles can be
//! compared under the same luck.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod evaluate;
pub mod gateway;
pub mod packet;
pub mod path;
pub mod profiles;
mod seeds;
pub mod tcp;
pub mod traffic;
pub mod world;
