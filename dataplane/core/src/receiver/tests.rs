use core::time::Duration;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::buffer::{HeapBuffer, HeapPool};
use crate::lane::BULK_LANES;
use crate::limits::{LOST_AFTER, REASSEMBLY_GRACE};
use crate::predict::Fixed;
use crate::seal::tests::{ORIGIN, TestAead};
use crate::seal::{Received, SealBudget};
use crate::sender::{Close, Departure, Refused, SenderConfig, StreamSender};

const HOLD: Duration = Duration::from_millis(20);

pub(super) fn config() -> ReceiverConfig {
    ReceiverConfig {
        paths: 1,
        ordered: true,
        hold_bounds: HoldBounds::new(Duration::from_millis(5), Some(HOLD)),
        held_frames_max: 4_096,
        kept_shards_max: 1_024,
        checksum: true,
        asks: false,
        passes_on: false,
        rebuilt_payload_max: 0,
    }
}

#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl FrameSink<HeapBuffer> for Frames {
    fn frame(&mut self, frame: HeapBuffer) {
        self.0.push(frame.data().to_vec());
    }
}

/// A sender and a predictive buffer with the wire in the test's hands.
pub(super) struct Tunnel<P = Fixed> {
    sender: StreamSender<HeapBuffer>,
    budget: SealBudget,
    pub(super) receiver: PredictiveBuffer<HeapBuffer, P>,
    pool: HeapPool,
    out: Frames,
    aead: TestAead,
}

impl Tunnel {
    fn new(config: ReceiverConfig, payload_max: usize) -> Self {
        Self::predicting(config, payload_max, Fixed(Duration::from_secs(1)))
    }
}

impl<P: Predictor> Tunnel<P> {
    pub(super) fn predicting(config: ReceiverConfig, payload_max: usize, predictor: P) -> Self {
        let sender = SenderConfig {
            shards_min: 1,
            shards_max: 64,
            payload_max,
            checksum: true,
        };
        Self {
            sender: StreamSender::new(0, sender),
            budget: SealBudget::new(1, ORIGIN, 1, Time::ZERO),
            receiver: PredictiveBuffer::new(config, predictor),
            pool: HeapPool::new(usize::MAX, 16_384),
            out: Frames::default(),
            aead: TestAead::new(9),
        }
    }

    /// Sends frames, as one aggregate if they fit one; returns the datagrams.
    pub(super) fn send(&mut self, frames: &[(Vec<u8>, Lane)]) -> Vec<Vec<u8>> {
        let mut datagrams = vec![];
        for (frame, lane) in frames {
            let mut offered = self.sender.offer(HeapBuffer::from_bytes(frame), *lane);
            if let Err(Refused::Full(frame)) = offered {
                self.close(&mut datagrams);
                offered = self.sender.offer(frame, *lane);
            }
            offered.unwrap();
        }
        self.close(&mut datagrams);
        datagrams
    }

    fn close(&mut self, datagrams: &mut Vec<Vec<u8>>) {
        let departure = Departure {
            now: Time::ZERO,
            path: 0,
            budget: &mut self.budget,
            credit: 64,
            pool: &mut self.pool,
        };
        let outcome = self.sender.close(departure, |shard| {
            datagrams.push(
                shard
                    .seal(&self.aead)
                    .unwrap()
                    .into_buffer()
                    .data()
                    .to_vec(),
            );
        });
        assert!(matches!(outcome, Close::Sent(_)));
    }

    pub(super) fn receive(&mut self, datagram: &[u8], generation: u32, now: Time) {
        let (received, _) = Received::new(HeapBuffer::from_bytes(datagram)).unwrap();
        let opened = received.open(&self.aead).unwrap();
        self.receiver
            .accept(opened, generation, now, &mut self.pool, &mut self.out);
    }

    pub(super) fn poll(&mut self, now: Time) {
        self.receiver.poll(now, &mut self.out);
    }
}

/// A frame that can be told from all others.
pub(super) fn frame(number: u32, len: usize) -> Vec<u8> {
    (0..len.max(14))
        .map(|i| (number.wrapping_mul(31).wrapping_add(i as u32 * 7)) as u8)
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
        .map(|(i, b)| if i < 4 { number.to_be_bytes()[i] } else { b })
        .collect()
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(*frame.first_chunk().unwrap())
}

