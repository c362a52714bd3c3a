//! What holding, repair, asking again and queue control make of one TCP cubic flow: goodput over a
//! grid of settings, in the simulator. `scripts/experiment` measures the same in the lab.
//!
//! ```sh
//! cargo run --release -p shardgate-sim --example recovery_grid -- loss_1 burst_1 loss_5 far
//! ```
//!
//! Prints a row for each setting: goodput in Mbit/s, repair, repeats and feedback of both gateways in
//! percent of the bytes of all frames, the thin flow's 99th percentile of one-way delay in ms and the
//! share of its frames that never came, and the bottleneck's mean queue in ms.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints its table"
)]

use std::path::Path;
use std::time::Duration;

use shardgate_core::endpoint::RepairMode;
use shardgate_core::predict::HoldBounds;
use shardgate_sim::evaluate::{Options, Outcome, run};
use shardgate_sim::gateway::{Gateway, ShardedConfig, ShardedGateway};
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::ProfileRef;
use shardgate_sim::world::Site;

const SEED: u64 = 1;
const OPTIONS: Options = Options {
    warm_up: Duration::from_secs(3),
    measured: Duration::from_secs(12),
};

/// A row of the grid.
#[derive(Clone, Copy)]
struct Setting {
    hold_ms: Option<u64>,
    repair: (&'static str, RepairMode),
    retransmit: bool,
    queue_control: bool,
}

impl Setting {
    fn name(&self) -> String {
        let hold = self
            .hold_ms
            .map_or_else(|| "auto".to_owned(), |ms| ms.to_string());
        let yes = |is: bool| if is { "yes" } else { "no" };
        format!(
            "{hold:>5}  {:<8}  {:<3}  {:<3}",
            self.repair.0,
            yes(self.retransmit),
            yes(self.queue_control)
        )
    }

    fn config(&self) -> ShardedConfig {
        let mut config = ShardedConfig::automatic(1, 1_500);
        let interactive = Duration::from_millis(5);
        let bulk = self.hold_ms.map(Duration::from_millis);
        let endpoint = &mut config.endpoint;
        endpoint.receiver.hold_bounds = HoldBounds::new(interactive, bulk);
        endpoint.receiver.asks = self.retransmit;
        endpoint.recovery.retransmit = self.retransmit;
        endpoint.recovery.repair = self.repair.1;
        endpoint.recovery.queue_control = self.queue_control;
        endpoint.receiver.passes_on = !self.queue_control;
        config
    }
}

fn grid() -> Vec<Setting> {
    let fixed = |every, window| RepairMode::Fixed { every, window };
    let repairs = [
        ("off", RepairMode::Off),
        ("1/8@32", fixed(8, 32)),
        ("1/16@64", fixed(16, 64)),
        ("auto", RepairMode::Auto),
    ];
    let mut settings = vec![];
    for retransmit in [false, true] {
        for repair in repairs {
            for hold_ms in [Some(0), Some(20), None] {
                settings.push(Setting {
                    hold_ms,
                    repair,
                    retransmit,
                    queue_control: true,
                });
            }
        }
    }
    settings.push(Setting {
        hold_ms: None,
        repair: ("auto", RepairMode::Auto),
        retransmit: true,
        queue_control: false,
    });
    settings
}

fn measure(path: &PathProfile, setting: &Setting) -> Outcome {
    let config = setting.config();
    let make = |seed: u64| {
        [Site::A, Site::B]
            .map(|site| Box::new(ShardedGateway::new(config, site, seed)) as Box<dyn Gateway>)
    };
    run(
        std::slice::from_ref(path),
        &make,
        SEED,
        OPTIONS,
        &mut |_| {},
    )
    .expect("the project's own profiles are sound")
}

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    // For a quick look: only the default setting, and the one without queue control.
    let is_short = names.first().is_some_and(|name| name == "--default");
    if is_short {
        names.remove(0);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles.toml");
    for name in names {
        let profile = ProfileRef {
            file: file.clone(),
            name: name.clone(),
        };
        let path = match profile.load_path() {
            Ok(path) => path,
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(2);
            }
        };
        println!(
            "{name}\n hold  repair    ask  q-c   Mbit/s  added %  thin p99 ms  thin loss %  queue ms"
        );
        let mut settings = grid();
        if is_short {
            settings.drain(..settings.len() - 2);
        }
        // Two at a time.
        for pair in settings.chunks(2) {
            let rows: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = pair
                    .iter()
                    .map(|setting| scope.spawn(|| (setting.name(), measure(&path, setting))))
                    .collect();
                let done = running
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"));
                done.collect()
            });
            for (name, outcome) in rows {
                let over = &outcome.overhead_percent;
                println!(
                    "{name}  {:>7.1}  {:>7.2}  {:>11.1}  {:>11.3}  {:>8.1}",
                    outcome.goodput_mbit_per_s,
                    over.repair + over.repeats + over.feedback,
                    outcome.frame_delay_ms.p99.unwrap_or(f64::NAN),
                    outcome.residual_loss * 100.0,
                    outcome.queue_ms.mean,
                );
            }
        }
    }
}
