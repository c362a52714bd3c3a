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

/// Most shards of one aggregate: n. Bounds every walk over an aggregate's shards.
pub const SHARDS_MAX: usize = 64;

/// Most frames of one aggregate: two rx bursts.
pub const AGGREGATE_FRAMES_MAX: usize = 64;

/// Fixed limits on n never cut payloads below this: headers would outweigh what they carry.
pub const SHARD_PAYLOAD_MIN: usize = 256;

/// Longest frame: a jumbo packet of 9,000 bytes with an Ethernet header and two VLAN tags.
pub const FRAME_MAX: usize = 9_022;

/// Shortest frame: an Ethernet header.
pub const FRAME_MIN: usize = 14;

/// Paths of a peer, per direction; the arrays that follow a path id have this length.
pub const PATHS_MAX: usize = 8;

/// Streams of a peer, per direction: one per rx lcore.
pub const STREAMS_MAX: usize = 16;

/// Path numbers behind the newest that are still told apart: 0.6 s at 100,000 shards a second.
pub const REPLAY_WINDOW: usize = 1 << 16;

/// Most source shards of a repair shard's window: as many as have coefficients of their own. A run
/// of e losses takes e repair shards, so what a window of W gives back of losses in runs grows fast
/// with W / s: at 1 % in runs of 3 with s = 16, 192 leaves a quarter of what 128 leaves.
pub const WINDOW_MAX: usize = shardgate_erasure::SOURCES_MAX as usize;

/// Sequence numbers behind the newest of which it is known whether they were placed. A jump ahead
/// by more is a new start for holes; nothing waits over such a gap.
pub const REASSEMBLY_WINDOW: usize = 1 << 16;

/// Shards that finish out of order in the crypto units are this close; a hole that is filled
/// within it is the units' doing, not the path's.
pub const UNIT_GRACE: Duration = Duration::from_micros(50);

/// A unit that has had a datagram in hand for this long is stuck; holds no longer wait for it.
pub const UNIT_LAG_MAX: Duration = Duration::from_millis(100);

/// A frame whose missing shards are this late, after the hold of its lane, is given up.
pub const REASSEMBLY_GRACE: Duration = Duration::from_millis(150);

/// Longest hold: a round trip to a satellite and back, and the slack.
pub const HOLD_MAX: Duration = Duration::from_millis(1_000);

/// How much longer than a round trip a TCP sender can be kept waiting before its timer expires:
/// less than Linux's minimum of 200 ms on top of the round trip.
pub const HOLD_SLACK: Duration = Duration::from_millis(150);

/// Rounds of asking that a hold waits for, where they fit.
pub const ROUNDS_HELD: u32 = 2;

/// How often a missing shard is asked for; what is still missing then is left to those inside.
pub const ROUNDS_MAX: u8 = 3;

/// A missing shard is never asked for sooner: crypto units and bursts reorder by less.
pub const ASK_AFTER_MIN: Duration = Duration::from_millis(1);

/// How often the plan for a hole is made, and how far apart: two octaves of age with each look.
pub const LOOKS_MAX: u8 = 6;

/// The plan for a hole is not made again sooner.
pub const LOOK_EVERY_MIN: Duration = Duration::from_micros(200);

/// How long an answer is waited for while the round trip is unknown, and how long a late original.
pub const ASK_DEFAULT: Duration = Duration::from_millis(20);

/// Deadlines of holes that are remembered at once; what is above it is neither asked for nor taught
/// to the model. Two for each of 0.25 s of total loss at 32,000 shards a second.
pub const AGENDA_MAX: usize = 16_384;

/// Reports that each transmission stands in: two of three may be lost.
pub const REPORTS_COVERED: usize = 3;

/// Most sequence numbers in one request.
pub const WANTED_MAX: usize = 256;

/// Frames of a burst that wait until the path can take them: 120 ms at 200 Mbit/s. Beyond that the
/// LAN's queue is not read.
pub const BACKLOG_MAX: usize = 2_048;

/// Answers that wait for room.
pub const ANSWERS_MAX: usize = 2 * WANTED_MAX;

/// Shards that died inside and of which the peer is not told yet.
pub const NOT_SENT_MAX: usize = 64;

/// A first transmission that has not come for this long, beyond a round trip, is lost.
pub const LOST_AFTER: Duration = Duration::from_millis(200);

/// Share of shards that may be asked for needlessly, as a divisor: 1 %.
pub const NEEDLESS_PER_SHARD: u32 = 100;

/// Needless requests that are forgiven at once.
pub const NEEDLESS_BURST: u32 = 256;

const _: () = {
    assert!(REASSEMBLY_WINDOW.is_power_of_two() && REPLAY_WINDOW.is_power_of_two());
    assert!(SHARD_PAYLOAD_MIN * SHARDS_MAX >= FRAME_MAX + crate::wire::frame::FRAME_HEADER_LEN);
    assert!(
        crate::wire::OVERHEAD_IPV6 + crate::wire::outer::ETHERNET_LEN
            <= HEADROOM + crate::wire::header::TAG_LEN
    );
};
