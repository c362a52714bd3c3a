//! The predictive buffer: what an honest sender sends, in any order and mixed with anything that a
//! hostile one may send under the same key.

use shardgate_core::buffer::{Buffer, HeapBuffer};
use shardgate_core::predict::{Engine, RoundTrip};
use shardgate_core::receiver::PredictiveBuffer;
use shardgate_core::repair::combine;
use shardgate_core::seal::SealBudget;
use shardgate_core::sender::{Departure, SenderConfig, StreamSender};
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::feedback::{Block, BlockWriter, Blocks};
use shardgate_core::wire::header::{ClearHeader, Kind};
use shardgate_core::wire::shard::SourceHeader;
use shardgate_erasure::Coder;

use crate::script::Script;
use crate::world::{
    Counted, Delivered, MS, ORIGIN, Pool, US, frame, hostile_repair, hostile_source, is_sound,
    lane, opened, receiver_config,
};

/// Shards of the honest sender that are remembered.
const SHARDS_MAX: usize = 256;
/// Steps that a receiver may take to come to rest: two deadlines and three requests for each of
/// the holes that its agenda remembers, and many at once.
const STEPS_MAX: usize = 20_000;

struct World {
    receiver: PredictiveBuffer<Counted, Engine>,
    sender: StreamSender<HeapBuffer>,
    payload_max: usize,
    held_max: usize,
    kept_max: usize,
    pool: Pool,
    delivered: Delivered,
    /// Plaintexts of source shards, oldest first, and how many of them were sent for the first time.
    shards: Vec<Vec<u8>>,
    next: usize,
    frames: u32,
    base: u32,
    path_numbers: [u64; 8],
    generation: u32,
    now: Time,
}

/// The script: the receiver's habits, two bytes; pool and payload, one; the first sequence number;
/// then steps, a byte each and what they need.
pub fn fuzz(input: &[u8]) {
    let mut script = Script::new(input);
    let mut world = World::new(&mut script);
    while !script.is_over() {
        world.step(&mut script);
        is_sound(
            &world.receiver,
            world.held_max,
            world.kept_max,
            Some(&world.delivered),
        );
        let keeps = world.receiver.held() + world.receiver.kept();
        assert_eq!(world.pool.alive(), keeps, "every buffer is accounted for");
    }
    world.rest();
}

