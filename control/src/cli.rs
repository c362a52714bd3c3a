//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A DPDK gateway that joins two sites by one private tunnel over lossy WAN links.
#[derive(Debug, Parser)]
#[command(name = "shardgate", version, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground.
    Run(RunArgs),
    /// Make a private key.
    Keygen(KeygenArgs),
    /// Print the public key of a private key.
    Pubkey(PubkeyArgs),
    /// Read the stats of a running gateway.
    Stats(StatsArgs),
    /// Emulate a WAN path between two ports.
    Emulate(Box<EmulateArgs>),
    /// See or reserve hugepages.
    Hugepages(HugepagesArgs),
    /// Try things out in virtual time: no device, no rights, and the same seed gives the same
    /// figures.
    Sim(SimArgs),
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check everything that can be checked without touching a device, print what would run, and
    /// stop.
    #[arg(long)]
    pub check: bool,
}

/// `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Write the key to this new file, with mode 0600, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `pubkey`.
#[derive(Debug, Args)]
pub struct PubkeyArgs {
    /// Private key file; standard input if none is given.
    pub file: Option<PathBuf>,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print the document as it is.
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
    /// Look again every second, and show rates.
    #[arg(long)]
    pub watch: bool,
    /// Address of the endpoint: 127.0.0.1:9460, http://localhost:9460 or unix:/path.
    #[arg(
        long,
        visible_alias = "listen",
        value_name = "ADDR",
        conflicts_with = "config"
    )]
    pub url: Option<String>,
    /// Take the address from this configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `emulate`.
#[derive(Debug, Args)]
pub struct EmulateArgs {
    /// One port: PCI address or vdev arguments, as net_af_packet0,iface=eth0.
    #[arg(long, value_name = "DEV")]
    pub left: String,
    /// The other port.
    #[arg(long, value_name = "DEV")]
    pub right: String,
    /// Take the path from a profile file; the other options change what it says.
    #[arg(long, value_name = "FILE:NAME")]
    pub profile: Option<String>,
    /// One-way delay in milliseconds.
    #[arg(long, value_name = "MS")]
    pub delay_ms: Option<f64>,
    /// Standard deviation of the delay in milliseconds.
    #[arg(long, value_name = "MS")]
    pub jitter_ms: Option<f64>,
    /// Share of frames lost, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<f64>,
    /// Mean length of a run of losses in frames; 1 is independent loss.
    #[arg(long, value_name = "FRAMES")]
    pub burst: Option<f64>,
    /// Rate in Mbit/s of Ethernet frames; unlimited if not given.
    #[arg(long, value_name = "MBIT")]
    pub rate: Option<f64>,
    /// Share of frames that take a longer way, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub reorder: Option<f64>,
    /// How much longer that way is, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub reorder_ms: Option<f64>,
    /// Share of frames in which bits are flipped, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub corrupt: Option<f64>,
    /// Share of frames that arrive twice, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub duplicate: Option<f64>,
    /// Frames that wait at the bottleneck before the tail is dropped.
    #[arg(long, value_name = "FRAMES")]
    pub queue_frames: Option<u32>,
    /// Largest packet in bytes, without its Ethernet header.
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<u64>)]
    pub seed: u64,
    /// Stop after so many seconds; without it, on SIGINT or SIGTERM.
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// Take packet memory from hugepages.
    #[arg(long)]
    pub hugepages: bool,
    /// How to wait for frames.
    #[arg(long, value_enum, default_value_t = Poll::Adaptive)]
    pub poll: Poll,
    /// CPUs to run on, as 0-1; all that are allowed if not given.
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
}

/// How an emulator waits.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Poll {
    /// Sleep when there is nothing to do.
    Adaptive,
    /// Never sleep.
    Busy,
}

/// `hugepages`.
#[derive(Debug, Args)]
pub struct HugepagesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HugepagesCommand,
}

/// What to do with hugepages.
#[derive(Debug, Subcommand)]
pub enum HugepagesCommand {
    /// Show pools and mounts.
    Status,
    /// Fill the pool of the default page size to at least this much.
    Reserve {
        /// How much, as 512M or 2G.
        size: String,
        /// Do the same at every boot.
        #[arg(long)]
        persist: bool,
    },
}

/// `sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// What to try out.
    #[command(subcommand)]
    pub command: SimCommand,
}

