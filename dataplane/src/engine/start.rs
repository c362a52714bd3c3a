//! Starting: EAL, pools, ports, rings, lcores, in this order.

use std::collections::VecDeque;
use std::sync::Arc;

use shardgate_dpdk::{Burst, Clock, Eal, EalConfig, LcoreId, Pool, Port, PortConfig};

use super::shared::{LcoreKind, LcoreShared, PeerShared, PortShared, Shared};
use super::snapshot::{Devices, Names, StatsReader};
use super::topology::{CONTROL_RING_SIZE, DESCRIPTORS, POOL_CACHE, Topology};
use super::wiring::{Blueprint, Queues};
use super::{Engine, EngineError, StopOnDrop};
use crate::config::{EngineConfig, PortRole};
use crate::lcore::Lcore;
use crate::placement::PortLimits;

/// The CPUs that this process may use.
pub(super) fn cpus() -> Result<Vec<u32>, EngineError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(EngineError::Cpus)?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cpus = list.map(parse_cpu_list).unwrap_or_default();
    if cpus.is_empty() {
        return Err(EngineError::Cpus(std::io::ErrorKind::InvalidData.into()));
    }
    Ok(cpus)
}

/// Reads the kernel's list format, for example `0-3,8`.
fn parse_cpu_list(list: &str) -> Vec<u32> {
    let mut cpus = vec![];
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last);
        }
    }
    cpus
}

