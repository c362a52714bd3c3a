//! Wiring: the rings between lcores, their ways out, and the lcores themselves.

use std::sync::Arc;

use crossbeam::channel::{Sender as MailSender, unbounded};
use shardgate_core::drop_reason::Drops;
use shardgate_core::endpoint::{EndpointConfig, RecoveryConfig, RepairMode};
use shardgate_core::limits::{SHARD_PAYLOAD_MIN, SHARDS_MAX};
use shardgate_core::predict::HoldBounds;
use shardgate_core::receiver::ReceiverConfig;
use shardgate_core::seal::{Opened, Received, Unsealed};
use shardgate_core::sender::SenderConfig;
use shardgate_dpdk::{Consumer, Eal, Mbuf, Pool, Producer, RingItem, RxQueue, TxQueue, spsc};

use super::EngineError;
use super::shared::Shared;
use super::topology::{CONTROL_RING_SIZE, RING_SIZE, Topology, UNSENT_RING_SIZE};
use crate::command::Command;
use crate::config::{EngineConfig, Ordering, PeerSpec, PortRole};
use crate::lcore::Mailbox;
use crate::lcore::crypto::CryptoLcore;
use crate::lcore::load::Load;
use crate::lcore::peer::PeerStage;
use crate::lcore::poll::Idler;
use crate::lcore::rx::RxLcore;
use crate::lcore::tx::Tx;
use crate::lcore::unit::Unit;
use crate::lcore::units::{RoundRobin, Units};
use crate::lcore::wan::{PATHS_NEGOTIATED, ReceiveTable};

/// A started port's queues, not yet given out.
pub(super) struct Queues {
    pub rx: Vec<Option<RxQueue>>,
    pub tx: Vec<Option<TxQueue>>,
}

/// What all lcores are made from.
pub(super) struct Blueprint<'a> {
    pub config: &'a EngineConfig,
    pub topology: &'a Topology,
    pub shared: &'a Arc<Shared>,
    pub frames: &'a Pool,
    pub shards: &'a Pool,
}

/// The lcores, ready to run, and the control thread's ends.
pub(super) struct Wired {
    pub rx: Vec<RxLcore>,
    pub crypto: Vec<CryptoLcore>,
    pub mailboxes: Vec<MailSender<(u64, Command)>>,
    pub control: ControlRings,
}

/// The control thread's ends, one for each rx lcore.
#[derive(Default)]
pub(super) struct ControlRings {
    pub exceptions: Vec<Consumer<Mbuf>>,
    pub to_lcores: Vec<Producer<Mbuf>>,
}

/// One rx lcore's ends.
struct RxRings {
    seal: Vec<Producer<Unsealed<Mbuf>>>,
    open: Vec<Producer<Received<Mbuf>>>,
    opened: Vec<Consumer<Opened<Mbuf>>>,
    unsent: Vec<Consumer<Mbuf>>,
    to_owners: Vec<Option<Producer<Opened<Mbuf>>>>,
    exceptions: Producer<Mbuf>,
    from_control: Consumer<Mbuf>,
}

/// One crypto lcore's ends, a ring for each rx lcore.
#[derive(Default)]
struct UnitRings {
    to_seal: Vec<Consumer<Unsealed<Mbuf>>>,
    to_open: Vec<Consumer<Received<Mbuf>>>,
    opened: Vec<Producer<Opened<Mbuf>>>,
    unsent: Vec<Producer<Mbuf>>,
}

/// A poller's ways out, and the rings of others that it sends for with their port.
struct Outlets {
    tx: Vec<Option<Tx>>,
    for_others: Vec<(usize, Consumer<Mbuf>)>,
}

/// Makes rings with names of their own.
struct RingMaker<'a> {
    eal: &'a Eal,
    made: usize,
}

