//! What is known of each of the last [`REASSEMBLY_WINDOW`] sequence numbers.

use core::time::Duration;

use super::early::EarlyClass;
use crate::lane::CLASSES;
use crate::limits::REASSEMBLY_WINDOW;
use crate::predict::Hole;
use crate::seq::Seq;
use crate::time::Time;

/// A shard that was placed, as far as its neighbours need to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub shard_id: u8,
    pub shard_count: u8,
    /// Offset of the first frame that starts in the payload, or none.
    pub first_frame: Option<u16>,
    /// Offset of the header of a frame that goes on in the next shard, not yet assembled.
    pub open_tail: Option<u16>,
    /// Whether the payload begins with bytes of a frame that is not yet assembled.
    pub open_head: bool,
    /// Whether whole frames in the payload are still to be copied out.
    pub unread: bool,
    /// The hole that a repeat or repair filled, until it is known what became of the original.
    pub filled: Option<FilledHole>,
}

/// What is remembered of a hole after something else than the original has filled it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilledHole {
    pub known: Hole,
    pub asked: bool,
    /// Whether its first transmission was declared lost.
    pub judged: bool,
}

/// A hole and what was decided about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenHole {
    /// As the predictor knows it.
    pub known: Hole,
    /// Its age when it is to be asked for.
    pub ask_after: Duration,
    /// When it was asked for first.
    pub asked_at: Time,
    /// How often its plan was made.
    pub looks: u8,
    /// Whether its first transmission was declared lost.
    pub judged: bool,
    /// Until when it holds frames of each class.
    pub release_at: [Time; CLASSES],
    /// Whether it was counted as given up.
    pub given_up: bool,
    /// How often it was asked for.
    pub asks: u8,
    /// Whether the sender said that it never left.
    pub not_sent: bool,
    /// Whether it is left to those inside: a sign of congestion.
    pub passed_on: bool,
    /// What is missing, as far as the shard before tells.
    pub early: Option<EarlyClass>,
}

pub(super) enum State {
    /// The slot stands for no sequence number yet.
    Free,
    /// Nothing is known: not seen, and no evidence that it is missing.
    Unknown,
    /// Known to be missing.
    Hole(OpenHole),
    /// It arrived.
    Placed(Placed),
}

pub(super) struct Slot<B> {
    seq: Seq,
    pub state: State,
    /// The shard, as long as a frame needs bytes of it.
    pub kept: Option<B>,
}

/// What a slot stood for before it was claimed for another sequence number.
pub(super) struct Forgotten<B> {
    pub state: State,
    pub kept: Option<B>,
}

/// A ring of slots, one for each sequence number of the window.
pub(super) struct Slots<B>(Box<[Slot<B>]>);

impl<B> Slots<B> {
    pub(super) fn new() -> Self {
        // No slot stands for sequence number 0 before it was claimed.
        Self(
            (0..REASSEMBLY_WINDOW as u32)
                .map(|index| Slot {
                    seq: Seq(!index),
                    state: State::Free,
                    kept: None,
                })
                .collect(),
        )
    }

    fn index(seq: Seq) -> usize {
        seq.0 as usize % REASSEMBLY_WINDOW
    }

    /// The slot of `seq`, if it was claimed for it.
    #[inline]
    pub(super) fn get(&self, seq: Seq) -> Option<&Slot<B>> {
        self.0.get(Self::index(seq)).filter(|slot| slot.seq == seq)
    }

    /// The slot of `seq`, if it was claimed for it.
    #[inline]
    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Slot<B>> {
        self.0
            .get_mut(Self::index(seq))
            .filter(|slot| slot.seq == seq)
    }

    /// Makes the slot stand for `seq`, unknown for now unless it stood for it already; returns what
    /// is forgotten.
    #[inline]
    pub(super) fn claim(&mut self, seq: Seq) -> (&mut Slot<B>, Option<Forgotten<B>>) {
        let slot = &mut self.0[Self::index(seq)];
        let mut forgotten = None;
        if slot.seq != seq {
            slot.seq = seq;
            let state = core::mem::replace(&mut slot.state, State::Unknown);
            forgotten = Some(Forgotten {
                state,
                kept: slot.kept.take(),
            });
        }
        (slot, forgotten)
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        for (index, slot) in self.0.iter_mut().enumerate() {
            *slot = Slot {
                seq: Seq(!(index as u32)),
                state: State::Free,
                kept: None,
            };
        }
    }
}