pub(super) fn ms(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

#[test]
fn in_order_frames_leave_at_once() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let frames: Vec<_> = (0..40)
        .map(|n| (frame(n, 60 + n as usize * 30), Lane(1)))
        .collect();
    for datagram in tunnel.send(&frames) {
        tunnel.receive(&datagram, 1, Time::ZERO);
    }
    assert_eq!(
        tunnel.out.0,
        frames.iter().map(|(f, _)| f.clone()).collect::<Vec<_>>()
    );
    let stats = tunnel.receiver.lane_stats();
    assert_eq!(
        (stats.delivered, stats.held, stats.skipped, stats.stragglers),
        (40, 0, 0, 0)
    );
    assert_eq!(
        (tunnel.receiver.kept(), tunnel.receiver.drops().total()),
        (0, 0)
    );
}

/// Lanes of the two classes.
const URGENT: Lane = Lane(BULK_LANES);
const BULK: Lane = Lane(0);

#[test]
fn what_lacks_bulk_bytes_only_holds_no_interactive_lane() {
    // Of the seven shards of a bulk frame, all but the third and the fourth, in two orders; in the
    // second the second is missing as well for a while.
    for (order, classified) in [([0, 1, 4, 5, 6], 2), ([4, 0, 1, 5, 6], 3)] {
        let mut tunnel = Tunnel::new(config(), 300);
        let first = tunnel.send(&[(frame(0, 60), URGENT)]);
        let _lost = tunnel.send(&[(frame(1, 60), URGENT)]);
        let bulk = tunnel.send(&[(frame(9, 2_000), BULK)]);
        let last = tunnel.send(&[(frame(2, 60), URGENT)]);
        assert_eq!(bulk.len(), 7);
        tunnel.receive(&first[0], 1, ms(1));
        tunnel.receive(&bulk[order[0]], 1, ms(4));
        for shard in &order[1..] {
            tunnel.receive(&bulk[*shard], 1, ms(8));
        }
        tunnel.receive(&last[0], 1, ms(8));
        tunnel.poll(ms(8));
        let known = tunnel.receiver.stats().holes_classified;
        assert_eq!(known, classified, "{order:?}");
        assert_eq!(tunnel.out.0.len(), 1, "what was lost is waited for");
        // For five milliseconds from when its hole opened, not from when the others did.
        tunnel.poll(ms(9) + Duration::from_nanos(1));
        let got: Vec<_> = tunnel.out.0.iter().map(|frame| number(frame)).collect();
        assert_eq!(got, [0, 2], "{order:?}");
        // Bytes of a frame that is not whole never leave, whatever was known of it.
        tunnel.poll(ms(10_000));
        assert_eq!(tunnel.out.0.len(), 2);
        assert!(tunnel.receiver.drops().get(DropReason::Incomplete) > 0);
    }
}

#[test]
fn what_lacks_more_than_one_frame_may_hold_all() {
    let mut tunnel = Tunnel::new(config(), 300);
    // The second shard has the end of the bulk frame and all of the other.
    let both = tunnel.send(&[(frame(0, 400), BULK), (frame(1, 60), URGENT)]);
    let next = tunnel.send(&[(frame(2, 60), URGENT)]);
    assert_eq!(both.len(), 2);
    tunnel.receive(&both[0], 1, ms(1));
    tunnel.receive(&next[0], 1, ms(1));
    let frame = tunnel.receiver.open_frame(Seq(0)).unwrap();
    let early = frame.in_shard(1).unwrap();
    assert_eq!((early.class, early.is_all), (Class::Bulk, false));
    assert_eq!((frame.in_shard(0), frame.in_shard(2)), (None, None));
}

#[test]
fn what_somebody_waits_for_is_asked_for_first() {
    let asking = ReceiverConfig {
        asks: true,
        ..config()
    };
    let mut tunnel = Tunnel::new(asking, 300);
    let bulk = tunnel.send(&[(frame(0, 2_000), BULK)]);
    let urgent = tunnel.send(&[(frame(1, 800), URGENT)]);
    tunnel.receive(&bulk[0], 1, ms(0));
    for datagram in [&bulk[2], &urgent[0], &urgent[2]] {
        tunnel.receive(datagram, 1, ms(1));
    }
    tunnel.poll(ms(2_000));
    let first_urgent = bulk.len() as u32;
    assert_eq!(tunnel.receiver.wanted.first(), Some(&Seq(first_urgent + 1)));
    assert!(tunnel.receiver.wanted.contains(&Seq(1)));
}

