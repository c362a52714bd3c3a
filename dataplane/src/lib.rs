//! The lcore pipelines: rx, crypto units, tx, and the WAN emulator.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`], [`command`] | what the control program asks for, before the start and after |
//! | [`placement`] | which lcore does what: a pure function |
//! | [`engine`] | starting, commanding, counting, stopping |
//! | [`lcore`] | the loops themselves |
//! | [`counters`] | counters that one lcore writes and others read |
//! | [`record`], [`decisions`] | what arrived and how plans changed, on their way to a file |
//! | [`emulator`] | the WAN emulator: a path model between two ports, in real time |
//!
//! The pipelines move packets and decide nothing slow: what a frame becomes is up to
//! `shardgate-core`, what a key is up to the control program. Each packet is owned by one stage;
//! stages on different lcores are joined by SPSC rings, and a ring without room is felt as
//! back-pressure at the entrance, where frames wait unnumbered.
#![forbid(unsafe_code)]

pub mod command;
pub mod config;
pub mod counters;
pub mod decisions;
pub mod emulator;
pub mod engine;
pub mod lcore;
pub mod placement;
pub mod record;
