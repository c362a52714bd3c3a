//! Both coders against each other, and codes against every erasure they promise to mend.

use proptest::prelude::*;
use shardgate_erasure::{Coder, LengthError, SOLVE_MAX, SolveError, coefficient, multiply};

fn coders() -> Vec<Coder> {
    [Some(Coder::portable()), Coder::isal()]
        .into_iter()
        .flatten()
        .collect()
}

/// Bytes that differ from symbol to symbol.
fn symbol(number: usize, len: usize) -> Vec<u8> {
    let mut state = (number as u32).wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn matrix(seqs: &[u32], repairs: &[u8]) -> Vec<u8> {
    let row = |&repair: &u8| seqs.iter().map(move |&seq| coefficient(seq, repair));
    repairs.iter().flat_map(row).collect()
}

/// Loses `lost`, keeps `repairs`, and gets back what was lost.
fn recovers(coder: Coder, sources: &[Vec<u8>], first_seq: u32, lost: &[usize], repairs: &[u8]) {
    let longest = sources.iter().map(Vec::len).max().expect("a source");
    let seqs: Vec<u32> = (0..sources.len() as u32).map(|i| first_seq + i).collect();
    let mut symbols = vec![vec![0xee; longest]; repairs.len()];
    coder
        .encode(&matrix(&seqs, repairs), sources, &mut symbols)
        .expect("encode");
    for (i, source) in sources.iter().enumerate() {
        if !lost.contains(&i) {
            let row: Vec<u8> = repairs.iter().map(|&r| coefficient(seqs[i], r)).collect();
            coder
                .multiply_accumulate_many(&row, source, &mut symbols)
                .expect("subtract");
        }
    }
    let lost_seqs: Vec<u32> = lost.iter().map(|&i| seqs[i]).collect();
    coder
        .solve(&matrix(&lost_seqs, repairs), &mut symbols)
        .expect("solvable");
    for (&i, symbol) in lost.iter().zip(&symbols) {
        let (bytes, padding) = symbol.split_at(sources[i].len());
        assert_eq!(
            bytes, sources[i],
            "source {i}, lost {lost:?}, repairs {repairs:?}"
        );
        assert!(padding.iter().all(|&byte| byte == 0));
    }
}

fn subset<T: Copy>(all: &[T], bits: u32) -> Vec<T> {
    let chosen = all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
    chosen.map(|(_, &item)| item).collect()
}

/// Every set of lost shards, with every set of as many repairs, is mended.
#[test]
fn every_erasure_of_small_codes() {
    for coder in coders() {
        for k in 1..=6usize {
            // Of different lengths, across the wrap of the coefficients.
            let sources: Vec<_> = (0..k).map(|i| symbol(i, 70 + 13 * i)).collect();
            let indices: Vec<usize> = (0..k).collect();
            let repairs: Vec<u8> = vec![62, 63, 64, 65];
            for lost_bits in 1u32..1 << k {
                for repair_bits in 1u32..16 {
                    if lost_bits.count_ones() == repair_bits.count_ones() {
                        let lost = subset(&indices, lost_bits);
                        recovers(coder, &sources, 189, &lost, &subset(&repairs, repair_bits));
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_system() {
    for coder in coders() {
        let sources: Vec<_> = (0..128).map(|i| symbol(i, 1_400 - i)).collect();
        let lost: Vec<usize> = (0..SOLVE_MAX).map(|i| i * 8 % 127).collect();
        let repairs: Vec<u8> = (0..SOLVE_MAX as u8).map(|i| i * 4 + 1).collect();
        recovers(coder, &sources, 1_000_000, &lost, &repairs);
    }
}

/// Symbols over sliding windows: each equation knows only some of the unknowns.
#[test]
fn windows_that_overlap_are_solved_together() {
    for coder in coders() {
        let unknowns: Vec<_> = (0..3).map(|i| symbol(i, 500)).collect();
        let (a, b, c) = (coefficient(10, 0), coefficient(11, 0), coefficient(11, 1));
        let (d, e) = (coefficient(12, 1), coefficient(12, 2));
        // The first unknown is in one equation only, and not in the first.
        let cells = [0, 0, e, a, b, 0, 0, c, d];
        let mut symbols = vec![vec![0; 500]; 3];
        coder
            .encode(&cells, &unknowns, &mut symbols)
            .expect("encode");
        coder.solve(&cells, &mut symbols).expect("solvable");
        assert_eq!(symbols, unknowns);
    }
}

#[test]
fn a_singular_system_is_left_alone() {
    for coder in coders() {
        let before = vec![symbol(1, 99), symbol(2, 99), symbol(3, 99)];
        let mut symbols = before.clone();
        // The third row is the sum of the others.
        let cells = [1, 2, 3, 4, 5, 6, 1 ^ 4, 2 ^ 5, 3 ^ 6];
        assert_eq!(coder.solve(&cells, &mut symbols), Err(SolveError::Singular));
        assert_eq!(symbols, before);
        assert_eq!(
            coder.solve(&[0], &mut symbols[..1]),
            Err(SolveError::Singular)
        );
        assert_eq!(symbols, before);
    }
}

#[test]
fn odd_shapes_are_refused() {
    let coder = Coder::new();
    let mut none: [Vec<u8>; 0] = [];
    assert_eq!(coder.solve(&[], &mut none), Err(SolveError::Shape));
    let mut many = vec![vec![0; 4]; SOLVE_MAX + 1];
    let cells = [1; (SOLVE_MAX + 1) * (SOLVE_MAX + 1)];
    assert_eq!(coder.solve(&cells, &mut many), Err(SolveError::Shape));
    assert_eq!(
        coder.solve(&[1, 2, 3], &mut many[..2]),
        Err(SolveError::Shape)
    );
    let mut uneven = [vec![0; 4], vec![0; 5]];
    assert_eq!(
        coder.solve(&[1, 0, 0, 1], &mut uneven),
        Err(SolveError::Shape)
    );

    let mut target = [0; 4];
    assert_eq!(
        coder.multiply_accumulate(1, &[1; 5], &mut target),
        Err(LengthError)
    );
    assert_eq!(
        coder.multiply_accumulate_many(&[1, 2], &[1], &mut [&mut target]),
        Err(LengthError)
    );
    assert_eq!(
        coder.encode(&[1], &[[1; 5]], &mut [&mut target]),
        Err(LengthError)
    );
    assert_eq!(target, [0; 4]);
}

#[test]
fn scaling_is_multiplying_every_byte() {
    for coder in coders() {
        for len in [0, 1, 63, 64, 1_023, 1_024, 1_025, 3_000] {
            for factor in [0, 1, 2, 0x8e, 255] {
                let before = symbol(len, len);
                let mut data = before.clone();
                coder.scale(factor, &mut data);
                let expected: Vec<u8> = before.iter().map(|&b| multiply(factor, b)).collect();
                assert_eq!(data, expected);
            }
        }
    }
}

/// A build with libisal must use it, or the comparison below compares nothing.
#[test]
fn the_default_is_the_fastest() {
    assert_eq!(Coder::portable().name(), "portable");
    assert_eq!(
        Coder::new().name(),
        if cfg!(isal) { "isal" } else { "portable" }
    );
}

proptest! {
    /// Same bytes from both, at any length, alignment and number of targets; nothing is written
    /// outside the targets.
    #[test]
    fn coders_agree(
        len in 0usize..2_100,
        offset in 0usize..70,
        coefficients in prop::collection::vec(any::<u8>(), 1..35),
    ) {
        let source = symbol(len, offset + len);
        let memory: Vec<_> = (0..coefficients.len()).map(|i| symbol(i, offset + len + 64)).collect();
        let mut results = Vec::new();
        for coder in coders() {
            let mut memory = memory.clone();
            let mut targets: Vec<_> =
                memory.iter_mut().map(|target| &mut target[offset..offset + len + 9]).collect();
            coder
                .multiply_accumulate_many(&coefficients, &source[offset..], &mut targets)
                .expect("they fit");
            results.push(memory);
        }
        for memory in &results {
            prop_assert!(*memory == results[0]);
        }
        for ((after, before), &coefficient) in results[0].iter().zip(&memory).zip(&coefficients) {
            for i in 0..after.len() {
                let inside = (offset..offset + len).contains(&i);
                let added = if inside { multiply(coefficient, source[i]) } else { 0 };
                prop_assert_eq!(after[i], before[i] ^ added);
            }
        }
    }

    /// Any losses within a window, with any repairs of it.
    #[test]
    fn random_erasures(
        k in 1usize..=128,
        first_seq in 0u32..1_000_000,
        len in 1usize..300,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..=SOLVE_MAX),
        first_repair: u8,
    ) {
        let sources: Vec<_> = (0..k).map(|i| symbol(i, 1 + (len + i * 7) % len.max(2))).collect();
        let mut lost: Vec<usize> = picks.iter().map(|pick| pick.index(k)).collect();
        lost.sort_unstable();
        lost.dedup();
        let repairs: Vec<u8> =
            (0..lost.len() as u8).map(|i| first_repair.wrapping_add(i * 3)).collect();
        for coder in coders() {
            recovers(coder, &sources, first_seq, &lost, &repairs);
        }
    }
}
