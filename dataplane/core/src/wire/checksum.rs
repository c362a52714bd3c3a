//! The Internet checksum (RFC 1071): of outer headers, of frames that are changed on their way,
//! and of those that simulated hosts write.

/// The ones' complement sum of `bytes` as big-endian 16-bit words, not folded; the last byte of an
/// odd length counts as the high half of a word.
///
/// Words are added in the machine's order and swapped once at the end: the sum does not mind
/// (RFC 1071, 2B), and the loop vectorises.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|&word| u64::from(u32::from_ne_bytes(word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    u64::from(fold(sum).to_be())
}

/// Folds sums, added up, to 16 bits; the checksum is the complement of that.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A checksum after one word under it has changed (RFC 1624, equation 3).
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(fold(sum(&[0x12])), 0x1200);
        assert_eq!(fold(sum(&[1, 2, 3, 4, 5])), 0x0102 + 0x0304 + 0x0500);
    }

    #[test]
    fn the_example_of_an_update() {
        // RFC 1624, section 4.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    /// Word by word, each carry added at once.
    fn naive(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum: u16, word| {
            let word = u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    proptest! {
        #[test]
        fn sums_are_those_of_words(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(fold(sum(&bytes)), naive(&bytes));
        }

        /// In whatever parts of even length it is summed, and whatever word of it changes.
        #[test]
        fn an_updated_checksum_is_a_fresh_one(
            mut bytes in prop::collection::vec(any::<u8>(), 4..200),
            at in any::<prop::sample::Index>(),
            new: u16,
        ) {
            // A header is never all zeros: of nothing else can the two zeros of a sum be taken for
            // each other.
            bytes[0] |= 1;
            let at = 2 + at.index(bytes.len() - 3) / 2 * 2;
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let checksum = !fold(sum(&bytes));
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let (head, tail) = bytes.split_at(at);
            prop_assert_eq!(update(checksum, old, new), !fold(sum(head) + sum(tail)));
        }
    }
}
