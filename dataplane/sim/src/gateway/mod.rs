//! What stands between a LAN and the paths: the trait that the world drives, and its
//! implementations.

mod plain;
mod sharded;

use std::any::Any;

use shardgate_core::time::Time;

pub use plain::{PlainConfig, PlainGateway};
pub use sharded::{ShardedConfig, ShardedGateway};

/// A gateway as the world sees it: frames of the LAN on one side, datagrams on the other, both as
/// whole Ethernet frames without FCS.
///
/// # How to plug one in
///
/// Implement the four methods, box one gateway for each site, and give both to
/// [`World::new`](crate::world::World::new). The world calls, always with a `now` that never goes
/// back:
///
/// - [`handle_lan`](Self::handle_lan) for each frame of the LAN and [`handle_wan`](Self::handle_wan) for
///   each datagram that leaves a path, bit errors and duplicates included;
/// - [`poll`](Self::poll) once after every burst of these, at the same `now` (the end of a burst:
///   what an aggregator waits for), and whenever the time of [`poll_timeout`](Self::poll_timeout)
///   has come;
/// - `poll_timeout` after each `poll`. It may lie anywhere ahead; one that is not ahead is polled
///   again at once, at most [`SPINS_MAX`](crate::world::SPINS_MAX) times in a row.
///
/// What goes out is written into [`Output`] in any of the three calls. A datagram's length is what
/// it costs on the path, so it carries all its headers: Ethernet, IP, UDP, the tunnel's own. The
/// world is both ends' clock, and there is no handshake: keys and numbers are given beforehand.
///
/// Everything a gateway draws at random it draws from seeds it was made with.
pub trait Gateway: Any {
    /// A frame of the LAN.
    fn handle_lan(&mut self, frame: &[u8], now: Time, out: &mut Output);

    /// A datagram from path `path`.
    fn handle_wan(&mut self, path: u8, datagram: &[u8], now: Time, out: &mut Output);

    /// The end of a burst, or a timer.
    fn poll(&mut self, now: Time, out: &mut Output);

    /// When to be polled next, if nothing comes before.
    fn poll_timeout(&self) -> Option<Time>;

    /// What it has sent so far, by cause. [`SentBytes::total`] is the length of all datagrams.
    fn sent(&self) -> SentBytes;
}

/// The bytes of a gateway's datagrams by what they are for. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentBytes {
    /// Frames of the LAN, Ethernet header included, each counted once: what must be moved.
    pub frames: u64,
    /// Everything around frames in first transmissions: outer headers, framing, tag, padding,
    /// less what of a frame is not sent.
    pub headers: u64,
    /// Repair shards, whole.
    pub repair: u64,
    /// Second and further transmissions, whole.
    pub repeats: u64,
    /// Feedback and probes, whole.
    pub feedback: u64,
}

impl SentBytes {
    /// All bytes.
    pub fn total(&self) -> u64 {
        self.frames + self.headers + self.repair + self.repeats + self.feedback
    }

    /// What two gateways have sent together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            headers: self.headers + other.headers,
            repair: self.repair + other.repair,
            repeats: self.repeats + other.repeats,
            feedback: self.feedback + other.feedback,
        }
    }

    /// What was sent since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            headers: self.headers - earlier.headers,
            repair: self.repair - earlier.repair,
            repeats: self.repeats - earlier.repeats,
            feedback: self.feedback - earlier.feedback,
        }
    }
}

/// Where a gateway puts what it sends. Buffers come back to it, so a world at work allocates
/// little.
#[derive(Debug, Default)]
pub struct Output {
    datagrams: Vec<(u8, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

/// Buffers kept for the next frames: a full window of a fast path; beyond, the allocator has them.
const SPARE_MAX: usize = 8_192;

impl Output {
    /// A new datagram for path `path`, empty: write the whole Ethernet frame into it.
    pub fn datagram(&mut self, path: u8) -> &mut Vec<u8> {
        let buffer = self.buffer();
        let slot = self.datagrams.len();
        self.datagrams.push((path, buffer));
        &mut self.datagrams[slot].1
    }

    /// A new frame for the LAN, empty.
    pub fn frame(&mut self) -> &mut Vec<u8> {
        let buffer = self.buffer();
        let slot = self.frames.len();
        self.frames.push(buffer);
        &mut self.frames[slot]
    }

    /// The datagrams written so far, taken out in the order of writing.
    pub fn take_datagrams(&mut self) -> std::vec::Drain<'_, (u8, Vec<u8>)> {
        self.datagrams.drain(..)
    }

    /// The frames written so far, taken out in the order of writing.
    pub fn take_frames(&mut self) -> std::vec::Drain<'_, Vec<u8>> {
        self.frames.drain(..)
    }

    /// All datagrams with their list, which is to come back by `reuse_datagrams`.
    pub(crate) fn detach_datagrams(&mut self) -> Vec<(u8, Vec<u8>)> {
        std::mem::take(&mut self.datagrams)
    }

    pub(crate) fn reuse_datagrams(&mut self, list: Vec<(u8, Vec<u8>)>) {
        if self.datagrams.is_empty() {
            self.datagrams = list;
        }
    }

    /// All frames with their list, which is to come back by `reuse_frames`.
    pub(crate) fn detach_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.frames)
    }

    pub(crate) fn reuse_frames(&mut self, list: Vec<Vec<u8>>) {
        if self.frames.is_empty() {
            self.frames = list;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.frames.is_empty()
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// An empty buffer.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }
}
