//! `--set` of `sim profile`: keys of the section `[tunnel]`, checked as the configuration's, for the
//! simulated gateways.

use std::path::Path;

use shardgate_core::endpoint::{EndpointConfig, RepairMode};
use shardgate_core::predict::HoldBounds;
use shardgate_dataplane::config::{Ordering, TunnelSpec};

use crate::config::{self, ConfigError, Source};

/// The keys that mean something to a simulated gateway.
const KEYS: [&str; 11] = [
    "bulk_hold_ms",
    "held_frames_max",
    "interactive_hold_ms",
    "ordering",
    "overhead_limit",
    "predictor",
    "queue_control",
    "repair",
    "retention_mb",
    "retransmit",
    "shards",
];

/// Settings of both simulated gateways.
#[derive(Debug)]
pub(super) struct Settings {
    keys: Vec<&'static str>,
    spec: TunnelSpec,
}

impl Settings {
    /// Reads `tunnel.KEY=VALUE`s; a value that is not TOML is text.
    pub(super) fn read(texts: &[String]) -> Result<Self, String> {
        let mut keys = Vec::new();
        let mut section = String::from("[tunnel]\n");
        for text in texts {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| format!("{text:?} is not tunnel.KEY=VALUE"))?;
            let key = known(name)?;
            if keys.contains(&key) {
                return Err(format!("tunnel.{key} is set twice: set it once"));
            }
            keys.push(key);
            section.push_str(&format!("{key} = {}\n", as_toml(value)));
        }
        let spec = config::tunnel(&Source::new(Path::new("--set"), section))
            .map_err(|ConfigError { key, message, .. }| format!("{key}: {message}"))?;
        Ok(Self { keys, spec })
    }

    /// Changes what was set, and nothing else: the simulator has defaults of its own.
    pub(super) fn apply(&self, endpoint: &mut EndpointConfig) {
        let spec = &self.spec;
        let EndpointConfig {
            sender,
            recovery,
            receiver,
            policy,
            ..
        } = endpoint;
        for key in &self.keys {
            match *key {
                "held_frames_max" => receiver.held_frames_max = spec.held_frames_max,
                "ordering" => receiver.ordered = spec.ordering == Ordering::Lane,
                "overhead_limit" => recovery.overhead_limit = spec.overhead_limit,
                "predictor" => *policy = spec.policy,
                "queue_control" => recovery.queue_control = spec.queue_control,
                "repair" => recovery.repair = spec.repair,
                "retention_mb" => recovery.retention_bytes = spec.retention_bytes,
                "retransmit" => {
                    recovery.retransmit = spec.retransmit;
                    receiver.asks = spec.retransmit;
                }
                "shards" => {
                    sender.shards_min = spec.shards.0.into();
                    sender.shards_max = spec.shards.1.into();
                }
                // Both holds are one setting of the core.
                _ => {
                    receiver.hold_bounds = HoldBounds::new(spec.interactive_hold, spec.bulk_hold);
                }
            }
        }
        receiver.passes_on =
            !recovery.queue_control && (recovery.retransmit || recovery.repair != RepairMode::Off);
    }
}

fn known(name: &str) -> Result<&'static str, String> {
    let key = name.strip_prefix("tunnel.");
    let known = KEYS.into_iter().find(|known| Some(*known) == key);
    known.ok_or_else(|| {
        format!(
            "{name:?} is no setting of a simulated gateway: there are tunnel.{}",
            KEYS.join(", tunnel.")
        )
    })
}

/// A value as the configuration would have it.
fn as_toml(value: &str) -> String {
    let is_toml = !value.contains(['\n', '\r', '#'])
        && toml::from_str::<toml::Table>(&format!("x = {value}")).is_ok();
    if is_toml {
        return value.into();
    }
    toml::Value::String(value.into()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardgate_sim::gateway::ShardedConfig;

    use super::*;

    fn read(texts: &[&str]) -> Result<Settings, String> {
        let texts: Vec<_> = texts.iter().map(|text| text.to_string()).collect();
        Settings::read(&texts)
    }

    fn applied(texts: &[&str]) -> EndpointConfig {
        let mut endpoint = ShardedConfig::automatic(1, 1_500).endpoint;
        read(texts).unwrap().apply(&mut endpoint);
        endpoint
    }

    /// All of a configuration, to compare.
    fn shown(endpoint: &EndpointConfig) -> String {
        format!("{endpoint:?}")
    }

    #[test]
    fn what_is_not_set_stays() {
        let automatic = ShardedConfig::automatic(1, 1_500).endpoint;
        assert_eq!(shown(&applied(&[])), shown(&automatic));
        let set = applied(&["tunnel.repair=1/8@32", "tunnel.overhead_limit=0.5"]);
        let (every, window) = (8, 32);
        assert_eq!(set.recovery.repair, RepairMode::Fixed { every, window });
        assert_eq!(set.recovery.overhead_limit, 0.5);
        assert_eq!(
            set.recovery.retention_bytes,
            automatic.recovery.retention_bytes
        );
        let set = applied(&["tunnel.bulk_hold_ms=40"]);
        let hold = HoldBounds::new(Duration::from_millis(5), Some(Duration::from_millis(40)));
        assert_eq!(
            format!("{:?}", set.receiver.hold_bounds),
            format!("{hold:?}")
        );
    }

    #[test]
    fn every_key_changes_something() {
        let automatic = shown(&ShardedConfig::automatic(1, 1_500).endpoint);
        let values = [
            "40",
            "64",
            "9",
            "none",
            "0.5",
            "model",
            "false",
            "off",
            "1",
            "false",
            "{ min = 2, max = 9 }",
        ];
        for (key, value) in KEYS.into_iter().zip(values) {
            let text = format!("tunnel.{key}={value}");
            assert_ne!(shown(&applied(&[&text])), automatic, "{text}");
        }
        let quiet = applied(&["tunnel.queue_control=false"]);
        assert!(quiet.receiver.passes_on && !quiet.recovery.queue_control);
    }

    #[test]
    fn what_is_wrong_is_told_as_by_the_configuration() {
        for (text, says) in [
            ("tunnel.repair=nope", "tunnel.repair: \"nope\" does not fit"),
            ("tunnel.repair=1/1", "tunnel.repair: \"1/1\" adds 100.0 %"),
            ("tunnel.retransmit=maybe", "true or false"),
            (
                "tunnel.listen_port=1",
                "\"tunnel.listen_port\" is no setting",
            ),
            ("dpdk.poll=busy", "there are tunnel.bulk_hold_ms, tunnel."),
            ("repair", "is not tunnel.KEY=VALUE"),
            ("tunnel.repair=\"off\"\n[x]", "does not fit"),
        ] {
            let error = read(&[text]).unwrap_err();
            assert!(error.contains(says), "{error} instead of {says}");
        }
        let twice = read(&["tunnel.repair=off", "tunnel.repair=auto"]).unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
    }
}
