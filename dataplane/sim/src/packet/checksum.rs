//! The Internet checksum (RFC 1071).

/// The ones' complement sum of `bytes` as big-endian 16-bit words, not folded; the last byte of an
/// odd length counts as the high half of a word.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // In the machine's order, swapped once at the end: the sum does not mind (RFC 1071, 2B).
    let mut sum: u64 = words
        .iter()
        .map(|&word| u64::from(u32::from_ne_bytes(word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    u64::from(fold(sum).to_be())
}

/// Folds a sum to 16 bits.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(fold(sum(&[0x12])), 0x1200);
        assert_eq!(fold(sum(&[1, 2, 3, 4, 5])), 0x0102 + 0x0304 + 0x0500);
    }
}
