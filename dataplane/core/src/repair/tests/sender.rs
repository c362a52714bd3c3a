//! The encoder by itself: when a repair shard is due, what it covers, and what becomes of it.

use proptest::prelude::*;
use shardgate_erasure::{coefficient, multiply};

use super::*;
use crate::seal::tests::ORIGIN;
use crate::seal::{PathNumbers, SealBudget, Unsealed};
use crate::wire::header::{Kind, TAG_LEN};

const MILLISECOND: Duration = Duration::from_millis(1);

struct Sender {
    encoder: Encoder<HeapBuffer>,
    pool: HeapPool,
    next: Seq,
    out: Vec<RepairHeader>,
}

/// The first shard since `begun` that no repair shard covers, by what came out.
fn uncovered(sender: &Sender, begun: Seq) -> Seq {
    let mut ends = sender
        .out
        .iter()
        .map(|header| header.window_start.plus(header.window_len.into()));
    ends.rfind(|&end| begun.is_before(end)).unwrap_or(begun)
}

impl Sender {
    fn new(plan: RepairPlan) -> Self {
        let mut encoder = Encoder::new(Coder::new(), PAYLOAD_MAX);
        encoder.set_plan(Some(plan));
        Self {
            encoder,
            pool: HeapPool::new(usize::MAX, Encoder::<HeapBuffer>::room(PAYLOAD_MAX)),
            next: Seq(1_000),
            out: Vec::new(),
        }
    }

    fn add_bytes(&mut self, payload: &[u8], now: Time) {
        let header = SourceHeader::single(self.next, payload);
        self.next = self.next.plus(1);
        let out = &mut self.out;
        self.encoder
            .add(&header, payload, now, &mut self.pool, |symbol| {
                assert_is_the_sum(&symbol);
                out.push(symbol.header);
            });
    }

    fn add(&mut self, now: Time) {
        self.add_bytes(&payload(self.next), now);
    }

    fn poll(&mut self, now: Time) {
        let out = &mut self.out;
        self.encoder.poll(now, |symbol| out.push(symbol.header));
    }

    /// Starts and lengths of the windows of what has come out, relative to the first shard.
    fn windows(&mut self) -> Vec<(u32, u8)> {
        let windows = self.out.drain(..);
        windows
            .map(|header| (header.window_start.0 - 1_000, header.window_len))
            .collect()
    }
}

/// The definition (SPEC §4), byte by byte.
fn assert_is_the_sum(symbol: &Symbol<HeapBuffer>) {
    let header = symbol.header;
    let mut sum = vec![0u8; usize::from(header.coded_len)];
    let mut longest = 0;
    for seq in (0..u32::from(header.window_len)).map(|n| header.window_start.plus(n)) {
        let payload = payload(seq);
        let mut coded = SourceHeader::single(seq, &payload).to_bytes();
        // shard_id and shard_count, then first_frame, payload_len and crc32c.
        coded.copy_within(1..3, 14);
        longest = longest.max(CODED_META_LEN + payload.len());
        for (cell, &byte) in sum.iter_mut().zip(coded[14..].iter().chain(&payload)) {
            *cell ^= multiply(coefficient(seq.0, header.repair_index), byte);
        }
    }
    assert_eq!(sum.len(), longest, "trimmed to the longest");
    let (parsed, bytes) = RepairHeader::parse(symbol.buffer.data()).expect("sound");
    assert_eq!((parsed, bytes), (header, sum.as_slice()));
}

#[test]
fn windows_slide_and_begin_short() {
    let mut sender = Sender::new(plan(4, 12));
    for _ in 0..24 {
        sender.add(Time::ZERO);
    }
    assert_eq!(
        sender.windows(),
        [(0, 4), (0, 8), (0, 12), (4, 12), (8, 12), (12, 12)]
    );
    assert_eq!(sender.encoder.stats().by_count, 6);
}

