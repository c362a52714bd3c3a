//! From a WAN burst to datagrams that a unit may open. Nothing here is authenticated yet, so
//! nothing here moves state: a datagram is dropped by reason, or it is handed on.

use std::net::IpAddr;

use shardgate_core::buffer::Buffer;
use shardgate_core::drop_reason::DropReason;
use shardgate_core::limits::{KEY_LIFETIME, KEY_SLOTS, STREAMS_MAX};
use shardgate_core::seal::Received;
use shardgate_core::time::Time;
use shardgate_core::wire::header::{ClearHeader, Kind};
use shardgate_core::wire::outer::{Outer, OuterUdp, parse_outer};
use shardgate_dpdk::Mbuf;

use crate::command::{Command, ReceiveKey};

/// Paths that a peer may use.
pub const PATHS_NEGOTIATED: u8 = 1;

/// A receive key, as far as it is needed before and after opening.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveSlot {
    /// The index the peer writes into its datagrams.
    pub receiver_index: u32,
    /// Whose key it is.
    pub peer: u16,
    /// Which incarnation of the peer it belongs to.
    pub generation: u32,
    /// Streams that the peer sends.
    pub streams: u8,
    /// After this it opens nothing.
    pub expires: Time,
}

/// What a datagram on a WAN port turned out to be.
pub enum Sorted {
    /// For a unit; the peer's stream and whether it is feedback decide who gets it then.
    ForUnit(Received<Mbuf>, ClearHeader, ReceiveSlot),
    /// For the control thread, as it came.
    ForControl(Mbuf),
    /// For nobody.
    Dropped(DropReason),
}

/// The receive keys by slot.
pub struct ReceiveTable {
    slots: Box<[Option<ReceiveSlot>]>,
}

impl Default for ReceiveTable {
    fn default() -> Self {
        Self {
            slots: vec![None; KEY_SLOTS].into_boxed_slice(),
        }
    }
}

impl ReceiveTable {
    /// Carries out what a command asks of the table.
    pub fn command(&mut self, command: &Command) {
        match command {
            Command::InstallReceiveKey(key) => {
                let ReceiveKey {
                    receiver_index,
                    peer,
                    generation,
                    streams,
                    created,
                    ..
                } = *key;
                self.slots[receiver_index as usize % KEY_SLOTS] = Some(ReceiveSlot {
                    receiver_index,
                    peer,
                    generation,
                    streams: streams.min(STREAMS_MAX as u8),
                    expires: created + KEY_LIFETIME,
                });
            }
            Command::RetireReceiveKey { receiver_index } => {
                let slot = &mut self.slots[*receiver_index as usize % KEY_SLOTS];
                if slot.is_some_and(|slot| slot.receiver_index == *receiver_index) {
                    *slot = None;
                }
            }
            _ => {}
        }
    }

    /// The key that a header names.
    #[inline]
    pub fn find(&self, receiver_index: u32) -> Option<&ReceiveSlot> {
        self.slots[receiver_index as usize % KEY_SLOTS]
            .as_ref()
            .filter(|slot| slot.receiver_index == receiver_index)
    }

    /// Sorts a frame from a WAN port whose own address is `address`. `our_streams` tells how many
    /// streams go to a peer: feedback is about one of those, or comes from who sends one of its own.
    #[inline]
    pub fn sort(
        &self,
        mut frame: Mbuf,
        address: IpAddr,
        listen_port: u16,
        now: Time,
        our_streams: impl FnOnce(u16) -> usize,
    ) -> Sorted {
        let udp = match parse_outer(frame.data()) {
            Ok(Outer::Udp(udp)) => udp,
            Ok(Outer::Control) => return Sorted::ForControl(frame),
            Err(reason) => return Sorted::Dropped(reason),
        };
        if udp.destination.ip() != address || udp.destination.port() != listen_port {
            return Sorted::Dropped(DropReason::NotForUs);
        }
        let OuterUdp {
            payload_at,
            payload_len,
            ..
        } = udp;
        let datagram = &frame.data()[payload_at..payload_at + payload_len];
        match ClearHeader::parse(datagram) {
            Ok(header) if header.kind.is_handshake() => return Sorted::ForControl(frame),
            Ok(_) => {}
            Err(reason) => return Sorted::Dropped(reason),
        }
        let padding = frame.len() - payload_at - payload_len;
        if !frame.trim_back(padding) || !frame.trim_front(payload_at) {
            return Sorted::Dropped(DropReason::Malformed);
        }
        let (received, header) = match Received::new(frame) {
            Ok(received) => received,
            Err((reason, _)) => return Sorted::Dropped(reason),
        };
        let Some(slot) = self.find(header.receiver_index) else {
            return Sorted::Dropped(DropReason::UnknownReceiver);
        };
        if now >= slot.expires {
            return Sorted::Dropped(DropReason::KeyExpired);
        }
        let is_negotiated = header.path < PATHS_NEGOTIATED
            && match header.kind {
                Kind::Feedback => {
                    let streams = our_streams(slot.peer).max(slot.streams.into());
                    usize::from(header.stream) < streams
                }
                _ => header.stream < slot.streams,
            };
        if !is_negotiated {
            return Sorted::Dropped(DropReason::NotNegotiated);
        }
        Sorted::ForUnit(received, header, *slot)
    }
}
