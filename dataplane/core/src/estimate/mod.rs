//! What is known of a path: round trip, loss, delivery rate, queue.
//!
//! Each estimator keeps how many samples it rests on and when the last one came, so that "unknown"
//! is never taken for zero: what cannot be known yet is `None`. Memory is fixed, nothing is
//! allocated, and a sample costs the same whatever came before.
//!
//! | estimator | fed by | answers |
//! |---|---|---|
//! | [`Rtt`] | echoes | smoothed, variance, minimum of 10 s, 95 % quantile |
//! | [`LossRuns`] | fates of shards in path order | loss rate, mean burst, loss events a second |
//! | [`DeliveryRate`] | acknowledged bytes | bytes a second that the path has carried |
//! | [`QueueDelay`] | relative one-way delays | queue now, standing, largest, gradient |

mod loss;
mod queue;
mod rate;
mod rtt;
mod window;

pub use loss::LossRuns;
pub use queue::QueueDelay;
pub use rate::DeliveryRate;
pub use rtt::Rtt;

use core::time::Duration;

use crate::time::Time;

/// How many samples there were, and when the last one came.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    last: Option<Time>,
}

impl Tally {
    fn note(&mut self, samples: u64, now: Time) {
        self.count = self.count.saturating_add(samples);
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
    }

    fn age(&self, now: Time) -> Option<Duration> {
        self.last.map(|last| now.since(last))
    }
}

/// Seconds, for arithmetic that is not exact anyway.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
pub(crate) mod noise {
    /// Uniform numbers for the tests' channels (splitmix64).
    pub struct Noise(pub u64);

    impl Noise {
        /// From 0 to below 1.
        pub fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((word ^ (word >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// Exponential with mean 1.
        pub fn exponential(&mut self) -> f64 {
            -(1.0 - self.uniform()).ln()
        }
    }
}
