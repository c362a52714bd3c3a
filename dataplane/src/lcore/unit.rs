//! A software crypto unit: seals and opens shards in place, and puts outer headers in front of
//! what it sealed. It runs on a crypto lcore of its own or inside an rx lcore.

use std::sync::Arc;

use shardgate_core::buffer::Buffer;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::limits::{KEY_SLOTS, PATHS_MAX};
use shardgate_core::seal::{Opened, Received, Unsealed};
use shardgate_core::wire::outer::OuterTemplate;
use shardgate_dpdk::{Burst, Mbuf};

use super::cipher::SoftwareAead;
use crate::command::{Command, PathAddress, ReceiveKey, SendKey};
use crate::counters;
use crate::engine::shared::Shared;

/// Most UDP source ports of a path.
pub const FLOWS_MAX: usize = 16;

counters! {
    /// What a crypto unit has done.
    pub struct UnitCounters {
        /// Shards and feedback messages sealed.
        sealed,
        /// Their bytes, without outer headers.
        sealed_bytes,
        /// Datagrams that authenticated.
        opened,
        /// Their bytes, without outer headers.
        opened_bytes,
        /// Datagrams that did not authenticate.
        forged,
    }
}

/// A path as a unit needs it.
struct Outlet {
    port: u8,
    /// One template for each UDP source port.
    templates: Vec<OuterTemplate>,
}

struct SendSlot {
    receiver_index: u32,
    aead: SoftwareAead,
}

struct OpenKey {
    receiver_index: u32,
    aead: SoftwareAead,
    confirmed: bool,
}

/// A software crypto unit.
pub struct Unit {
    shared: Arc<Shared>,
    /// Two slots for each peer, used in turn: what was numbered under the previous key is sealed
    /// with it.
    send_keys: Vec<Option<Box<SendSlot>>>,
    sends_installed: Vec<usize>,
    open_keys: Box<[Option<Box<OpenKey>>]>,
    outlets: Vec<[Option<Outlet>; PATHS_MAX]>,
    /// What was numbered and never leaves: whoever numbered it tells the peer.
    pub unsent: Burst,
    /// What it has done.
    pub counters: UnitCounters,
    /// What died here.
    pub drops: Drops,
}

/// The slot of a peer's `installed`th send key.
pub fn send_key_slot(peer: u16, installed: usize) -> u16 {
    peer * 2 + (installed % 2) as u16
}

impl Unit {
    /// A unit without keys.
    pub fn new(shared: Arc<Shared>) -> Self {
        let peers = shared.peers.len();
        Self {
            shared,
            send_keys: (0..2 * peers).map(|_| None).collect(),
            sends_installed: vec![0; peers],
            open_keys: (0..KEY_SLOTS).map(|_| None).collect(),
            outlets: (0..peers).map(|_| Default::default()).collect(),
            unsent: Burst::new(),
            counters: UnitCounters::default(),
            drops: Drops::default(),
        }
    }

    /// Carries out what a command asks of a unit.
    pub fn command(&mut self, command: &Command) {
        match command {
            Command::InstallReceiveKey(ReceiveKey {
                receiver_index,
                key,
                ..
            }) => {
                let slot = *receiver_index as usize % KEY_SLOTS;
                self.open_keys[slot] = Some(Box::new(OpenKey {
                    receiver_index: *receiver_index,
                    aead: SoftwareAead::new(key),
                    confirmed: false,
                }));
            }
            Command::RetireReceiveKey { receiver_index } => {
                let slot = &mut self.open_keys[*receiver_index as usize % KEY_SLOTS];
                if slot
                    .as_ref()
                    .is_some_and(|key| key.receiver_index == *receiver_index)
                {
                    *slot = None;
                }
            }
            Command::InstallSendKey(SendKey {
                peer,
                receiver_index,
                key,
                ..
            }) => {
                let Some(installed) = self.sends_installed.get_mut(usize::from(*peer)) else {
                    return;
                };
                *installed += 1;
                let slot = usize::from(send_key_slot(*peer, *installed));
                let aead = SoftwareAead::new(key);
                self.send_keys[slot] = Some(Box::new(SendSlot {
                    receiver_index: *receiver_index,
                    aead,
                }));
            }
            Command::RetireSendKey { peer } => {
                for parity in 0..2 {
                    let slot = usize::from(send_key_slot(*peer, parity));
                    if let Some(key) = self.send_keys.get_mut(slot) {
                        *key = None;
                    }
                }
            }
            Command::SetPath {
                peer,
                path,
                address,
            } => {
                let outlet = self
                    .outlets
                    .get_mut(usize::from(*peer))
                    .and_then(|paths| paths.get_mut(usize::from(*path)));
                if let Some(outlet) = outlet {
                    *outlet = address.as_ref().map(|address| self.shared.outlet(address));
                }
            }
            Command::Probe { .. } | Command::Close { .. } => {}
        }
    }

