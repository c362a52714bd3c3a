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
    /// Looks so far.
    pub looks: u8,
    /// What was known at its opening, and at one of the looks.
    pub fresh: Features,
    /// See `fresh`.
    pub looked: Features,
    /// What the age at that look added to the log odds.
    pub looked_offset: f32,
    /// Probability of a loss, at its opening.
    pub loss: f32,
    /// When it is asked for by the model, and by RACK, in milliseconds.
    pub ask_ms: f32,
    pub rack_ms: f32,
    /// When it was expected, in milliseconds.
    pub expected_ms: f32,
    /// What the stream showed when it opened: shards that had arrived, how far apart those of its gap
    /// were sent, how many arrived between the last two openings and the two before, the delays.
    pub arrived: u32,
    pub spacing_ms: f32,
    pub apart: [u8; 2],
    pub rises: [f32; 2],
    /// Of the gap that it is the first of: how many were filled late, and one more than the position of
    /// the last of them.
    pub gap_late: u16,
    pub gap_newest_late: u16,
}

impl Memo {
    const NONE: Self = Self {
        number: 0,
        is_used: false,
        judged: false,
        filled: false,
        looks: 0,
        fresh: [0; FEATURES],
        looked: [0; FEATURES],
        looked_offset: 0.0,
        loss: 0.5,
        ask_ms: 0.0,
        rack_ms: 0.0,
        expected_ms: 0.0,
        arrived: 0,
        spacing_ms: 0.0,
        apart: [u8::MAX; 2],
        rises: [0.0; 2],
        gap_late: 0,
        gap_newest_late: 0,
    };
}

/// A ring of memos, by the holes' numbers.
#[derive(Clone, Debug)]
pub(super) struct Memos(Box<[Memo]>);

impl Memos {
    pub(super) fn new() -> Self {
        Self(vec![Memo::NONE; MEMOS].into_boxed_slice())
    }

    /// A memo for a hole that opens.
    #[inline]
    pub(super) fn open(&mut self, number: u32) -> &mut Memo {
        let memo = &mut self.0[number as usize % MEMOS];
        *memo = Memo {
            number,
            is_used: true,
            ..Memo::NONE
        };
        memo
    }

    /// What was said of a hole, if that is remembered.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Memo> {
        let memo = &self.0[number as usize % MEMOS];
        (memo.is_used && memo.number == number).then_some(memo)
    }

    /// See [`get`](Self::get).
    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Memo> {
        let memo = &mut self.0[number as usize % MEMOS];
        (memo.is_used && memo.number == number).then_some(memo)
    }
}
