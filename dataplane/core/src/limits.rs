//! Every bound of the protocol core, in one place, each with its reason.

use core::time::Duration;

/// Bytes every pool keeps free before a packet's data: DPDK's own default. The outer headers
/// (62 bytes with IPv6), the clear and the sealed header (40) and a frame header (6) go there.
pub const HEADROOM: usize = 128;

/// The low bits of a receiver index that name a key slot: finding a key is one array access.
pub const KEY_SLOT_BITS: u32 = 10;

/// Key slots of a gateway: three per peer (previous, current, next) for 341 peers.
pub const KEY_SLOTS: usize = 1 << KEY_SLOT_BITS;

/// A key seals nothing after this age, and opens nothing.
pub const KEY_LIFETIME: Duration = Duration::from_secs(180);

/// A fresh handshake begins at this age of the key that seals.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// A key seals at most this often (the nonce is never the bound; AES-GCM's own limit is).
pub const SEALS_MAX: u64 = 1 << 32;

/// A fresh handshake begins after this many seals.
pub const REKEY_AFTER_SEALS: u64 = 1 << 30;
