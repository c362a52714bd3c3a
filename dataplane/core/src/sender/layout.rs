//! Where frames go in the shards of an aggregate (SPEC §5).

use crate::limits::{SHARD_PAYLOAD_MIN, SHARDS_MAX};
use crate::wire::frame::FRAME_HEADER_LEN;

/// Walks through an aggregate, frame by frame, and says where each one starts.
///
/// Two rules: a frame header never straddles two shards, and a frame that fits one fresh shard is
/// not straddled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cutter {
    payload: usize,
    shard: usize,
    used: usize,
}

impl Cutter {
    /// Cuts at `payload` bytes.
    pub(super) fn new(payload: usize) -> Self {
        Self {
            payload,
            shard: 0,
            used: 0,
        }
    }

    /// Where a frame of `len` bytes starts: shard and offset of its header.
    #[inline]
    pub(super) fn place(&mut self, len: usize) -> (usize, usize) {
        let need = FRAME_HEADER_LEN + len;
        let room = self.payload - self.used;
        let fits_fresh = need <= self.payload;
        if self.used > 0 && (room < FRAME_HEADER_LEN || (need > room && fits_fresh)) {
            self.shard += 1;
            self.used = 0;
        }
        let start = (self.shard, self.used);
        let end = self.used + need;
        // A frame that ends with its shard leaves it full, not a fresh one empty.
        let further = (end - 1) / self.payload;
        self.shard += further;
        self.used = end - further * self.payload;
        start
    }

    /// How many shards are begun.
    #[inline]
    pub(super) fn count(&self) -> usize {
        if self.used == 0 {
            self.shard
        } else {
            self.shard + 1
        }
    }
}

fn count(frame_lens: impl Iterator<Item = usize>, payload: usize) -> usize {
    let mut cutter = Cutter::new(payload);
    frame_lens.for_each(|len| {
        cutter.place(len);
    });
    cutter.count()
}

/// The payload size at which frames of these lengths are cut into at least `shards_min` shards if
/// their bytes suffice for [`SHARD_PAYLOAD_MIN`] in each, and otherwise into as few as
/// `payload_max` allows; with it the number of shards.
pub(super) fn choose_payload(
    frame_lens: impl Iterator<Item = usize> + Clone,
    shards_min: usize,
    payload_max: usize,
) -> (usize, usize) {
    let fewest = count(frame_lens.clone(), payload_max);
    let target = shards_min.min(SHARDS_MAX);
    if fewest >= target {
        return (payload_max, fewest);
    }
    let bytes: usize = frame_lens.clone().map(|len| len + FRAME_HEADER_LEN).sum();
    // The smallest payload that needs no more than the target: what is left free at the end of
    // shards makes it larger than an even share. `high` always meets the target.
    let mut low = bytes.div_ceil(target).max(SHARD_PAYLOAD_MIN);
    let mut high = payload_max;
    if low >= high {
        return (payload_max, fewest);
    }
    let mut best = fewest;
    while low < high {
        let middle = (low + high) / 2;
        let shards = count(frame_lens.clone(), middle);
        if shards <= target {
            high = middle;
            best = shards;
        } else {
            low = middle + 1;
        }
    }
    if best == fewest {
        (payload_max, fewest)
    } else {
        (high, best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        let cut = |lens: &[usize], payload| {
            let mut cutter = Cutter::new(payload);
            let starts: Vec<_> = lens.iter().map(|&len| cutter.place(len)).collect();
            (starts, cutter.count())
        };
        assert_eq!(cut(&[1408, 1408], 1414), (vec![(0, 0), (1, 0)], 2));
        assert_eq!(cut(&[1514], 1414), (vec![(0, 0)], 2));
        assert_eq!(
            cut(&[1514, 1000, 94], 1414),
            (vec![(0, 0), (1, 106), (1, 1112)], 2)
        );
        assert_eq!(
            cut(&[60, 60, 1300], 1414),
            (vec![(0, 0), (0, 66), (1, 0)], 2)
        );
        assert_eq!(
            cut(&[1404, 20], 1414),
            (vec![(0, 0), (1, 0)], 2),
            "a header does not straddle"
        );
        assert_eq!(cut(&[], 1414), (vec![], 0));
        assert_eq!(cut(&[9014], 1414).1, 7);
    }

    #[test]
    fn fixed_limits_cut_a_frame_into_even_shards() {
        assert_eq!(choose_payload([1434].into_iter(), 4, 1414), (360, 4));
        assert_eq!(choose_payload([98].into_iter(), 4, 1414), (1414, 1));
        assert_eq!(choose_payload([1400].into_iter(), 1, 1414), (1414, 1));
    }

    proptest! {
        #[test]
        fn any_layout_keeps_the_two_rules(
            lens in prop::collection::vec(14usize..9022, 1..64),
            shards_min in 1usize..64,
            payload_max in 256usize..9000,
        ) {
            let (payload, shards) = choose_payload(lens.iter().copied(), shards_min, payload_max);
            prop_assert!(payload <= payload_max);
            let mut cutter = Cutter::new(payload);
            let mut free_at = (0, 0);
            for &len in &lens {
                let (shard, at) = cutter.place(len);
                prop_assert!((shard, at) >= free_at, "frames overlap");
                prop_assert!(at + FRAME_HEADER_LEN <= payload, "a header straddles");
                let end = at + FRAME_HEADER_LEN + len;
                if FRAME_HEADER_LEN + len <= payload {
                    prop_assert!(end <= payload, "straddled without need");
                }
                free_at = (shard + end / payload, end % payload);
            }
            prop_assert_eq!(cutter.count(), shards);
            prop_assert!(shards <= count(lens.iter().copied(), payload_max).max(shards_min));
        }
    }
}
