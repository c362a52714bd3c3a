//! What stands around the core's state machines: buffers that are counted, an AEAD that costs
//! nothing, frames that can be told from each other.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer, Meta};
use shardgate_core::lane::Lane;
use shardgate_core::limits::{FRAME_MAX, FRAME_MIN};
use shardgate_core::predict::{Engine, Fixed, HoldBounds, ModelConfig, Policy, Rack};
use shardgate_core::receiver::{FrameSink, PredictiveBuffer, ReceiverConfig};
use shardgate_core::seal::{Aead, Opened, Origin, Received};
use shardgate_core::seq::Seq;
use shardgate_core::wire::header::{ClearHeader, NONCE_LEN, TAG_LEN};
use shardgate_core::wire::shard::{NO_FRAME, SourceHeader};

use crate::script::Script;

pub const US: Duration = Duration::from_micros(1);
pub const MS: Duration = Duration::from_millis(1);

pub const ORIGIN: Origin = Origin {
    key_slot: 1,
    peer: 1,
    flow: 0,
};

/// A cipher whose ciphertext is the plaintext, and under which only what is whole is authentic.
pub struct Open;

fn tag(nonce: &[u8; NONCE_LEN], aad: &[u8], data: &[u8]) -> [u8; TAG_LEN] {
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(nonce), aad), data);
    let mut tag = [0x5a; TAG_LEN];
    tag[..4].copy_from_slice(&crc.to_be_bytes());
    tag
}

impl Aead for Open {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        Some(tag(nonce, aad, data))
    }

    fn open(&self, _: &[u8; NONCE_LEN], _: &[u8], _: &mut [u8], _: &[u8; TAG_LEN]) -> bool {
        true
    }
}

/// The same, and what was corrupted on the way is not authentic.
pub struct Tagged;

impl Aead for Tagged {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        Some(tag(nonce, aad, data))
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        got: &[u8; TAG_LEN],
    ) -> bool {
        tag(nonce, aad, data) == *got
    }
}

/// A buffer that is counted as long as it lives.
pub struct Counted {
    inner: HeapBuffer,
    alive: Rc<Cell<usize>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

impl Buffer for Counted {
    fn data(&self) -> &[u8] {
        self.inner.data()
    }
    fn data_mut(&mut self) -> &mut [u8] {
        self.inner.data_mut()
    }
    fn headroom(&self) -> usize {
        self.inner.headroom()
    }
    fn tailroom(&self) -> usize {
        self.inner.tailroom()
    }
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.inner.prepend(n)
    }
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        self.inner.append(n)
    }
    fn trim_front(&mut self, n: usize) -> bool {
        self.inner.trim_front(n)
    }
    fn trim_back(&mut self, n: usize) -> bool {
        self.inner.trim_back(n)
    }
    fn meta(&self) -> Meta {
        self.inner.meta()
    }
    fn set_meta(&mut self, meta: Meta) {
        self.inner.set_meta(meta);
    }
}

/// A pool of counted buffers: as many at once as `max`, of `capacity` bytes.
pub struct Pool {
    alive: Rc<Cell<usize>>,
    capacity: usize,
    pub max: usize,
}

impl Pool {
    pub fn new(max: usize, capacity: usize) -> Self {
        Self {
            alive: Rc::default(),
            capacity,
            max,
        }
    }

    /// How many of its buffers there are.
    pub fn alive(&self) -> usize {
        self.alive.get()
    }

    /// A buffer that holds `bytes`, however many there are already.
    pub fn holding(&self, bytes: &[u8]) -> Counted {
        self.alive.set(self.alive.get() + 1);
        Counted {
            inner: HeapBuffer::from_bytes(bytes),
            alive: Rc::clone(&self.alive),
        }
    }
}

impl BufferPool for Pool {
    type Buffer = Counted;

    fn alloc(&mut self) -> Option<Counted> {
        if self.alive() >= self.max {
            return None;
        }
        self.alive.set(self.alive.get() + 1);
        Some(Counted {
            inner: HeapBuffer::new(shardgate_core::limits::HEADROOM, self.capacity),
            alive: Rc::clone(&self.alive),
        })
    }
}

/// A datagram as if it had come under the right key.
pub fn opened(pool: &Pool, header: ClearHeader, plaintext: &[u8]) -> Option<Opened<Counted>> {
    let mut datagram = header.to_bytes().to_vec();
    datagram.extend_from_slice(plaintext);
    datagram.extend_from_slice(&[0; TAG_LEN]);
    let (received, _) = Received::new(pool.holding(&datagram)).ok()?;
    received.open(&Open).ok()
}

/// A frame that says which it is, and of which every byte can be checked.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let len = len.clamp(FRAME_MIN, FRAME_MAX);
    let mut frame: Vec<u8> = (0..len)
        .map(|at| {
            (number as u8)
                .wrapping_mul(31)
                .wrapping_add((at as u8).wrapping_mul(7))
        })
        .collect();
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    frame
}

/// What came out at the far end.
#[derive(Default)]
pub struct Delivered {
    pub frames: u64,
    pub bytes: u64,
    /// While all that goes in is honest: the frames that [`frame`] made, each once.
    pub is_honest: bool,
    pub numbers: Vec<u32>,
    seen: HashSet<u32>,
}

impl Delivered {
    pub fn honest() -> Self {
        Self {
            is_honest: true,
            ..Self::default()
        }
    }
}

