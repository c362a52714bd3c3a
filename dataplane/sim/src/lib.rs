//! The world around a gateway: what a WAN path does to frames, and what hosts make of that.
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
//! # The world
//!
//! [`world::World`] puts two gateways at the ends of such paths, hosts behind them, and an oracle
//! beside them, in virtual time. [`gateway`] has the trait by which a gateway is plugged in, a
//! plain tunnel, and the real one around the protocol core. Hosts are [`tcp`] and [`traffic`]
//! with real bytes in their frames ([`packet`]). [`evaluate`] tells what a tunnel is worth on a
//! profile, next to the plain one.
//!
//! # The judge of predictors
//!
//! [`predict`] plays channels, real ones or generated, to the core's predictive buffer under every
//! policy, and compares what they are worth where they ask needlessly as often.
//!
//! # Profiles
//!
//! [`path::PathProfile`] holds the parameters; [`profiles`] reads them from a TOML file of single
//! paths and pairs and takes the `FILE:NAME` of the command line. `profiles.toml` beside this
//! package is the project's own.
//!
//! # Determinism
//!
//! Same profile, seed and offers: same verdicts. Every part of the model draws from a stream of
//! its own, so adding jitter to a profile does not move its losses, and two profiles can be
//! compared under the same luck.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod evaluate;
pub mod files;
pub mod gateway;
pub mod packet;
pub mod path;
pub mod predict;
pub mod profiles;
mod seeds;
pub mod tcp;
pub mod traffic;
pub mod world;
