//! Round trips and the retransmission timeout (RFC 6298), with Linux's bounds.

use std::time::Duration;

/// Least distance of the timeout from the smoothed round trip, and so the least timeout.
const RTO_MARGIN_MIN: Duration = Duration::from_millis(200);
/// Before anything was measured (RFC 6298, 2.1).
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// Longest timeout, backed off or not.
const RTO_MAX: Duration = Duration::from_secs(120);

/// What is known about the round trip.
#[derive(Clone, Debug, Default)]
pub(super) struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    min: Option<Duration>,
}

impl RttEstimator {
    pub(super) fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// A round trip without the wait for a delayed ACK.
    pub(super) fn sample_min(&mut self, rtt: Duration) {
        self.min = Some(self.min.map_or(rtt, |min| min.min(rtt)));
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn min(&self) -> Option<Duration> {
        self.min
    }

    /// The timeout after `backoff` timeouts in a row.
    pub(super) fn timeout(&self, backoff: u32) -> Duration {
        let base = self.smoothed.map_or(RTO_INITIAL, |smoothed| {
            smoothed + (self.variation * 4).max(RTO_MARGIN_MIN)
        });
        base.saturating_mul(1 << backoff.min(16)).min(RTO_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_rfc_above_the_margin() {
        let ms = Duration::from_millis;
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(0), ms(1_000));
        rtt.sample(ms(400));
        assert_eq!(rtt.timeout(0), ms(400 + 4 * 200));
        rtt.sample(ms(800));
        // RTTVAR = 3/4 200 + 1/4 400, SRTT = 7/8 400 + 1/8 800.
        assert_eq!(rtt.timeout(0), ms(450 + 4 * 250));
        for _ in 0..100 {
            rtt.sample(ms(40));
        }
        assert_eq!(rtt.timeout(0).as_millis(), 240);
        assert_eq!(rtt.timeout(2).as_millis(), 960);
        assert_eq!(rtt.timeout(60), RTO_MAX);
    }
}
