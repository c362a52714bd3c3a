//! Receiver indices: the names under which peers address our keys.

use shardgate_core::limits::{KEY_SLOT_BITS, KEY_SLOTS};

/// Hands out receiver indices and takes them back.
///
/// The low bits are a key slot that nothing else uses; the bits above are random, so that who has
/// not seen an index cannot guess it.
pub struct Indices {
    free: Vec<u32>,
}

impl Indices {
    /// All slots are free. Slot 0 is left out: the index 0 means "none" in an init.
    pub fn new() -> Self {
        Self {
            free: (1..KEY_SLOTS as u32).rev().collect(),
        }
    }

    /// Takes a free slot; `None` if there is none.
    pub fn take(&mut self, random: u32) -> Option<u32> {
        let slot = self.free.pop()?;
        Some(random << KEY_SLOT_BITS | slot)
    }

    /// Gives a slot back, once no lcore looks at it any more.
    pub fn give_back(&mut self, index: u32) {
        let slot = index % KEY_SLOTS as u32;
        debug_assert!(!self.free.contains(&slot), "slot {slot} was free already");
        // The slot that was freed first is used last, so a late datagram finds it empty.
        self.free.insert(0, slot);
    }

    /// Free slots.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn slots_are_unique_until_given_back() {
        let mut indices = Indices::new();
        let mut slots = HashSet::new();
        let mut last = 0;
        while let Some(index) = indices.take(0xffff_ffff) {
            assert_eq!(index >> KEY_SLOT_BITS, 0x3f_ffff);
            assert!(slots.insert(index % KEY_SLOTS as u32));
            last = index;
        }
        assert_eq!(slots.len(), KEY_SLOTS - 1);
        assert!(!slots.contains(&0));
        indices.give_back(last);
        assert_eq!(indices.take(0), Some(last % KEY_SLOTS as u32));
        assert_eq!(indices.take(0), None);
    }
}
