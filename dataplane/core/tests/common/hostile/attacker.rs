//! Datagrams that nobody should send, made from some that the peer did.

use shardgate_core::buffer::{Buffer, BufferPool};
use shardgate_core::drop_reason::DropReason;
use shardgate_core::seal::{PathNumbers, Received, SealBudget, Unsealed};
use shardgate_core::time::Time;
use shardgate_core::wire::header::{CLEAR_HEADER_LEN, ClearHeader, Kind, TAG_LEN};
use shardgate_core::wire::outer::{ETHERNET_LEN, IPV4_LEN, OuterTemplate, UDP_LEN};
use shardgate_core::wire::shard::is_repair;

use super::gateway::aead::TestAead;
use super::gateway::recycled::{Pool, Recycled};
use super::gateway::{ORIGIN, RECEIVER_INDEX, Side};
use super::random::SplitMix;

/// Where a datagram begins in a frame from the WAN.
const DATAGRAM_AT: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;
/// Longest datagram that is overheard.
const DATAGRAM_MAX: usize = 1_500;
/// Datagrams remembered, of the newest and of the oldest: few, so that making an attack leaves the
/// caches to those who are measured.
const OVERHEARD: usize = 128;
/// The path by which duplicates come: the peer itself sends nothing there.
const DUPLICATES_PATH: u8 = 1;

/// One way to be hostile.
pub struct Attack {
    pub name: &'static str,
    /// How such a datagram must end.
    pub dies_of: DropReason,
    /// Makes one, as a frame from the WAN.
    pub make: fn(&mut Attacker, &mut Pool) -> Recycled,
}

/// Every way, in the order in which a receiver finds them out.
pub const ATTACKS: [Attack; 10] = [
    Attack {
        name: "a bit flipped on the way",
        dies_of: DropReason::OuterChecksum,
        make: Attacker::corrupted,
    },
    Attack {
        name: "another version",
        dies_of: DropReason::Version,
        make: Attacker::other_version,
    },
    Attack {
        name: "an unknown kind",
        dies_of: DropReason::Kind,
        make: Attacker::unknown_kind,
    },
    Attack {
        name: "cut short, or a reserved byte set",
        dies_of: DropReason::Malformed,
        make: Attacker::malformed,
    },
    Attack {
        name: "an unknown receiver index",
        dies_of: DropReason::UnknownReceiver,
        make: Attacker::unknown_receiver,
    },
    Attack {
        name: "a stream or path never agreed on",
        dies_of: DropReason::NotNegotiated,
        make: Attacker::not_negotiated,
    },
    Attack {
        name: "forged ciphertext, tag or number",
        dies_of: DropReason::Forged,
        make: Attacker::forged,
    },
    Attack {
        name: "replayed, of the last hundred",
        dies_of: DropReason::Replayed,
        make: Attacker::replayed,
    },
    Attack {
        name: "replayed, from before the window",
        dies_of: DropReason::TooOld,
        make: Attacker::too_old,
    },
    Attack {
        name: "a placed shard, sealed once more",
        dies_of: DropReason::Duplicate,
        make: Attacker::duplicate,
    },
];

/// Hears what the peer sends, and sends what the peer would not.
pub struct Attacker {
    random: SplitMix,
    template: OuterTemplate,
    /// The first and the last data datagrams.
    oldest: Vec<Vec<u8>>,
    newest: Vec<Vec<u8>>,
    heard: usize,
    /// What the peer itself has: without it no duplicate would be authentic.
    aead: TestAead,
    numbers: PathNumbers,
    budget: SealBudget,
}

impl Attacker {
    /// Between the peer on `side` and its victim.
    pub fn new(side: Side, seed: u64) -> Self {
        Self {
            random: SplitMix(seed),
            template: side.template(),
            oldest: Vec::with_capacity(OVERHEARD),
            newest: (0..OVERHEARD)
                .map(|_| Vec::with_capacity(DATAGRAM_MAX))
                .collect(),
            heard: 0,
            aead: side.aead(),
            numbers: PathNumbers::new(Kind::Data, 0),
            budget: SealBudget::new(RECEIVER_INDEX, ORIGIN, 1, Time::ZERO),
        }
    }

