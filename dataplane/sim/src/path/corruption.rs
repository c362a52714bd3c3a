//! Bit errors.

use super::frame::FrameShape;
use super::random::Source;

/// Most bits flipped in one frame. Up to three errors are within what a CRC-32 always detects and
/// what the UDP checksum does not.
pub const FLIPS_MAX: usize = 3;

/// One to [`FLIPS_MAX`] different bits behind the Ethernet header that flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    bits: [u32; FLIPS_MAX],
    count: u8,
}

impl Corruption {
    /// Draws the bits; nothing if the frame has no byte behind its header.
    pub(crate) fn draw(source: &mut Source, shape: FrameShape) -> Option<Self> {
        let first = u32::try_from(shape.header_len()).ok()?.checked_mul(8)?;
        let room = u32::try_from(shape.payload_len()).ok()?.checked_mul(8)?;
        if room == 0 {
            return None;
        }
        let flips = 1 + source.below(FLIPS_MAX as u32);
        let mut corruption = Self {
            bits: [0; FLIPS_MAX],
            count: 0,
        };
        for _ in 0..flips {
            let bit = first + source.below(room);
            // The same bit twice would undo the error.
            if !corruption.bits().contains(&bit) {
                corruption.bits[usize::from(corruption.count)] = bit;
                corruption.count += 1;
            }
        }
        Some(corruption)
    }

    /// Offsets of the bits from the start of the frame: byte times eight plus bit.
    #[inline]
    pub fn bits(&self) -> &[u32] {
        &self.bits[..usize::from(self.count)]
    }

    /// Flips the bits in `frame`. Bits behind its end are left alone.
    #[inline]
    pub fn apply(&self, frame: &mut [u8]) {
        for bit in self.bits() {
            if let Some(byte) = frame.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}
