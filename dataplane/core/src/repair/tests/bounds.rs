//! The decoder against what is wrong, too much, or meant to hurt.

use proptest::prelude::*;

use super::*;
use crate::repair::equations::EQUATIONS_MAX;
use crate::repair::history::HISTORY;

fn arrive(decoder: &mut Decoder, seq: Seq) -> Vec<Seq> {
    receive(decoder, &Sent::source(seq))
}

fn decoder() -> Decoder {
    Decoder::new(Coder::new(), PAYLOAD_MAX)
}

/// A repair shard over a single source shard whose coded bytes are at hand.
fn alone(seq: Seq, coded: &[u8]) -> Sent {
    let mut symbol = vec![0; coded.len()];
    let factor = shardgate_erasure::coefficient(seq.0, 0);
    Coder::new()
        .multiply_accumulate(factor, coded, &mut symbol)
        .expect("of one length");
    let header = RepairHeader {
        repeat: false,
        repair_index: 0,
        window_len: 1,
        window_start: seq,
        sent_at_us: 0,
        coded_len: symbol.len() as u16,
    };
    Sent::Repair(header, symbol)
}

/// A shard whose checksum is zero by itself, which says that there is none (SPEC §3): the last
/// four bytes are solved for, as a checksum is affine in them.
fn with_checksum_zero() -> (SourceHeader, [u8; 7]) {
    let at = |tail: u32| {
        let mut payload = *b"pay\0\0\0\0";
        payload[3..].copy_from_slice(&tail.to_be_bytes());
        let header = SourceHeader::single(Seq(9), &payload);
        (header, payload)
    };
    let constant = at(0).0.crc32c;
    // Each bit of the checksum, the highest first, becomes the pivot of one combination.
    let mut basis: Vec<(u32, u32)> = (0..32)
        .map(|bit| (at(1 << bit).0.crc32c ^ constant, 1 << bit))
        .collect();
    let (mut rest, mut tail) = (constant, 0);
    for bit in (0..32).rev() {
        let pivot = basis
            .iter()
            .position(|&(sum, _)| sum >> bit & 1 == 1)
            .expect("full rank");
        let (sum, bits) = basis.swap_remove(pivot);
        let with_bit = |value: u32| value >> bit & 1 == 1;
        for other in basis.iter_mut().filter(|other| with_bit(other.0)) {
            *other = (other.0 ^ sum, other.1 ^ bits);
        }
        if with_bit(rest) {
            rest ^= sum;
            tail ^= bits;
        }
    }
    let solved = at(tail);
    assert_eq!(solved.0.crc32c, 0);
    solved
}

#[test]
fn what_is_rebuilt_must_be_sound() {
    let good = SourceHeader::single(Seq(9), b"payload");
    let coded = |header: &SourceHeader, payload: &[u8]| {
        let mut coded = coded_meta(header).to_vec();
        coded.extend_from_slice(payload);
        coded
    };
    let spoil: [fn(&mut SourceHeader); 4] = [
        |header| header.shard_id = 1,
        |header| header.shard_count = 65,
        |header| header.first_frame = 7,
        |header| header.payload_len = 0,
    ];
    let mut wrong: Vec<Vec<u8>> = spoil
        .iter()
        .map(|change| {
            let mut header = good;
            change(&mut header);
            // With a checksum that would fit.
            header.crc32c = header.checksum(&b"payload"[..header.payload_len.into()]);
            coded(&header, b"payload")
        })
        .collect();
    wrong.push(coded(&SourceHeader { crc32c: 0, ..good }, b"payload"));
    let (zero, payload) = with_checksum_zero();
    wrong.push(coded(&zero, &payload));
    wrong.push(coded(&good, b"Payload"));
    wrong.push(coded(&good, b"payload\x01"));
    wrong.push(coded(&good, b"payloa"));
    for coded in &wrong {
        let mut decoder = decoder();
        let shard = alone(Seq(9), coded);
        let Sent::Repair(header, symbol) = &shard else {
            unreachable!()
        };
        decoder.repair(header, symbol, |_| panic!("released: {coded:?}"));
        assert_eq!(decoder.stats().rebuilt_wrong, 1, "{coded:?}");
        assert!(!decoder.recoverable_soon(Seq(9)), "the equation is used up");
    }
    // Padding of zeros is what a window of longer shards leaves.
    let mut decoder = decoder();
    let Sent::Repair(header, symbol) = alone(Seq(9), &coded(&good, b"payload\0\0")) else {
        unreachable!()
    };
    let mut rebuilt = 0;
    decoder.repair(&header, &symbol, |shard| {
        assert_eq!((shard.header, shard.payload), (good, &b"payload"[..]));
        rebuilt += 1;
    });
    assert_eq!(rebuilt, 1);
}

