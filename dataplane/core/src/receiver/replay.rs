//! The replay window: which path numbers were seen (RFC 4303 §3.4.3, RFC 6479's ring of words).

use arrayvec::ArrayVec;

use crate::drop_reason::DropReason;
use crate::limits::REPLAY_WINDOW;
use crate::wire::feedback::{RANGES_MAX, Range};

const WORD_BITS: u64 = 64;
/// One word more than the window, so that the word being filled is never part of it.
const WORDS: usize = REPLAY_WINDOW / WORD_BITS as usize * 2;

/// Seen path numbers of one (kind, stream, path).
pub struct ReplayWindow {
    words: Box<[u64; WORDS]>,
    /// One above the newest number seen.
    next: u64,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            words: Box::new([0; WORDS]),
            next: 0,
        }
    }
}

impl ReplayWindow {
    /// Notes an authenticated number.
    ///
    /// # Errors
    /// [`DropReason::Replayed`] if it was seen, [`DropReason::TooOld`] if it lies
    /// [`REPLAY_WINDOW`] or more behind the newest.
    #[inline]
    pub fn accept(&mut self, number: u64) -> Result<(), DropReason> {
        let word = |number: u64| (number / WORD_BITS) as usize % WORDS;
        if number >= self.next {
            // Clear the words between the newest and this one, all of them at the most.
            let newest = self
                .next
                .checked_sub(1)
                .map_or(0, |newest| newest / WORD_BITS + 1);
            let last = number / WORD_BITS;
            let first = newest.max(last.saturating_sub(WORDS as u64 - 1));
            for index in first..=last {
                self.words[index as usize % WORDS] = 0;
            }
            self.next = number.saturating_add(1);
        } else if self.next - number > REPLAY_WINDOW as u64 {
            return Err(DropReason::TooOld);
        }
        let bit = 1 << (number % WORD_BITS);
        let seen = &mut self.words[word(number)];
        if *seen & bit != 0 {
            return Err(DropReason::Replayed);
        }
        *seen |= bit;
        Ok(())
    }

    /// Appends the runs of seen numbers from the newest down to `oldest` to `ranges`, highest
    /// first, as far as there is room. `oldest` lies within the window.
    pub fn runs(&self, oldest: u64, ranges: &mut ArrayVec<Range, RANGES_MAX>) {
        let mut end = self.next;
        while end > oldest && !ranges.is_full() {
            let top = self.run_down(end, oldest, false);
            let bottom = self.run_down(top, oldest, true);
            if top == bottom {
                return;
            }
            ranges.push(Range {
                gap: u16::try_from(end - top).unwrap_or(u16::MAX),
                len: u16::try_from(top - bottom).unwrap_or(u16::MAX),
            });
            end = bottom;
        }
    }

    /// The lowest number, not below `oldest`, from which on to `end` all were seen, or all were not.
    fn run_down(&self, end: u64, oldest: u64, seen: bool) -> u64 {
        let mut end = end;
        while end > oldest {
            let word = self.words[((end - 1) / WORD_BITS) as usize % WORDS];
            let same = if seen { word } else { !word };
            // The bits below `end` in its word, from the top.
            let bits = (end - 1) % WORD_BITS + 1;
            let run = u64::from((same << (WORD_BITS - bits)).leading_ones()).min(bits);
            end -= run;
            if run < bits {
                break;
            }
        }
        end.max(oldest)
    }

    /// Forgets everything: a new incarnation of the peer.
    pub fn reset(&mut self) {
        self.words.fill(0);
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_the_window() {
        let mut window = ReplayWindow::default();
        let newest = 10 * REPLAY_WINDOW as u64;
        assert_eq!(window.accept(newest), Ok(()));
        assert_eq!(window.accept(newest), Err(DropReason::Replayed));
        let oldest = newest + 1 - REPLAY_WINDOW as u64;
        assert_eq!(window.accept(oldest), Ok(()));
        assert_eq!(window.accept(oldest), Err(DropReason::Replayed));
        assert_eq!(window.accept(oldest - 1), Err(DropReason::TooOld));
        window.reset();
        assert_eq!(window.accept(newest), Ok(()));
        assert_eq!(window.accept(u64::MAX), Ok(()));
        assert_eq!(window.accept(u64::MAX), Err(DropReason::Replayed));
    }

    proptest! {
        #[test]
        fn runs_are_what_was_seen(numbers in prop::collection::vec(0u64..400, 1..200), oldest in 0u64..400) {
            let mut window = ReplayWindow::default();
            let seen: HashSet<u64> = numbers.iter().copied().collect();
            seen.iter().for_each(|&number| window.accept(number).unwrap());
            let newest = seen.iter().copied().max().unwrap_or(0);
            let mut ranges = ArrayVec::new();
            window.runs(oldest, &mut ranges);
            let (mut end, mut listed) = (newest + 1, HashSet::new());
            for range in &ranges {
                let top = end - u64::from(range.gap);
                end = top - u64::from(range.len);
                listed.extend(end..top);
            }
            let expected: HashSet<u64> = seen.into_iter().filter(|&n| n >= oldest).collect();
            if ranges.is_full() {
                prop_assert!(listed.is_subset(&expected));
            } else {
                prop_assert_eq!(listed, expected);
            }
        }

        #[test]
        fn agrees_with_a_set_of_all_numbers(steps in prop::collection::vec((0u64..200_000, any::<bool>()), 1..400)) {
            let mut window = ReplayWindow::default();
            let mut seen = HashSet::new();
            let mut newest = 0u64;
            for (step, ahead) in steps {
                let number = if ahead { newest + step } else { newest.saturating_sub(step) };
                newest = newest.max(number);
                let expected = if newest - number >= REPLAY_WINDOW as u64 {
                    Err(DropReason::TooOld)
                } else if seen.insert(number) {
                    Ok(())
                } else {
                    Err(DropReason::Replayed)
                };
                prop_assert_eq!(window.accept(number), expected);
            }
        }
    }
}
