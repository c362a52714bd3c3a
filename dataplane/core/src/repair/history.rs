//! The coded bytes of the last source shards, delivered ones included: what is subtracted from a
//! repair shard.

use super::{WINDOW_MAX, padded};
use crate::seq::Seq;

/// Source shards kept: the longest window, and more than as many behind it, so that what one
/// window could not give back still may be given back by the next ones. A power of two, because
/// the numbers wrap.
pub(super) const HISTORY: u32 = 512;

const _: () = assert!(HISTORY.is_power_of_two() && HISTORY as usize > 2 * WINDOW_MAX);

/// Whether a source shard that is not newer than `newest` may still be there. What lies half of all
/// numbers away is neither before nor behind (RFC 1982), and out of reach too.
pub(super) fn is_within_reach(seq: Seq, newest: Seq) -> bool {
    (0..HISTORY as i32).contains(&newest.distance_from(seq))
}

#[derive(Clone, Copy, Default)]
struct Slot {
    seq: Seq,
    /// Coded bytes; none if the slot stands for no source shard.
    len: usize,
}

/// A ring of source shards by number, each padded with zeros to whole units.
pub(super) struct History {
    slots: Box<[Slot]>,
    bytes: Box<[u8]>,
    stride: usize,
}

impl History {
    /// An empty history of source shards of up to `stride` coded bytes, a multiple of the unit.
    pub(super) fn new(stride: usize) -> Self {
        Self {
            slots: vec![Slot::default(); HISTORY as usize].into_boxed_slice(),
            bytes: vec![0; HISTORY as usize * stride].into_boxed_slice(),
            stride,
        }
    }

    fn index(seq: Seq) -> usize {
        (seq.0 % HISTORY) as usize
    }

    /// Whether this source shard is there.
    #[inline]
    pub(super) fn has(&self, seq: Seq) -> bool {
        let slot = &self.slots[Self::index(seq)];
        slot.len > 0 && slot.seq == seq
    }

    /// Its coded bytes with the padding.
    #[inline]
    pub(super) fn get(&self, seq: Seq) -> Option<&[u8]> {
        let index = Self::index(seq);
        let slot = self.slots.get(index)?;
        if slot.len == 0 || slot.seq != seq {
            return None;
        }
        self.bytes
            .get(index * self.stride..)?
            .get(..padded(slot.len))
    }

    /// Keeps a source shard, `head` and `body` one behind the other, in place of the one 512
    /// numbers before; false if it is too long.
    #[inline]
    pub(super) fn insert(&mut self, seq: Seq, head: &[u8], body: &[u8]) -> bool {
        let len = head.len() + body.len();
        let index = Self::index(seq);
        let room = self.bytes.get_mut(index * self.stride..);
        let Some(room) = room.and_then(|room| room.get_mut(..self.stride.min(padded(len)))) else {
            return false;
        };
        let Some((to_head, rest)) = room.split_at_mut_checked(head.len()) else {
            return false;
        };
        let Some((to_body, padding)) = rest.split_at_mut_checked(body.len()) else {
            return false;
        };
        to_head.copy_from_slice(head);
        to_body.copy_from_slice(body);
        padding.fill(0);
        self.slots[index] = Slot { seq, len };
        true
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.slots.fill(Slot::default());
    }
}