#[test]
fn thin_streams_are_covered_in_time_and_once() {
    let mut sender = Sender::new(plan(8, 16));
    assert_eq!(sender.encoder.poll_timeout(), None);
    let start = Time(1_000_000_000);
    sender.add(start);
    sender.add(start + MILLISECOND);
    let due = start + 5 * MILLISECOND;
    assert_eq!(sender.encoder.poll_timeout(), Some(due));
    sender.poll(Time(due.0 - 1));
    assert_eq!(sender.windows(), []);
    sender.poll(due);
    assert_eq!(sender.out[0].sent_at_us, due.as_wire_us());
    assert_eq!(sender.windows(), [(0, 2)]);
    sender.poll(due + 100 * MILLISECOND);
    assert_eq!(sender.windows(), [], "nothing new was added");
    assert_eq!(sender.encoder.poll_timeout(), None);
    // What is added counts from here: by time again, then by count.
    sender.add(due);
    sender.poll(due + 5 * MILLISECOND);
    for _ in 0..8 {
        sender.add(due + 6 * MILLISECOND);
    }
    assert_eq!(sender.windows(), [(0, 3), (2, 9)]);
    assert_eq!(sender.encoder.stats().by_time, 2);
    assert_eq!(sender.encoder.stats().by_count, 1);
}

#[test]
fn a_gap_or_a_payload_too_long_ends_the_windows() {
    let mut sender = Sender::new(plan(4, 8));
    for _ in 0..6 {
        sender.add(Time::ZERO);
    }
    sender.next = sender.next.plus(1);
    for _ in 0..6 {
        sender.add(Time::ZERO);
    }
    assert_eq!(sender.windows(), [(0, 4), (0, 6), (7, 4)]);
    sender.add_bytes(&[1; PAYLOAD_MAX + 1], Time::ZERO);
    for _ in 0..4 {
        sender.add(Time::ZERO);
    }
    assert_eq!(sender.windows(), [(7, 6), (14, 4)]);
}

#[test]
fn an_empty_pool_costs_the_repair_shards_and_nothing_else() {
    let mut sender = Sender::new(plan(2, 4));
    sender.pool.left = 1;
    for _ in 0..6 {
        sender.add(Time::ZERO);
    }
    assert_eq!(sender.windows(), [(0, 2)]);
    assert_eq!(sender.encoder.stats().skipped, 2);
    sender.pool.left = usize::MAX;
    for _ in 0..6 {
        sender.add(Time::ZERO);
    }
    assert_eq!(sender.windows(), [(6, 2), (6, 4), (8, 4)]);
    // Buffers that are too small count as none.
    sender.pool = HeapPool::new(usize::MAX, 32);
    sender.encoder.set_plan(None);
    sender.encoder.set_plan(Some(plan(2, 4)));
    for _ in 0..2 {
        sender.add_bytes(&[1; 60], Time::ZERO);
    }
    assert_eq!(sender.windows(), []);
    assert_eq!(sender.encoder.stats().skipped, 3);
}

#[test]
fn windows_over_payloads_too_long_for_the_path_are_dropped() {
    let mut sender = Sender::new(plan(4, 8));
    // Numbers whose payloads are short, and one that is long.
    let lens = |from: u32| (0..).map(move |n| payload(Seq(from + n)).len());
    let long = lens(1_000).position(|len| len > 150).expect("one of them");
    let start = 1_000 + long as u32;
    sender.next = Seq(start);
    sender.add(Time::ZERO);
    sender.encoder.set_payload_max(150);
    let before = sender.next;
    for _ in 0..4 {
        let short = vec![7; 20];
        sender.add_bytes_unchecked(&short);
    }
    assert!(sender.out.iter().all(|h| !h.window_start.is_before(before)));
    assert!(sender.out.iter().all(|h| h.coded_len == 30));
    assert_eq!(sender.encoder.stats().skipped, 0);
    // And larger ones again, larger than ever.
    sender.encoder.set_payload_max(1_400);
    sender.pool = HeapPool::new(usize::MAX, 2_048);
    sender.out.clear();
    sender.encoder.set_plan(None);
    sender.encoder.set_plan(Some(plan(1, 1)));
    sender.add_bytes_unchecked(&[9; 1_400]);
    assert_eq!(sender.out[0].coded_len, 1_410);
}

impl Sender {
    /// Adds a payload that is not the one of its number.
    fn add_bytes_unchecked(&mut self, payload: &[u8]) {
        let header = SourceHeader::single(self.next, payload);
        self.next = self.next.plus(1);
        let out = &mut self.out;
        self.encoder
            .add(&header, payload, Time::ZERO, &mut self.pool, |symbol| {
                assert_eq!(
                    RepairHeader::parse(symbol.buffer.data()).map(|(header, _)| header),
                    Ok(symbol.header)
                );
                out.push(symbol.header);
            });
    }
}

