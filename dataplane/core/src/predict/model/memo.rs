//! What was said of each hole, until its fate is known.

use super::logistic::{FEATURES, Features};

/// Holes that are remembered: more than a quarter of a second of 15,000 a second. What is pushed out
/// before its fate is known teaches the histogram and nothing else.
const MEMOS: usize = 4_096;

/// What was said of a hole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memo {
    number: u32,
    /// Whether it stands for any hole.
    is_used: bool,
    /// Whether its fate is known.
    pub judged: bool,
    /// Whether it is filled.
    pub filled: bool,
    /// At its opening, and at the last look.
    pub fresh: Features,
    /// See `fresh`.
    pub looked: Option<Features>,
    /// Probability of a loss, at its opening.
    pub loss: f32,
    /// When it is asked for by the model, and by RACK, in milliseconds.
    pub ask_ms: f32,
    pub rack_ms: f32,
    /// When it was expected, in milliseconds.
    pub expected_ms: f32,
}

/// A ring of memos, by the holes' numbers.
#[derive(Clone, Debug)]
pub(super) struct Memos(Box<[Memo]>);

impl Memos {
    pub(super) fn new() -> Self {
        let none = Memo {
            number: 0,
            is_used: false,
            judged: false,
            filled: false,
            fresh: [0; FEATURES],
            looked: None,
            loss: 0.5,
            ask_ms: 0.0,
            rack_ms: 0.0,
            expected_ms: 0.0,
        };
        Self(vec![none; MEMOS].into_boxed_slice())
    }

    /// A memo for a hole that opens.
    #[inline]
    pub(super) fn open(&mut self, number: u32, fresh: Features) -> &mut Memo {
        let memo = &mut self.0[number as usize % MEMOS];
        *memo = Memo {
            number,
            is_used: true,
            judged: false,
            filled: false,
            fresh,
            looked: None,
            ..*memo
        };
        memo
    }

    /// What was said of a hole, if that is remembered.
    #[inline]
    pub(super) fn get(&mut self, number: u32) -> Option<&mut Memo> {
        let memo = &mut self.0[number as usize % MEMOS];
        (memo.is_used && memo.number == number).then_some(memo)
    }
}
