//! In which order frames leave, and what holes hold.

use super::*;
use crate::lane::BULK_LANES;
use crate::limits::{LOST_AFTER, REASSEMBLY_GRACE};

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