pub(super) fn start(config: &EngineConfig) -> Result<Engine, EngineError> {
    let topology = Topology::plan(config, &cpus()?)?;
    crate::lcore::poll::tighten_timers();
    let eal = Eal::init(&eal_config(config, &topology))?;
    let clock = Clock::start(&eal);
    let ports = config
        .ports
        .iter()
        .map(|port| Port::create(&eal, &port.device))
        .collect::<Result<Vec<_>, _>>()?;
    let mut limits = vec![];
    let mut shared_ports = vec![];
    for (port, spec) in ports.iter().zip(&config.ports) {
        let info = port.info()?;
        let is = |name: &str| info.driver.contains(name);
        let is_tap = is("tap");
        limits.push(PortLimits {
            rx_queues_max: if is_tap {
                1
            } else {
                usize::from(info.max_rx_queues)
            },
            tx_queues_max: if is_tap {
                1
            } else {
                usize::from(info.max_tx_queues)
            },
            queues_are_paired: is_tap || is("af_packet"),
            is_kernel_backed: is_tap || is("af_packet") || is("af_xdp") || is("pcap"),
            is_lan: spec.role == PortRole::Lan,
        });
        let address = match spec.role {
            PortRole::Wan { address } => Some(address),
            PortRole::Lan => None,
        };
        shared_ports.push(PortShared {
            mac: info.mac,
            address,
            mtu: spec.mtu,
        });
    }
    let topology = topology.replan(config, &limits)?;
    let preemptible = topology.placement.shares_cpus;
    let pool = |name: &str| -> Result<Pool, EngineError> {
        let (mbufs, data_room) = match topology.pool(name) {
            Some(plan) => (plan.mbufs(), plan.data_room),
            None => (CONTROL_RING_SIZE * 4, topology.pools[1].data_room),
        };
        Ok(Pool::new(
            &eal,
            name,
            mbufs,
            data_room,
            POOL_CACHE,
            None,
            preemptible,
        )?)
    };
    let (frames, shards, control_pool) = (pool("frames")?, pool("shards")?, pool("control")?);
    let mut queues = vec![];
    for (index, (port, spec)) in ports.iter().zip(&config.ports).enumerate() {
        let plan = &topology.placement.ports[index];
        let rx_pool = if spec.role == PortRole::Lan {
            &frames
        } else {
            &shards
        };
        let (rx, tx) = port.configure(&PortConfig {
            rx_pools: plan.rx.iter().map(|_| rx_pool.clone()).collect(),
            tx_queues: if limits[index].queues_are_paired {
                plan.rx.len()
            } else {
                plan.tx.len()
            },
            rx_descriptors: DESCRIPTORS,
            tx_descriptors: DESCRIPTORS,
            mtu: spec.mtu,
            promiscuous: true,
        })?;
        queues.push(Queues {
            rx: rx.into_iter().map(Some).collect(),
            tx: tx.into_iter().map(Some).collect(),
        });
    }
    let placement = &topology.placement;
    let (inline, rx_count) = (placement.crypto.is_empty(), placement.rx.len());
    let rx_shared = placement
        .rx
        .iter()
        .map(|&id| LcoreShared::new(id, LcoreKind::Rx, inline, rx_count));
    let crypto_shared = placement
        .crypto
        .iter()
        .map(|&id| LcoreShared::new(id, LcoreKind::Crypto, true, rx_count));
    let shared = Arc::new(Shared::new(
        clock,
        shared_ports,
        topology
            .streams
            .iter()
            .map(|line| PeerShared::new(line.sent_by.len()))
            .collect(),
        rx_shared.chain(crypto_shared).collect(),
        config.tunnel.listen_port,
        topology.flows,
    ));
    let blueprint = Blueprint {
        config,
        topology: &topology,
        shared: &shared,
        frames: &frames,
        shards: &shards,
    };
    let wired = blueprint.wire(&eal, queues)?;
    let names = Names {
        ports: topology
            .ports
            .iter()
            .map(|port| (port.name.clone(), port.role))
            .collect(),
        peers: config.peers.iter().map(|peer| peer.name.clone()).collect(),
        policy: config.tunnel.policy,
    };
    let devices = Devices {
        ports,
        pools: vec![frames, shards, control_pool.clone()],
    };
    let mut handles = vec![];
    // After the handles, so that on a failure it is dropped before them.
    let stop_on_drop = StopOnDrop(Arc::clone(&shared));
    for (id, lcore) in placement.rx.iter().zip(wired.rx) {
        handles.push(eal.launch(LcoreId(*id), move || lcore.run())?);
    }
    for (id, lcore) in placement.crypto.iter().zip(wired.crypto) {
        handles.push(eal.launch(LcoreId(*id), move || lcore.run())?);
    }
    Ok(Engine {
        stop_on_drop,
        reader: StatsReader::new(Arc::clone(&shared), names, devices),
        seals_before: vec![vec![]; config.peers.len()],
        shared,
        topology,
        lcores: handles,
        mailboxes: wired.mailboxes,
        deferred: VecDeque::new(),
        is_first_posted: false,
        posted: 0,
        first_exception: 0,
        exceptions: wired.control.exceptions,
        arrived: Burst::new(),
        to_lcores: wired.control.to_lcores,
        control_pool,
        eal,
    })
}

fn eal_config(config: &EngineConfig, topology: &Topology) -> EalConfig {
    let pipeline = &config.pipeline;
    let is_pci = |device: &str| device.contains(':') && !device.contains('=');
    let pci: Vec<&str> = config
        .ports
        .iter()
        .map(|port| port.device.as_str())
        .filter(|d| is_pci(d))
        .collect();
    let mut extra_args = pipeline.extra_eal_args.clone();
    for device in &pci {
        let address = device.split(',').next().unwrap_or_default();
        extra_args.extend(["-a".to_owned(), address.to_owned()]);
    }
    // With hugepages memory is taken as pools need it; without, it is set aside at the start.
    let memory_mb = match (pipeline.hugepages, pipeline.memory_mb) {
        (true, asked) => asked,
        (false, _) => Some(topology.memory_mb),
    };
    EalConfig {
        lcores: topology.placement.eal_map.clone(),
        main_lcore: Some(topology.placement.control),
        hugepages: pipeline.hugepages,
        memory_mb,
        file_prefix: config.file_prefix.clone(),
        pci: !pci.is_empty(),
        extra_args,
        ..EalConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read() {
        assert_eq!(parse_cpu_list("\t0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpu_list("5"), [5]);
        assert!(parse_cpu_list("").is_empty());
    }
}
