//! The automatic plan against every fixed setting of n and repair: goodput and the thin flow's 99th
//! percentile of delay over the `single` profiles, in the simulator.
//!
//! ```sh
//! cargo run --release -p shardgate-sim --example plan_grid -- --seeds 3 loss_1 far
//! cargo run --release -p shardgate-sim --example plan_grid -- --auto --seeds 5
//! ```
//!
//! Prints a row for each setting and profile, means over the seeds; at the end the geometric mean over
//! the profiles of goodput by delay. `--auto` leaves the fixed settings out, `--seconds N` measures for
//! so long after 3 s.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints its table"
)]

use std::path::Path;
use std::process::exit;
use std::time::Duration;

use shardgate_core::endpoint::RepairMode;
use shardgate_sim::evaluate::{Options, run};
use shardgate_sim::gateway::{Gateway, ShardedConfig, ShardedGateway};
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::ProfileFile;
use shardgate_sim::world::Site;

/// A row of the grid.
#[derive(Clone)]
struct Setting {
    name: String,
    repair: RepairMode,
    shards_min: usize,
}

fn grid(is_short: bool) -> Vec<Setting> {
    let mut settings = vec![Setting {
        name: "auto".into(),
        repair: RepairMode::Auto,
        shards_min: 1,
    }];
    let fixed = [
        ("off", RepairMode::Off),
        ("1/8@32", fixed(8, 32)),
        ("1/8@128", fixed(8, 128)),
        ("1/16@64", fixed(16, 64)),
        ("1/16@192", fixed(16, 192)),
        ("1/32@192", fixed(32, 192)),
    ];
    for (name, repair) in fixed {
        for shards_min in [1, 2, 4] {
            settings.push(Setting {
                name: format!("n{shards_min} {name}"),
                repair,
                shards_min,
            });
        }
    }
    settings.truncate(if is_short { 1 } else { settings.len() });
    settings
}

fn fixed(every: u8, window: u8) -> RepairMode {
    RepairMode::Fixed { every, window }
}

/// Means over the seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    goodput: f64,
    p99_ms: f64,
    added: f64,
    headers: f64,
    thin_loss: f64,
}

fn measure(path: &PathProfile, setting: &Setting, seeds: u64, options: Options) -> Row {
    let make = |seed: u64| {
        let mut config = ShardedConfig::automatic(1, 1_500);
        config.endpoint.recovery.repair = setting.repair;
        config.endpoint.sender.shards_min = setting.shards_min;
        [Site::A, Site::B]
            .map(|site| Box::new(ShardedGateway::new(config, site, seed)) as Box<dyn Gateway>)
    };
    let mut row = Row::default();
    for seed in 1..=seeds {
        let paths = std::slice::from_ref(path);
        let outcome = run(paths, &make, seed, options, &mut |_| {})
            .expect("the project's own profiles are sound");
        let over = &outcome.overhead_percent;
        row.goodput += outcome.goodput_mbit_per_s;
        row.p99_ms += outcome.frame_delay_ms.p99.unwrap_or(f64::NAN);
        row.added += over.repair + over.repeats + over.feedback;
        row.headers += over.headers;
        row.thin_loss += 100.0 * outcome.residual_loss;
    }
    let n = seeds as f64;
    Row {
        goodput: row.goodput / n,
        p99_ms: row.p99_ms / n,
        added: row.added / n,
        headers: row.headers / n,
        thin_loss: row.thin_loss / n,
    }
}

struct Arguments {
    is_short: bool,
    seeds: u64,
    options: Options,
    names: Vec<String>,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        is_short: false,
        seeds: 1,
        options: Options {
            warm_up: Duration::from_secs(3),
            measured: Duration::from_secs(12),
        },
        names: vec![],
    };
    let mut words = std::env::args().skip(1);
    let number = |word: Option<String>, name: &str| match word.and_then(|word| word.parse().ok()) {
        Some(number) if number > 0 => number,
        _ => {
            eprintln!("plan_grid: {name} takes a whole number");
            exit(2);
        }
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--auto" => arguments.is_short = true,
            "--seeds" => arguments.seeds = number(words.next(), "--seeds"),
            "--seconds" => {
                let seconds: u64 = number(words.next(), "--seconds");
                arguments.options.measured = Duration::from_secs(seconds);
            }
            _ => arguments.names.push(word),
        }
    }
    arguments
}

fn main() {
    let arguments = arguments();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles.toml");
    let file = ProfileFile::load(&file).expect("the project's own profiles are sound");
    let names = &arguments.names;
    let profiles: Vec<_> = (file.single.into_iter())
        .filter(|single| names.is_empty() || names.contains(&single.name))
        .collect();
    if profiles.is_empty() {
        eprintln!("plan_grid: none of these is a single profile: {names:?}");
        exit(2);
    }
    let settings = grid(arguments.is_short);
    let mut scores = vec![0.0; settings.len()];
    for profile in &profiles {
        println!(
            "{:<12} {:<12}  Mbit/s  thin p99 ms  thin loss %  added %  headers %",
            profile.name, "setting"
        );
        // Two at a time.
        for (at, pair) in settings.chunks(2).enumerate() {
            let rows: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = (pair.iter())
                    .map(|setting| {
                        let (seeds, options) = (arguments.seeds, arguments.options);
                        scope.spawn(move || measure(&profile.path, setting, seeds, options))
                    })
                    .collect();
                let done = running
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"));
                done.collect()
            });
            for ((setting, row), slot) in pair.iter().zip(rows).zip(2 * at..) {
                println!(
                    "{:<12} {:<12}  {:>6.1}  {:>11.1}  {:>11.3}  {:>7.2}  {:>9.2}",
                    "",
                    setting.name,
                    row.goodput,
                    row.p99_ms,
                    row.thin_loss,
                    row.added,
                    row.headers
                );
                if let Some(score) = scores.get_mut(slot) {
                    *score += (row.goodput / row.p99_ms).ln();
                }
            }
        }
    }
    println!("geometric mean of goodput / p99 over the profiles, Mbit/s for a ms");
    for (setting, score) in settings.iter().zip(scores) {
        let mean = (score / profiles.len() as f64).exp();
        println!("{:<12} {mean:>7.3}", setting.name);
    }
}