impl RingMaker<'_> {
    fn ring<T: RingItem>(
        &mut self,
        size: usize,
    ) -> Result<(Producer<T>, Consumer<T>), EngineError> {
        self.made += 1;
        Ok(spsc(self.eal, &format!("ring{}", self.made), size)?)
    }

    /// The rings between `rx_count` rx lcores, `unit_count` crypto lcores and the control thread.
    fn connect(
        &mut self,
        rx_count: usize,
        unit_count: usize,
    ) -> Result<(Vec<RxRings>, Vec<UnitRings>, ControlRings), EngineError> {
        let mut control = ControlRings::default();
        let mut units: Vec<UnitRings> = (0..unit_count).map(|_| UnitRings::default()).collect();
        let mut rx = vec![];
        for _ in 0..rx_count {
            let (exceptions, to_control) = self.ring(CONTROL_RING_SIZE)?;
            let (to_lcore, from_control) = self.ring(CONTROL_RING_SIZE)?;
            control.exceptions.push(to_control);
            control.to_lcores.push(to_lcore);
            let (mut seal, mut open, mut opened, mut unsent) = (vec![], vec![], vec![], vec![]);
            for unit in &mut units {
                let (to_unit, at_unit) = self.ring(RING_SIZE)?;
                seal.push(to_unit);
                unit.to_seal.push(at_unit);
                let (to_unit, at_unit) = self.ring(RING_SIZE)?;
                open.push(to_unit);
                unit.to_open.push(at_unit);
                let (from_unit, at_rx) = self.ring(RING_SIZE)?;
                unit.opened.push(from_unit);
                opened.push(at_rx);
                let (from_unit, at_rx) = self.ring(UNSENT_RING_SIZE)?;
                unit.unsent.push(from_unit);
                unsent.push(at_rx);
            }
            let to_owners = vec![];
            rx.push(RxRings {
                seal,
                open,
                opened,
                unsent,
                to_owners,
                exceptions,
                from_control,
            });
        }
        // Rx lcores that open for each other need a ring for each pair.
        for from in 0..rx_count {
            for to in 0..rx_count {
                let mut to_owner = None;
                if unit_count == 0 && from != to {
                    let (producer, consumer) = self.ring(RING_SIZE)?;
                    rx[to].opened.push(consumer);
                    to_owner = Some(producer);
                }
                rx[from].to_owners.push(to_owner);
            }
        }
        Ok((rx, units, control))
    }
}

