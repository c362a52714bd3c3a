//! The model of one direction of a path.

use std::collections::VecDeque;
use std::time::Duration;

use shardgate_core::time::Time;

use super::corruption::Corruption;
use super::frame::FrameShape;
use super::loss::LossProcess;
use super::profile::{InvalidProfile, PathProfile};
use super::random::{Chance, Source, Stream};

/// Why a frame does not come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// Longer than the path's MTU.
    Mtu,
    /// The queue in front of the link was full.
    Queue,
    /// Lost on the link.
    Loss,
}

/// One copy of a frame leaving the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// When it leaves. Never before it was offered.
    pub at: Time,
    /// Bits that have flipped by then.
    pub corruption: Option<Corruption>,
}

/// The copies of one frame that leave the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departures {
    /// The frame.
    pub first: Departure,
    /// Its duplicate, if it got one; with jitter it may leave before the frame.
    pub duplicate: Option<Departure>,
}

/// What becomes of an offered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves, once or twice.
    Forward(Departures),
    /// It does not.
    Drop(DropCause),
}

/// What a path has done so far, in frames. `offered` is the sum of the three drops and of the
/// frames forwarded, which leave `offered - drops + duplicated` times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Frames offered.
    pub offered: u64,
    /// Dropped as longer than the MTU.
    pub mtu_drops: u64,
    /// Dropped at the tail of the queue.
    pub queue_drops: u64,
    /// Lost on the link.
    pub lost: u64,
    /// Frames that leave twice.
    pub duplicated: u64,
    /// Departures with flipped bits.
    pub corrupted: u64,
    /// Departures sent the longer way by `reorder`.
    pub held_back: u64,
}

/// One direction of one path; see the crate's documentation for the order of its parts.
#[derive(Clone, Debug)]
pub struct PathModel {
    mtu: usize,
    link: Option<Link>,
    loss: LossProcess,
    delay_ns: f64,
    jitter_ns: f64,
    reorder: Chance,
    reorder_ns: f64,
    duplicate: Chance,
    corrupt: Chance,
    jitter_source: Source,
    reorder_source: Source,
    duplicate_source: Source,
    corrupt_source: Source,
    counters: PathCounters,
}

impl PathModel {
    /// A path at rest. All memory it will ever use is allocated here.
    ///
    /// # Errors
    ///
    /// If a parameter is outside its range.
    pub fn new(profile: &PathProfile, seed: u64) -> Result<Self, InvalidProfile> {
        profile.check()?;
        Ok(Self {
            mtu: profile.mtu as usize,
            link: profile
                .rate
                .zip(profile.queue_limit())
                .map(|(rate, limit)| Link::new(rate, limit as usize)),
            loss: LossProcess::new(profile.loss, profile.burst, seed),
            delay_ns: profile.delay_ms * 1e6,
            jitter_ns: profile.jitter_ms * 1e6,
            reorder: Chance::new(profile.reorder),
            reorder_ns: profile.reorder_ms * 1e6,
            duplicate: Chance::new(profile.duplicate),
            corrupt: Chance::new(profile.corrupt),
            jitter_source: Source::new(seed, Stream::Jitter),
            reorder_source: Source::new(seed, Stream::Reorder),
            duplicate_source: Source::new(seed, Stream::Duplicate),
            corrupt_source: Source::new(seed, Stream::Corrupt),
            counters: PathCounters::default(),
        })
    }

    /// Changes the path to another profile from now on. What is under way stays as it is, and so does the
    /// luck; a queue goes on where it was, at the new rate.
    ///
    /// # Errors
    ///
    /// If a parameter is outside its range.
    pub fn change(&mut self, profile: &PathProfile) -> Result<(), InvalidProfile> {
        profile.check()?;
        self.mtu = profile.mtu as usize;
        let link = (profile.rate.zip(profile.queue_limit()))
            .map(|(rate, limit)| Link::new(rate, limit as usize));
        self.link = link.map(|link| match self.link.take() {
            Some(before) => Link {
                idle_at_scaled_ns: before.idle_at_scaled_ns,
                finish_ns: before.finish_ns,
                ..link
            },
            None => link,
        });
        self.loss.change(profile.loss, profile.burst);
        self.delay_ns = profile.delay_ms * 1e6;
        self.jitter_ns = profile.jitter_ms * 1e6;
        self.reorder = Chance::new(profile.reorder);
        self.reorder_ns = profile.reorder_ms * 1e6;
        self.duplicate = Chance::new(profile.duplicate);
        self.corrupt = Chance::new(profile.corrupt);
        Ok(())
    }