#[test]
fn a_hole_holds_its_lane_until_the_deadline_and_other_lanes_not_at_all() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let lost = tunnel.send(&[(frame(0, 1_400), Lane(1))]);
    let same_lane = tunnel.send(&[(frame(1, 1_400), Lane(1))]);
    let other_lane = tunnel.send(&[(frame(2, 1_400), Lane(2))]);
    // The stream must be known to have begun for its first shard to be missing.
    let mut begun = Tunnel::new(config(), 1_414);
    let first = begun.send(&[(frame(9, 1_400), Lane(1))]);
    let lost_2 = begun.send(&[(frame(10, 1_400), Lane(1))]);
    let held = begun.send(&[(frame(11, 1_400), Lane(1)), (frame(12, 1_400), Lane(2))]);
    begun.receive(&first[0], 1, ms(0));
    begun.receive(&held[0], 1, ms(1));
    begun.receive(&held[1], 1, ms(1));
    let delivered: Vec<_> = begun.out.0.iter().map(|f| number(f)).collect();
    assert_eq!(delivered, [9, 12], "lane 2 does not wait for lane 1");
    assert_eq!(
        begun.receiver.poll_timeout(),
        Some(ms(1) + HOLD.min(Duration::from_millis(5)))
    );
    begun.poll(ms(20));
    assert_eq!(begun.out.0.len(), 2, "the bulk hold has not run out");
    begun.poll(ms(21));
    assert_eq!(number(&begun.out.0[2]), 11);
    assert_eq!(begun.receiver.stats().holes_given_up, 1);
    begun.receive(&lost_2[0], 1, ms(30));
    assert_eq!(
        number(&begun.out.0[3]),
        10,
        "a straggler is still delivered"
    );
    assert_eq!(begun.receiver.lane_stats().stragglers, 1);
    assert_eq!(begun.receiver.lane_stats().skipped, 1);
    assert_eq!(begun.receiver.stats().late, 1);
    // Without a beginning there is no hole below.
    tunnel.receive(&same_lane[0], 1, ms(0));
    tunnel.receive(&other_lane[0], 1, ms(0));
    tunnel.receive(&lost[0], 1, ms(0));
    assert_eq!(tunnel.out.0.len(), 3);
}

#[test]
fn a_late_shard_within_the_hold_restores_the_order() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let frames: Vec<_> = (0..6).map(|n| (frame(n, 1_400), Lane(1))).collect();
    let datagrams = tunnel.send(&frames);
    for index in [0, 2, 3, 1, 5, 4] {
        tunnel.receive(&datagrams[index], 1, ms(index as u64));
    }
    assert_eq!(
        tunnel.out.0.iter().map(|f| number(f)).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5]
    );
    let stats = tunnel.receiver.stats();
    assert_eq!(
        (stats.holes, stats.holes_filled + stats.holes_by_units),
        (2, 2)
    );
}

#[test]
fn a_slow_unit_delays_holds_and_does_not_end_them() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let frames: Vec<_> = (0..3).map(|n| (frame(n, 1_400), Lane(1))).collect();
    let datagrams = tunnel.send(&frames);
    tunnel.receive(&datagrams[0], 1, ms(0));
    tunnel.receive(&datagrams[2], 1, ms(1));
    // 60 ms later shard 1, received before shard 2, is still with its unit.
    tunnel.poll(ms(1));
    assert_eq!(tunnel.out.0.len(), 1);
    tunnel.receive(&datagrams[1], 1, ms(1));
    tunnel.poll(ms(61));
    assert_eq!(
        tunnel.out.0.iter().map(|f| number(f)).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(tunnel.receiver.stats().holes_by_units, 1);
    assert_eq!(tunnel.receiver.lane_stats().stragglers, 0);
}

#[test]
fn only_what_is_new_says_that_the_peer_is_alive() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let datagrams = tunnel.send(&[(frame(0, 100), Lane(1))]);
    let mut accept = |generation| {
        let (received, _) = Received::new(HeapBuffer::from_bytes(&datagrams[0])).unwrap();
        let opened = received.open(&tunnel.aead).unwrap();
        tunnel
            .receiver
            .accept(opened, generation, ms(0), &mut tunnel.pool, &mut tunnel.out)
    };
    assert!(accept(2));
    assert!(!accept(2), "replayed");
    assert!(!accept(1), "of an earlier incarnation");
}

#[test]
fn replays_duplicates_and_old_incarnations_deliver_nothing() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let datagrams = tunnel.send(&[(frame(0, 100), Lane(1))]);
    tunnel.receive(&datagrams[0], 2, ms(0));
    tunnel.receive(&datagrams[0], 2, ms(0));
    tunnel.receive(&datagrams[0], 1, ms(0));
    assert_eq!(tunnel.out.0.len(), 1);
    assert_eq!(tunnel.receiver.drops().get(DropReason::Replayed), 1);
    assert_eq!(tunnel.receiver.drops().get(DropReason::OldIncarnation), 1);
    tunnel.receive(&datagrams[0], 3, ms(0));
    assert_eq!(tunnel.out.0.len(), 2, "a new incarnation numbers afresh");
    assert_eq!(tunnel.receiver.stats().resets, 1);
}

