//! Parameters of a path and what values they may have.

use serde::Deserialize;

/// Longest one-way delay, jitter or reordering delay, in milliseconds: ten times a satellite hop
/// over two satellites, and a bound for what an emulator has to hold.
pub const DELAY_MS_MAX: f64 = 10_000.0;
/// Highest rate in Mbit/s: the fastest Ethernet in wide use.
pub const RATE_MAX: f64 = 400_000.0;
/// Lowest rate in Mbit/s: a modem's.
pub const RATE_MIN: f64 = 0.001;
/// Least MTU: every IPv4 link carries 68 bytes (RFC 791).
pub const MTU_MIN: u32 = 68;
/// Largest MTU: the jumbo frames of common NICs and switches.
pub const MTU_MAX: u32 = 9_600;
/// The MTU of a path that names none.
pub const MTU_DEFAULT: u32 = 1_500;
/// Shortest default queue: below it, a burst of one window of a slow path would not fit.
pub const QUEUE_FRAMES_MIN: u32 = 100;
/// Longest queue, asked for or computed: its times take 8 MiB, its frames 2 GiB.
pub const QUEUE_FRAMES_MAX: u32 = 1 << 20;
/// An Ethernet frame with 1500 bytes of payload, in bits: the unit in which a BDP is counted.
const FULL_FRAME_BITS: f64 = 1_514.0 * 8.0;

/// What one direction of a path does to frames. The default is a wire: no delay, no limit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathProfile {
    /// One-way delay, milliseconds, 0 to [`DELAY_MS_MAX`].
    pub delay_ms: f64,
    /// Standard deviation of the delay, milliseconds. Delays are normal around `delay_ms`; one
    /// below zero is zero. Frames may overtake one another.
    pub jitter_ms: f64,
    /// Mbit/s of whole Ethernet frames (header and payload, without FCS and preamble), [`RATE_MIN`] to
    /// [`RATE_MAX`]. None is unlimited, and then there is no queue.
    pub rate: Option<f64>,
    /// How many frames wait behind the one being sent before the tail is dropped. None is one BDP
    /// (rate times round trip, in full frames), but at least [`QUEUE_FRAMES_MIN`].
    pub queue_frames: Option<u32>,
    /// Share of frames lost, 0 to 1.
    pub loss: f64,
    /// Mean run of lost frames. 1 is independent loss; above 1 the losses are a Gilbert chain,
    /// which needs at least `loss / (1 - loss)`.
    pub burst: f64,
    /// Probability that a frame takes a longer way, so that those behind it overtake it.
    pub reorder: f64,
    /// How much later such a frame is, milliseconds: uniform between half and one and a half of it.
    pub reorder_ms: f64,
    /// Probability that a frame arrives twice. The copy has its own jitter and bit errors.
    pub duplicate: f64,
    /// Probability that one to three bits behind the Ethernet header flip.
    pub corrupt: f64,
    /// Largest network-layer packet, bytes; VLAN tags do not count. Longer frames are dropped.
    pub mtu: u32,
}

impl Default for PathProfile {
    fn default() -> Self {
        Self {
            delay_ms: 0.0,
            jitter_ms: 0.0,
            rate: None,
            queue_frames: None,
            loss: 0.0,
            burst: 1.0,
            reorder: 0.0,
            reorder_ms: 5.0,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: MTU_DEFAULT,
        }
    }
}

/// A parameter outside its range. `key` is the name of the profile's field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key} = {value}: must be {expected}")]
pub struct InvalidProfile {
    /// Which parameter.
    pub key: &'static str,
    /// What it was.
    pub value: f64,
    /// What it may be.
    pub expected: String,
}

