//! Whatever comes: bounds, jumps, damage, and the property that nothing wrong is delivered.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

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
