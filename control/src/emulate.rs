//! `shardgate emulate`: the WAN emulator of the dataplane, from the command line.

use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shardgate_dataplane::config::PollMode;
use shardgate_dataplane::emulator::{self, EmulatorConfig};
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::ProfileRef;

use crate::cli::{EmulateArgs, Poll};
use crate::config::{self, Machine, RIGHTS_REMEDY, device};
use crate::device_lock::DeviceLock;
use crate::output::{Failure, print_json};
use crate::stop::Signals;

/// Runs the emulator until a signal or the end of its time, and prints what it did.
pub fn emulate(args: &EmulateArgs) -> Result<(), Failure> {
    let emulator = emulator_config(args)?;
    emulator
        .check()
        .map_err(|error| Failure::Wrong(error.to_string()))?;
    if !config::has_rights(&Machine::read())
        && let Some(device) = [&args.left, &args.right]
            .into_iter()
            .find(|device| device::is_kernel_backed(device))
    {
        return Err(Failure::Wrong(format!(
            "{device:?} needs rights to open: {RIGHTS_REMEDY}"
        )));
    }
    let time = match args.seconds {
        None => None,
        Some(seconds) => Some(Duration::try_from_secs_f64(seconds).map_err(|_| {
            Failure::Wrong(format!(
                "--seconds {seconds} is no time: write a positive number"
            ))
        })?),
    };
    let lock = |option: &str, device: &str| {
        DeviceLock::take(device).map_err(|message| Failure::Wrong(format!("{option}: {message}")))
    };
    let _locks = [lock("--left", &args.left)?, lock("--right", &args.right)?];
    let signals = Signals::install()
        .map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
    if let Some(time) = time {
        let stop = signals.stop().clone();
        std::thread::spawn(move || {
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        });
    }
    let report = emulator::run(&emulator, signals.stop())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    print_json(&report)?;
    Ok(())
}

fn emulator_config(args: &EmulateArgs) -> Result<EmulatorConfig, Failure> {
    let wrong = |error: shardgate_sim::profiles::ProfileError| Failure::Wrong(error.to_string());
    let base = match &args.profile {
        Some(name) => ProfileRef::from_str(name)
            .and_then(|name| name.load_path())
            .map_err(wrong)?,
        None => PathProfile::default(),
    };
    let profile = PathProfile {
        delay_ms: args.delay_ms.unwrap_or(base.delay_ms),
        jitter_ms: args.jitter_ms.unwrap_or(base.jitter_ms),
        rate: args.rate.or(base.rate),
        queue_frames: args.queue_frames.or(base.queue_frames),
        loss: args.loss.unwrap_or(base.loss),
        burst: args.burst.unwrap_or(base.burst),
        reorder: args.reorder.unwrap_or(base.reorder),
        reorder_ms: args.reorder_ms.unwrap_or(base.reorder_ms),
        duplicate: args.duplicate.unwrap_or(base.duplicate),
        corrupt: args.corrupt.unwrap_or(base.corrupt),
        mtu: args.mtu.unwrap_or(base.mtu),
    };
    Ok(EmulatorConfig {
        left_to_right: profile.clone(),
        right_to_left: profile,
        seed: args.seed,
        poll: match args.poll {
            Poll::Adaptive => PollMode::Adaptive,
            Poll::Busy => PollMode::Busy,
        },
        hugepages: args.hugepages,
        cpus: args.cpus.clone(),
        ..EmulatorConfig::new(&args.left, &args.right)
    })
}