impl PathProfile {
    /// Checks every parameter.
    ///
    /// # Errors
    ///
    /// The first parameter that is outside its range or not a number.
    pub fn check(&self) -> Result<(), InvalidProfile> {
        for (key, value) in [
            ("delay_ms", self.delay_ms),
            ("jitter_ms", self.jitter_ms),
            ("reorder_ms", self.reorder_ms),
        ] {
            require(key, value, (0.0..=DELAY_MS_MAX).contains(&value), || {
                format!("between 0 and {DELAY_MS_MAX} milliseconds")
            })?;
        }
        for (key, value) in [
            ("loss", self.loss),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ] {
            require(key, value, (0.0..=1.0).contains(&value), || {
                "a probability between 0 and 1".to_owned()
            })?;
        }
        if let Some(rate) = self.rate {
            require("rate", rate, (RATE_MIN..=RATE_MAX).contains(&rate), || {
                format!("between {RATE_MIN} and {RATE_MAX} Mbit/s; leave it out for no limit")
            })?;
        }
        require(
            "burst",
            self.burst,
            self.burst >= 1.0 && self.burst <= 1e6,
            || "between 1 and 1000000 frames".to_owned(),
        )?;
        // A good state lasts at least one frame, so the runs between them must be long enough.
        let burst_min = self.loss / (1.0 - self.loss);
        require(
            "burst",
            self.burst,
            self.burst == 1.0 || self.loss >= 1.0 || self.burst >= burst_min,
            || format!("1, or at least loss / (1 - loss) = {burst_min:.3}"),
        )?;
        require(
            "mtu",
            f64::from(self.mtu),
            (MTU_MIN..=MTU_MAX).contains(&self.mtu),
            || format!("between {MTU_MIN} and {MTU_MAX} bytes"),
        )?;
        if let Some(frames) = self.queue_frames {
            require(
                "queue_frames",
                f64::from(frames),
                frames <= QUEUE_FRAMES_MAX,
                || format!("at most {QUEUE_FRAMES_MAX}"),
            )?;
        }
        Ok(())
    }

    /// How many frames may wait at the bottleneck; None if the rate is unlimited.
    pub fn queue_limit(&self) -> Option<u32> {
        let rate = self.rate?;
        Some(self.queue_frames.unwrap_or_else(|| {
            let bdp_bits = rate * 1e6 * 2.0 * self.delay_ms / 1e3;
            // The cast saturates; a BDP above the bound gets the bound.
            ((bdp_bits / FULL_FRAME_BITS).ceil() as u32).clamp(QUEUE_FRAMES_MIN, QUEUE_FRAMES_MAX)
        }))
    }
}

fn require(
    key: &'static str,
    value: f64,
    holds: bool,
    expected: impl FnOnce() -> String,
) -> Result<(), InvalidProfile> {
    if holds {
        return Ok(());
    }
    Err(InvalidProfile {
        key,
        value,
        expected: expected(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_one_bdp_but_at_least_a_hundred_frames() {
        let profile = |delay_ms, rate, queue_frames| PathProfile {
            delay_ms,
            rate,
            queue_frames,
            ..PathProfile::default()
        };
        // 200 Mbit/s x 40 ms = 1 MB = 660.5 full frames.
        assert_eq!(profile(20.0, Some(200.0), None).queue_limit(), Some(661));
        assert_eq!(profile(1.0, Some(10.0), None).queue_limit(), Some(100));
        assert_eq!(profile(20.0, Some(200.0), Some(7)).queue_limit(), Some(7));
        assert_eq!(profile(20.0, None, Some(7)).queue_limit(), None);
        assert_eq!(
            profile(DELAY_MS_MAX, Some(RATE_MAX), None).queue_limit(),
            Some(QUEUE_FRAMES_MAX)
        );
    }

    #[test]
    fn every_parameter_is_checked_and_named() {
        type Change = fn(&mut PathProfile);
        let wrong: [(&str, Change); 14] = [
            ("delay_ms", |p| p.delay_ms = -1.0),
            ("delay_ms", |p| p.delay_ms = f64::NAN),
            ("jitter_ms", |p| p.jitter_ms = f64::INFINITY),
            ("reorder_ms", |p| p.reorder_ms = -0.1),
            ("rate", |p| p.rate = Some(0.0)),
            ("rate", |p| p.rate = Some(f64::NAN)),
            ("loss", |p| p.loss = 1.1),
            ("reorder", |p| p.reorder = -0.1),
            ("duplicate", |p| p.duplicate = 2.0),
            ("corrupt", |p| p.corrupt = f64::NAN),
            ("burst", |p| p.burst = 0.5),
            ("burst", |p| (p.loss, p.burst) = (0.9, 2.0)),
            ("mtu", |p| p.mtu = 67),
            ("queue_frames", |p| {
                p.queue_frames = Some(QUEUE_FRAMES_MAX + 1);
            }),
        ];
        assert_eq!(PathProfile::default().check(), Ok(()));
        for (key, change) in wrong {
            let mut profile = PathProfile::default();
            change(&mut profile);
            assert_eq!(profile.check().map_err(|e| e.key), Err(key));
        }
        // At the edge.
        let edge = PathProfile {
            loss: 0.9,
            burst: 9.1,
            ..PathProfile::default()
        };
        assert_eq!(edge.check(), Ok(()));
    }
}
