//! An endpoint whose peer has the right key and the worst intentions.

use shardgate_core::buffer::{Buffer, HeapBuffer};
use shardgate_core::endpoint::{Egress, Endpoint, EndpointConfig};
use shardgate_core::limits::{ANSWERS_MAX, BACKLOG_MAX, STREAMS_MAX};
use shardgate_core::receiver::PredictiveBuffer;
use shardgate_core::repair::OPEN_MAX;
use shardgate_core::seal::SealBudget;
use shardgate_core::seq::Seq;
use shardgate_core::time::Time;
use shardgate_core::wire::feedback::{BlockType, BlockWriter, RANGES_MAX, Range, Report};
use shardgate_core::wire::header::{ClearHeader, Kind};

use crate::script::Script;
use crate::site::{PAYLOAD_MAX, Wire, config, is_plausible, is_within_budget, path_limit};
use crate::world::{
    Counted, Delivered, MS, ORIGIN, Pool, US, hostile_repair, hostile_source, is_sound, lane,
    opened,
};

/// Frames held or shards kept by a stream at the least, as the endpoint shares its bounds.
const SHARE_MIN: usize = 64;
/// Steps to come to rest, many times more than answers, probes and deadlines make.
const STEPS_MAX: usize = 40_000;

struct World {
    endpoint: Endpoint<Counted>,
    config: EndpointConfig,
    wire: Wire,
    /// What the units have room for in each call.
    credit: usize,
    pool: Pool,
    delivered: Delivered,
    path_numbers: [u64; 8],
    tokens: Vec<u64>,
    streams: usize,
    generation: u32,
    now: Time,
}

/// Probes of an MTU that leave together: sizes of a round, and one without padding.
const BURST_MAX: usize = 10;

