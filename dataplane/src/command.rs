//! What the control thread tells the lcores: keys, addresses, and when to speak or to stop.
//!
//! Every lcore has its own mailbox; a command goes to each lcore that it concerns and is complete
//! when all of them have acknowledged it.

use std::net::SocketAddr;
use std::sync::Arc;

use shardgate_core::time::Time;
use zeroize::ZeroizeOnDrop;

/// An AES-256-GCM key that is wiped when its last holder lets go of it.
#[derive(ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes over the bytes of a key.
    pub fn new(bytes: [u8; 32]) -> Arc<Self> {
        Arc::new(Self(bytes))
    }

    /// The bytes, for a unit that sets up its cipher.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// A key that opens what a peer sends.
#[derive(Clone, Debug)]
pub struct ReceiveKey {
    /// The index we gave the peer; its low [`KEY_SLOT_BITS`](shardgate_core::limits::KEY_SLOT_BITS)
    /// bits are the key slot.
    pub receiver_index: u32,
    /// Index of the peer in the configuration.
    pub peer: u16,
    /// The key.
    pub key: Arc<SecretKey>,
    /// Counts the peer's incarnations, from 1: a higher one resets what was received so far, and
    /// what still arrives of a lower one is dropped.
    pub generation: u32,
    /// How many streams the peer sends.
    pub streams: u8,
    /// When the handshake made it.
    pub created: Time,
}

/// A key that seals what we send.
#[derive(Clone, Debug)]
pub struct SendKey {
    /// Index of the peer in the configuration.
    pub peer: u16,
    /// The index the peer gave us.
    pub receiver_index: u32,
    /// The key.
    pub key: Arc<SecretKey>,
    /// When the handshake made it; sealing stops
    /// [`KEY_LIFETIME`](shardgate_core::limits::KEY_LIFETIME) later.
    pub created: Time,
    /// The peer's incarnation, counted as in [`ReceiveKey::generation`].
    pub generation: u32,
    /// How many streams *we* announced; the peer drops what lies above.
    pub streams: u8,
    /// What the peer can decode, in source shards; 0 if it takes no repair.
    pub window: u16,
}

/// Addresses of one path, both ends, down to the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathAddress {
    /// Index of the WAN port.
    pub port: usize,
    /// Our address; the UDP port is the one of flow 0.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// MAC address of the next hop.
    pub next_hop: [u8; 6],
}

/// What the control thread tells the lcores.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open what arrives under this key.
    InstallReceiveKey(ReceiveKey),
    /// Forget a receive key; what arrives under it is counted as unknown.
    RetireReceiveKey {
        /// The index we gave out for it.
        receiver_index: u32,
    },
    /// Seal with this key from now on.
    InstallSendKey(SendKey),
    /// Seal nothing more for this peer.
    RetireSendKey {
        /// Index of the peer.
        peer: u16,
    },
    /// Where a path leads; `None` closes it.
    SetPath {
        /// Index of the peer.
        peer: u16,
        /// Path id, chosen by us.
        path: u8,
        /// The addresses.
        address: Option<PathAddress>,
    },
    /// Seal and send a challenge on a path: confirms a key, opens the path, measures its RTT.
    Probe {
        /// Index of the peer.
        peer: u16,
        /// Path id.
        path: u8,
        /// Random: only who receives the challenge can send it back.
        token: u64,
    },
    /// Tell a peer that we stop.
    Close {
        /// Index of the peer.
        peer: u16,
    },
}
