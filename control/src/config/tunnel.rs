//! The section `[tunnel]`, and `flows` of the paths.

use std::time::Duration;

use shardgate_core::endpoint::RepairMode;
use shardgate_core::limits::{HOLD_MAX, SHARDS_MAX};
use shardgate_core::predict::{Policy, Rack};
use shardgate_core::repair::{OPEN_MAX, WINDOW_MAX};
use shardgate_dataplane::config::{Ordering, TunnelSpec};
use toml::Value;

use super::file::{File, Tunnel};
use super::source::{ConfigError, Source};
use super::values::{later_value, number, one_of, shown};

const LISTEN_PORT_DEFAULT: u16 = 4600;
const INTERACTIVE_HOLD_DEFAULT_MS: i64 = 5;
const HELD_FRAMES_DEFAULT: i64 = 16_384;
const HELD_FRAMES_MAX: i64 = 1 << 20;
const REASSEMBLY_MEMORY_MB_DEFAULT: i64 = 64;
const REASSEMBLY_MEMORY_MB_MAX: i64 = 4096;
const FLOWS_MAX: i64 = 16;
const OVERHEAD_LIMIT_DEFAULT: f64 = 0.25;
/// Repair shards that cover each source shard where only their rate is given.
const REPAIR_WINDOWS: u64 = 4;
/// How much less than a fixed plan's share its limit may be: one was rounded, as 0.33 for 1/3.
const LIMIT_ROUNDED: f64 = 0.95;
/// Two rounds of asking on a satellite path at 50 Mbit/s take 9 MiB, on a metro path at 1 Gbit/s
/// less; memory that is never written to costs nothing.
const RETENTION_MB_AUTO: i64 = 32;
const RETENTION_MB_MAX: i64 = 4096;

/// Checks the section.
pub fn check(source: &Source, file: &File) -> Result<TunnelSpec, ConfigError> {
    let tunnel = &file.tunnel;
    let listen_port = tunnel.listen_port.unwrap_or(LISTEN_PORT_DEFAULT);
    if listen_port == 0 {
        return Err(source.error("tunnel.listen_port", "0 is not a UDP port: write 4600"));
    }
    let flows = flows(source, file, listen_port)?;
    let checksum = tunnel.checksum.unwrap_or(true);
    if !checksum && tunnel.repair.as_ref().and_then(Value::as_str) != Some("off") {
        let message = "false only with repair = \"off\": it guards what repair rebuilds";
        return Err(source.error("tunnel.checksum", message));
    }
    let overhead_limit = overhead_limit(source, tunnel)?;
    let repair = repair(source, tunnel, overhead_limit)?;
    let hold_ms_max = i64::try_from(HOLD_MAX.as_millis()).unwrap_or(i64::MAX);
    let whole = |key: &str, value: Option<&Value>, range, auto, default| {
        Ok(number(source, key, value, range, auto)?.unwrap_or(default) as u64)
    };
    Ok(TunnelSpec {
        listen_port,
        flows,
        shards: shards(source, tunnel)?,
        ordering: one_of(
            source,
            "tunnel.ordering",
            tunnel.ordering.as_ref(),
            Ordering::Lane,
            &[("lane", Ordering::Lane), ("none", Ordering::None)],
        )?,
        policy: predictor(source, tunnel)?,
        interactive_hold: Duration::from_millis(whole(
            "tunnel.interactive_hold_ms",
            tunnel.interactive_hold_ms.as_ref(),
            0..=hold_ms_max,
            false,
            INTERACTIVE_HOLD_DEFAULT_MS,
        )?),
        bulk_hold: number(
            source,
            "tunnel.bulk_hold_ms",
            tunnel.bulk_hold_ms.as_ref(),
            0..=hold_ms_max,
            true,
        )?
        .map(|ms| Duration::from_millis(ms as u64)),
        retransmit: tunnel.retransmit.unwrap_or(true),
        repair,
        overhead_limit,
        retention_bytes: whole(
            "tunnel.retention_mb",
            tunnel.retention_mb.as_ref(),
            1..=RETENTION_MB_MAX,
            true,
            RETENTION_MB_AUTO,
        )? as usize
            * (1 << 20),
        queue_control: tunnel.queue_control.unwrap_or(true),
        held_frames_max: whole(
            "tunnel.held_frames_max",
            tunnel.held_frames_max.as_ref(),
            64..=HELD_FRAMES_MAX,
            false,
            HELD_FRAMES_DEFAULT,
        )? as usize,
        reassembly_memory_bytes: whole(
            "tunnel.reassembly_memory_mb",
            tunnel.reassembly_memory_mb.as_ref(),
            1..=REASSEMBLY_MEMORY_MB_MAX,
            false,
            REASSEMBLY_MEMORY_MB_DEFAULT,
        )? as usize
            * (1 << 20),
        checksum,
    })
}

fn predictor(source: &Source, tunnel: &Tunnel) -> Result<Policy, ConfigError> {
    const KEY: &str = "tunnel.predictor";
    let Some(text) = tunnel.predictor.as_deref() else {
        return Ok(Policy::Rack(Rack::default()));
    };
    text.parse()
        .map_err(|unknown| source.error(KEY, format!("{text:?} is not known: {unknown}")))
}

/// A number in digits only.
fn whole_number(digits: &str) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}

