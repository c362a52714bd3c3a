//! The decoder against linear algebra: what all that arrived determines, it rebuilds.

use std::collections::HashSet;

use proptest::prelude::*;
use shardgate_erasure::{coefficient, inverse, multiply};

use super::*;

/// What a stream goes through.
#[derive(Clone, Debug)]
struct Case {
    first: Seq,
    count: u32,
    every: u8,
    window: u8,
    /// Of 256.
    loss: u8,
    /// How many places a shard can be late.
    reordering: u32,
    seed: u64,
}

fn cases(near_the_wrap: bool) -> impl Strategy<Value = Case> {
    let first = if near_the_wrap {
        (u32::MAX - 200..u32::MAX).boxed()
    } else {
        (0..u32::MAX - 200).boxed()
    };
    let shape = (2u32..180, 1u8..=20, 1u8..=192);
    (first, shape, 0u8..80, 0u32..40, any::<u64>()).prop_map(
        |(first, (count, every, window), loss, reordering, seed)| Case {
            first: Seq(first),
            count,
            every,
            window,
            loss,
            reordering,
            seed,
        },
    )
}

/// What came out of a case.
struct Outcome {
    lost: HashSet<Seq>,
    equations: Vec<RepairHeader>,
    determined: HashSet<Seq>,
    rebuilt: HashSet<Seq>,
    stats: DecoderStats,
}

fn run(case: &Case) -> Outcome {
    let mut state = case.seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut lost = HashSet::new();
    let mut arrivals = Vec::new();
    let sent = stream(case.first, case.count, plan(case.every, case.window));
    for (place, shard) in (0u32..).zip(sent) {
        if random() % 256 >= u32::from(case.loss) {
            arrivals.push((place + random() % (case.reordering + 1), shard));
        } else if let Sent::Source(header, _) = shard {
            lost.insert(header.seq);
        }
    }
    arrivals.sort_by_key(|&(place, _)| place);
    let mut decoder = Decoder::new(Coder::new(), PAYLOAD_MAX);
    let mut received = HashSet::new();
    let mut rebuilt = HashSet::new();
    let mut equations = Vec::new();
    for (_, shard) in &arrivals {
        match shard {
            Sent::Source(header, _) => assert!(received.insert(header.seq)),
            Sent::Repair(header, _) => equations.push(*header),
        }
        for seq in receive(&mut decoder, shard) {
            assert!(rebuilt.insert(seq), "{seq:?} rebuilt twice");
            assert!(!received.contains(&seq), "{seq:?} had arrived");
        }
    }
    // A shard can arrive after it was rebuilt; it would have been determined without.
    for late in received.intersection(&rebuilt.clone()) {
        rebuilt.remove(late);
    }
    Outcome {
        determined: determined(&equations, &lost),
        equations,
        lost,
        rebuilt,
        stats: decoder.stats(),
    }
}

/// The unknowns that the equations determine: Gauss-Jordan elimination over all of them; those
/// whose row has no other entry.
fn determined(equations: &[RepairHeader], lost: &HashSet<Seq>) -> HashSet<Seq> {
    let unknowns: Vec<Seq> = lost.iter().copied().collect();
    let mut rows: Vec<Vec<u8>> = equations
        .iter()
        .map(|header| {
            let covers = |seq: Seq| {
                (0..i32::from(header.window_len)).contains(&seq.distance_from(header.window_start))
            };
            unknowns
                .iter()
                .map(|&seq| {
                    if covers(seq) {
                        coefficient(seq.0, header.repair_index)
                    } else {
                        0
                    }
                })
                .collect()
        })
        .collect();
    let mut rank = 0;
    for column in 0..unknowns.len() {
        let Some(pivot) = (rank..rows.len()).find(|&row| rows[row][column] != 0) else {
            continue;
        };
        rows.swap(rank, pivot);
        let scale = inverse(rows[rank][column]);
        rows[rank]
            .iter_mut()
            .for_each(|cell| *cell = multiply(*cell, scale));
        let lead = rows[rank].clone();
        for (index, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if index != rank && factor != 0 {
                for (cell, &other) in row.iter_mut().zip(&lead) {
                    *cell ^= multiply(factor, other);
                }
            }
        }
        rank += 1;
    }
    rows.iter()
        .filter(|row| row.iter().filter(|&&cell| cell != 0).count() == 1)
        .filter_map(|row| row.iter().position(|&cell| cell != 0))
        .map(|column| unknowns[column])
        .collect()
}

