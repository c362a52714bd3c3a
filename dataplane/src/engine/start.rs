//! Starting: EAL, pools, ports, rings, lcores, in this order.

use std::sync::Arc;

use crossbeam::channel::unbounded;
use shardgate_core::drop_reason::Drops;
use shardgate_core::limits::SHARDS_MAX;
use shardgate_core::predict::{Fixed, HoldBounds};
use shardgate_core::receiver::ReceiverConfig;
use shardgate_core::sender::SenderConfig;
use shardgate_dpdk::{
    Burst, Clock, Consumer, Eal, EalConfig, LcoreId, Mbuf, Pool, Port, PortConfig, Producer,
    RingItem, RxQueue, TxQueue, spsc,
};

use super::shared::{LcoreKind, LcoreShared, PeerShared, PortShared, Shared};
use super::snapshot::{Devices, Names, StatsReader};
use super::topology::{CONTROL_RING_SIZE, DESCRIPTORS, POOL_CACHE, RING_SIZE, Topology};
use super::{Engine, EngineError};
use crate::config::{EngineConfig, Ordering, PeerSpec, PortRole};
use crate::lcore::crypto::CryptoLcore;
use crate::lcore::lan::PeerSender;
use crate::lcore::poll::Idler;
use crate::lcore::receive::PeerReceiver;
use crate::lcore::rx::{PeerStage, RxLcore};
use crate::lcore::tx::Tx;
use crate::lcore::unit::Unit;
use crate::lcore::units::{RoundRobin, Units};
use crate::lcore::wan::{PATHS_NEGOTIATED, ReceiveTable};
use crate::lcore::{Lcore, Mailbox};
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

/// A started port's queues, not yet given out.
struct Queues {
    rx: Vec<Option<RxQueue>>,
    tx: Vec<Option<TxQueue>>,
}