#[test]
fn an_incomplete_frame_is_never_delivered_and_its_memory_comes_back() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let first = tunnel.send(&[(frame(0, 100), Lane(1))]);
    let jumbo = tunnel.send(&[(frame(1, 9_000), Lane(1)), (frame(2, 100), Lane(1))]);
    tunnel.receive(&first[0], 1, ms(0));
    for datagram in jumbo[..3].iter().chain(&jumbo[4..]) {
        tunnel.receive(datagram, 1, ms(0));
    }
    assert_eq!(tunnel.out.0.len(), 1);
    assert!(tunnel.receiver.kept() > 0);
    tunnel.poll(ms(20));
    assert_eq!(
        tunnel.out.0.iter().map(|f| number(f)).collect::<Vec<_>>(),
        [0, 2]
    );
    tunnel.poll(ms(20) + REASSEMBLY_GRACE);
    assert_eq!(tunnel.receiver.kept(), 0);
    assert!(tunnel.receiver.drops().get(DropReason::Incomplete) > 0);
    tunnel.poll(ms(20) + LOST_AFTER);
    assert_eq!(tunnel.receiver.poll_timeout(), None);
}

#[test]
fn both_bounds_hold() {
    let bounded = ReceiverConfig {
        held_frames_max: 8,
        kept_shards_max: 3,
        ..config()
    };
    let mut tunnel = Tunnel::new(bounded, 1_414);
    let frames: Vec<_> = (0..30).map(|n| (frame(n, 1_400), Lane(1))).collect();
    let datagrams = tunnel.send(&frames);
    tunnel.receive(&datagrams[0], 1, ms(0));
    for datagram in datagrams.iter().skip(2).step_by(2) {
        tunnel.receive(datagram, 1, ms(0));
        assert!(tunnel.receiver.held() <= 2);
    }
    assert!(tunnel.receiver.stats().holes_forced > 0);
    assert_eq!(
        tunnel.receiver.drops().total(),
        0,
        "what is held is released, not dropped"
    );
    let jumbo = tunnel.send(&[(frame(99, 9_000), Lane(1))]);
    for datagram in &jumbo[1..] {
        tunnel.receive(datagram, 1, ms(0));
        assert!(tunnel.receiver.kept() <= 3);
    }
    assert!(tunnel.receiver.drops().get(DropReason::MemoryLimit) > 0);
}

#[test]
fn who_fills_the_hole_of_a_full_lane_leaves_first() {
    let bounded = ReceiverConfig {
        held_frames_max: 16,
        ..config()
    };
    let mut tunnel = Tunnel::new(bounded, 1_414);
    let frames: Vec<_> = (0..6).map(|n| (frame(n, 1_400), Lane(1))).collect();
    let datagrams = tunnel.send(&frames);
    for index in [0, 2, 3, 4, 5, 1] {
        tunnel.receive(&datagrams[index], 1, ms(0));
    }
    let order: Vec<_> = tunnel.out.0.iter().map(|f| number(f)).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    assert_eq!(tunnel.receiver.stats().holes_forced, 0);
}

#[test]
fn an_old_incomplete_frame_does_not_make_newer_ones_too_many() {
    let bounded = ReceiverConfig {
        kept_shards_max: 16,
        ..config()
    };
    let mut tunnel = Tunnel::new(bounded, 1_414);
    let first = tunnel.send(&[(frame(0, 100), Lane(1))]);
    let stays = tunnel.send(&[(frame(1, 2_000), Lane(1))]);
    tunnel.receive(&first[0], 1, ms(0));
    tunnel.receive(&stays[0], 1, ms(0));
    for n in 2..200 {
        for datagram in tunnel.send(&[(frame(n, 2_000), Lane(2))]) {
            tunnel.receive(&datagram, 1, ms(0));
        }
        assert!(tunnel.receiver.kept() <= 2);
    }
    tunnel.receive(&stays[1], 1, ms(1));
    assert_eq!(tunnel.out.0.len(), 200);
    assert_eq!(tunnel.receiver.drops().total(), 0);
}

