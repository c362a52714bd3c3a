//! The program `shardgate`: command line, configuration, keys and handshakes, the control thread,
//! and the stats endpoint.
//!
//! | module | what it is |
//! |---|---|
//! | `cli`, `output` | the command line; results on stdout, one line of error on stderr |
//! | `config` | the configuration file, checked key by key |
//! | `keys`, `key_commands` | X25519 keys in files, `keygen`, `pubkey` |
//! | `session` | handshakes and keys: a pure state machine |
//! | `network` | ARP, ICMP echo and UDP of the gateway's own addresses: pure |
//! | `dataplane`, `engine` | what the control thread needs of a dataplane, and the real one |
//! | `gateway` | the control loop over the three above |
//! | `record` | what arrived, into a file for `sim predict` |
//! | `decisions` | changes of plans as JSON: to be shown, and into a file for `sim plan` |
//! | `run` | from a configuration to a running gateway and to its orderly end |
//! | `stats` | the stats document, the endpoint, and the command that reads it |
//! | `device_lock` | one process per device |
//! | `emulate`, `hugepages`, `sim` | the commands of that name |
//! | `limits` | every bound, with its reason |
//!
//! One thread controls: it polls the engine for frames that concern the gateway itself, runs
//! sessions and timers, and posts commands to the lcores. It seals nothing and touches no packet
//! that an lcore owns. The stats endpoint has threads of its own and only reads.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod dataplane;
mod decisions;
mod device_lock;
mod emulate;
mod engine;
#[cfg(test)]
mod fake;
mod gateway;
mod hugepages;
mod key_commands;
mod keys;
mod limits;
mod network;
mod output;
mod path_mtu;
mod record;
mod run;
mod session;
mod sim;
mod state;
mod stats;
mod stop;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::output::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) if !message.use_stderr() => {
            // --help and --version. If nobody reads them, nobody misses them.
            let _ = message.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&Failure::Wrong(cli::one_line(&error))),
    };
    log_to_stderr();
    let result = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Keygen(args) => key_commands::keygen(args),
        Command::Pubkey(args) => key_commands::pubkey(args),
        Command::Stats(args) => stats::read::stats(args),
        Command::Emulate(args) => emulate::emulate(args),
        Command::Hugepages(args) => hugepages::hugepages(args),
        Command::Sim(args) => sim::sim(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    // Without stderr there is still the exit code.
    let _ = writeln!(std::io::stderr(), "shardgate: {}", failure.line());
    ExitCode::from(failure.exit_code())
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        // It would be reported on stderr, which is what has failed, and end in a panic.
        .log_internal_errors(false)
        .init();
}