#[test]
fn counts_say_what_became_of_a_repair_shard() {
    let mut decoder = decoder();
    for seq in 100..120 {
        arrive(&mut decoder, Seq(seq));
    }
    receive(&mut decoder, &requested(Seq(100), 20, 0));
    assert_eq!(decoder.stats().needless, 1);
    // Two unknowns ahead: held, twice the same, and needless once they come after all.
    receive(&mut decoder, &requested(Seq(110), 12, 1));
    receive(&mut decoder, &requested(Seq(110), 12, 1));
    assert_eq!(decoder.stats().repeated, 1);
    assert!(decoder.recoverable_soon(Seq(120)) && decoder.recoverable_soon(Seq(121)));
    assert!(!decoder.recoverable_soon(Seq(119)) && !decoder.recoverable_soon(Seq(122)));
    assert_eq!(arrive(&mut decoder, Seq(120)), [Seq(121)]);
    assert!(!decoder.recoverable_soon(Seq(121)));
    assert_eq!(arrive(&mut decoder, Seq(121)), [], "rebuilt already");
    receive(&mut decoder, &requested(Seq(121), 3, 2));
    arrive(&mut decoder, Seq(123));
    assert_eq!(decoder.stats().rebuilt, 2);
    // Held, and out of reach before anything helps.
    receive(&mut decoder, &requested(Seq(120), 8, 3));
    assert!(decoder.recoverable_soon(Seq(124)));
    arrive(&mut decoder, Seq(120 + HISTORY - 1));
    assert!(decoder.recoverable_soon(Seq(124)));
    arrive(&mut decoder, Seq(120 + HISTORY));
    assert_eq!(decoder.stats().too_old, 1);
    assert!(!decoder.recoverable_soon(Seq(124)));
    receive(&mut decoder, &requested(Seq(120), 8, 3));
    receive(&mut decoder, &requested(Seq(1), 8, 4));
    assert_eq!(decoder.stats().too_old, 3);
    let stats = decoder.stats();
    assert_eq!(
        (stats.equations, stats.malformed, stats.crowded_out),
        (7, 0, 0)
    );
    decoder.reset();
    assert_eq!(receive(&mut decoder, &requested(Seq(5), 1, 0)), [Seq(5)]);
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let Sent::Repair(good, symbol) = requested(Seq(200), 4, 1) else {
        unreachable!()
    };
    let spoil: [fn(&mut RepairHeader); 4] = [
        |header| header.window_len = 0,
        |header| header.window_len = WINDOW_MAX as u8 + 1,
        |header| header.coded_len += 1,
        |header| header.window_start = Seq(200 + WINDOW_MAX as u32),
    ];
    for change in spoil {
        let mut decoder = decoder();
        arrive(&mut decoder, Seq(199));
        let mut header = good;
        change(&mut header);
        receive(&mut decoder, &Sent::Repair(header, symbol.clone()));
        assert_eq!(decoder.stats().malformed, 1, "{header:?}");
    }
    let mut decoder = decoder();
    for len in [0, CODED_META_LEN, 1_000, 70_000] {
        let header = RepairHeader {
            coded_len: len as u16,
            ..good
        };
        receive(&mut decoder, &Sent::Repair(header, vec![1; len]));
    }
    assert_eq!(decoder.stats().malformed, 4);
    // One shorter than a source shard of its window is found out when it is to be solved.
    arrive(&mut decoder, Seq(200));
    let payload = vec![3; PAYLOAD_MAX];
    let long = Sent::Source(SourceHeader::single(Seq(201), &payload), payload);
    if let Sent::Source(header, payload) = &long {
        decoder.source(header, payload, |_| unreachable!("nothing is missing"));
    }
    let header = RepairHeader {
        window_len: 3,
        coded_len: 30,
        ..good
    };
    receive(&mut decoder, &Sent::Repair(header, vec![1; 30]));
    assert_eq!(decoder.stats().malformed, 5);
    assert!(!decoder.recoverable_soon(Seq(202)));
}

#[test]
fn a_wrong_equation_spoils_nothing_else() {
    let mut decoder = decoder();
    for seq in (0..20).filter(|seq| ![7, 8].contains(seq)) {
        arrive(&mut decoder, Seq(seq));
    }
    let Sent::Repair(header, mut symbol) = requested(Seq(0), 20, 5) else {
        unreachable!()
    };
    symbol[20] ^= 1;
    receive(&mut decoder, &Sent::Repair(header, symbol));
    assert_eq!(receive(&mut decoder, &requested(Seq(0), 20, 6)), []);
    assert_eq!(decoder.stats().rebuilt_wrong, 2);
    receive(&mut decoder, &requested(Seq(0), 20, 7));
    let rebuilt = receive(&mut decoder, &requested(Seq(0), 20, 8));
    assert_eq!(rebuilt, [Seq(7), Seq(8)]);
}

