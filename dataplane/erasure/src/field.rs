//! Arithmetic in GF(2^8) modulo 0x11d, the field of ISA-L and of most storage codes.

/// The polynomial without its leading bit.
const POLYNOMIAL: u8 = 0x1d;
/// Source shards that have coefficients of their own; the other 64 elements are for repairs.
pub const SOURCES_MAX: u32 = 192;

/// Powers of the generator 2, twice over, so that a sum of two logarithms needs no reduction.
const EXP: [u8; 510] = exp_table();
/// Logarithms to the base 2; the entry of zero is meaningless.
const LOG: [u8; 256] = log_table();

const fn exp_table() -> [u8; 510] {
    let mut table = [0; 510];
    let (mut power, mut i) = (1, 0);
    while i < 510 {
        table[i] = power;
        power = double(power);
        i += 1;
    }
    table
}

const fn log_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 255 {
        table[EXP[i] as usize] = i as u8;
        i += 1;
    }
    table
}

const fn double(value: u8) -> u8 {
    (value << 1) ^ (POLYNOMIAL * (value >> 7))
}

/// The product of two elements.
#[inline]
pub const fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    EXP[LOG[a as usize] as usize + LOG[b as usize] as usize]
}

/// The inverse of an element; zero, which has none, gives zero.
#[inline]
pub const fn inverse(a: u8) -> u8 {
    if a == 0 {
        return 0;
    }
    EXP[255 - LOG[a as usize] as usize]
}

/// What the source shard `seq` is multiplied with in a repair of index `repair_index`.
///
/// The Cauchy element `1 / (x + y)` of `x = seq mod 192` and `y = 192 + repair_index mod 64`.
/// Shards whose numbers differ by less than 192 have different `x`, except across the wrap of
/// `seq`, as 192 does not divide 2^32; there, a few systems are singular.
#[inline]
pub const fn coefficient(seq: u32, repair_index: u8) -> u8 {
    let x = (seq % SOURCES_MAX) as u8;
    let y = SOURCES_MAX as u8 + repair_index % 64;
    // Below 192 and from 192 on, so the sum is never zero.
    inverse(x ^ y)
}

/// `target += factor * source`, over the shorter of the two.
///
/// Horner's rule over the bits of the factor, branch-free per byte, so that the compiler turns
/// the inner loop into vector instructions of whatever width the target has.
pub(crate) fn multiply_accumulate(factor: u8, source: &[u8], target: &mut [u8]) {
    const LANES: usize = 32;
    let len = source.len().min(target.len());
    let (mut sources, mut targets) = (
        source[..len].chunks_exact(LANES),
        target[..len].chunks_exact_mut(LANES),
    );
    for (from, to) in (&mut sources).zip(&mut targets) {
        let mut product = [0u8; LANES];
        for bit in (0..8).rev() {
            let mask = 0u8.wrapping_sub((factor >> bit) & 1);
            for (lane, &byte) in product.iter_mut().zip(from) {
                // All ones if the top bit is set: an arithmetic shift as vector units have it.
                let carry = ((*lane as i8) >> 7) as u8;
                *lane = (*lane << 1) ^ (carry & POLYNOMIAL) ^ (byte & mask);
            }
        }
        for (byte, lane) in to.iter_mut().zip(product) {
            *byte ^= lane;
        }
    }
    let rest = sources.remainder().iter();
    for (to, &from) in targets.into_remainder().iter_mut().zip(rest) {
        *to ^= multiply(factor, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field's definition: polynomials over GF(2), product reduced bit by bit.
    fn product(a: u8, b: u8) -> u8 {
        let (mut product, mut factor) = (0, a);
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= factor;
            }
            factor = double(factor);
        }
        product
    }

    #[test]
    fn the_tables_are_the_field() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), product(a, b), "{a} * {b}");
            }
            assert_eq!(multiply(a, inverse(a)), u8::from(a != 0), "{a}");
        }
        // A vector of the field with this polynomial, from the ISA-L and Reed-Solomon literature.
        assert_eq!(multiply(0x80, 2), 0x1d);
        assert_eq!(inverse(2), 0x8e);
    }

    #[test]
    fn slices_agree_with_bytes() {
        let source: Vec<u8> = (0..=255).cycle().take(300).collect();
        for factor in 0..=255 {
            for len in [0, 1, 31, 32, 33, 64, 255, 300] {
                let mut target: Vec<u8> = (0..len as u32).map(|i| (i * 7) as u8).collect();
                let expected: Vec<u8> = target
                    .iter()
                    .zip(&source)
                    .map(|(&t, &s)| t ^ product(factor, s))
                    .collect();
                multiply_accumulate(factor, &source[..len], &mut target);
                assert_eq!(target, expected, "{factor} over {len}");
            }
        }
    }

    #[test]
    fn coefficients_differ_and_are_never_zero() {
        for repair in 0..64 {
            let mut seen = [false; 256];
            for seq in 0..SOURCES_MAX {
                let value = coefficient(seq, repair);
                assert!(value != 0 && !seen[usize::from(value)]);
                seen[usize::from(value)] = true;
                assert_eq!(value, coefficient(seq + SOURCES_MAX, repair + 64));
            }
        }
        // The vector of the specification: 1 / (0 + 192), 1 / (191 + 255).
        assert_eq!(multiply(coefficient(0, 0), 192), 1);
        assert_eq!(multiply(coefficient(191, 63), 191 ^ 255), 1);
    }
}