impl FrameSink<Counted> for Delivered {
    fn frame(&mut self, delivered: Counted) {
        let bytes = delivered.data();
        assert!((FRAME_MIN..=FRAME_MAX).contains(&bytes.len()));
        self.frames += 1;
        self.bytes += bytes.len() as u64;
        if self.is_honest {
            let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            assert_eq!(
                bytes,
                frame(number, bytes.len()),
                "a frame that nobody sent"
            );
            assert!(self.seen.insert(number), "frame {number} came twice");
            self.numbers.push(number);
        }
    }
}

/// A source shard's header and payload as a hostile peer may send them: anything that parses, and
/// now and then what does not.
pub fn hostile_source(script: &mut Script<'_>, around: Seq) -> Vec<u8> {
    let seq = around.plus(script.step());
    let (shard_id, shard_count) = (script.u8(), script.u8());
    let style = script.u8();
    let mut payload = Vec::new();
    for _ in 0..style & 3 {
        // Frames, whole or cut off, and whatever stands for them.
        let (len, lane, lane_seq) = (script.u8(), script.u8(), script.u16());
        let promised = u16::from(len) + u16::from(style & 4) * 64;
        payload.extend_from_slice(&promised.to_be_bytes());
        payload.extend_from_slice(&[lane, 0]);
        payload.extend_from_slice(&lane_seq.to_be_bytes());
        payload.resize(payload.len() + usize::from(len), lane);
    }
    if style & 8 != 0 || payload.is_empty() {
        let count = script.u8();
        payload.extend_from_slice(script.bytes(usize::from(count)));
    }
    let mut header = SourceHeader {
        repeat: style & 16 != 0,
        shard_id,
        shard_count,
        seq,
        same_path: if style & 32 != 0 {
            u32::MAX
        } else {
            script.u32()
        },
        sent_at_us: script.u32(),
        first_frame: match script.u16() {
            first if style & 64 != 0 => first,
            first if first & 1 != 0 => NO_FRAME,
            _ => 0,
        },
        payload_len: payload.len() as u16,
        crc32c: 0,
    };
    if style & 128 != 0 {
        header.crc32c = header.checksum(&payload);
    }
    let mut plaintext = header.to_bytes().to_vec();
    plaintext.extend_from_slice(&payload);
    plaintext
}

/// A repair shard as a hostile peer may send it.
pub fn hostile_repair(script: &mut Script<'_>, around: Seq) -> Vec<u8> {
    let header = shardgate_core::wire::shard::RepairHeader {
        repeat: script.u8() & 1 != 0,
        repair_index: script.u8() & 63,
        window_len: script.below(192) + 1,
        window_start: around.plus(script.step()),
        sent_at_us: script.u32(),
        coded_len: u16::from(script.u8()) + 11,
    };
    let mut plaintext = header.to_bytes().to_vec();
    let at = plaintext.len();
    plaintext.extend_from_slice(script.bytes(usize::from(header.coded_len)));
    plaintext.resize(at + usize::from(header.coded_len), 0);
    plaintext
}

/// Bounds and habits of a receiver.
pub fn receiver_config(script: &mut Script<'_>, payload_max: usize) -> (ReceiverConfig, Policy) {
    let (habits, bounds) = (script.u8(), script.u8());
    let bulk = (habits & 16 != 0).then_some(MS * 20);
    let config = ReceiverConfig {
        paths: [1, 1, 2, 4][usize::from(habits >> 6)],
        ordered: habits & 1 == 0,
        hold_bounds: HoldBounds::new(MS * 5, bulk),
        held_frames_max: [64, 16, 5, 4][usize::from(bounds & 3)],
        kept_shards_max: [64, 8, 2, 1][usize::from(bounds >> 2 & 3)],
        checksum: habits & 2 == 0,
        asks: habits & 4 == 0,
        passes_on: bounds & 16 == 0,
        rebuilt_payload_max: if habits & 8 == 0 { payload_max } else { 0 },
    };
    let policy = match (habits & 32 == 0, bounds & 32 == 0) {
        (true, true) => Policy::Rack(Rack::default()),
        (true, false) => Policy::Model(ModelConfig::default()),
        (false, _) => Policy::Fixed(Fixed(MS * 3)),
    };
    (config, policy)
}

/// What holds for every predictive buffer at every time.
pub fn is_sound(
    buffer: &PredictiveBuffer<Counted, Engine>,
    held_max: usize,
    kept_max: usize,
    delivered: Option<&Delivered>,
) {
    let (stats, lanes) = (buffer.stats(), buffer.lane_stats());
    assert!(buffer.held() <= held_max, "{} held", buffer.held());
    assert!(buffer.kept() <= kept_max, "{} kept", buffer.kept());
    assert!(stats.kept_high_water <= kept_max as u64);
    assert!(lanes.held_high_water <= held_max as u64);
    let ended =
        stats.holes_by_units + stats.holes_filled + stats.holes_recovered + stats.holes_given_up;
    assert!(
        ended <= stats.holes,
        "more holes ended than began: {stats:?}"
    );
    // Frames are not made of nothing.
    assert!(stats.frame_bytes <= stats.payload_bytes, "{stats:?}");
    if let Some(delivered) = delivered {
        assert_eq!(lanes.delivered, delivered.frames);
        assert!(delivered.bytes <= stats.frame_bytes);
        assert!(lanes.recovered <= lanes.stragglers && lanes.stragglers <= lanes.delivered);
    }
}

/// The lane that a script's byte names: few, so that frames meet.
pub fn lane(byte: u8) -> Lane {
    Lane([0, 1, 100, 192, 200, 255][usize::from(byte % 6)])
}
