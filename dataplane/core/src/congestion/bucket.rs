//! The budget of all that the tunnel adds to a path.

use core::time::Duration;

/// The bucket holds at least this: some forty datagrams, so that a thin path can repair a burst.
const CAPACITY_MIN: u64 = 64 * 1_024;
/// And at least what comes in during this time.
const CAPACITY_TIME: Duration = Duration::from_millis(100);

/// One: the limit is kept in millionths, so that the account is exact.
const WHOLE: u64 = 1_000_000;

/// What the tunnel adds to a path beside the shards that carry frames, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addition {
    /// A shard that was asked for again, or a duplicate of one.
    Repeat,
    /// Coded repair for a window in which something was lost.
    Reactive,
    /// Coded repair that the plan sends whether something was lost or not.
    Standing,
    /// Padding and other measurements.
    Probe,
}

impl Addition {
    /// All of them, most urgent first.
    pub const ALL: [Addition; 4] = [
        Addition::Repeat,
        Addition::Reactive,
        Addition::Standing,
        Addition::Probe,
    ];

    /// Bytes that it leaves to what is more urgent: eighths of the smallest capacity, so that a
    /// bucket that has just grown does not shut anything out.
    fn reserve(self, capacity: u64) -> u64 {
        let eighths = match self {
            Addition::Repeat => 0,
            Addition::Reactive => 2,
            Addition::Standing => 4,
            Addition::Probe => 5,
        };
        capacity.min(CAPACITY_MIN) / 8 * eighths
    }
}

/// A token bucket of bytes (RFC 2697), filled by what a path acknowledges.
///
/// So the limit needs no clock and no rate: whatever the path carries, at most this share of it is
/// added. What is less urgent stops while there is still something left for the more urgent. Over
/// any time, spent ≤ first capacity + limit × acknowledged.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// In millionths.
    limit: u64,
    capacity: u64,
    level: u64,
    /// Millionths of a byte that do not make a byte yet.
    fraction: u64,
}

impl TokenBucket {
    /// A full bucket. `overhead_limit`: added bytes to acknowledged bytes, 0 to 1; at 0 nothing is
    /// ever added, not even at the start.
    pub fn new(overhead_limit: f64) -> Self {
        // What is not a number is 0: the cast saturates.
        let limit = (overhead_limit.clamp(0.0, 1.0) * WHOLE as f64) as u64;
        let capacity = if limit == 0 { 0 } else { CAPACITY_MIN };
        Self {
            limit,
            capacity,
            level: capacity,
            fraction: 0,
        }
    }

    /// The path's delivery rate, from which the capacity follows. A larger bucket is not a fuller
    /// one; what a smaller one cannot hold is gone.
    pub fn set_delivery_rate(&mut self, bytes_per_second: u64) {
        if self.limit == 0 {
            return;
        }
        let income = u128::from(bytes_per_second) * u128::from(self.limit) / u128::from(WHOLE);
        let held = income * CAPACITY_TIME.as_millis() / 1_000;
        self.capacity = u64::try_from(held).unwrap_or(u64::MAX).max(CAPACITY_MIN);
        self.level = self.level.min(self.capacity);
    }

    /// The path acknowledged this many bytes.
    pub fn earn(&mut self, acknowledged: u64) {
        let earned = u128::from(acknowledged) * u128::from(self.limit) + u128::from(self.fraction);
        let bytes = u64::try_from(earned / u128::from(WHOLE)).unwrap_or(u64::MAX);
        self.fraction = (earned % u128::from(WHOLE)) as u64;
        self.level = self.level.saturating_add(bytes).min(self.capacity);
    }

    /// Takes `bytes` for an addition, if its kind may; else nothing.
    #[must_use]
    pub fn spend(&mut self, bytes: u64, addition: Addition) -> bool {
        let reserve = addition.reserve(self.capacity);
        match self.level.checked_sub(bytes) {
            Some(left) if left >= reserve => {
                self.level = left;
                true
            }
            _ => false,
        }
    }