/// The script: the endpoint's habits, five bytes; then steps, a byte each and what they need.
pub fn fuzz(input: &[u8]) {
    let mut script = Script::new(input);
    let config = config(&mut script);
    let mut world = World {
        endpoint: Endpoint::new(config),
        config,
        wire: Wire::default(),
        credit: 200,
        pool: Pool::new(10_000, 9_300),
        delivered: Delivered::default(),
        path_numbers: [0; 8],
        tokens: Vec::new(),
        streams: 1,
        generation: 1,
        now: Time(1_000_000_000),
    };
    world.install_key(128);
    world.endpoint.expect_streams(1);
    world
        .endpoint
        .set_path(0, Some(path_limit(config.sender.payload_max)));
    while !script.is_over() {
        world.step(&mut script);
        world.check();
    }
    world.rest();
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(18) {
            0 => {
                let (len, to) = (usize::from(script.u16() % 2_000), lane(script.u8()));
                let frame = self.pool.holding(&vec![7; len]);
                // Too long, too short, or one too many: it comes back.
                let _ = self.endpoint.offer(frame, to, self.now);
            }
            1 => self.with_egress(|endpoint, egress, _| {
                endpoint.close(egress);
            }),
            2 => self.poll(),
            3 => self.now += US * script.u16().into(),
            4 => self.now += MS * script.u16().into(),
            5 | 6 => self.feedback(script),
            7 => {
                let shard = hostile_source(script, Seq(1_000));
                self.data(script, &shard);
            }
            8 => {
                let shard = hostile_repair(script, Seq(1_000));
                self.data(script, &shard);
            }
            9 => self.install_key(script.u16()),
            10 => self.endpoint.retire_key(),
            11 => {
                let payload_max = 64 + usize::from(script.u16()) % (PAYLOAD_MAX - 63);
                let path = script.u8();
                let open = path & 0x80 == 0;
                self.endpoint
                    .set_path(path & 7, open.then(|| path_limit(payload_max)));
            }
            12 => {
                // Each costs megabytes: all of them only rarely.
                let streams = match script.u8() {
                    255 => STREAMS_MAX as u8 + 1,
                    few => few % 4,
                };
                self.streams = self.streams.max(usize::from(streams).min(STREAMS_MAX));
                self.endpoint.expect_streams(streams);
            }
            13 => {
                let back = usize::from(script.u8());
                if let Some(&(path, number)) = self.wire.data.iter().rev().nth(back) {
                    self.endpoint.not_sent(path, number);
                }
            }
            14 => {
                let (path, token) = (script.below(8), u64::from(script.u16()));
                let mut is_sent = false;
                self.with_egress(|endpoint, egress, _| {
                    is_sent = endpoint.probe(path, token, egress);
                });
                if is_sent {
                    self.tokens.push(token);
                }
            }
            15 => {
                let path = script.below(8);
                self.with_egress(|endpoint, egress, _| endpoint.say_close(path, egress));
            }
            16 => match script.below(4) {
                0 => self.endpoint.drain(&mut self.delivered),
                1 => {
                    self.endpoint.discard();
                }
                2 => self.generation += 1,
                _ => self.path_numbers = [0; 8],
            },
            _ => {
                self.credit = usize::from(script.u8());
                self.pool.max = 50 + usize::from(script.u8()) * 50;
            }
        }
    }

    fn install_key(&mut self, window: u16) {
        self.wire.key += 1;
        let budget = SealBudget::new(self.wire.key, ORIGIN, 1, self.now);
        self.endpoint.install_key(budget, window);
    }

    fn with_egress(
        &mut self,
        call: impl FnOnce(&mut Endpoint<Counted>, &mut Egress<'_, Pool, Wire>, &mut Delivered),
    ) {
        self.wire.credit = self.credit;
        let mut egress = Egress {
            now: self.now,
            pool: &mut self.pool,
            outbox: &mut self.wire,
        };
        call(&mut self.endpoint, &mut egress, &mut self.delivered);
    }

    /// A poll sends at most a message for each stream, one about its own, and a burst of probes.
    fn poll(&mut self) {
        let (before, now) = (self.wire.messages, self.now);
        self.with_egress(|endpoint, egress, sink| endpoint.poll(now, egress, sink));
        assert!(self.wire.messages - before <= self.streams + 1 + BURST_MAX);
    }

    /// The header of what comes: on some path, with the next number or not.
    fn header(&mut self, script: &mut Script<'_>, kind: Kind) -> ClearHeader {
        let place = script.u8();
        let number = &mut self.path_numbers[usize::from(place & 3)];
        *number = match place >> 5 {
            7 => number.saturating_add(1 << 33),
            6 => number.saturating_sub(1),
            more => number.saturating_add(1 + u64::from(more) * 3),
        };
        ClearHeader {
            kind,
            stream: place >> 2 & 7,
            path: place & 3,
            receiver_index: 9,
            path_number: *number,
        }
    }

    fn data(&mut self, script: &mut Script<'_>, plaintext: &[u8]) {
        let header = self.header(script, Kind::Data);
        let (generation, earlier) = (self.generation - u32::from(script.u8() == 255), script.u8());
        let Some(shard) = opened(&self.pool, header, plaintext) else {
            return;
        };
        let at = self.now - US * u32::from(earlier) * 10;
        let (stream, pool, sink) = (header.stream, &mut self.pool, &mut self.delivered);
        self.endpoint
            .accept(shard, stream, generation, at, pool, sink);
    }

    fn feedback(&mut self, script: &mut Script<'_>) {
        let header = self.header(script, Kind::Feedback);
        let mut message = HeapBuffer::new(0, 2_000);
        while !script.is_over() {
            if !self.block(script, &mut message) {
                break;
            }
        }
        let Some(message) = opened(&self.pool, header, message.data()) else {
            return;
        };
        let cause = message.plaintext().len();
        let at = self.now - US * u32::from(script.u8()) * 10;
        let (messages, data, generation) =
            (self.wire.messages, self.wire.data.len(), self.generation);
        self.wire.longest_message = 0;
        self.with_egress(|endpoint, egress, sink| {
            endpoint.accept_feedback(&message, generation, at, egress, sink);
        });
        assert!(
            self.wire.messages - messages <= 1,
            "one answer to a message"
        );
        // Its echo has four bytes more than the challenge, and that is all.
        assert!(self.wire.longest_message <= cause + 4);
        assert!(self.wire.data.len() - data <= 2 * ANSWERS_MAX);
    }

    /// One block of a message; false after the last.
    fn block(&mut self, script: &mut Script<'_>, message: &mut HeapBuffer) -> bool {
        let newest = Seq(self.endpoint.sender_stats().shards as u32).minus(1);
        let mut writer = BlockWriter::new(message, 1_900);
        let seqs = |script: &mut Script<'_>| -> Vec<Seq> {
            let (count, first) = (script.u8(), newest.minus(script.step()));
            let stride = u32::from(script.below(4));
            (0..u32::from(count))
                .map(|n| first.plus(n * stride))
                .collect()
        };
        match script.below(10) {
            0 => return false,
            1 | 2 => self.report(script, message),
            3 => {
                writer.seqs(BlockType::Wanted, seqs(script).into_iter());
            }
            4 => {
                writer.seqs(BlockType::NotSent, seqs(script).into_iter());
            }
            5 => {
                writer.challenge(script.u64(), script.u32());
            }
            6 => {
                let back = usize::from(script.u8());
                let known = self.tokens.iter().rev().nth(back).copied();
                let token = known.unwrap_or_else(|| script.u64());
                writer.echo(token, script.u32(), script.u32());
            }
            7 => {
                let highest = Seq(1_000).plus(script.step());
                writer.extent(highest, highest.plus(script.step()));
            }
            8 => {
                writer.close();
            }
            _ => {
                // A type that is unknown, or a known one with a body that is not its own.
                let (kind, len) = (script.u8(), script.u8());
                let body = script.bytes(usize::from(len));
                if let Some(room) = message.append(4 + body.len()) {
                    let (head, rest) = room.split_at_mut(4);
                    head.copy_from_slice(&[kind, 0, 0, len]);
                    rest.copy_from_slice(body);
                }
            }
        }
        true
    }

    /// A report that may be true, or cannot be.
    fn report(&self, script: &mut Script<'_>, message: &mut HeapBuffer) {
        let (place, style) = (script.u8(), script.u8());
        let path = place & 7;
        let on_path = self.wire.data.iter().rev().find(|(on, _)| *on == path);
        let largest = match style & 3 {
            0 => on_path.map_or(0, |&(_, number)| number),
            1 => on_path.map_or(0, |&(_, number)| number.saturating_sub(script.u8().into())),
            2 => on_path.map_or(0, |&(_, number)| number.wrapping_add(script.u8().into())),
            _ => script.u64(),
        };
        let sent_at_us = self.now.as_wire_us();
        let report = Report {
            path,
            largest,
            received: if style & 4 == 0 {
                largest
            } else {
                script.u64()
            },
            received_bytes: if style & 8 == 0 {
                largest
            } else {
                script.u64()
            },
            rebuilt: script.u8().into(),
            late: script.u8().into(),
            delay_min_us: if style & 16 == 0 {
                script.u16().into()
            } else {
                script.u32()
            },
            delay_mean_us: if style & 32 == 0 {
                script.u16().into()
            } else {
                script.u32()
            },
            ce_marks: script.u8().into(),
            echo_sent_at_us: match style >> 6 {
                0 | 1 => sent_at_us.wrapping_sub(script.u16().into()),
                2 => sent_at_us.wrapping_add(script.u16().into()),
                _ => script.u32(),
            },
            echo_held_us: script.u16().into(),
        };
        let count = usize::from(place >> 3);
        let ranges: Vec<Range> = (0..count.min(RANGES_MAX))
            .map(|_| {
                let (gap, len) = (script.u8(), script.u8());
                let stretch = |value: u8| match value {
                    255 => u16::MAX,
                    value => value.into(),
                };
                Range {
                    gap: stretch(gap),
                    len: stretch(len),
                }
            })
            .collect();
        BlockWriter::new(message, 1_900).report(&report, &ranges);
    }

    fn check(&self) {
        let mut keeps = self.endpoint.waiting();
        let (mut held, mut kept) = (0, 0);
        for (_, buffer) in self.endpoint.received() {
            is_sound(buffer, SHARE_MIN, SHARE_MIN, None);
            held += buffer.held();
            kept += buffer.kept();
        }
        keeps += held + kept;
        assert!(self.endpoint.received().count() <= self.streams);
        let stats = self.endpoint.outbound_stats();
        // Open repair windows have a buffer each, and what waits for the pacer is bounded.
        let paced =
            usize::try_from(stats.paced).map_or(BACKLOG_MAX, |paced| paced.min(BACKLOG_MAX));
        let spare = self.pool.alive().checked_sub(keeps);
        assert!(
            spare.is_some_and(|spare| spare <= OPEN_MAX + paced),
            "{spare:?} buffers beside {keeps}"
        );
        is_within_budget(&self.endpoint, &self.config);
        let added = stats.repeat_bytes + stats.repair_bytes + stats.tail_bytes;
        assert_eq!(self.wire.added, added, "what is added is accounted for");
        let (data, feedback) = self.endpoint.numbered();
        assert!(self.wire.datagrams as u64 <= data + feedback);
        for path in 0..self.config.paths {
            is_plausible(self.endpoint.path_view(path, self.now));
        }
    }

    /// The peer falls silent: the endpoint comes to rest, and says so.
    fn rest(mut self) {
        self.install_key(128);
        self.pool.max = 20_000;
        self.credit = 200;
        // Who searches never rests.
        let limit = path_limit(self.config.sender.payload_max);
        self.endpoint.set_path(0, Some(limit.pinned(limit.mtu())));
        for _ in 0..STEPS_MAX {
            self.poll();
            self.check();
            let Some(next) = self.endpoint.poll_timeout() else {
                let sum = |of: fn(&PredictiveBuffer<_, _>) -> usize| {
                    let streams = self.endpoint.received();
                    streams.map(|(_, buffer)| of(buffer)).sum::<usize>()
                };
                assert_eq!(sum(PredictiveBuffer::held), 0);
                assert_eq!(sum(PredictiveBuffer::kept), 0);
                return;
            };
            self.now = self.now.max(next) + US * 100;
        }
        panic!(
            "it does not come to rest: {:?} at {:?}",
            self.endpoint.poll_timeout(),
            self.now
        );
    }
}
