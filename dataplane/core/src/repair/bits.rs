//! Sets of small numbers, one bit for each.

/// A set of numbers below 64 · `WORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Bits<WORDS> {
    pub(super) const EMPTY: Self = Self([0; WORDS]);

    /// All numbers below `end`.
    pub(super) fn below(end: u32) -> Self {
        let mut words = [0; WORDS];
        for (start, word) in (0..).step_by(64).zip(&mut words) {
            *word = below(end.saturating_sub(start));
        }
        Self(words)
    }

    /// Adds a number; one beyond the set is left out.
    pub(super) fn insert(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Takes a number out; false if it was not there.
    pub(super) fn remove(&mut self, number: u32) -> bool {
        let had = self.contains(number);
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
        had
    }

    /// Adds the numbers of another set, each increased by `offset`; those beyond this set are left
    /// out.
    pub(super) fn insert_all<const OTHER: usize>(&mut self, offset: u32, other: &Bits<OTHER>) {
        let (skip, shift) = (offset as usize / 64, offset % 64);
        for (index, &word) in other.0.iter().enumerate() {
            let high = word.checked_shr(64 - shift).unwrap_or(0);
            for (place, bits) in [(index + skip, word << shift), (index + skip + 1, high)] {
                if let Some(word) = self.0.get_mut(place) {
                    *word |= bits;
                }
            }
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let word = self.0.get(number as usize / 64).copied();
        word.unwrap_or(0) >> (number % 64) & 1 == 1
    }

    /// What is here and not in the other.
    pub(super) fn without(mut self, other: &Self) -> Self {
        for (word, &out) in self.0.iter_mut().zip(&other.0) {
            *word &= !out;
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// How many from `first` to `last`.
    pub(super) fn count_within(&self, first: u32, last: u32) -> u32 {
        let words = (0..).step_by(64).zip(&self.0);
        words
            .map(|(start, &word): (u32, _)| {
                let from = below(first.saturating_sub(start));
                let to = below((last + 1).saturating_sub(start));
                (word & to & !from).count_ones()
            })
            .sum()
    }

    /// The lowest and the highest number.
    pub(super) fn ends(&self) -> Option<(u32, u32)> {
        let words = || (0..).step_by(64).zip(self.0).filter(|&(_, word)| word != 0);
        let (low_start, low): (u32, u64) = words().next()?;
        let (high_start, high): (u32, u64) = words().last()?;
        Some((
            low_start + low.trailing_zeros(),
            high_start + 63 - high.leading_zeros(),
        ))
    }

    /// The numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + use<WORDS> {
        let mut words = self.0;
        (0..)
            .step_by(64)
            .zip(0..WORDS)
            .flat_map(move |(start, index): (u32, _)| {
                let mut word = core::mem::take(&mut words[index]);
                core::iter::from_fn(move || {
                    let bit = word.trailing_zeros();
                    word &= word.wrapping_sub(1);
                    (bit < 64).then(|| start + bit)
                })
            })
    }
}

/// A word's bits below `end`.
fn below(end: u32) -> u64 {
    1u64.checked_shl(end).map_or(u64::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Set = Bits<3>;

    fn set(numbers: &BTreeSet<u32>) -> Set {
        let mut bits = Set::EMPTY;
        numbers.iter().for_each(|&number| bits.insert(number));
        bits
    }

    fn numbers(end: u32) -> impl Strategy<Value = BTreeSet<u32>> {
        prop::collection::btree_set(0..end, 0..40)
    }

    proptest! {
        /// A set of the standard library says the same.
        #[test]
        fn as_any_set(
            mut all in numbers(192),
            other in numbers(192),
            (first, last) in (0u32..200, 0u32..200),
            offset in 0u32..600,
        ) {
            let mut bits = set(&all);
            prop_assert!(bits.iter().eq(all.iter().copied()));
            prop_assert_eq!(bits.count() as usize, all.len());
            prop_assert_eq!(bits.is_empty(), all.is_empty());
            prop_assert_eq!(bits.ends(), all.first().copied().zip(all.last().copied()));
            let within = all.iter().filter(|number| (first..=last).contains(number)).count();
            prop_assert_eq!(bits.count_within(first, last) as usize, within);
            let rest = bits.without(&set(&other));
            prop_assert!(rest.iter().eq(all.difference(&other).copied()));
            let mut wide: Bits<8> = Bits::EMPTY;
            wide.insert_all(offset, &bits);
            let moved = all.iter().map(|number| number + offset).filter(|&number| number < 512);
            prop_assert!(wide.iter().eq(moved));
            prop_assert_eq!(bits.contains(first), all.contains(&first));
            prop_assert_eq!(bits.remove(first), all.remove(&first));
            prop_assert_eq!(bits, set(&all));
        }

        #[test]
        fn all_below(end in 0u32..300) {
            prop_assert!(Set::below(end).iter().eq(0..end.min(192)));
        }
    }

    #[test]
    fn beyond_the_set_there_is_nothing() {
        let mut bits = Set::EMPTY;
        bits.insert(192);
        assert!(bits.is_empty() && !bits.contains(192) && !bits.remove(u32::MAX));
    }
}