#[test]
fn a_repair_shard_is_ready_to_be_sealed() {
    let mut encoder = Encoder::<HeapBuffer>::new(Coder::new(), PAYLOAD_MAX);
    encoder.set_plan(Some(plan(1, 1)));
    let mut pool = HeapPool::new(1, Encoder::<HeapBuffer>::room(PAYLOAD_MAX));
    let payload = vec![5; PAYLOAD_MAX];
    let mut due = None;
    let header = SourceHeader::single(Seq(4), &payload);
    encoder.add(&header, &payload, Time::ZERO, &mut pool, |symbol| {
        due = Some(symbol);
    });
    let symbol = due.expect("one for each");
    let mut numbers = PathNumbers::new(Kind::Data, 0);
    let mut budget = SealBudget::new(7, ORIGIN, 1, Time::ZERO);
    let number = numbers.take(0, &mut budget, Time::ZERO).expect("in budget");
    let unsealed = Unsealed::new(symbol.buffer, number).expect("room for the clear header");
    assert!(unsealed.buffer().tailroom() >= TAG_LEN);
    let outer = crate::wire::outer::ETHERNET_LEN + 40 + 8;
    assert!(unsealed.buffer().headroom() >= outer);
}

#[test]
fn requests_share_the_counter_and_refuse_what_is_no_window() {
    let mut encoder = Encoder::<HeapBuffer>::new(Coder::new(), PAYLOAD_MAX);
    let taken: Vec<u8> = (0..65).map(|_| encoder.take_index()).collect();
    assert_eq!((taken[0], taken[63], taken[64]), (0, 63, 0));
    let bytes = payload(Seq(1));
    let shard = |seq| (SourceHeader::single(Seq(seq), &bytes), bytes.as_slice());
    let try_all = |sources: Vec<(SourceHeader, &[u8])>, buffer: &mut HeapBuffer| {
        combine(Coder::new(), 3, 9, sources.into_iter(), buffer)
    };
    assert_eq!(try_all(vec![], &mut empty()), None);
    assert_eq!(try_all(vec![shard(1), shard(3)], &mut empty()), None);
    assert_eq!(try_all((0..193).map(shard).collect(), &mut empty()), None);
    let mut small = HeapBuffer::new(crate::limits::HEADROOM, 16);
    assert_eq!(try_all(vec![shard(1)], &mut small), None);
    let mut buffer = empty();
    let header = try_all((0..192).map(shard).collect(), &mut buffer).expect("the longest");
    assert!(header.repeat);
    assert_eq!((header.window_len, header.sent_at_us), (192, 9));
    assert_eq!(try_all(vec![shard(1)], &mut buffer), None, "used already");
}

proptest! {
    /// Whatever the plans, and in whatever order: sums are right, windows are within bounds, and
    /// no two that overlap share an index.
    #[test]
    fn plans_may_change_at_any_time(
        steps in prop::collection::vec((0u8..8, any::<u8>(), any::<u8>()), 1..200),
        buffers in prop_oneof![Just(usize::MAX), 0usize..40],
    ) {
        let mut sender = Sender::new(plan(3, 9));
        sender.pool.left = buffers;
        let mut now = Time::ZERO;
        let mut begun = sender.next;
        for (step, a, b) in steps {
            now += MILLISECOND;
            let (count, next) = (sender.out.len(), uncovered(&sender, begun));
            match step {
                0 => sender.encoder.set_plan(Some(plan(a, b))),
                1 => sender.poll(now),
                2 if a < 20 => {
                    sender.encoder.set_plan(None);
                    sender.encoder.set_plan(Some(plan(a, b)));
                    sender.out.clear();
                    begun = sender.next;
                }
                2 if a > 200 => {
                    sender.next = sender.next.plus(1);
                    sender.out.clear();
                    begun = sender.next;
                }
                _ => (0..=a % 32).for_each(|_| sender.add(now)),
            }
            if let Some(first) = sender.out.get(count).filter(|_| buffers == usize::MAX) {
                prop_assert!(!next.is_before(first.window_start), "{next:?} is left out");
            }
        }
        for header in &sender.out {
            prop_assert!((1..=192).contains(&header.window_len));
        }
        for (place, one) in sender.out.iter().enumerate() {
            for other in sender.out.iter().skip(place + 1) {
                let end = one.window_start.plus(one.window_len.into());
                let apart = !other.window_start.is_before(end);
                prop_assert!(apart || one.repair_index != other.repair_index);
            }
        }
    }
}
