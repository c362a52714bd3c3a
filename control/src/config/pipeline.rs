//! The sections `[dpdk]` and `[pipeline]`.

use shardgate_dataplane::config::{CryptoPlacement, Hugepages, PipelineSpec, PollMode};

use super::file::File;
use super::source::{ConfigError, Source};
use super::values::{later_value, lcores, number, one_of};

/// The most memory that may be asked for, in MiB.
const MEMORY_MB_MAX: i64 = 1 << 20;

/// EAL options that the program sets itself, or that would keep it from running.
const OWNED_LONG: [&str; 15] = [
    "file-prefix",
    "help",
    "huge-dir",
    "in-memory",
    "lcores",
    "legacy-mem",
    "main-lcore",
    "no-huge",
    "no-pci",
    "no-shconf",
    "no-telemetry",
    "proc-type",
    "telemetry",
    "vdev",
    "version",
];
const OWNED_SHORT: &str = "chlmsSv";

/// Whether EAL would take an argument for one of them. getopt_long(3) takes an option's name
/// shortened as long as it is unique, and `--` for the end of all options.
fn is_owned(arg: &str) -> bool {
    if let Some(long) = arg.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        return OWNED_LONG.iter().any(|owned| owned.starts_with(name));
    }
    arg.strip_prefix('-')
        .and_then(|short| short.chars().next())
        .is_some_and(|option| OWNED_SHORT.contains(option))
}

/// Checks both sections.
pub fn check(source: &Source, file: &File) -> Result<(PipelineSpec, Hugepages), ConfigError> {
    let dpdk = &file.dpdk;
    let hugepages = one_of(
        source,
        "dpdk.hugepages",
        dpdk.hugepages.as_ref(),
        Hugepages::Auto,
        &[
            ("auto", Hugepages::Auto),
            ("required", Hugepages::Required),
            ("off", Hugepages::Off),
        ],
    )?;
    let poll = one_of(
        source,
        "dpdk.poll",
        dpdk.poll.as_ref(),
        None,
        &[
            ("auto", None),
            ("busy", Some(PollMode::Busy)),
            ("adaptive", Some(PollMode::Adaptive)),
        ],
    )?;
    let memory_mb = number(
        source,
        "dpdk.memory_mb",
        dpdk.memory_mb.as_ref(),
        16..=MEMORY_MB_MAX,
        true,
    )?;
    let unusable = |arg: &&String| arg.is_empty() || arg.chars().any(char::is_control);
    if let Some(arg) = dpdk.extra_eal_args.iter().find(unusable) {
        let message = format!("{arg:?} is not an argument: remove it");
        return Err(source.error("dpdk.extra_eal_args", message));
    }
    if let Some(arg) = dpdk.extra_eal_args.iter().find(|arg| is_owned(arg)) {
        let message = format!(
            "{arg:?} is the program's own to set (lcores, memory, devices, file prefix): remove it, and use the keys \
             of [dpdk] and [[port]]"
        );
        return Err(source.error("dpdk.extra_eal_args", message));
    }

    let pipeline = &file.pipeline;
    let crypto = one_of(
        source,
        "pipeline.crypto",
        pipeline.crypto.as_ref(),
        None,
        &[
            ("lcores", Some(CryptoPlacement::Lcores)),
            ("inline", Some(CryptoPlacement::Inline)),
        ],
    )?;
    for unit in pipeline.units.iter().flatten() {
        if unit != "auto" && unit != "software" {
            let value = format!("the unit {unit:?}");
            return Err(later_value(
                source,
                "pipeline.units",
                &value,
                "[\"auto\"] or [\"software\"]",
            ));
        }
    }
    if pipeline.units.as_ref().is_some_and(Vec::is_empty) {
        return Err(source.error("pipeline.units", "no unit is left: write [\"auto\"]"));
    }
    let spec = PipelineSpec {
        lcores: lcores(source, "dpdk.lcores", dpdk.lcores.as_ref())?,
        rx_lcores: lcores(source, "pipeline.rx_lcores", pipeline.rx_lcores.as_ref())?,
        crypto_lcores: lcores(
            source,
            "pipeline.crypto_lcores",
            pipeline.crypto_lcores.as_ref(),
        )?,
        crypto,
        poll,
        hugepages: false,
        memory_mb: memory_mb.and_then(|number| u32::try_from(number).ok()),
        extra_eal_args: dpdk.extra_eal_args.clone(),
    };
    Ok((spec, hugepages))
}

#[cfg(test)]
mod tests {
    use super::is_owned;

    #[test]
    fn eal_options_of_the_program() {
        for owned in [
            "-l",
            "-l0-3",
            "-c",
            "-m",
            "-h",
            "--lcores=0-3",
            "--lcore",
            "--vdev=net_null0",
            "--help",
            "--",
        ] {
            assert!(is_owned(owned), "{owned}");
        }
        for free in [
            "--log-level=lib.eal:8",
            "-n",
            "4",
            "-d",
            "--iova-mode=va",
            "-",
        ] {
            assert!(!is_owned(free), "{free}");
        }
    }
}