impl Blueprint<'_> {
    /// Makes all rings and all lcores.
    pub(super) fn wire(&self, eal: &Eal, mut queues: Vec<Queues>) -> Result<Wired, EngineError> {
        let placement = &self.topology.placement;
        let mut rings = RingMaker { eal, made: 0 };
        let mut outlets = self.outlets(&mut rings, &mut queues)?.into_iter();
        let (rx_rings, unit_rings, control) =
            rings.connect(placement.rx.len(), placement.crypto.len())?;
        let mut mailboxes = vec![];
        let mut mailbox = |index| {
            let (sender, commands) = unbounded();
            mailboxes.push(sender);
            Mailbox::new(commands, Arc::clone(self.shared), index)
        };
        let (mut rx, mut crypto) = (vec![], vec![]);
        for (index, (ends, outlets)) in rx_rings.into_iter().zip(outlets.by_ref()).enumerate() {
            rx.push(self.rx_lcore(index, ends, outlets, mailbox(index), &mut queues));
        }
        for (ends, Outlets { tx, for_others }) in unit_rings.into_iter().zip(outlets) {
            let index = rx.len() + crypto.len();
            crypto.push(CryptoLcore {
                index,
                shared: Arc::clone(self.shared),
                mailbox: mailbox(index),
                unit: Unit::new(Arc::clone(self.shared)),
                to_seal: ends.to_seal,
                to_open: ends.to_open,
                opened: ends.opened,
                unsent: ends.unsent,
                tx,
                tx_for_others: for_others,
                idler: Idler::new(placement.poll),
                load: Load::new(placement.shares_cpus),
            });
        }
        Ok(Wired {
            rx,
            crypto,
            mailboxes,
            control,
        })
    }

    /// Gives every poller its way out on every port that it sends on.
    fn outlets(
        &self,
        rings: &mut RingMaker<'_>,
        queues: &mut [Queues],
    ) -> Result<Vec<Outlets>, EngineError> {
        let placement = &self.topology.placement;
        let pollers: Vec<u32> = placement
            .rx
            .iter()
            .chain(&placement.crypto)
            .copied()
            .collect();
        let mut outlets: Vec<Outlets> = pollers
            .iter()
            .map(|_| Outlets {
                tx: queues.iter().map(|_| None).collect(),
                for_others: vec![],
            })
            .collect();
        for (port, (plan, queues)) in placement.ports.iter().zip(queues).enumerate() {
            let is_lan = self.config.ports[port].role == PortRole::Lan;
            let senders = if is_lan {
                placement.rx.len()
            } else {
                pollers.len()
            };
            let owner = pollers.iter().position(|id| plan.tx.first() == Some(id));
            for poller in 0..senders {
                let own = plan.tx.iter().position(|id| *id == pollers[poller]);
                if let Some(queue) = own.and_then(|own| queues.tx.get_mut(own)?.take()) {
                    outlets[poller].tx[port] = Some(Tx::queue(queue));
                } else if let Some(owner) = owner {
                    let (to_owner, at_owner) = rings.ring(RING_SIZE)?;
                    outlets[poller].tx[port] = Some(Tx::ring(to_owner));
                    outlets[owner].for_others.push((port, at_owner));
                }
            }
        }
        Ok(outlets)
    }

    fn rx_lcore(
        &self,
        index: usize,
        ends: RxRings,
        outlets: Outlets,
        mailbox: Mailbox,
        queues: &mut [Queues],
    ) -> RxLcore {
        let Blueprint {
            config,
            topology,
            shared,
            ..
        } = self;
        let placement = &topology.placement;
        let units = if placement.crypto.is_empty() {
            Units::Inline(Box::new(Unit::new(Arc::clone(shared))))
        } else {
            Units::Lcores {
                seal: RoundRobin::new(ends.seal),
                open: RoundRobin::new(ends.open),
            }
        };
        let (mut lan_queues, mut wan_queues, mut wan_ports) = (vec![], vec![], vec![]);
        for (port, (plan, queues)) in placement.ports.iter().zip(queues).enumerate() {
            let is_lan = config.ports[port].role == PortRole::Lan;
            if !is_lan {
                wan_ports.push(port);
            }
            let mine = plan.rx.iter().zip(&mut queues.rx);
            let mine = mine.filter(|(lcore, _)| **lcore == placement.rx[index]);
            for queue in mine.filter_map(|(_, queue)| queue.take()) {
                if is_lan {
                    let peer = config.peers.iter().position(|peer| peer.lan == port);
                    lan_queues.push((queue, peer));
                } else {
                    wan_queues.push((queue, port));
                }
            }
        }
        let served_by = self.served_by();
        let peers = config.peers.iter().zip(&served_by).enumerate();
        let peers = peers.map(|(peer, (spec, served_by))| {
            let place = served_by.iter().position(|rx| *rx == index)?;
            Some(self.peer_stage(peer as u16, spec, (place, served_by.len()), index))
        });
        RxLcore {
            index,
            shared: Arc::clone(shared),
            mailbox,
            lan_queues,
            wan_queues,
            first_wan_queue: 0,
            tx: outlets.tx,
            wan_ports,
            tx_for_others: outlets.for_others,
            units,
            opened: ends.opened,
            unsent: ends.unsent,
            to_owners: ends.to_owners,
            peers: peers.collect(),
            served_by,
            keys: ReceiveTable::default(),
            exceptions: ends.exceptions,
            from_control: ends.from_control,
            frames: self.frames.clone(),
            shards: self.shards.clone(),
            idler: Idler::new(placement.poll),
            load: Load::new(placement.shares_cpus),
            rx: Default::default(),
            drops: Drops::default(),
        }
    }

    /// Per peer the rx lcores, by index, that serve it.
    fn served_by(&self) -> Vec<Vec<usize>> {
        let rx = &self.topology.placement.rx;
        let place = |id: &u32| rx.iter().position(|rx| rx == id);
        let streams = self.topology.streams.iter();
        streams
            .map(|line| line.sent_by.iter().filter_map(place).collect())
            .collect()
    }

    /// A peer as the `place.0`th of `place.1` lcores that serve it sees it.
    fn peer_stage(
        &self,
        peer: u16,
        spec: &PeerSpec,
        place: (usize, usize),
        rx_index: usize,
    ) -> PeerStage {
        let (tunnel, topology) = (&self.config.tunnel, self.topology);
        let config = EndpointConfig {
            stream: place.0 as u8,
            endpoints: place.1 as u8,
            paths: PATHS_NEGOTIATED,
            sender: SenderConfig {
                shards_min: usize::from(tunnel.shards.0).clamp(1, SHARDS_MAX),
                shards_max: usize::from(tunnel.shards.1).clamp(1, SHARDS_MAX),
                // Known once the path is; until then nothing is sent.
                payload_max: SHARD_PAYLOAD_MIN,
                checksum: tunnel.checksum,
            },
            recovery: RecoveryConfig {
                retransmit: tunnel.retransmit,
                repair: tunnel.repair,
                overhead_limit: tunnel.overhead_limit,
                retention_bytes: tunnel.retention_bytes,
                payload_max: topology.payload_max,
                queue_control: tunnel.queue_control,
            },
            receiver: ReceiverConfig {
                paths: PATHS_NEGOTIATED,
                ordered: tunnel.ordering == Ordering::Lane,
                hold_bounds: HoldBounds::new(tunnel.interactive_hold, tunnel.bulk_hold),
                held_frames_max: topology.held_frames_max,
                kept_shards_max: topology.kept_shards_max,
                checksum: tunnel.checksum,
                asks: tunnel.retransmit,
                passes_on: !tunnel.queue_control
                    && (tunnel.retransmit || tunnel.repair != RepairMode::Off),
                rebuilt_payload_max: topology.payload_max,
            },
            policy: tunnel.policy,
        };
        let flow = (rx_index % topology.flows) as u16;
        let recorder = self.config.recorder.clone().filter(|_| peer == 0);
        let learned = self.config.learned.iter();
        let learned = learned.filter(|learned| learned.peer == peer).cloned();
        PeerStage::new(peer, spec, flow, config)
            .recorded(recorder)
            .experienced(learned.collect())
    }
}