/// A peer that is authenticated but broken: any header over any payload, on any path.
fn hostile_shard(header: SourceHeader, payload: &[u8], path_number: u64) -> Opened<HeapBuffer> {
    let clear = crate::wire::header::ClearHeader {
        kind: crate::wire::header::Kind::Data,
        stream: 0,
        path: (path_number % 2) as u8,
        receiver_index: 1,
        path_number,
    };
    let mut datagram = clear.to_bytes().to_vec();
    datagram.extend_from_slice(&header.to_bytes());
    datagram.extend_from_slice(payload);
    let (aad, data) = datagram.split_at_mut(CLEAR_HEADER_LEN);
    let aead = TestAead::new(9);
    let tag = crate::seal::Aead::seal(&aead, &clear.nonce(), aad, data).unwrap();
    datagram.extend_from_slice(&tag);
    let (received, _) = Received::new(HeapBuffer::from_bytes(&datagram)).unwrap();
    received.open(&aead).unwrap()
}

#[test]
fn runts_and_giants_are_not_delivered() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    for (number, len) in [1u16, 13, 9_023].into_iter().enumerate() {
        let mut payload = vec![0; 6];
        payload[..2].copy_from_slice(&len.to_be_bytes());
        payload.resize(6 + usize::from(len), 7);
        let header = SourceHeader::single(Seq(number as u32), &payload);
        let shard = hostile_shard(header, &payload, 2 * number as u64);
        tunnel
            .receiver
            .accept(shard, 1, ms(0), &mut tunnel.pool, &mut tunnel.out);
    }
    assert!(tunnel.out.0.is_empty());
    assert_eq!(tunnel.receiver.drops().get(DropReason::ShardMalformed), 3);
}

#[test]
fn a_shard_that_was_damaged_after_opening_is_refused() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let datagram = tunnel.send(&[(frame(0, 100), Lane(1))]).remove(0);
    let (received, _) = Received::new(HeapBuffer::from_bytes(&datagram)).unwrap();
    let opened = received.open(&tunnel.aead).unwrap();
    let mut plaintext = opened.into_buffer();
    let last = plaintext.len() - 1;
    plaintext.data_mut()[last] ^= 1;
    // Sealed again, so that only the checksum can tell.
    let header = crate::wire::header::ClearHeader::parse(plaintext.data()).unwrap();
    let (aad, data) = plaintext.data_mut().split_at_mut(CLEAR_HEADER_LEN);
    let tag = crate::seal::Aead::seal(&tunnel.aead, &header.nonce(), aad, data).unwrap();
    plaintext.append(16).unwrap().copy_from_slice(&tag);
    tunnel.receive(plaintext.data(), 1, ms(0));
    assert_eq!(tunnel.receiver.drops().get(DropReason::ShardChecksum), 1);
    assert!(tunnel.out.0.is_empty());
}

#[test]
fn a_sender_may_run_without_checksums() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let sender = SenderConfig {
        shards_min: 1,
        shards_max: 64,
        payload_max: 1_414,
        checksum: false,
    };
    tunnel.sender = StreamSender::new(0, sender);
    let datagram = tunnel.send(&[(frame(0, 100), Lane(1))]).remove(0);
    tunnel.receive(&datagram, 1, ms(0));
    assert_eq!(tunnel.out.0.len(), 1);
}

#[test]
fn a_jump_ahead_waits_for_nothing() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let first = tunnel.send(&[(frame(0, 100), Lane(1))]);
    tunnel.receive(&first[0], 1, ms(0));
    for n in 0..40_000 {
        tunnel.send(&[(frame(n, 100), Lane(1))]);
    }
    let far = tunnel.send(&[(frame(7, 100), Lane(1))]);
    tunnel.receive(&far[0], 1, ms(0));
    assert_eq!(tunnel.out.0.len(), 2);
    assert_eq!(tunnel.receiver.stats().jumps, 1);
}

impl Tunnel {
    /// Takes a shard that nothing is known of but its number and what went its way.
    fn receive_alone(&mut self, seq: Seq, same_path: u32, path_number: u64) {
        let header = SourceHeader {
            same_path,
            ..SourceHeader::single(seq, b"alone")
        };
        let shard = hostile_shard(header, b"alone", 2 * path_number);
        self.receiver
            .accept(shard, 1, ms(1), &mut self.pool, &mut self.out);
    }
}