    /// Offers a frame at `now` and says what becomes of it. Does not allocate.
    ///
    /// `now` is the caller's clock; a call with an earlier time than the last one is taken as
    /// simultaneous with it where the queue is concerned.
    pub fn offer(&mut self, now: Time, shape: FrameShape) -> Verdict {
        self.counters.offered += 1;
        if shape.payload_len() > self.mtu {
            self.counters.mtu_drops += 1;
            return Verdict::Drop(DropCause::Mtu);
        }
        let sent_ns = match &mut self.link {
            None => now.as_nanos(),
            Some(link) => match link.send(now.as_nanos(), shape.len()) {
                Some(sent_ns) => sent_ns,
                None => {
                    self.counters.queue_drops += 1;
                    return Verdict::Drop(DropCause::Queue);
                }
            },
        };
        if self.loss.next_is_lost() {
            self.counters.lost += 1;
            return Verdict::Drop(DropCause::Loss);
        }
        let first = self.depart(sent_ns, shape);
        let duplicate = if self.duplicate_source.happens(self.duplicate) {
            self.counters.duplicated += 1;
            Some(self.depart(sent_ns, shape))
        } else {
            None
        };
        Verdict::Forward(Departures { first, duplicate })
    }

    /// What the path has done so far.
    pub fn counters(&self) -> PathCounters {
        self.counters
    }

    /// Frames at the bottleneck at `now`: those that wait and the one being sent.
    pub fn queued(&self, now: Time) -> usize {
        self.link
            .as_ref()
            .map_or(0, |link| link.queued(now.as_nanos()))
    }

    /// How long a frame offered at `now` would wait until its first bit is sent.
    pub fn queue_delay(&self, now: Time) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, |link| {
            Duration::from_nanos(link.idle_at_ns().saturating_sub(now.as_nanos()))
        })
    }

    fn depart(&mut self, sent_ns: u64, shape: FrameShape) -> Departure {
        let mut delay_ns = self.delay_ns;
        if self.jitter_ns > 0.0 {
            delay_ns = (delay_ns + self.jitter_ns * self.jitter_source.normal()).max(0.0);
        }
        if self.reorder_source.happens(self.reorder) {
            self.counters.held_back += 1;
            delay_ns += self.reorder_ns * (0.5 + self.reorder_source.uniform());
        }
        let corruption = if self.corrupt_source.happens(self.corrupt) {
            Corruption::draw(&mut self.corrupt_source, shape)
        } else {
            None
        };
        self.counters.corrupted += u64::from(corruption.is_some());
        Departure {
            at: Time(sent_ns.saturating_add(delay_ns.round() as u64)),
            corruption,
        }
    }
}

/// The bottleneck: a link of a fixed rate behind a drop-tail queue.
#[derive(Clone, Debug)]
struct Link {
    /// Nanoseconds per byte, scaled by 2^[`FRACTION_BITS`].
    scaled_ns_per_byte: u128,
    limit: usize,
    /// When the link falls idle, scaled alike: rounding must not add up over frames.
    idle_at_scaled_ns: u128,
    /// When each frame in the system has been sent, in nanoseconds, oldest first.
    finish_ns: VecDeque<u64>,
}

/// 2^-32 ns keep the highest rate exact to 10^-8.
const FRACTION_BITS: u32 = 32;

impl Link {
    fn new(rate_mbit: f64, limit: usize) -> Self {
        let ns_per_byte = 8e3 / rate_mbit;
        Self {
            scaled_ns_per_byte: (ns_per_byte * (1u64 << FRACTION_BITS) as f64).round() as u128,
            limit,
            idle_at_scaled_ns: 0,
            finish_ns: VecDeque::with_capacity(limit + 1),
        }
    }

