//! How large packets a path carries: path MTU discovery by padded probes (RFC 8899).
//!
//! No ICMP is needed or believed. A probe is a challenge (SPEC §6) padded to the size in question;
//! its echo proves that the path carries that size. Probes leave in *bursts*, each with an unpadded
//! one: only a burst of which something came back says anything of what did not, so an outage is
//! never taken for a small MTU.
//!
//! | file | what |
//! |---|---|
//! | `search` | rounds of bursts: which sizes, when, and what they prove |
//! | `sizes` | which sizes are worth a probe |
//! | `suspicion` | what the fate of data says: may the path carry less than before? |
//!
//! All sizes are bytes of whole IP packets.

mod search;
mod sizes;
mod suspicion;

use core::net::IpAddr;
use core::time::Duration;

use crate::time::Time;
use crate::wire::{OVERHEAD_IPV4, OVERHEAD_IPV6, SHARD_OVERHEAD};

pub use self::search::{PathMtu, Probe};

/// Used until anything is known: what every IPv6 link carries (RFC 8200, 5), a little more than RFC
/// 8899 asks for (5.1.2: 1200 bytes of payload). No message but shards and probes is longer.
pub const BASE: u16 = 1_280;

/// Used if a path does not even carry [`BASE`]: what every IPv4 host takes (RFC 791, 3.1).
pub const FLOOR: u16 = 576;

/// Bursts in which a size has to be missing before it counts as too long (RFC 8899, 5.1.2:
/// `MAX_PROBES`). At a loss of 5 % that is wrong once in 8,000 times.
pub const BURSTS_MAX: u8 = 3;

/// How long until a path that carries less than its port is searched again (RFC 8899, 5.1.1:
/// `PMTU_RAISE_TIMER`).
pub const RAISE_AFTER: Duration = Duration::from_secs(600);

/// What a path may carry at the most, and what of that is not payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathLimit {
    mtu: u16,
    overhead: u16,
    is_pinned: bool,
}

impl PathLimit {
    /// Packets of a port with this MTU to `remote`; how much of it the path carries is to be found.
    pub fn new(mtu: u16, remote: IpAddr) -> Self {
        let overhead = if remote.is_ipv4() {
            OVERHEAD_IPV4
        } else {
            OVERHEAD_IPV6
        };
        Self {
            mtu,
            overhead: overhead as u16,
            is_pinned: false,
        }
    }

    /// The path carries this MTU, if the port does: nothing is probed.
    pub fn pinned(self, mtu: u16) -> Self {
        Self {
            mtu: mtu.min(self.mtu),
            is_pinned: true,
            ..self
        }
    }

    /// Most bytes of an IP packet.
    pub fn mtu(self) -> u16 {
        self.mtu
    }

    /// Most payload of a shard in packets of so many bytes.
    pub fn payload(self, mtu: u16) -> usize {
        usize::from(mtu.min(self.mtu).saturating_sub(self.overhead))
    }

    /// The packet of a sealed datagram of so many bytes.
    pub(crate) fn packet(self, datagram: u16) -> u16 {
        datagram.saturating_add(self.overhead - SHARD_OVERHEAD as u16)
    }
}

/// The states of RFC 8899, 5.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing is looked for: the MTU is the configured one.
    #[default]
    Disabled,
    /// [`BASE`] is used, and nothing is known yet.
    Base,
    /// A larger size is looked for than the one in use, which is proven.
    Searching,
    /// The largest size is in use, until [`RAISE_AFTER`].
    SearchComplete,
    /// Not even [`BASE`] passes.
    Error,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] = [
        State::Disabled,
        State::Base,
        State::Searching,
        State::SearchComplete,
        State::Error,
    ];

    /// Its name in stats.
    pub fn name(self) -> &'static str {
        match self {
            State::Disabled => "disabled",
            State::Base => "base",
            State::Searching => "searching",
            State::SearchComplete => "search_complete",
            State::Error => "error",
        }
    }
}

/// What is known of a path's MTU, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MtuView {
    /// Most bytes of an IP packet that is sent.
    pub mtu: u16,
    /// How far the search is.
    pub state: State,
    /// Probes sent, unpadded ones too.
    pub probes: u64,
    /// Of those: echoed.
    pub acked: u64,
    /// Of those: not echoed in time.
    pub lost: u64,
    /// How often the path turned out to carry less than before.
    pub black_holes: u64,
}

/// What is known of the round trip, for timers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing(Option<(Duration, Duration)>);

impl Timing {
    /// From the smoothed round trip and its variance (RFC 6298).
    pub fn new(round_trip: Option<(Duration, Duration)>) -> Self {
        Self(round_trip)
    }

    /// How long an echo may take (RFC 8899, 5.1.1: `PROBE_TIMER`, derived from the round trip).
    fn answered_within(self) -> Duration {
        self.0
            .map_or(Duration::from_millis(500), |(mean, variance)| {
                mean + (mean / 2).max(4 * variance) + Duration::from_millis(50)
            })
    }

    /// How much later than the first of a burst its other echoes may come.
    fn reordering(self) -> Duration {
        self.0
            .map_or(Duration::from_millis(50), |(mean, variance)| {
                (mean / 8)
                    .max(4 * variance)
                    .clamp(Duration::from_millis(5), Duration::from_secs(1))
            })
    }

    /// How far apart bursts are that do not wait for one another: not lost together.
    fn spacing(self) -> Duration {
        self.0.map_or(Duration::from_millis(100), |(mean, _)| {
            (mean / 4).clamp(Duration::from_millis(20), Duration::from_millis(150))
        })
    }

    /// How long data may stay without a report: a round trip, the quarter of it that reports are
    /// apart, and then the peer would have told at the latest.
    fn silent_for(self) -> Duration {
        self.0.map_or(Duration::from_secs(1), |(mean, variance)| {
            mean + mean / 2 + 4 * variance + Duration::from_millis(50)
        })
    }
}

/// Data of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unreported {
    /// When the first of it was sent.
    pub since: Option<Time>,
    /// When the last of it that is longer than [`FLOOR`] was sent, if any is.
    pub newest_long: Option<Time>,
}

#[cfg(test)]
mod tests;
