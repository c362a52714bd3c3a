//! The bytes of a stream: any of them can be told from its offset.

use std::sync::OnceLock;

use crate::packet::hash;

/// Bytes until the pattern repeats: a prime, so that no shift by whole segments goes unseen, and
/// more than the largest segment.
const PERIOD: u64 = 65_521;
/// No segment is longer.
const SEGMENT_MAX: usize = 16_384;

/// The bytes of one stream; streams begin at different places of the same pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    phase: u64,
}

fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let once: Vec<u8> = (0..PERIOD)
            .map(|at| hash(&at.to_le_bytes()) as u8)
            .collect();
        let again = once[..SEGMENT_MAX].to_vec();
        [once, again].concat()
    })
}

impl Pattern {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            phase: seed % PERIOD,
        }
    }

    /// The `len` bytes from `offset` on.
    pub(super) fn at(self, offset: u64, len: usize) -> &'static [u8] {
        let from = ((offset % PERIOD + self.phase) % PERIOD) as usize;
        &bytes()[from..from + len.min(SEGMENT_MAX)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_segment_is_another() {
        let pattern = Pattern::new(77);
        let whole = pattern.at(5, 1_000);
        assert_eq!(pattern.at(5 + PERIOD, 1_000), whole);
        assert_eq!(pattern.at(105, 100), &whole[100..200]);
        for shift in 1..5_000 {
            assert_ne!(pattern.at(5 + shift, 1_000), whole, "{shift}");
        }
        assert_ne!(Pattern::new(78).at(5, 1_000), whole);
    }
}