    /// When a frame offered now has been sent, or None if the queue is full.
    fn send(&mut self, now_ns: u64, len: usize) -> Option<u64> {
        while self.finish_ns.front().is_some_and(|&at| at <= now_ns) {
            self.finish_ns.pop_front();
        }
        if self.finish_ns.len() > self.limit {
            return None;
        }
        let start = self
            .idle_at_scaled_ns
            .max(u128::from(now_ns) << FRACTION_BITS);
        self.idle_at_scaled_ns = start + len as u128 * self.scaled_ns_per_byte;
        let finish_ns = self.idle_at_ns();
        self.finish_ns.push_back(finish_ns);
        Some(finish_ns)
    }

    fn idle_at_ns(&self) -> u64 {
        u64::try_from(self.idle_at_scaled_ns >> FRACTION_BITS).unwrap_or(u64::MAX)
    }

    fn queued(&self, now_ns: u64) -> usize {
        self.finish_ns.len() - self.finish_ns.partition_point(|&at| at <= now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(profile: PathProfile) -> PathModel {
        PathModel::new(&profile, 1).expect("a valid profile")
    }

    fn departure(verdict: Verdict) -> Option<u64> {
        match verdict {
            Verdict::Forward(departures) => Some(departures.first.at.as_nanos()),
            Verdict::Drop(_) => None,
        }
    }

    #[test]
    fn a_default_path_is_a_wire() {
        let mut path = model(PathProfile::default());
        let verdict = path.offer(Time(5), FrameShape::untagged(1_514));
        assert_eq!(
            verdict,
            Verdict::Forward(Departures {
                first: Departure {
                    at: Time(5),
                    corruption: None
                },
                duplicate: None
            })
        );
    }

    #[test]
    fn frames_up_to_the_mtu_pass_tagged_or_not() {
        let mut path = model(PathProfile::default());
        let mut tagged = vec![0u8; 1_518];
        tagged[12] = 0x81;
        assert!(departure(path.offer(Time(0), FrameShape::of(&tagged))).is_some());
        assert!(departure(path.offer(Time(0), FrameShape::untagged(1_514))).is_some());
        let long = path.offer(Time(0), FrameShape::untagged(1_515));
        assert_eq!(long, Verdict::Drop(DropCause::Mtu));
        assert_eq!(path.counters().mtu_drops, 1);
    }

    #[test]
    fn the_link_serialises_and_its_queue_is_finite() {
        // 8 Mbit/s: a microsecond per byte.
        let mut path = model(PathProfile {
            delay_ms: 1.0,
            rate: Some(8.0),
            queue_frames: Some(2),
            ..PathProfile::default()
        });
        let mut offer = |now| departure(path.offer(Time(now), FrameShape::untagged(100)));
        assert_eq!(offer(0), Some(1_100_000));
        assert_eq!(offer(0), Some(1_200_000));
        assert_eq!(offer(50_000), Some(1_300_000));
        assert_eq!(offer(99_999), None, "one being sent, two waiting");
        assert_eq!(offer(100_000), Some(1_400_000), "the first has been sent");
        // Idle again: no credit is saved up.
        assert_eq!(offer(10_000_000), Some(11_100_000));
        assert_eq!(path.counters().queue_drops, 1);
        assert_eq!(path.queued(Time(10_050_000)), 1);
        assert_eq!(path.queued(Time(10_100_000)), 0);
        assert_eq!(
            path.queue_delay(Time(10_050_000)),
            Duration::from_micros(50)
        );
        assert_eq!(path.queue_delay(Time(10_100_001)), Duration::ZERO);
    }

    #[test]
    fn a_lost_frame_has_used_the_link() {
        let mut path = model(PathProfile {
            rate: Some(8.0),
            loss: 1.0,
            ..PathProfile::default()
        });
        let verdict = path.offer(Time(0), FrameShape::untagged(100));
        assert_eq!(verdict, Verdict::Drop(DropCause::Loss));
        assert_eq!(path.queued(Time(99_999)), 1);
    }
}
