use super::*;
use crate::buffer::{HeapBuffer, HeapPool};
use crate::seal::tests::ORIGIN;

const CONFIG: SenderConfig = SenderConfig {
    shards_min: 1,
    shards_max: 64,
    payload_max: 1414,
    checksum: true,
};

fn budget() -> SealBudget {
    SealBudget::new(1, ORIGIN, 1, Time::ZERO)
}

/// Closes the aggregate with a pool of `buffers`; returns the outcome and the shards' headers.
fn close(
    sender: &mut StreamSender<HeapBuffer>,
    credit: usize,
    buffers: usize,
) -> (Close, Vec<SourceHeader>) {
    let mut shards = vec![];
    let departure = Departure {
        now: Time(5_000),
        path: 0,
        budget: &mut budget(),
        credit,
        pool: &mut HeapPool::new(buffers, 2_048),
    };
    let outcome = sender.close(departure, |shard| {
        let plaintext = &shard.buffer().data()[CLEAR_HEADER_LEN..];
        let (header, payload) = SourceHeader::parse(plaintext).unwrap();
        assert_eq!(header.crc32c, header.checksum(payload));
        shards.push(header);
    });
    (outcome, shards)
}

fn offer(sender: &mut StreamSender<HeapBuffer>, len: usize) {
    sender
        .offer(HeapBuffer::from_bytes(&vec![7; len]), Lane(3))
        .unwrap();
}

#[test]
fn small_frames_share_a_shard_and_large_ones_stay_in_their_buffer() {
    let mut sender = StreamSender::new(0, CONFIG);
    for len in [60, 60, 1300, 1408] {
        offer(&mut sender, len);
    }
    let (outcome, shards) = close(&mut sender, 64, 1);
    assert_eq!(outcome, Close::Sent(3));
    assert_eq!(sender.stats().frames_in_place, 2);
    let lens: Vec<_> = shards
        .iter()
        .map(|s| (s.shard_id, s.shard_count, s.payload_len))
        .collect();
    assert_eq!(lens, [(0, 3, 132), (1, 3, 1306), (2, 3, 1414)]);
    assert_eq!(shards[2].same_path, 0b11);
    assert_eq!(shards[0].sent_at_us, 5);
    assert_eq!(close(&mut sender, 64, 0).0, Close::Empty);
}

#[test]
fn a_frame_longer_than_a_shard_spans_several() {
    let mut sender = StreamSender::new(0, CONFIG);
    offer(&mut sender, 9_014);
    let (outcome, shards) = close(&mut sender, 64, 7);
    assert_eq!(outcome, Close::Sent(7));
    let starts: Vec<_> = shards.iter().map(|s| s.first_frame).collect();
    assert_eq!(
        starts,
        [
            0, NO_FRAME, NO_FRAME, NO_FRAME, NO_FRAME, NO_FRAME, NO_FRAME
        ]
    );
}

#[test]
fn what_cannot_be_handed_over_is_not_numbered() {
    let mut sender = StreamSender::new(0, CONFIG);
    offer(&mut sender, 9_014);
    assert_eq!(close(&mut sender, 6, 7).0, Close::Busy(7));
    assert_eq!(sender.waiting(), 1, "the frame waits");
    let (outcome, _) = close(&mut sender, 7, 6);
    assert_eq!(outcome, Close::Dropped(DropReason::NoBuffer, 1));
    assert_eq!(
        (sender.numbered(), sender.stats().shards, sender.waiting()),
        (0, 0, 0)
    );
    offer(&mut sender, 100);
    let spent = Departure {
        now: Time::ZERO + crate::limits::KEY_LIFETIME,
        path: 0,
        budget: &mut budget(),
        credit: 64,
        pool: &mut HeapPool::new(9, 2_048),
    };
    assert_eq!(
        sender.close(spent, |_| ()),
        Close::Dropped(DropReason::KeyExhausted, 1)
    );
    assert_eq!(sender.numbered(), 0);
}

#[test]
fn an_aggregate_closes_at_its_limit_and_odd_sizes_are_refused() {
    let mut sender = StreamSender::new(
        0,
        SenderConfig {
            shards_max: 2,
            ..CONFIG
        },
    );
    offer(&mut sender, 1_400);
    offer(&mut sender, 1_400);
    let third = HeapBuffer::from_bytes(&[0; 1_400]);
    assert!(matches!(
        sender.offer(third, Lane(0)),
        Err(Refused::Full(_))
    ));
    for len in [0, 13, 9_023] {
        let frame = HeapBuffer::from_bytes(&vec![0; len]);
        let refused = sender.offer(frame, Lane(0));
        assert!(
            matches!(refused, Err(Refused::Dropped(_, DropReason::FrameSize))),
            "{len}"
        );
    }
    assert_eq!(close(&mut sender, 64, 0).0, Close::Sent(2));
    offer(&mut sender, 9_014);
    assert_eq!(
        close(&mut sender, 64, 7).0,
        Close::Sent(7),
        "one frame may need more"
    );
}

#[test]
fn fixed_limits_split_a_lone_frame() {
    let mut sender = StreamSender::new(
        0,
        SenderConfig {
            shards_min: 4,
            ..CONFIG
        },
    );
    offer(&mut sender, 1_434);
    let (outcome, shards) = close(&mut sender, 64, 4);
    assert_eq!(outcome, Close::Sent(4));
    assert!(shards.iter().all(|shard| shard.payload_len == 360));
}

#[test]
fn same_path_tells_which_earlier_shards_took_this_path() {
    let mut sender = StreamSender::new(0, CONFIG);
    let mut last = 0;
    for path in [0, 1, 1, 0, 1] {
        offer(&mut sender, 100);
        let departure = Departure {
            now: Time::ZERO,
            path,
            budget: &mut budget(),
            credit: 1,
            pool: &mut HeapPool::new(1, 2_048),
        };
        sender.close(departure, |shard| {
            let plaintext = &shard.buffer().data()[CLEAR_HEADER_LEN..];
            last = SourceHeader::parse(plaintext).unwrap().0.same_path;
        });
    }
    assert_eq!(
        last, 0b0110,
        "of 0 1 1 0, the second and third went by path 1"
    );
}