#[test]
fn on_paths_that_take_turns_the_next_of_a_path_tells_what_it_lost() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    // Even numbers go one way and odd ones the other; 2 is lost.
    tunnel.receive_alone(Seq(0), 0, 0);
    tunnel.receive_alone(Seq(1), 0, 1);
    tunnel.receive_alone(Seq(3), 0b10, 2);
    assert_eq!(tunnel.receiver.stats().holes, 0, "it may still come");
    tunnel.receive_alone(Seq(4), 0b1010, 3);
    assert_eq!(tunnel.receiver.stats().holes, 1);
    tunnel.receive_alone(Seq(2), 0b10, 4);
    assert_eq!(tunnel.receiver.unknown, 0);
}

#[test]
fn hearsay_of_what_lies_before_a_jump_opens_nothing() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    // Between the two is a gap without evidence; then comes nearly the farthest jump there is.
    for (number, seq) in [0, 3, 3 + (u32::MAX >> 1) - 500].into_iter().enumerate() {
        tunnel.receive_alone(Seq(seq), 0, number as u64);
    }
    // From a gate there it would be two thousand million steps to the newest.
    tunnel.receiver.known_sent(Seq(1), Seq(2), 0, ms(1));
    assert_eq!(tunnel.receiver.stats().holes, 0);
    assert!(tunnel.receiver.gates.iter().all(Option::is_none));
}

#[test]
fn a_floor_is_forgotten_before_its_number_comes_round() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    tunnel.receive_alone(Seq(9), 0, 0);
    let tell = |tunnel: &mut Tunnel, highest, floor| {
        let (receiver, sink) = (&mut tunnel.receiver, &mut tunnel.out);
        receiver.extent(Seq(highest), Seq(floor), 0, ms(1), sink);
    };
    tell(&mut tunnel, 9, 8);
    assert_eq!(tunnel.receiver.floor, Some(Seq(8)));
    let mut newest = Seq(9);
    for number in 1..=3 {
        newest = newest.plus(30_000);
        tunnel.receive_alone(newest, 0, number);
    }
    assert_eq!(tunnel.receiver.floor, None);
    // One that lies below all that can be placed is none.
    tell(&mut tunnel, newest.0, 8);
    assert_eq!(tunnel.receiver.floor, None);
    tell(&mut tunnel, newest.0, newest.0);
    assert_eq!(tunnel.receiver.floor, Some(newest));
    // Beyond half of all numbers it would look as if it lay ahead of everything.
    for number in 4..=5 {
        newest = newest.plus((1 << 30) + 9);
        tunnel.receive_alone(newest, 0, number);
    }
    let before = tunnel.receiver.stats();
    tunnel.receive_alone(newest.plus(2), 1, 6);
    tunnel.poll(ms(1));
    let stats = tunnel.receiver.stats();
    assert_eq!((stats.holes - before.holes, stats.jumps), (1, 2));
    assert!(
        tunnel.receiver.gates.iter().all(Option::is_some),
        "it holds"
    );
}

#[test]
fn without_ordering_nothing_is_held() {
    let mut tunnel = Tunnel::new(
        ReceiverConfig {
            ordered: false,
            ..config()
        },
        1_414,
    );
    let frames: Vec<_> = (0..6).map(|n| (frame(n, 1_400), Lane(1))).collect();
    let datagrams = tunnel.send(&frames);
    for index in [0, 5, 3, 1, 2, 4] {
        tunnel.receive(&datagrams[index], 1, ms(0));
    }
    assert_eq!(
        tunnel.out.0.iter().map(|f| number(f)).collect::<Vec<_>>(),
        [0, 5, 3, 1, 2, 4]
    );
}

#[test]
fn a_message_that_only_asks_once_more_is_a_message() {
    use crate::wire::feedback::{Block, BlockWriter, Blocks};
    let asking = ReceiverConfig {
        asks: true,
        ..config()
    };
    let mut tunnel = Tunnel::new(asking, 1_414);
    tunnel.receiver = PredictiveBuffer::new(asking, Fixed(Duration::ZERO));
    let datagrams: Vec<_> = (0..5)
        .flat_map(|n| tunnel.send(&[(frame(n, 1_400), Lane(1))]))
        .collect();
    let write = |tunnel: &mut Tunnel, now: Time| -> Option<Vec<u32>> {
        let mut message = HeapBuffer::new(0, 512);
        let mut writer = BlockWriter::new(&mut message, 512);
        let is_sent = tunnel.receiver.write_feedback(&mut writer, now);
        let wanted = Blocks::new(message.data()).filter_map(|block| match block {
            Block::Wanted(seqs) => Some(seqs.iter().map(|seq| seq.0).collect::<Vec<_>>()),
            _ => None,
        });
        is_sent.then(|| wanted.flatten().collect())
    };
    tunnel.receive(&datagrams[0], 1, ms(100));
    tunnel.receive(&datagrams[2], 1, ms(100));
    tunnel.poll(ms(100));
    assert_eq!(write(&mut tunnel, ms(102)), Some(vec![1]));
    // 3 is asked for, and comes before the request has left.
    tunnel.receive(&datagrams[4], 1, ms(103));
    tunnel.poll(ms(103));
    tunnel.receive(&datagrams[3], 1, ms(103));
    assert_eq!(write(&mut tunnel, ms(103)), Some(vec![1]));
    assert_eq!(write(&mut tunnel, ms(103)), None);
}

