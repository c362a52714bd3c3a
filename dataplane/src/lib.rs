//! The lcore pipelines: rx, crypto units, tx, and the WAN emulator.
#![forbid(unsafe_code)]

pub mod command;
pub mod config;
