//! Why packets die. Every death names one of these; nothing vanishes.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame, a datagram or a shard was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The counter's name in the stats.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    // Frames, at the entrance.
    /// No session with the peer yet, or none any more.
    NoSession = "no_session",
    /// The path to the peer is not known or not open.
    NoPath = "no_path",
    /// The LAN port has no peer.
    NoPeer = "no_peer",
    /// Shorter than an Ethernet header, or longer than the tunnel carries.
    FrameSize = "frame_size",
    /// The frame is spread over several buffers.
    NotLinear = "not_linear",
    /// A pool was exhausted.
    NoBuffer = "no_buffer",
    /// The key has sealed as much, or lived as long, as it may.
    KeyExhausted = "key_exhausted",
    /// Let go on purpose: the path's queue stands, and its sender shall slow down.
    QueueControl = "queue_control",
    // Datagrams, before opening.
    /// Not for the gateway's address or UDP port.
    NotForUs = "not_for_us",
    /// Too short, or a header field that cannot be.
    Malformed = "malformed",
    /// The outer IPv4 or UDP checksum does not match.
    OuterChecksum = "outer_checksum",
    /// A fragment of an IP packet; the tunnel sends none.
    Fragment = "fragment",
    /// Another protocol version.
    Version = "version",
    /// A kind of message that does not exist.
    Kind = "kind",
    /// No key under this receiver index.
    UnknownReceiver = "unknown_receiver",
    /// A stream or path number above what was negotiated.
    NotNegotiated = "not_negotiated",
    /// A unit's ring or the exception ring was full.
    RingFull = "ring_full",
    // Shards, at opening and after.
    /// Did not authenticate: forged, corrupted, or under another key.
    Forged = "forged",
    /// The key is older than it may be.
    KeyExpired = "key_expired",
    /// The path number was seen before.
    Replayed = "replayed",
    /// The path number lies behind the replay window.
    TooOld = "too_old",
    /// The sequence number was placed before.
    Duplicate = "duplicate",
    /// Sent under an earlier incarnation of the peer.
    OldIncarnation = "old_incarnation",
    /// Opened, but the CRC-32C does not match.
    ShardChecksum = "shard_checksum",
    /// Opened, but its framing cannot be.
    ShardMalformed = "shard_malformed",
    // Shards of incomplete frames.
    /// A shard was kept for a frame whose other shards did not arrive in time.
    Incomplete = "incomplete",
    /// The same, given up early because the memory was needed for newer ones.
    MemoryLimit = "memory_limit",
    // On the way out.
    /// The port took no more.
    TxFull = "tx_full",
    /// A unit could not seal it.
    SealFailed = "seal_failed",
    /// The gateway was stopping.
    Stopping = "stopping",
}

/// How many reasons there are.
pub const DROP_REASONS: usize = DropReason::ALL.len();

/// A counter for each reason.
#[derive(Clone, Copy, Debug)]
pub struct Drops([u64; DROP_REASONS]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DROP_REASONS])
    }
}

impl Drops {
    /// Counts one death.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `n` deaths.
    #[inline]
    pub fn add(&mut self, reason: DropReason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// Deaths for a reason so far.
    #[inline]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All deaths so far.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds another set of counters to this one.
    pub fn merge(&mut self, other: &Drops) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The counters, in the order of [`DropReason::ALL`].
    pub fn as_array(&self) -> &[u64; DROP_REASONS] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let mut drops = Drops::default();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            drops.count(reason);
            assert_eq!(drops.get(reason), 1);
        }
        assert_eq!(drops.total(), DROP_REASONS as u64);
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DROP_REASONS);
    }
}