#[test]
fn a_missing_tail_holds_what_comes_after_it() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let datagrams: Vec<_> = (0..3)
        .flat_map(|n| tunnel.send(&[(frame(n, 1_400), Lane(1))]))
        .collect();
    tunnel.receive(&datagrams[0], 1, ms(0));
    // 1 is missing, and the sender says that it was sent before anything else comes.
    let Tunnel { receiver, out, .. } = &mut tunnel;
    receiver.extent(Seq(1), Seq(0), 0, ms(1), out);
    tunnel.poll(ms(2));
    tunnel.receive(&datagrams[2], 1, ms(3));
    tunnel.receive(&datagrams[1], 1, ms(4));
    let delivered: Vec<_> = tunnel.out.0.iter().map(|f| number(f)).collect();
    assert_eq!(delivered, [0, 1, 2]);
    assert_eq!(tunnel.receiver.stats().holes_filled, 1);
}

#[test]
fn a_missing_tail_is_given_up_in_time() {
    let mut tunnel = Tunnel::new(config(), 1_414);
    let datagrams: Vec<_> = (0..2)
        .flat_map(|n| tunnel.send(&[(frame(n, 1_400), Lane(1))]))
        .collect();
    tunnel.receive(&datagrams[0], 1, ms(0));
    let Tunnel { receiver, out, .. } = &mut tunnel;
    receiver.extent(Seq(1), Seq(0), 0, ms(1), out);
    tunnel.poll(ms(1) + HOLD);
    assert_eq!(tunnel.receiver.stats().holes_given_up, 1);
    tunnel.receive(&datagrams[1], 1, ms(30));
    assert_eq!(tunnel.receiver.stats().late, 1);
}

