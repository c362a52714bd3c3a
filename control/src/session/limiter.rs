//! How much work strangers may cause.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use shardgate_core::time::Time;

use crate::limits;

/// A token bucket in virtual time.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_second: u32,
    burst: u32,
    /// Tokens times 10^9, so that a nanosecond's refill is an integer.
    nano_tokens: u64,
    refilled: Time,
}

const NANO: u64 = 1_000_000_000;

impl Bucket {
    /// A full bucket of `burst` tokens that refills at `per_second`.
    pub fn new((per_second, burst): (u32, u32), now: Time) -> Self {
        Self {
            per_second,
            burst,
            nano_tokens: u64::from(burst) * NANO,
            refilled: now,
        }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        let passed = now.since(self.refilled).as_nanos();
        let full = u64::from(self.burst) * NANO;
        let gained = passed.saturating_mul(u128::from(self.per_second));
        let filled = u128::from(self.nano_tokens)
            .saturating_add(gained)
            .min(u128::from(full));
        self.nano_tokens = u64::try_from(filled).unwrap_or(full);
        self.refilled = now;
        if self.nano_tokens < NANO {
            return false;
        }
        self.nano_tokens -= NANO;
        true
    }
}

/// Limits the inits that may cost a DH.
///
/// A peer's known address has a bucket of its own, so strangers cannot take its turn. Strangers
/// share a fixed table of buckets, chosen by a keyed hash of the address, and one bucket for all.
pub struct Limiter {
    key: [u8; 16],
    known: Vec<Bucket>,
    sources: Vec<Bucket>,
    total: Bucket,
}

impl Limiter {
    /// A limiter for so many peers; `key` makes the hash unpredictable.
    pub fn new(peers: usize, key: [u8; 16], now: Time) -> Self {
        Self {
            key,
            known: vec![Bucket::new(limits::INITS_KNOWN, now); peers],
            sources: vec![Bucket::new(limits::INITS_UNKNOWN_SOURCE, now); limits::SOURCE_BUCKETS],
            total: Bucket::new(limits::INITS_UNKNOWN_TOTAL, now),
        }
    }

    /// May this init cost a DH? `known` is the peer whose known address it comes from.
    pub fn allow(&mut self, now: Time, known: Option<usize>, source: IpAddr) -> bool {
        if let Some(bucket) = known.and_then(|peer| self.known.get_mut(peer)) {
            return bucket.take(now);
        }
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        source.hash(&mut hasher);
        let slot = hasher.finish() as usize % limits::SOURCE_BUCKETS;
        let allowed = self
            .sources
            .get_mut(slot)
            .is_some_and(|bucket| bucket.take(now));
        allowed && self.total.take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn source(last: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + last))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new((10, 3), Time::ZERO);
        let taken = (0..10).filter(|_| bucket.take(Time::ZERO)).count();
        assert_eq!(taken, 3);
        let almost = Time::ZERO + Duration::from_nanos(99_999_999);
        assert!(!bucket.take(almost));
        assert!(bucket.take(almost + Duration::from_nanos(1)));
        let much_later = Time::ZERO + Duration::from_secs(1 << 33);
        assert_eq!((0..10).filter(|_| bucket.take(much_later)).count(), 3);
    }

    #[test]
    fn one_stranger_is_held_to_its_share() {
        let mut limiter = Limiter::new(1, [7; 16], Time::ZERO);
        let allowed = (0..1000)
            .filter(|_| limiter.allow(Time::ZERO, None, source(1)))
            .count();
        assert_eq!(allowed as u32, limits::INITS_UNKNOWN_SOURCE.1);
    }

    #[test]
    fn all_strangers_together_are_held_and_a_peer_is_still_served() {
        let mut limiter = Limiter::new(1, [7; 16], Time::ZERO);
        let allowed = (0..10_000)
            .filter(|&n| limiter.allow(Time::ZERO, None, source(n)))
            .count();
        assert_eq!(allowed as u32, limits::INITS_UNKNOWN_TOTAL.1);
        assert!(limiter.allow(Time::ZERO, Some(0), source(1)));
    }
}
