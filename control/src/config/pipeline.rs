//! The sections `[dpdk]` and `[pipeline]`.

use shardgate_dataplane::config::{CryptoPlacement, Hugepages, PipelineSpec, PollMode};

use super::file::File;
use super::source::{ConfigError, Source};
use super::values::{later_value, lcores, number, one_of};

/// The most memory that may be asked for, in MiB.
const MEMORY_MB_MAX: i64 = 1 << 20;

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