#[test]
fn the_oldest_equation_makes_room_for_the_newest() {
    let mut decoder = decoder();
    let windows = EQUATIONS_MAX as u32 + 1;
    for window in 0..windows {
        receive(&mut decoder, &requested(Seq(3 * window), 2, 0));
    }
    assert_eq!(decoder.stats().crowded_out, 1);
    assert!(!decoder.recoverable_soon(Seq(0)));
    assert!((1..windows).all(|window| decoder.recoverable_soon(Seq(3 * window))));
}

#[test]
fn one_shard_can_solve_a_chain_and_work_left_over_is_done_with_the_next() {
    let mut decoder = decoder();
    let first = 1_000;
    let is_unknown = |seq: u32| (first + 100..first + 120).contains(&seq);
    for seq in (first..first + 150).filter(|&seq| !is_unknown(seq)) {
        arrive(&mut decoder, Seq(seq));
    }
    // The first window holds two unknowns, and each one more than the window before it.
    for n in 0..19u32 {
        let window = requested(Seq(first + n + 2), 100, n as u8);
        assert_eq!(receive(&mut decoder, &window), []);
    }
    // The first unknown gives the second, and so on: 19 systems of 80 to 98 subtractions each.
    let begun = arrive(&mut decoder, Seq(first + 100));
    assert!(begun.len() > 10 && begun.len() < 19, "{begun:?}");
    let rest = arrive(&mut decoder, Seq(first + 150));
    assert_eq!(begun.len() + rest.len(), 19);
    assert_eq!(decoder.stats().largest_system, 1);
}

#[test]
fn what_lies_half_of_all_numbers_away_is_out_of_reach() {
    const HALF: u32 = 1 << 31;
    let mut decoder = decoder();
    for seq in (0..20).filter(|seq| ![7, 8].contains(seq)) {
        arrive(&mut decoder, Seq(seq));
    }
    receive(&mut decoder, &requested(Seq(0), 20, 5));
    assert!(decoder.recoverable_soon(Seq(7)));
    // The farthest jump that is one ahead: the window lies behind by more than can be told.
    let newest = Seq(19).plus(HALF - 1);
    arrive(&mut decoder, newest);
    assert_eq!(decoder.stats().too_old, 1);
    assert!(!decoder.recoverable_soon(Seq(7)));
    receive(&mut decoder, &requested(newest.minus(400), 2, 0));
    // Windows around the number that lies as far ahead as behind.
    for (back, len) in [(0, 1), (1, 2), (1, 3), (5, 192), (191, 192)] {
        let far = newest.plus(HALF).minus(back);
        assert_eq!(receive(&mut decoder, &requested(far, len, 1)), []);
        assert!(!decoder.recoverable_soon(far));
    }
    assert_eq!(decoder.stats().too_old, 6);
    assert!(decoder.recoverable_soon(newest.minus(400)));
    let next = newest.plus(1);
    assert_eq!(receive(&mut decoder, &requested(next, 1, 2)), [next]);
}

proptest! {
    /// An authenticated peer that sends anything: nothing wrong is released, memory is what it
    /// was, and the number of systems per call is bounded.
    #[test]
    fn garbage_is_only_counted(
        first in prop_oneof![Just(u32::MAX - 60), any::<u32>()],
        steps in prop::collection::vec(
            (0u8..5, -300i32..300, any::<u8>(), any::<u8>(), 0u16..260, any::<bool>()),
            1..300,
        ),
    ) {
        let mut decoder = decoder();
        let mut newest = Seq(first);
        for (kind, offset, len, index, coded_len, flip) in steps {
            let before = decoder.stats();
            match kind {
                0 | 1 => {
                    newest = newest.plus(u32::from(len % 4));
                    arrive(&mut decoder, newest);
                }
                2 => {
                    let far = u32::from(index >= 192) << 31;
                    let start = newest.plus(far).plus(offset as u32);
                    let header = RepairHeader {
                        repeat: flip,
                        repair_index: index,
                        window_len: len,
                        window_start: start,
                        sent_at_us: 0,
                        coded_len,
                    };
                    let symbol = vec![index; usize::from(coded_len)];
                    receive(&mut decoder, &Sent::Repair(header, symbol));
                }
                3 => {
                    newest = newest.plus((1 << 31) - 1 - u32::from(coded_len));
                    arrive(&mut decoder, newest);
                }
                _ => {
                    let start = newest.minus(u32::from(len % 64));
                    let window = u32::from(len % 64) + 1;
                    let Sent::Repair(header, mut symbol) = requested(start, window, index % 64)
                    else {
                        unreachable!()
                    };
                    if flip {
                        let at = usize::from(coded_len) % symbol.len();
                        symbol[at] ^= len | 1;
                    }
                    receive(&mut decoder, &Sent::Repair(header, symbol));
                }
            }
            let stats = decoder.stats();
            prop_assert!(stats.systems - before.systems <= EQUATIONS_MAX as u64 + 4);
            let equations = decoder.equations.len();
            prop_assert!(equations <= EQUATIONS_MAX);
            prop_assert_eq!(decoder.equations.iter().count(), equations);
        }
    }
}