pub(super) fn start(config: &EngineConfig) -> Result<Engine, EngineError> {
    let topology = Topology::plan(config, &cpus()?)?;
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
    let inline = placement.crypto.is_empty();
    let rx_shared = placement
        .rx
        .iter()
        .map(|&id| LcoreShared::new(id, LcoreKind::Rx, inline));
    let crypto_shared = placement
        .crypto
        .iter()
        .map(|&id| LcoreShared::new(id, LcoreKind::Crypto, true));
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
    let mut wiring = Wiring {
        eal: &eal,
        rings: 0,
    };
    let mut senders = wiring.senders(&topology, &mut queues)?;
    let (mut lcores_rx, mut lcores_crypto, mailboxes, exceptions, to_lcores) = wiring.lcores(
        config,
        &topology,
        &shared,
        &mut queues,
        &mut senders,
        &frames,
        &shards,
    )?;
    let names = Names {
        ports: topology
            .ports
            .iter()
            .map(|port| (port.name.clone(), port.role))
            .collect(),
        peers: config.peers.iter().map(|peer| peer.name.clone()).collect(),
    };
    let devices = Devices {
        ports,
        pools: vec![frames, shards, control_pool.clone()],
    };
    let mut handles = vec![];
    for (id, lcore) in placement.rx.iter().zip(lcores_rx.drain(..)) {
        handles.push(eal.launch(LcoreId(*id), move || lcore.run())?);
    }
    for (id, lcore) in placement.crypto.iter().zip(lcores_crypto.drain(..)) {
        handles.push(eal.launch(LcoreId(*id), move || lcore.run())?);
    }
    Ok(Engine {
        reader: StatsReader::new(Arc::clone(&shared), names, devices),
        seals_before: vec![0; config.peers.len()],
        shared,
        topology,
        lcores: handles,
        mailboxes,
        deferred: std::collections::VecDeque::new(),
        posted: 0,
        exceptions,
        arrived: Burst::new(),
        to_lcores,
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

/// A poller's ways out and the rings of others that it sends for, by its place among the pollers.
#[derive(Default)]
struct Sender {
    tx: Vec<Option<Tx>>,
    for_others: Vec<(usize, Consumer<Mbuf>)>,
}

/// Pairs a ring's two ends.
type Ends<T> = (Producer<T>, Consumer<T>);

/// What the rx lcores and the crypto lcores become, their mailboxes, and the control thread's
/// rings from and to them.
type Wired = (
    Vec<RxLcore>,
    Vec<CryptoLcore>,
    Vec<crossbeam::channel::Sender<(u64, crate::command::Command)>>,
    Vec<Consumer<Mbuf>>,
    Vec<Producer<Mbuf>>,
);

/// Makes rings with names of their own.
struct Wiring<'a> {
    eal: &'a Eal,
    rings: usize,
}

impl Wiring<'_> {
    fn ring<T: RingItem>(&mut self, size: usize) -> Result<Ends<T>, EngineError> {
        self.rings += 1;
        Ok(spsc(self.eal, &format!("ring{}", self.rings), size)?)
    }

    /// Gives every poller its way out on every port that it sends on.
    fn senders(
        &mut self,
        topology: &Topology,
        queues: &mut [Queues],
    ) -> Result<Vec<Sender>, EngineError> {
        let placement = &topology.placement;
        let pollers: Vec<u32> = placement
            .rx
            .iter()
            .chain(&placement.crypto)
            .copied()
            .collect();
        let mut senders: Vec<Sender> = pollers
            .iter()
            .map(|_| Sender {
                tx: queues.iter().map(|_| None).collect(),
                for_others: vec![],
            })
            .collect();
        for (port, plan) in placement.ports.iter().enumerate() {
            let is_lan = topology.ports[port].role == "lan";
            let sends = if is_lan {
                placement.rx.len()
            } else {
                pollers.len()
            };
            for poller in 0..sends {
                let own = plan.tx.iter().position(|id| *id == pollers[poller]);
                let queue = own.and_then(|own| queues[port].tx.get_mut(own)?.take());
                if let Some(queue) = queue {
                    senders[poller].tx[port] = Some(Tx::queue(queue));
                    continue;
                }
                let owner = pollers.iter().position(|id| plan.tx.first() == Some(id));
                let Some(owner) = owner else {
                    continue;
                };
                let (producer, consumer) = self.ring(RING_SIZE)?;
                senders[poller].tx[port] = Some(Tx::ring(producer));
                senders[owner].for_others.push((port, consumer));
            }
        }
        Ok(senders)
    }

    fn lcores(
        &mut self,
        config: &EngineConfig,
        topology: &Topology,
        shared: &Arc<Shared>,
        queues: &mut [Queues],
        senders: &mut Vec<Sender>,
        frames: &Pool,
        shards: &Pool,
    ) -> Result<Wired, EngineError> {
        let placement = &topology.placement;
        let (rx_count, unit_count) = (placement.rx.len(), placement.crypto.len());
        let mut senders = std::mem::take(senders).into_iter();
        let (mut mailboxes, mut exceptions, mut to_lcores) = (vec![], vec![], vec![]);
        let (mut lcores_rx, mut lcores_crypto) = (vec![], vec![]);
        let mut mailbox = |index| {
            let (sender, commands) = unbounded();
            mailboxes.push(sender);
            Mailbox::new(commands, Arc::clone(shared), index)
        };
        // To and from units, one ring for each pair and direction.
        let mut to_seal: Vec<Vec<Consumer<_>>> = (0..unit_count).map(|_| vec![]).collect();
        let mut to_open: Vec<Vec<Consumer<_>>> = (0..unit_count).map(|_| vec![]).collect();
        let mut opened_by_unit: Vec<Vec<Producer<_>>> = (0..unit_count).map(|_| vec![]).collect();
        // Between rx lcores that open for each other.
        let mut opened: Vec<Vec<Consumer<_>>> = (0..rx_count).map(|_| vec![]).collect();
        let mut to_owners: Vec<Vec<Option<Producer<_>>>> = (0..rx_count).map(|_| vec![]).collect();
        for from in 0..rx_count {
            for to in 0..rx_count {
                let mut producer = None;
                if unit_count == 0 && from != to {
                    let (end, consumer) = self.ring(RING_SIZE)?;
                    opened[to].push(consumer);
                    producer = Some(end);
                }
                to_owners[from].push(producer);
            }
        }
        let served_by: Vec<Vec<usize>> = topology
            .streams
            .iter()
            .map(|line| {
                let place = |id: &u32| placement.rx.iter().position(|rx| rx == id);
                line.sent_by.iter().filter_map(place).collect()
            })
            .collect();
        let wan_ports: Vec<usize> = (0..config.ports.len())
            .filter(|&port| config.ports[port].role != PortRole::Lan)
            .collect();
        for (index, to_owners) in to_owners.into_iter().enumerate() {
            let units = if unit_count == 0 {
                Units::Inline(Box::new(Unit::new(Arc::clone(shared))))
            } else {
                let (mut seal, mut open) = (vec![], vec![]);
                for unit in 0..unit_count {
                    let (producer, consumer) = self.ring(RING_SIZE)?;
                    seal.push(producer);
                    to_seal[unit].push(consumer);
                    let (producer, consumer) = self.ring(RING_SIZE)?;
                    open.push(producer);
                    to_open[unit].push(consumer);
                    let (producer, consumer) = self.ring(RING_SIZE)?;
                    opened_by_unit[unit].push(producer);
                    opened[index].push(consumer);
                }
                Units::Lcores {
                    seal: RoundRobin::new(seal),
                    open: RoundRobin::new(open),
                }
            };
            let (exception, consumer) = self.ring(CONTROL_RING_SIZE)?;
            exceptions.push(consumer);
            let (producer, from_control) = self.ring(CONTROL_RING_SIZE)?;
            to_lcores.push(producer);
            let (mut lan_queues, mut wan_queues) = (vec![], vec![]);
            for (port, plan) in placement.ports.iter().enumerate() {
                for (queue, id) in plan.rx.iter().enumerate() {
                    if *id != placement.rx[index] {
                        continue;
                    }
                    let Some(queue) = queues[port].rx[queue].take() else {
                        continue;
                    };
                    if config.ports[port].role == PortRole::Lan {
                        let peer = config.peers.iter().position(|peer| peer.lan == port);
                        lan_queues.push((queue, peer));
                    } else {
                        wan_queues.push((queue, port));
                    }
                }
            }
            let Sender { tx, for_others } = senders.next().unwrap_or_default();
            let peers = config.peers.iter().enumerate();
            lcores_rx.push(RxLcore {
                index,
                shared: Arc::clone(shared),
                mailbox: mailbox(index),
                lan_queues,
                wan_queues,
                tx,
                wan_ports: wan_ports.clone(),
                tx_for_others: for_others,
                units,
                opened: vec![],
                to_owners,
                peers: peers
                    .map(|(peer, spec)| {
                        let served_by = &served_by[peer];
                        let place = served_by.iter().position(|rx| *rx == index)?;
                        let place = (place, served_by.len());
                        Some(peer_stage(
                            config,
                            topology,
                            peer as u16,
                            spec,
                            place,
                            index,
                        ))
                    })
                    .collect(),
                served_by: served_by.clone(),
                keys: ReceiveTable::default(),
                exceptions: exception,
                from_control,
                frames: frames.clone(),
                shards: shards.clone(),
                idler: Idler::new(placement.poll),
                rx: Default::default(),
                drops: Drops::default(),
            });
        }
        for (lcore, opened) in lcores_rx.iter_mut().zip(opened) {
            lcore.opened = opened;
        }
        let units = to_seal.into_iter().zip(to_open).zip(opened_by_unit);
        for (unit, ((to_seal, to_open), opened)) in units.enumerate() {
            let index = rx_count + unit;
            let Sender { tx, for_others } = senders.next().unwrap_or_default();
            lcores_crypto.push(CryptoLcore {
                index,
                shared: Arc::clone(shared),
                mailbox: mailbox(index),
                unit: Unit::new(Arc::clone(shared)),
                to_seal,
                to_open,
                opened,
                tx,
                tx_for_others: for_others,
                idler: Idler::new(placement.poll),
            });
        }
        Ok((lcores_rx, lcores_crypto, mailboxes, exceptions, to_lcores))
    }
}

/// A peer as the `place.0`th of `place.1` lcores that serve it sees it.
fn peer_stage(
    config: &EngineConfig,
    topology: &Topology,
    peer: u16,
    spec: &PeerSpec,
    place: (usize, usize),
    rx_index: usize,
) -> PeerStage {
    let tunnel = &config.tunnel;
    let sender = SenderConfig {
        shards_min: usize::from(tunnel.shards.0).clamp(1, SHARDS_MAX),
        shards_max: usize::from(tunnel.shards.1).clamp(1, SHARDS_MAX),
        // Known once the path is; until then nothing is sent.
        payload_max: shardgate_core::limits::SHARD_PAYLOAD_MIN,
        checksum: tunnel.checksum,
    };
    let receiver = ReceiverConfig {
        paths: PATHS_NEGOTIATED,
        ordered: tunnel.ordering == Ordering::Lane,
        hold_bounds: HoldBounds::new(tunnel.interactive_hold, tunnel.bulk_hold),
        held_frames_max: topology.held_frames_max,
        kept_shards_max: topology.kept_shards_max,
        checksum: tunnel.checksum,
    };
    let flow = (rx_index % topology.flows) as u16;
    PeerStage {
        sender: PeerSender::new(peer, place.0 as u8, flow, spec.mss_clamp, sender),
        receiver: PeerReceiver::new(peer, place, spec.lan, receiver, Fixed(tunnel.hold)),
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