/// The decoder's rule, naively: all runs of unknowns with all equations inside them, until none
/// determines anything any more.
fn determined_by_runs(equations: &[RepairHeader], lost: &HashSet<Seq>) -> HashSet<Seq> {
    let mut unknowns: Vec<Seq> = lost.iter().copied().collect();
    unknowns.sort_by_key(|seq| seq.0);
    let mut found = HashSet::new();
    while let Some(solved) = first_solvable_run(equations, &unknowns) {
        unknowns.retain(|seq| !solved.contains(seq));
        found.extend(solved);
    }
    found
}

fn first_solvable_run(equations: &[RepairHeader], unknowns: &[Seq]) -> Option<HashSet<Seq>> {
    let inside = |header: &RepairHeader, run: &[Seq]| {
        let end = header.window_start.plus(header.window_len.into());
        let covered = |seq: &&Seq| !seq.is_before(header.window_start) && seq.is_before(end);
        let all = unknowns.iter().filter(covered).count();
        all > 0 && all == run.iter().filter(covered).count()
    };
    (1..=16)
        .flat_map(|size| unknowns.windows(size))
        .find_map(|run| {
            let all: Vec<_> = equations
                .iter()
                .filter(|&header| inside(header, run))
                .copied()
                .collect();
            if all.len() < run.len() {
                return None;
            }
            let solved = determined(&all, &run.iter().copied().collect());
            (solved.len() == run.len()).then_some(solved)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Bytes are compared as shards are rebuilt; here: what runs of up to 16 unknowns determine
    /// is rebuilt, exactly, as long as no equation had to go.
    #[test]
    fn what_runs_determine_is_rebuilt(case in cases(false)) {
        let outcome = run(&case);
        prop_assert!(outcome.rebuilt.is_subset(&outcome.determined));
        prop_assert_eq!(outcome.stats.rebuilt_wrong, 0);
        if outcome.stats.crowded_out == 0 {
            prop_assert_eq!(outcome.rebuilt, determined_by_runs(&outcome.equations, &outcome.lost));
        }
    }

    #[test]
    fn nothing_goes_wrong_where_numbers_wrap(case in cases(true)) {
        let outcome = run(&case);
        prop_assert!(outcome.rebuilt.is_subset(&outcome.determined));
        prop_assert_eq!(outcome.stats.rebuilt_wrong, 0);
    }

    /// Any e of a window by any e repair shards over it.
    #[test]
    fn any_losses_of_one_window(
        first in 0..u32::MAX - 192,
        window in 1u32..=192,
        losses in prop::collection::hash_set(0u32..192, 1..=16),
        index in 0u8..64,
    ) {
        let lost: HashSet<Seq> =
            losses.iter().map(|loss| Seq(first).plus(loss % window)).collect();
        let mut decoder = Decoder::new(Coder::new(), PAYLOAD_MAX);
        for seq in (0..window).map(|n| Seq(first).plus(n)) {
            if !lost.contains(&seq) {
                receive(&mut decoder, &Sent::source(seq));
            }
        }
        let mut rebuilt = Vec::new();
        for n in 0..lost.len() as u8 {
            prop_assert!(rebuilt.is_empty());
            let repair = requested(Seq(first), window, (index + 5 * n) % 64);
            rebuilt = receive(&mut decoder, &repair);
        }
        let rebuilt: HashSet<Seq> = rebuilt.into_iter().collect();
        prop_assert_eq!(rebuilt, lost);
    }
}

/// Standing repair of ordinary plans under heavy loss and reordering, in bulk.
#[test]
fn hardly_anything_determined_is_missed() {
    let (mut determined, mut rebuilt) = (0, 0);
    for seed in 1..=1_500u64 {
        // Over more than the longest window too, where coefficients come again.
        let (count, loss_max) = if seed % 3 == 0 { (450, 10) } else { (175, 40) };
        let case = Case {
            first: Seq(seed as u32 * 1_000_003),
            count,
            every: 6 + (seed % 11) as u8,
            window: 16 + (seed % 80) as u8,
            loss: (seed * 7 % loss_max) as u8,
            reordering: (seed % 25) as u32,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let outcome = run(&case);
        determined += outcome.determined.len();
        rebuilt += outcome.rebuilt.len();
    }
    assert!(determined > 7_000, "{determined} determined");
    assert!(
        rebuilt * 1_000 >= determined * 999,
        "{rebuilt} of {determined}"
    );
}