    /// Seals a shard and puts the outer headers in front; returns it with the index of its port.
    /// What cannot be sealed or addressed goes to [`Self::unsent`], as far as there is room.
    #[inline]
    pub fn seal(&mut self, shard: Unsealed<Mbuf>) -> Option<(usize, Mbuf)> {
        match self.try_seal(shard) {
            Ok(sealed) => Some(sealed),
            Err((reason, unsent)) => {
                self.drops.count(reason);
                let _ = self.unsent.try_push(unsent);
                None
            }
        }
    }

    /// The same; gives back what fails, with the clear header in front, and the reason.
    #[inline]
    fn try_seal(&mut self, shard: Unsealed<Mbuf>) -> Result<(usize, Mbuf), (DropReason, Mbuf)> {
        let meta = shard.buffer().meta();
        let sealed = match self.send_keys.get(usize::from(meta.key_slot)) {
            // The slot may have been given to a newer key while the shard was on its way.
            Some(Some(key)) if shard.receiver_index() == Some(key.receiver_index) => {
                shard.seal(&key.aead)
            }
            _ => Err(shard.discard()),
        };
        let mut datagram = sealed
            .map_err(|unsent| (DropReason::SealFailed, unsent))?
            .into_buffer();
        let sealed_len = datagram.len();
        let outlet = self
            .outlets
            .get(usize::from(meta.peer))
            .and_then(|paths| paths.get(usize::from(meta.path))?.as_ref());
        let Some(outlet) = outlet else {
            return Err((DropReason::NoPath, datagram));
        };
        let flow = usize::from(meta.scratch) % outlet.templates.len().max(1);
        let is_addressed = outlet
            .templates
            .get(flow)
            .is_some_and(|template| template.prepend(&mut datagram));
        if !is_addressed {
            return Err((DropReason::SealFailed, datagram));
        }
        self.counters.sealed += 1;
        self.counters.sealed_bytes += sealed_len as u64;
        Ok((usize::from(outlet.port), datagram))
    }

    /// Opens a datagram; returns it with the rx lcore it goes to.
    #[inline]
    pub fn open(&mut self, datagram: Received<Mbuf>) -> Option<(usize, Opened<Mbuf>)> {
        let meta = datagram.buffer().meta();
        let slot = self.open_keys.get_mut(usize::from(meta.key_slot));
        let Some(Some(key)) = slot else {
            self.drops.count(DropReason::UnknownReceiver);
            return None;
        };
        match datagram.open(&key.aead) {
            Ok(opened) => {
                if !key.confirmed {
                    key.confirmed = true;
                    self.shared.confirm(key.receiver_index);
                }
                self.counters.opened += 1;
                self.counters.opened_bytes += opened.buffer().len() as u64;
                Some((usize::from(meta.scratch), opened))
            }
            Err(_unread) => {
                self.counters.forged += 1;
                self.drops.count(DropReason::Forged);
                None
            }
        }
    }
}

impl Shared {
    fn outlet(&self, address: &PathAddress) -> Outlet {
        let port = &self.ports[address.port];
        let templates = (0..self.flows.clamp(1, FLOWS_MAX) as u16).filter_map(|flow| {
            let mut local = address.local;
            local.set_port(local.port().wrapping_add(flow));
            OuterTemplate::new(port.mac, address.next_hop, local, address.remote)
        });
        Outlet {
            port: address.port as u8,
            templates: templates.collect(),
        }
    }
}
