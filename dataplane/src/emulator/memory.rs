//! The written sum of packet memory.

use shardgate_core::limits::HEADROOM;
use shardgate_dpdk::BURST;
use shardgate_dpdk::af_packet::{self, AfPacket};
use shardgate_sim::path::PathProfile;

use super::{EmulatorConfig, EmulatorError};

/// Most frames held in one direction: 300 MB of frames of 1514 bytes.
pub const HELD_FRAMES_MAX: usize = 1 << 17;
/// Frames that pile up while the lcore is without its CPU are held beside those on the way: three
/// time slices.
const STALL_MS: f64 = 10.0;
/// Fewest: a burst of a host's TCP over a slow path.
const HELD_FRAMES_MIN: usize = 1 << 10;
/// What a path of unlimited rate is taken to carry, frames per millisecond: more than one lcore
/// moves over af_packet. Also what bounds the small frames of a fast limited path.
const FRAMES_PER_MS: f64 = 500.0;
/// Bits of the smallest Ethernet frame without its FCS.
const FRAME_BITS_MIN: f64 = 60.0 * 8.0;
/// Descriptors of each queue; devices without descriptors hold no mbufs there.
pub(super) const DESCRIPTORS: u16 = 1_024;
/// Mbufs in the lcore's cache of the pool.
pub(super) const CACHE: usize = 256;
/// Bytes beside the data in each mbuf: its header, the mempool's, and padding that spreads
/// mbufs over memory channels.
const MBUF_OVERHEAD: usize = 128 + 64 + 64;
/// A mempool's object never crosses a page, so without hugepages each mbuf takes a page or more.
const PAGE: usize = 4 << 10;
const HUGEPAGE: usize = 2 << 20;
/// Room for every frame of an MTU of 1500, and DPDK's default.
const DATA_ROOM_MIN: usize = HEADROOM + 2_048;
/// What EAL and two ports take beside the pool, megabytes.
const EAL_MB: usize = 24;

/// How many packets of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub held_left_to_right: usize,
    pub held_right_to_left: usize,
    data_room: usize,
    hugepages: bool,
}

impl Memory {
    /// For a checked configuration.
    ///
    /// # Errors
    ///
    /// If an af_packet device names no interface that is there.
    pub fn of(config: &EmulatorConfig) -> Result<Self, EmulatorError> {
        let mut data_room =
            DATA_ROOM_MIN.max(HEADROOM + usize::from(config.mtu()) + ETHERNET_OVERHEAD);
        for device in [&config.left, &config.right] {
            // The kernel may hand over frames up to the interface's MTU, whatever the path's.
            if let Some(device) = AfPacket::parse(device)? {
                data_room = data_room.max(af_packet::mbuf_room(device.kernel_mtu()?));
            }
        }
        let held = |profile| {
            config
                .held_frames
                .unwrap_or_else(|| held_frames(profile))
                .clamp(1, HELD_FRAMES_MAX)
        };
        Ok(Self {
            held_left_to_right: held(&config.left_to_right),
            held_right_to_left: held(&config.right_to_left),
            data_room,
            hugepages: config.hugepages,
        })
    }

    /// Mbufs, one line per consumer.
    pub fn mbufs(&self) -> usize {
        let each_way = [
            usize::from(DESCRIPTORS), // the rx queue's
            usize::from(DESCRIPTORS), // the tx queue's
            BURST,                    // received, not yet decided on
            BURST,                    // due, not yet taken by the tx queue
        ];
        self.held_left_to_right
            + self.held_right_to_left
            + 2 * each_way.iter().sum::<usize>()
            + CACHE * 3 / 2 // a cache holds half as much again before it gives back
    }

    /// Bytes of an mbuf, headroom included.
    pub fn data_room(&self) -> usize {
        self.data_room
    }

    /// The pool and what EAL needs, in units of 2^20 bytes.
    pub fn megabytes(&self) -> u32 {
        let page = if self.hugepages { HUGEPAGE } else { PAGE };
        let mbuf = self.data_room + MBUF_OVERHEAD;
        let bytes = match page / mbuf {
            0 => self.mbufs() * mbuf.next_multiple_of(page),
            per_page => self.mbufs().div_ceil(per_page) * page,
        };
        u32::try_from(bytes.div_ceil(1 << 20) + EAL_MB).unwrap_or(u32::MAX)
    }
}

/// Ethernet header and two VLAN tags.
const ETHERNET_OVERHEAD: usize = 14 + 8;

/// Frames in the queue and on the way: delay with all but one in a million of its jitter, and the
/// longer way of reordered frames.
fn held_frames(profile: &PathProfile) -> usize {
    let mut way_ms = profile.delay_ms + 5.0 * profile.jitter_ms + STALL_MS;
    if profile.reorder > 0.0 {
        way_ms += 1.5 * profile.reorder_ms;
    }
    let per_ms = profile
        .rate
        .map_or(FRAMES_PER_MS, |rate| rate * 1e3 / FRAME_BITS_MIN)
        .min(FRAMES_PER_MS);
    let queue = profile.queue_limit().map_or(0, |frames| frames + 1);
    let held = (f64::from(queue) + per_ms * way_ms) * (1.0 + profile.duplicate);
    (held.ceil() as usize).clamp(HELD_FRAMES_MIN, HELD_FRAMES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_held_follow_the_profile() {
        let held = |delay_ms, rate, duplicate| {
            held_frames(&PathProfile {
                delay_ms,
                rate,
                duplicate,
                ..PathProfile::default()
            })
        };
        // 661 in the queue, one being sent, and 20 + 10 ms of 60-byte frames at 200 Mbit/s.
        assert_eq!(held(20.0, Some(200.0), 0.0), 662 + 12_500);
        assert_eq!(held(20.0, None, 0.0), 15_000);
        assert_eq!(held(20.0, None, 0.5), 22_500);
        assert_eq!(held(0.0, None, 0.0), 5_000);
        assert_eq!(held(0.0, Some(0.1), 0.0), HELD_FRAMES_MIN);
        assert_eq!(held(10_000.0, None, 0.0), HELD_FRAMES_MAX);
        let reordering = PathProfile {
            jitter_ms: 2.0,
            reorder: 0.1,
            reorder_ms: 10.0,
            ..PathProfile::default()
        };
        assert_eq!(held_frames(&reordering), 17_500);
    }

    #[test]
    fn mbufs_hold_the_largest_frame() {
        let mut config = EmulatorConfig::new("net_null0", "net_null1");
        let memory = Memory::of(&config).expect("memory");
        assert_eq!(memory.data_room(), 2_176);
        assert_eq!(memory.mbufs(), 2 * 5_000 + 2 * 2_112 + 384);
        // 14,608 pages of 4 KiB; or 862 mbufs of 2,432 bytes in each of 17 hugepages.
        assert_eq!(memory.megabytes(), 58 + 24);
        let huge = Memory {
            hugepages: true,
            ..memory
        };
        assert_eq!(huge.megabytes(), 34 + 24);
        config.right_to_left.mtu = 9_000;
        assert_eq!(Memory::of(&config).expect("memory").data_room(), 9_150);
        config.held_frames = Some(usize::MAX);
        let most = Memory::of(&config).expect("memory");
        assert_eq!(most.held_left_to_right, HELD_FRAMES_MAX);
    }
}