    /// Remembers a frame of the peer's if it carries a shard.
    pub fn overhear(&mut self, frame: &Recycled) {
        let datagram = &frame.data()[DATAGRAM_AT..];
        let is_data = |header: ClearHeader| header.kind == Kind::Data;
        if !ClearHeader::parse(datagram).is_ok_and(is_data) {
            return;
        }
        if self.oldest.len() < OVERHEARD {
            self.oldest.push(datagram.to_vec());
        }
        let place = &mut self.newest[self.heard % OVERHEARD];
        place.clear();
        place.extend_from_slice(datagram);
        self.heard += 1;
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next() % bound as u64) as usize
    }

    /// A datagram of the newest.
    fn copied(&mut self, pool: &mut Pool) -> Recycled {
        let place = self.below(OVERHEARD);
        copy_of(&self.newest[place], pool)
    }

    fn framed(&self, mut datagram: Recycled) -> Recycled {
        assert!(self.template.prepend(&mut datagram));
        datagram
    }

    /// One of the newest with another byte somewhere in its clear header.
    fn with_header_byte(&mut self, pool: &mut Pool, at: usize, change: fn(u8) -> u8) -> Recycled {
        let mut datagram = self.copied(pool);
        let byte = &mut datagram.data_mut()[at];
        *byte = change(*byte);
        self.framed(datagram)
    }

    fn corrupted(&mut self, pool: &mut Pool) -> Recycled {
        let copied = self.copied(pool);
        let mut frame = self.framed(copied);
        let at = DATAGRAM_AT + self.below(frame.len() - DATAGRAM_AT);
        frame.data_mut()[at] ^= 1 << self.below(8);
        frame
    }

    fn other_version(&mut self, pool: &mut Pool) -> Recycled {
        self.with_header_byte(pool, 0, |byte| byte ^ 0x70)
    }

    fn unknown_kind(&mut self, pool: &mut Pool) -> Recycled {
        self.with_header_byte(pool, 0, |byte| byte | 0x0f)
    }

    fn malformed(&mut self, pool: &mut Pool) -> Recycled {
        if self.below(2) == 0 {
            return self.with_header_byte(pool, 3, |byte| byte | 1);
        }
        let mut datagram = self.copied(pool);
        let left = self.below(CLEAR_HEADER_LEN + TAG_LEN + 1);
        let cut = datagram.len() - left;
        assert!(datagram.trim_back(cut));
        self.framed(datagram)
    }

    fn unknown_receiver(&mut self, pool: &mut Pool) -> Recycled {
        let at = 4 + self.below(4);
        self.with_header_byte(pool, at, |byte| byte ^ 0xa5)
    }

    fn not_negotiated(&mut self, pool: &mut Pool) -> Recycled {
        let at = 1 + self.below(2);
        self.with_header_byte(pool, at, |byte| byte | 0x40)
    }

    /// A number far ahead, to which a window that believed it would move; a number that may come
    /// next, and nothing true behind it; or a single bit of number, ciphertext or tag.
    fn forged(&mut self, pool: &mut Pool) -> Recycled {
        let mut datagram = self.copied(pool);
        let (style, random) = (self.below(3), self.random.next());
        let len = datagram.len();
        let (head, sealed) = datagram.data_mut().split_at_mut(CLEAR_HEADER_LEN);
        let number = &mut head[CLEAR_HEADER_LEN - 8..];
        match style {
            0 => number.copy_from_slice(&(random >> 4 | 1 << 40).to_be_bytes()),
            1 => {
                let next = u64::from_be_bytes(*number.first_chunk().expect("eight bytes"));
                number.copy_from_slice(&(next + random % (1 << 15)).to_be_bytes());
                for chunk in sealed.chunks_mut(8) {
                    chunk.copy_from_slice(&self.random.next().to_be_bytes()[..chunk.len()]);
                }
            }
            _ => {
                let at = CLEAR_HEADER_LEN - 8 + self.below(len - CLEAR_HEADER_LEN + 8);
                datagram.data_mut()[at] ^= 1 << (random % 8);
            }
        }
        self.framed(datagram)
    }

    fn replayed(&mut self, pool: &mut Pool) -> Recycled {
        let copied = self.copied(pool);
        self.framed(copied)
    }

    fn too_old(&mut self, pool: &mut Pool) -> Recycled {
        let place = self.below(self.oldest.len());
        self.framed(copy_of(&self.oldest[place], pool))
    }

    /// Under a fresh number, as a repeat is.
    fn duplicate(&mut self, pool: &mut Pool) -> Recycled {
        loop {
            let (received, _) = Received::new(self.copied(pool)).expect("the peer's own");
            let opened = received.open(&self.aead).expect("the peer's own");
            if is_repair(opened.plaintext()) != Some(false) {
                continue;
            }
            let mut plaintext = opened.into_buffer();
            assert!(plaintext.trim_front(CLEAR_HEADER_LEN));
            let number = self
                .numbers
                .take(DUPLICATES_PATH, &mut self.budget, Time::ZERO);
            let unsealed = Unsealed::new(plaintext, number.expect("in budget")).expect("room");
            let sealed = unsealed.seal(&self.aead).expect("seals");
            return self.framed(sealed.into_buffer());
        }
    }
}

fn copy_of(datagram: &[u8], pool: &mut Pool) -> Recycled {
    let mut copy = pool.alloc().expect("the pool is large enough");
    let room = copy.append(datagram.len()).expect("room");
    room.copy_from_slice(datagram);
    copy
}
