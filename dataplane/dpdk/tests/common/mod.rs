//! One EAL for each test process.
//!
//! EAL is per process. `cargo test` runs the tests of a file as threads of one process, nextest runs
//! each in its own; a shared EAL, made when the first test asks for it, serves both.

mod config;

use std::sync::LazyLock;

use shardgate_dpdk::Eal;

/// The process's EAL; never cleaned up.
pub fn eal() -> &'static Eal {
    static EAL: LazyLock<Eal> =
        LazyLock::new(|| Eal::init(&config::eal_config()).expect("EAL starts"));
    &EAL
}