/// What to try out.
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// One bulk TCP flow and one thin flow over the path of a profile.
    Profile(SimProfileArgs),
    /// When missing shards are asked for: every policy on the same channels, compared where they ask
    /// needlessly as often.
    Predict(SimPredictArgs),
    /// How plans changed: each decision of a gateway made again from what it was made from.
    Plan(SimPlanArgs),
}

/// What a profile file holds.
const PROFILE_HELP: &str = "\
A profile file is TOML. A path:
  [[single]]
  name = \"mine\"
  path = { delay_ms = 20, rate = 200, loss = 0.01 }
Keys of a path, each optional: delay_ms (one way), jitter_ms, rate (Mbit/s; unlimited without),
queue_frames, loss, burst (mean run of losses), reorder, reorder_ms, duplicate, corrupt, mtu. loss,
reorder, duplicate and corrupt are shares from 0 to 1. Two paths: [[pair]] with name, a and b.";

/// `sim profile`.
#[derive(Debug, Args)]
#[command(after_help = PROFILE_HELP)]
pub struct SimProfileArgs {
    /// A profile of a profile file; the paths of a pair are NAME/a and NAME/b.
    #[arg(value_name = "FILE:NAME")]
    pub profile: String,
    /// Virtual seconds; the first 3 are not counted.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 20.0,
        allow_negative_numbers = true
    )]
    pub seconds: f64,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<u64>)]
    pub seed: u64,
    /// How many seeds, counted up from the seed; of several the table has median and worst, the JSON
    /// document each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true,
        value_parser = whole::<u32>
    )]
    pub seeds: u32,
    /// A setting of both gateways, such as tunnel.repair=1/8@32; may be repeated.
    #[arg(long = "set", value_name = "tunnel.KEY=VALUE")]
    pub settings: Vec<String>,
    /// Print the report as one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `sim predict`.
#[derive(Debug, Args)]
pub struct SimPredictArgs {
    /// A trace, also compressed with gzip, or a gateway's record_file; the project's own channels
    /// without any.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub trace: Vec<PathBuf>,
    /// Judge only these policies.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub policy: Vec<String>,
    /// Shards of a channel, for each seed.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000,
        allow_negative_numbers = true,
        value_parser = whole::<usize>
    )]
    pub shards: usize,
    /// How many seeds follow from the seed; the spread between them is told.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        allow_negative_numbers = true,
        value_parser = whole::<u32>
    )]
    pub seeds: u32,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_parser = whole::<u64>)]
    pub seed: u64,
    /// Measure what each policy costs; then a seed does not give the same bytes each time.
    #[arg(long)]
    pub timing: bool,
    /// Print the report as one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `sim plan`.
#[derive(Debug, Args)]
pub struct SimPlanArgs {
    /// A gateway's decisions_file, or a saved answer of GET /decisions.
    #[arg(long, value_name = "FILE")]
    pub replay: PathBuf,
    /// Print the report as one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// A whole number of a type, whose range is told if it does not fit.
fn whole<T>(text: &str) -> Result<T, String>
where
    T: FromStr + Bounded,
{
    text.parse()
        .map_err(|_| format!("write a whole number from 0 to {}", T::MOST))
}

/// Types without negative numbers, and how far they go.
trait Bounded {
    const MOST: u64;
}

impl Bounded for u64 {
    const MOST: u64 = u64::MAX;
}

impl Bounded for usize {
    const MOST: u64 = usize::MAX as u64;
}

impl Bounded for u32 {
    const MOST: u64 = u32::MAX as u64;
}

/// clap's explanation of a wrong command line, as one line.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = first.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    if line.is_empty() || line.starts_with("Usage:") || !text.starts_with("error:") {
        return "no command is given: see shardgate --help".into();
    }
    format!("{line}: see shardgate --help")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_are_one_line() {
        let line = |args: &[&str]| {
            let error = Cli::try_parse_from([&["shardgate"], args].concat()).unwrap_err();
            one_line(&error)
        };
        assert_eq!(
            line(&["run"]),
            "the following required arguments were not provided: --config <FILE>: see shardgate --help"
        );
        assert!(line(&["fly"]).starts_with("unrecognized subcommand 'fly'"));
        assert_eq!(line(&[]), "no command is given: see shardgate --help");
        assert!(!line(&["stats", "--json", "--watch"]).contains('\n'));
    }
}
