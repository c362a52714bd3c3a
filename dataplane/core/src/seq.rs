//! Serial numbers that wrap (RFC 1982).

/// A shard's place in its stream: 32 bits, wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `n` places later.
    #[inline]
    #[must_use]
    pub fn plus(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }

    /// The number `n` places earlier.
    #[inline]
    #[must_use]
    pub fn minus(self, n: u32) -> Seq {
        Seq(self.0.wrapping_sub(n))
    }

    /// How many places `self` lies ahead of `other`; negative if behind.
    #[inline]
    pub fn distance_from(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// True if `self` comes before `other`.
    #[inline]
    pub fn is_before(self, other: Seq) -> bool {
        self.distance_from(other) < 0
    }
}

/// A frame's place in its lane: 24 bits, wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LaneSeq(u32);

impl LaneSeq {
    const MASK: u32 = 0x00ff_ffff;

    /// The number with these low 24 bits.
    #[inline]
    pub fn new(value: u32) -> Self {
        Self(value & Self::MASK)
    }

    /// The number, below 2^24.
    #[inline]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The next number.
    #[inline]
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.0.wrapping_add(1))
    }

    /// How many places `self` lies ahead of `other`; negative if behind.
    #[inline]
    pub fn distance_from(self, other: LaneSeq) -> i32 {
        ((self.0.wrapping_sub(other.0) << 8) as i32) >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_numbers_wrap() {
        assert_eq!(Seq(1).distance_from(Seq(u32::MAX)), 2);
        assert!(Seq(u32::MAX).is_before(Seq(0)));
        assert_eq!(Seq(0).minus(1), Seq(u32::MAX));
    }

    #[test]
    fn lane_numbers_wrap_at_24_bits() {
        let last = LaneSeq::new(0x00ff_ffff);
        assert_eq!(last.next(), LaneSeq::new(0));
        assert_eq!(LaneSeq::new(3).distance_from(last), 4);
        assert_eq!(last.distance_from(LaneSeq::new(3)), -4);
    }
}