#[test]
fn requests_that_are_put_off_end_with_the_hold() {
    let asking = ReceiverConfig {
        asks: true,
        ..config()
    };
    let mut tunnel = Tunnel::new(asking, 1_414);
    tunnel.receiver = PredictiveBuffer::new(asking, Fixed(Duration::ZERO));
    // Everything that was asked for lately came by itself.
    tunnel.receiver.needless = 0;
    let datagrams: Vec<_> = (0..3)
        .flat_map(|n| tunnel.send(&[(frame(n, 1_400), Lane(1))]))
        .collect();
    tunnel.receive(&datagrams[0], 1, ms(0));
    tunnel.receive(&datagrams[2], 1, ms(1));
    let mut polls = 0;
    while let Some(next) = tunnel.receiver.poll_timeout() {
        polls += 1;
        assert!(polls < 20, "it never ends");
        tunnel.poll(next);
    }
    let stats = tunnel.receiver.stats();
    assert!(stats.asks_deferred > 0 && stats.asks == 0, "{stats:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever an authenticated peer sends: no panic, both bounds hold, every hole ends in one of
    /// three ways, and a new incarnation frees everything.
    #[test]
    fn a_broken_peer_costs_bounded_work_and_memory(
        shards in prop::collection::vec(
            (
                prop_oneof![0u32..200, any::<u32>(), 65_000u32..66_000],
                (0u8..70, 0u8..70),
                any::<u32>(),
                prop_oneof![Just(NO_FRAME), Just(0u16), 0u16..64],
                prop::collection::vec(any::<u8>(), 1..64),
                0u64..40,
            ),
            1..120,
        ),
    ) {
        let bounded =
            ReceiverConfig { paths: 2, held_frames_max: 16, kept_shards_max: 8, ..config() };
        let mut tunnel = Tunnel::new(bounded, 1_414);
        let mut now = 0;
        for (number, (seq, (shard_id, shard_count), same_path, first_frame, mut payload, pause)) in
            shards.into_iter().enumerate()
        {
            // Now and then a frame that fits, so that lanes are reached.
            if payload.len() > 20 {
                payload[0] = 0;
                payload[1] = 14;
            }
            let mut header = SourceHeader {
                shard_id,
                shard_count,
                same_path,
                first_frame,
                ..SourceHeader::single(Seq(seq), &payload)
            };
            header.crc32c = header.checksum(&payload);
            now += pause;
            let shard = hostile_shard(header, &payload, number as u64);
            tunnel.receiver.accept(shard, 1, ms(now), &mut tunnel.pool, &mut tunnel.out);
            tunnel.receiver.poll(ms(now), &mut tunnel.out);
            prop_assert!(tunnel.receiver.held() <= 16 && tunnel.receiver.kept() <= 8);
        }
        let next = tunnel.send(&[(frame(0, 100), Lane(1))]);
        tunnel.receive(&next[0], 2, ms(now));
        prop_assert_eq!((tunnel.receiver.held(), tunnel.receiver.kept()), (0, 0));
        let stats = tunnel.receiver.stats();
        let ended = stats.holes_by_units + stats.holes_filled + stats.holes_given_up;
        prop_assert_eq!(stats.holes, ended);
    }

    /// Whatever the wire does: nothing wrong, nothing twice, every frame whose shards all came is
    /// delivered, lanes are in order but for counted stragglers, and no memory stays behind.
    #[test]
    fn any_wire_delivers_right_or_not_at_all(
        bursts in prop::collection::vec(prop::collection::vec((14usize..4_000, 0u8..4), 1..12), 1..40),
        payload_max in prop::sample::select(vec![256usize, 700, 1_414, 9_000]),
        fates in prop::collection::vec((0u8..100, 0u32..12, 0u64..30), 64),
    ) {
        let mut tunnel = Tunnel::new(config(), payload_max);
        let mut sent = HashMap::new();
        let mut whole = HashSet::new();
        let mut arrivals = vec![];
        let (mut count, mut fate) = (0, 0);
        for (at, burst) in bursts.iter().enumerate() {
            let frames: Vec<_> = burst.iter().map(|&(len, lane)| {
                count += 1;
                (frame(count, len), Lane(lane * 80))
            }).collect();
            let datagrams = tunnel.send(&frames);
            let mut all_came = true;
            for datagram in datagrams {
                let (kind, times, delay) = fates[fate % fates.len()];
                fate += 1;
                all_came &= kind >= 10;
                let copies = if kind < 10 { 0 } else if times == 0 { 2 } else { 1 };
                for copy in 0..copies {
                    arrivals.push((at as u64 * 3 + delay * u64::from(kind < 40) + copy, datagram.clone()));
                }
            }
            for (frame, lane) in frames {
                if all_came { whole.insert(number(&frame)); }
                sent.insert(number(&frame), (frame, lane));
            }
        }
        arrivals.sort_by_key(|(at, _)| *at);
        let mut end = Time::ZERO;
        for (at, datagram) in &arrivals {
            end = ms(*at);
            tunnel.poll(end);
            tunnel.receive(datagram, 1, end);
        }
        tunnel.poll(end + Duration::from_secs(1));
        let mut seen = HashSet::new();
        let mut newest: HashMap<u8, u32> = HashMap::new();
        let mut out_of_order = 0;
        for frame in &tunnel.out.0 {
            let number = number(frame);
            let (original, lane) = &sent[&number];
            prop_assert_eq!(frame, original);
            prop_assert!(seen.insert(number), "twice");
            let newest = newest.entry(lane.0).or_default();
            out_of_order += u64::from(number < *newest);
            *newest = number.max(*newest);
        }
        let lost: Vec<_> = whole.difference(&seen).collect();
        prop_assert!(lost.is_empty(), "whole frames lost: {:?} {:?}", lost, tunnel.receiver.drops());
        let lanes = tunnel.receiver.lane_stats();
        prop_assert_eq!(out_of_order, lanes.stragglers);
        // Between the first and the last frame of a lane every missing one was skipped, once.
        let mut missing = 0;
        for lane in (0..4).map(|lane| Lane(lane * 80)) {
            let in_lane = |number: &&u32| sent[*number].1 == lane;
            let first = tunnel.out.0.iter().map(|f| number(f)).find(|n| sent[n].1 == lane);
            let last = seen.iter().filter(in_lane).max();
            if let (Some(first), Some(&last)) = (first, last) {
                let between = sent.keys().filter(in_lane).filter(|n| (first..=last).contains(*n));
                missing += between.filter(|n| !seen.contains(*n)).count() as u64;
            }
        }
        prop_assert_eq!(lanes.skipped - lanes.recovered, missing);
        prop_assert_eq!((tunnel.receiver.held(), tunnel.receiver.kept()), (0, 0));
        prop_assert_eq!(tunnel.receiver.poll_timeout(), None);
    }
}