fn sender(payload_max: usize) -> StreamSender<HeapBuffer> {
    StreamSender::new(
        0,
        SenderConfig {
            shards_min: 1,
            shards_max: 64,
            payload_max,
            checksum: true,
        },
    )
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let places = script.u8();
        let payload_max = [256, 300, 600, 1_414][usize::from(places & 3)];
        let (config, policy) = receiver_config(script, payload_max);
        let buffers = [usize::MAX, 300, 20, 5][usize::from(places >> 2 & 3)];
        Self {
            receiver: PredictiveBuffer::new(config, policy.engine()),
            sender: sender(payload_max),
            payload_max,
            held_max: config.held_frames_max,
            kept_max: config.kept_shards_max,
            pool: Pool::new(buffers, 9_300),
            delivered: Delivered::honest(),
            shards: Vec::new(),
            next: 0,
            frames: 0,
            base: script.u32(),
            path_numbers: [0; 8],
            generation: 1,
            now: Time(1_000_000_000),
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0 => self.aggregate(script),
            1 => {
                if let Some(shard) = self.shards.get(self.next).cloned() {
                    self.next += 1;
                    self.deliver(Kind::Data, script.u8(), 0, &shard);
                }
            }
            2 => self.again(script),
            3 => self.mutated(script),
            4 => {
                let shard = hostile_source(script, self.newest());
                self.hostile(script, &shard);
            }
            5 => self.repair(script),
            6 => {
                let shard = hostile_repair(script, self.newest());
                self.hostile(script, &shard);
            }
            7 => {
                let highest = self.newest().plus(script.step());
                let floor = self.newest().plus(script.step());
                let path = script.u8();
                self.receiver
                    .extent(highest, floor, path, self.now, &mut self.delivered);
            }
            8 => {
                let seqs: Vec<Seq> = (0..script.below(32))
                    .map(|_| self.newest().plus(script.step()))
                    .collect();
                self.receiver
                    .not_sent(seqs.into_iter(), &mut self.delivered);
            }
            9 => self.now += US * script.u16().into(),
            10 => self.now += MS * script.u16().into(),
            11 => {
                let settled = self.now - US * script.u8().into();
                self.receiver.poll(settled, &mut self.delivered);
            }
            12 => {
                let room = usize::from(script.u16());
                self.feedback(room);
            }
            13 => {
                let smoothed = US * script.u16().into();
                let round_trip = RoundTrip {
                    smoothed: smoothed * script.u8().into(),
                    minimum: smoothed,
                    variance: smoothed / 2,
                };
                self.receiver
                    .set_round_trip((!smoothed.is_zero()).then_some(round_trip));
            }
            14 => self.restart(),
            _ => self.receiver.drain(&mut self.delivered),
        }
    }

    /// The newest sequence number of the honest sender.
    fn newest(&self) -> Seq {
        self.sender.next_seq().plus(self.base).minus(1)
    }

    /// An honest aggregate: its shards are there to be delivered.
    fn aggregate(&mut self, script: &mut Script<'_>) {
        for _ in 0..=script.below(4) {
            let (len, to) = (script.u16() % 1_700, lane(script.u8()));
            let frame = frame(self.frames, usize::from(len));
            self.frames += 1;
            let offered = self.sender.offer(HeapBuffer::from_bytes(&frame), to);
            assert!(offered.is_ok(), "64 shards have room for four frames");
        }
        let mut budget = SealBudget::new(1, ORIGIN, 1, self.now);
        let departure = Departure {
            now: self.now,
            path: 0,
            budget: &mut budget,
            credit: 64,
            pool: &mut shardgate_core::buffer::HeapPool::new(64, 2_048),
        };
        let (base, shards) = (self.base, &mut self.shards);
        self.sender.close(departure, |shard| {
            let (header, payload) =
                SourceHeader::parse(shard.plaintext()).expect("a sender's own shard");
            let header = SourceHeader {
                seq: header.seq.plus(base),
                ..header
            };
            shards.push([&header.to_bytes(), payload].concat());
        });
        let surplus = self.shards.len().saturating_sub(SHARDS_MAX);
        self.shards.drain(..surplus);
        self.next = self.next.saturating_sub(surplus);
    }

    /// A shard once more: by the network, or because it was asked for.
    fn again(&mut self, script: &mut Script<'_>) {
        let (back, how) = (usize::from(script.u8()), script.u8());
        let index = self
            .shards
            .len()
            .checked_sub(back % self.shards.len().max(1) + 1);
        let Some(mut shard) = index.map(|index| self.shards[index].clone()) else {
            return;
        };
        if how & 1 != 0 {
            shard[0] |= shardgate_core::wire::shard::FLAG_REPEAT;
        }
        self.deliver(Kind::Data, script.u8(), 0, &shard);
    }

    fn mutated(&mut self, script: &mut Script<'_>) {
        let back = usize::from(script.u8());
        let index = self
            .shards
            .len()
            .checked_sub(back % self.shards.len().max(1) + 1);
        let Some(mut shard) = index.map(|index| self.shards[index].clone()) else {
            return;
        };
        for _ in 0..=script.below(4) {
            let at = usize::from(script.u16()) % shard.len();
            shard[at] ^= script.u8();
        }
        self.hostile(script, &shard);
    }

    /// Repair over the last so many shards, as an honest sender makes it.
    fn repair(&mut self, script: &mut Script<'_>) {
        let (count, skipped, index) = (script.below(32) + 1, script.below(32), script.u8());
        let end = self.shards.len().saturating_sub(usize::from(skipped));
        let start = end.saturating_sub(usize::from(count));
        let sources = self.shards[start..end]
            .iter()
            .filter_map(|shard| SourceHeader::parse(shard).ok());
        let mut buffer = HeapBuffer::new(128, 2_048);
        let sent_at_us = self.now.as_wire_us();
        if combine(Coder::new(), index, sent_at_us, sources, &mut buffer).is_some() {
            self.deliver(Kind::Data, script.u8(), 0, buffer.data());
        }
    }

    fn hostile(&mut self, script: &mut Script<'_>, plaintext: &[u8]) {
        self.delivered.is_honest = false;
        let (path, earlier) = (script.u8(), script.u8());
        self.deliver(Kind::Data, path, earlier, plaintext);
    }

    /// Low bits of `path`: the path. High bits: what becomes of its number.
    fn deliver(&mut self, kind: Kind, path: u8, earlier: u8, plaintext: &[u8]) {
        let number = &mut self.path_numbers[usize::from(path & 7)];
        *number = match path >> 3 {
            29 => u64::MAX - 1,
            30 => number.saturating_add(1 << 40),
            31 => number.saturating_sub(1),
            more => number.saturating_add(1 + u64::from(more) * u64::from(more)),
        };
        let header = ClearHeader {
            kind,
            stream: 0,
            path: path & 7,
            receiver_index: 1,
            path_number: *number,
        };
        let Some(shard) = opened(&self.pool, header, plaintext) else {
            return;
        };
        let at = self.now - US * u32::from(earlier) * 10;
        let (pool, sink) = (&mut self.pool, &mut self.delivered);
        self.receiver.accept(shard, self.generation, at, pool, sink);
    }

    /// Writes feedback into a message with so much room.
    fn feedback(&mut self, room: usize) {
        let mut message = HeapBuffer::new(0, room.min(1_500));
        let mut writer = BlockWriter::new(&mut message, room);
        let any = self.receiver.write_feedback(&mut writer, self.now);
        assert!(any || message.is_empty());
        assert!(message.len() <= room);
        let mut blocks = Blocks::new(message.data());
        for block in blocks.by_ref() {
            assert!(matches!(block, Block::Report(..) | Block::Wanted(_)));
        }
        assert!(!blocks.is_malformed());
    }

    /// The peer lost its state.
    fn restart(&mut self) {
        self.generation += 1;
        self.sender = sender(self.payload_max);
        self.shards.clear();
        self.next = 0;
        self.path_numbers = [0; 8];
    }

    /// The stream falls silent: everything that is held leaves, everything that is kept is freed,
    /// and nothing is left to be done.
    fn rest(mut self) {
        self.receiver.set_round_trip(None);
        for _ in 0..STEPS_MAX {
            let holds = self.receiver.poll_timeout();
            let Some(next) = holds.into_iter().chain(self.receiver.feedback_at()).min() else {
                assert_eq!((self.receiver.held(), self.receiver.kept()), (0, 0));
                assert_eq!(self.pool.alive(), 0, "a buffer was forgotten");
                return;
            };
            self.now = self.now.max(next) + US * 100;
            self.receiver.poll(self.now, &mut self.delivered);
            is_sound(
                &self.receiver,
                self.held_max,
                self.kept_max,
                Some(&self.delivered),
            );
            if self
                .receiver
                .feedback_at()
                .is_some_and(|due| due <= self.now)
            {
                self.feedback(1_400);
            }
        }
        panic!(
            "it does not come to rest: {:?} {:?}",
            self.receiver.poll_timeout(),
            self.receiver.feedback_at()
        );
    }
}
