//! From one seed to one for each part of a world.

/// A seed for the part named by `part`: equal for equal arguments, unrelated for others.
///
/// The mixing function is that of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) fn seed_for(seed: u64, part: &[u64]) -> u64 {
    part.iter().fold(seed, |state, &word| {
        let mut mixed = state
            .wrapping_add(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(word.wrapping_mul(0xff51_afd7_ed55_8ccd));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parts_and_seeds_differ() {
        let seeds: BTreeSet<_> = (0..10)
            .flat_map(|seed| (0..10).map(move |part| (seed, part)))
            .flat_map(|(seed, part)| [seed_for(seed, &[0, part]), seed_for(seed, &[part, 1])])
            .collect();
        // [0, 1] is drawn twice for each seed.
        assert_eq!(seeds.len(), 190);
        assert_eq!(seed_for(3, &[1, 2]), seed_for(3, &[1, 2]));
    }
}