/// One repair shard for every so many source shards, and how many it covers.
fn repair(source: &Source, tunnel: &Tunnel, limit: f64) -> Result<RepairMode, ConfigError> {
    const KEY: &str = "tunnel.repair";
    let wrong = |text: String| {
        let message = format!(
            "{text} does not fit: write \"auto\", \"off\", \"1/S\" for a repair shard every S shards, or \"1/S@W\" for one over the last W of them, 1 <= S <= W <= {WINDOW_MAX} and W at most {OPEN_MAX} S"
        );
        source.error(KEY, message)
    };
    let text = match &tunnel.repair {
        None => return Ok(RepairMode::Auto),
        Some(Value::String(text)) => text.as_str(),
        Some(other) => return Err(wrong(shown(other))),
    };
    match text {
        "auto" => return Ok(RepairMode::Auto),
        "off" => return Ok(RepairMode::Off),
        _ => {}
    }
    let fixed = text.strip_prefix("1/").and_then(|rest| {
        let (every, window) = match rest.split_once('@') {
            Some((every, window)) => (whole_number(every)?, whole_number(window)?),
            None => {
                let every = whole_number(rest)?;
                (
                    every,
                    every.saturating_mul(REPAIR_WINDOWS).min(WINDOW_MAX as u64),
                )
            }
        };
        let fits = (1..=WINDOW_MAX as u64).contains(&every)
            && (every..=WINDOW_MAX as u64).contains(&window)
            && window / every <= OPEN_MAX as u64;
        fits.then_some((every as u8, window as u8))
    });
    let (every, window) = fixed.ok_or_else(|| wrong(format!("{text:?}")))?;
    if limit * f64::from(every) < LIMIT_ROUNDED {
        return Err(source.error(KEY, unaffordable(text, every, limit)));
    }
    Ok(RepairMode::Fixed { every, window })
}

/// What is said about a plan that the budget would refuse at run time, and what fits instead.
fn unaffordable(text: &str, every: u8, limit: f64) -> String {
    let affordable = (1..=WINDOW_MAX as u8).find(|every| limit * f64::from(*every) >= 1.0);
    let instead = affordable.map_or("\"off\"".into(), |every| format!("\"1/{every}\""));
    let share = 1.0 / f64::from(every);
    format!(
        "{text:?} adds {:.1} % to what is sent, and overhead_limit = {limit} refuses what is beyond {:.1} %: \
         write {instead}, \"auto\", or overhead_limit = {}",
        100.0 * share,
        100.0 * limit,
        (100.0 * share).ceil() / 100.0
    )
}

fn overhead_limit(source: &Source, tunnel: &Tunnel) -> Result<f64, ConfigError> {
    let Some(value) = &tunnel.overhead_limit else {
        return Ok(OVERHEAD_LIMIT_DEFAULT);
    };
    let limit = value
        .as_float()
        .or_else(|| value.as_integer().map(|whole| whole as f64));
    limit
        .filter(|limit| (0.0..=1.0).contains(limit))
        .ok_or_else(|| {
            let message = format!(
                "{} does not fit: write a share of what the path delivers, from 0 to 1",
                shown(value)
            );
            source.error("tunnel.overhead_limit", message)
        })
}

fn shards(source: &Source, tunnel: &Tunnel) -> Result<(u8, u8), ConfigError> {
    const KEY: &str = "tunnel.shards";
    let most = SHARDS_MAX as u8;
    let wrong = |value: &Value| {
        let message = format!(
            "{} does not fit: write \"auto\" or {{ min = 1, max = {most} }}, both from 1 to {most} and min not above max",
            shown(value)
        );
        source.error(KEY, message)
    };
    match &tunnel.shards {
        None => Ok((1, most)),
        Some(Value::String(word)) if word == "auto" => Ok((1, most)),
        Some(value @ Value::Table(table)) => {
            if let Some(unknown) = table.keys().find(|key| *key != "min" && *key != "max") {
                let message =
                    format!("{unknown:?} is not known: write {{ min = 1, max = {most} }}");
                return Err(source.error(KEY, message));
            }
            let bound = |name: &str, default: u8| match table.get(name) {
                None => Some(default),
                Some(number) => number
                    .as_integer()
                    .and_then(|n| u8::try_from(n).ok())
                    .filter(|n| (1..=most).contains(n)),
            };
            match (bound("min", 1), bound("max", most)) {
                (Some(min), Some(max)) if min <= max => Ok((min, max)),
                _ => Err(wrong(value)),
            }
        }
        Some(value) => Err(wrong(value)),
    }
}

/// UDP source ports per path: one number for the gateway as long as a peer has one path.
fn flows(source: &Source, file: &File, listen_port: u16) -> Result<Option<u8>, ConfigError> {
    let mut agreed = None;
    for (at, peer) in file.peer.iter().enumerate() {
        for (path, settings) in peer.path.iter().enumerate() {
            let key = format!("peer[{at}].path[{path}].flows");
            let flows = number(source, &key, settings.flows.as_ref(), 1..=FLOWS_MAX, true)?;
            let flows = flows.and_then(|flows| u8::try_from(flows).ok());
            if agreed.is_some_and(|agreed| agreed != flows) {
                return Err(later_value(
                    source,
                    &key,
                    "another number of flows for each path",
                    "the same everywhere",
                ));
            }
            agreed = Some(flows);
        }
    }
    let flows = agreed.flatten();
    let last = u32::from(listen_port) + u32::from(flows.unwrap_or(1)) - 1;
    if last > u32::from(u16::MAX) {
        let message = format!(
            "{listen_port} leaves no room for the ports of {} flows above it: choose a lower one",
            flows.unwrap_or(1)
        );
        return Err(source.error("tunnel.listen_port", message));
    }
    Ok(flows)
}