    /// Takes up to `bytes` for an addition that leaves in any case, as far as its kind may.
    pub fn charge(&mut self, bytes: u64, addition: Addition) {
        self.level -= bytes.min(self.available(addition));
    }

    /// Bytes that an addition of this kind may take now.
    pub fn available(&self, addition: Addition) -> u64 {
        self.level.saturating_sub(addition.reserve(self.capacity))
    }

    /// Most bytes it holds.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn begins_full_and_keeps_reserves_for_the_more_urgent() {
        let mut bucket = TokenBucket::new(0.25);
        let mut drain = |addition| {
            let mut spent = 0;
            while bucket.spend(1_024, addition) {
                spent += 1;
            }
            spent
        };
        assert_eq!(drain(Addition::Probe), 24);
        assert_eq!(drain(Addition::Standing), 8);
        assert_eq!(drain(Addition::Reactive), 16);
        assert_eq!(drain(Addition::Repeat), 16);
        assert_eq!(drain(Addition::Repeat), 0);
    }

    #[test]
    fn fills_by_its_share_and_overflows() {
        let mut bucket = TokenBucket::new(0.25);
        assert!(bucket.spend(CAPACITY_MIN, Addition::Repeat));
        (0..4_001).for_each(|_| bucket.earn(1));
        assert_eq!(bucket.available(Addition::Repeat), 1_000);
        bucket.earn(u64::MAX);
        assert_eq!(bucket.available(Addition::Repeat), CAPACITY_MIN);
    }

    #[test]
    fn the_capacity_follows_the_rate() {
        let mut bucket = TokenBucket::new(0.25);
        bucket.set_delivery_rate(125_000_000);
        assert_eq!(bucket.capacity(), 3_125_000);
        assert_eq!(bucket.available(Addition::Repeat), CAPACITY_MIN);
        bucket.earn(u64::MAX);
        bucket.set_delivery_rate(0);
        assert_eq!(bucket.available(Addition::Repeat), CAPACITY_MIN);
        bucket.set_delivery_rate(u64::MAX);
        bucket.earn(u64::MAX);
    }

    #[test]
    fn no_limit_worth_the_name_adds_nothing() {
        for limit in [0.0, -1.0, f64::NAN, 1e-9] {
            let mut bucket = TokenBucket::new(limit);
            bucket.set_delivery_rate(1 << 40);
            bucket.earn(1 << 40);
            assert!(!bucket.spend(1, Addition::Repeat), "{limit}");
        }
        let mut bucket = TokenBucket::new(f64::INFINITY);
        assert!(bucket.spend(CAPACITY_MIN, Addition::Repeat));
        bucket.earn(10);
        assert!(bucket.spend(10, Addition::Repeat));
    }

    proptest! {
        #[test]
        fn never_spends_more_than_it_had_and_earned(
            limit in 0u64..=1_000_000,
            steps in prop::collection::vec((0u8..3, 0u64..200_000, 0usize..4), 1..300),
        ) {
            let mut bucket = TokenBucket::new(limit as f64 / 1e6);
            let first = u128::from(bucket.capacity());
            let (mut earned, mut spent) = (0u128, 0u128);
            for (kind, amount, addition) in steps {
                let addition = Addition::ALL[addition];
                match kind {
                    0 => {
                        bucket.earn(amount);
                        earned += u128::from(amount);
                    }
                    1 => bucket.set_delivery_rate(amount * 1_000),
                    _ => {
                        let available = bucket.available(addition);
                        let took = bucket.spend(amount, addition);
                        prop_assert_eq!(took, amount <= available && (amount > 0 || took));
                        spent += u128::from(amount) * u128::from(took);
                    }
                }
                prop_assert!(spent * 1_000_000 <= first * 1_000_000 + earned * u128::from(limit));
                prop_assert!(bucket.available(Addition::Repeat) <= bucket.capacity());
            }
        }
    }
}
