//! Which sizes are worth a probe.

use arrayvec::ArrayVec;

use super::{BASE, FLOOR};

/// Sizes of one round at the most.
pub(super) const ROUND_MAX: usize = 9;

/// Sizes of a round but the first.
const SPLIT: usize = 3;

/// A search ends when the size in use is known to be short of the largest by less than this: half a
/// percent, for the price of a round.
pub(super) const PRECISION: u16 = 8;

/// What the first round asks for, beside the port's MTU: one step each for PPPoE, VXLAN, and tunnels
/// in tunnels.
const LADDER: [u16; ROUND_MAX - 1] = [8_000, 4_352, 1_500, 1_492, 1_450, 1_400, BASE, FLOOR];

/// Sizes that links and tunnels have (RFC 8899, 5.3.2 recommends a table): FDDI 4352, Ethernet 1500,
/// PPPoE 1492 (RFC 2516), 6in4 and IPIP 1480, GRE 1476, GRE with a key 1472, L2TP and some clouds
/// 1460, PPPoE of a reseller 1454, VXLAN 1450 (RFC 7348), WireGuard 1420 and over PPPoE 1412, mobile
/// networks 1440, 1428 and 1358, SLIP 1006.
const COMMON: [u16; 34] = [
    1_006, 1_100, 1_200, 1_280, 1_300, 1_320, 1_340, 1_358, 1_380, 1_390, 1_400, 1_412, 1_420,
    1_428, 1_436, 1_440, 1_450, 1_454, 1_460, 1_472, 1_476, 1_480, 1_492, 1_500, 1_600, 2_048,
    3_000, 4_352, 6_000, 8_000, 8_500, 8_900, 8_950, 9_000,
];

/// Sizes in falling order.
pub(super) type Sizes = ArrayVec<u16, ROUND_MAX>;

/// What to ask a path of which nothing is known; the port's MTU is `ceiling`.
pub(super) fn ladder(ceiling: u16) -> Sizes {
    let mut sizes = Sizes::new();
    sizes.push(ceiling);
    let below = LADDER.iter().filter(|size| **size < ceiling);
    sizes.extend(below.copied());
    sizes
}

/// What to ask a path that may carry less than `current` by now: that, and what it is to fall back to,
/// in few steps, as these leave in haste.
pub(super) fn fallbacks(current: u16) -> Sizes {
    let mut sizes = Sizes::new();
    sizes.push(current);
    let step = [1_500, 1_400].into_iter().find(|size| *size < current);
    let below = step.into_iter().chain([BASE, FLOOR]);
    sizes.extend(below.filter(|size| *size < current));
    sizes
}

/// What to ask between a size that passes and one that does not; nothing if that is near enough.
pub(super) fn between(low: u16, high: u16) -> Sizes {
    let mut sizes = Sizes::new();
    let first = COMMON.partition_point(|size| *size <= low);
    let last = COMMON.partition_point(|size| *size < high);
    let common = COMMON.get(first..last).unwrap_or_default();
    if common.len() <= SPLIT {
        sizes.extend(common.iter().rev().copied());
    } else {
        // Evenly among those.
        let at = |part: usize| common.get(common.len() * part / SPLIT - 1).copied();
        sizes.extend((1..=SPLIT).rev().filter_map(at));
    }
    let gap = high.saturating_sub(low);
    if sizes.is_empty() && gap > PRECISION {
        let step = gap / (SPLIT as u16 + 1);
        sizes.extend(
            (1..=SPLIT as u16)
                .rev()
                .map(|part| low + part * step.max(1)),
        );
    }
    sizes
}

/// What to ask now and then of a path that carries less than its port: the whole, and one step more.
pub(super) fn above(current: u16, ceiling: u16) -> Sizes {
    let mut sizes = Sizes::new();
    sizes.push(ceiling);
    let next = COMMON
        .iter()
        .find(|size| **size >= current.saturating_add(PRECISION));
    sizes.extend(next.copied().filter(|next| *next < ceiling));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_falls_and_stays_in_its_bounds() {
        assert!(COMMON.is_sorted_by(|a, b| a < b));
        for ceiling in FLOOR + 1..=9_216 {
            let sizes = ladder(ceiling);
            assert!(sizes.is_sorted_by(|a, b| a > b), "{ceiling}: {sizes:?}");
            assert_eq!((sizes[0], sizes[sizes.len() - 1]), (ceiling, FLOOR));
            let sizes = fallbacks(ceiling);
            assert!(sizes.is_sorted_by(|a, b| a > b), "{ceiling}: {sizes:?}");
            assert_eq!((sizes[0], sizes[sizes.len() - 1]), (ceiling, FLOOR));
        }
        for low in FLOOR..2_000 {
            for high in low + 1..2_001 {
                let sizes = between(low, high);
                assert!(sizes.is_sorted_by(|a, b| a > b), "{low} {high}: {sizes:?}");
                assert!(sizes.iter().all(|size| (low + 1..high).contains(size)));
                assert!(!sizes.is_empty() || high - low <= PRECISION);
            }
            let sizes = above(low, 2_001);
            assert!(sizes.is_sorted_by(|a, b| a > b) && sizes.iter().all(|size| *size > low));
        }
        assert_eq!(ladder(1_500)[..], [1_500, 1_492, 1_450, 1_400, 1_280, 576]);
    }
}
