//! When datagrams are sent, and how long they are.

use shardgate_core::time::Time;

use crate::path::random::{Source, Stream};

/// A pattern of datagrams. Lengths are of UDP payloads, at least 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// One after the other at equal distances.
    Constant {
        /// Datagrams a second, more than zero.
        per_second: f64,
        /// Bytes of each.
        payload_len: usize,
    },
    /// Constant while on, silent while off; both last exponentially long.
    OnOff {
        /// Datagrams a second while on, more than zero.
        per_second: f64,
        /// Bytes of each.
        payload_len: usize,
        /// Mean time on, seconds.
        on_s: f64,
        /// Mean time off, seconds.
        off_s: f64,
    },
    /// Pictures at equal distances, each sent as one burst. Sizes vary by a fifth (standard
    /// deviation of a normal distribution); every `key_every`th is five times as large.
    Video {
        /// Mbit/s of payload on average.
        mbit_per_s: f64,
        /// Pictures a second, more than zero.
        per_second: f64,
        /// Bytes of a full datagram.
        payload_len: usize,
        /// Distance of key pictures, at least 1.
        key_every: u32,
    },
}

/// How much larger a key picture is than another.
const KEY_FACTOR: f64 = 5.0;
/// Standard deviation of a picture's size, as a share of it.
const SIZE_DEVIATION: f64 = 0.2;
/// No datagram is shorter: its number must fit.
const PAYLOAD_MIN: usize = 8;

/// The datagrams of a schedule, one by one.
#[derive(Debug)]
pub struct Datagrams {
    schedule: Schedule,
    source: Source,
    next_ns: f64,
    /// When the present period of being on ends.
    on_until_ns: f64,
    /// Bytes of the present picture that are still to be sent.
    picture_left: usize,
    pictures: u32,
}

impl Datagrams {
    /// From `start` on, up to one period later.
    pub fn new(schedule: Schedule, start: Time, seed: u64) -> Self {
        let mut source = Source::new(seed, Stream::Traffic);
        let start_ns = start.as_nanos() as f64;
        let mut datagrams = Self {
            next_ns: start_ns + source.uniform() * schedule.period_ns(),
            schedule,
            source,
            on_until_ns: start_ns,
            picture_left: 0,
            pictures: 0,
        };
        match schedule {
            Schedule::Constant { .. } => {}
            Schedule::OnOff { on_s, .. } => {
                datagrams.on_until_ns = datagrams.next_ns + datagrams.exponential_ns(on_s);
            }
            Schedule::Video { .. } => datagrams.begin_picture(),
        }
        datagrams
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Time {
        Time(self.next_ns as u64)
    }

    /// Payload bytes of the next one, which is thereby sent.
    pub fn take(&mut self) -> usize {
        match self.schedule {
            Schedule::Constant { payload_len, .. } => {
                self.next_ns += self.schedule.period_ns();
                payload_len.max(PAYLOAD_MIN)
            }
            Schedule::OnOff {
                payload_len,
                on_s,
                off_s,
                ..
            } => {
                self.next_ns += self.schedule.period_ns();
                if self.next_ns > self.on_until_ns {
                    self.next_ns += self.exponential_ns(off_s);
                    self.on_until_ns = self.next_ns + self.exponential_ns(on_s);
                }
                payload_len.max(PAYLOAD_MIN)
            }
            Schedule::Video { payload_len, .. } => {
                let len = payload_len.max(PAYLOAD_MIN).min(self.picture_left);
                self.picture_left -= len;
                if self.picture_left == 0 {
                    self.next_ns += self.schedule.period_ns();
                    self.begin_picture();
                }
                len.max(PAYLOAD_MIN)
            }
        }
    }

    fn exponential_ns(&mut self, mean_s: f64) -> f64 {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        -(1.0 - self.source.uniform()).ln() * mean_s * 1e9
    }

    fn begin_picture(&mut self) {
        let Schedule::Video {
            mbit_per_s,
            per_second,
            key_every,
            ..
        } = self.schedule
        else {
            return;
        };
        let key_every = key_every.max(1);
        let is_key = self.pictures.is_multiple_of(key_every);
        self.pictures += 1;
        // The mean over one key picture and those that follow it is the rate's.
        let every = f64::from(key_every);
        let mean = mbit_per_s * 1e6 / 8.0 / per_second * every / (every - 1.0 + KEY_FACTOR);
        let scale = if is_key { KEY_FACTOR } else { 1.0 };
        let spread = 1.0 + SIZE_DEVIATION * self.source.normal();
        self.picture_left = ((mean * scale * spread.max(0.0)) as usize).max(PAYLOAD_MIN);
    }
}

impl Schedule {
    /// Distance of two datagrams or pictures.
    fn period_ns(self) -> f64 {
        let (Self::Constant { per_second, .. }
        | Self::OnOff { per_second, .. }
        | Self::Video { per_second, .. }) = self;
        1e9 / per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times and lengths of the first ten seconds.
    fn ten_seconds(schedule: Schedule, seed: u64) -> Vec<(u64, usize)> {
        let mut datagrams = Datagrams::new(schedule, Time::ZERO, seed);
        std::iter::from_fn(|| {
            let at = datagrams.next_at().as_nanos();
            (at < 10_000_000_000).then(|| (at, datagrams.take()))
        })
        .collect()
    }

    #[test]
    fn a_constant_rate_is_exact_and_starts_within_a_period() {
        let schedule = Schedule::Constant {
            per_second: 50.0,
            payload_len: 100,
        };
        for seed in 0..20 {
            let sent = ten_seconds(schedule, seed);
            assert_eq!(sent.len(), 500);
            assert!(sent[0].0 < 20_000_000);
            for (turn, &(at, len)) in sent.iter().enumerate() {
                assert!(at.abs_diff(sent[0].0 + turn as u64 * 20_000_000) <= 1);
                assert_eq!(len, 100);
            }
        }
    }

    #[test]
    fn on_and_off_take_their_shares() {
        let schedule = Schedule::OnOff {
            per_second: 1_000.0,
            payload_len: 200,
            on_s: 0.1,
            off_s: 0.3,
        };
        let sent: Vec<_> = (0..20).map(|seed| ten_seconds(schedule, seed)).collect();
        // A quarter of 10,000, over 20 x 25 periods: a standard error of about 5 %.
        let mean = sent.iter().map(Vec::len).sum::<usize>() / 20;
        assert!((2_000..3_000).contains(&mean), "{mean}");
        let gaps = sent[0].windows(2).map(|pair| pair[1].0 - pair[0].0);
        let (short, long): (Vec<_>, Vec<_>) = gaps.partition(|&gap| gap <= 1_000_001);
        assert!(
            short.len() > 500 && (5..100).contains(&long.len()),
            "{}",
            long.len()
        );
    }

    #[test]
    fn video_comes_in_bursts_at_its_rate() {
        let schedule = Schedule::Video {
            mbit_per_s: 6.0,
            per_second: 30.0,
            payload_len: 1_200,
            key_every: 30,
        };
        let sent = ten_seconds(schedule, 1);
        let rate = sent.iter().map(|&(_, len)| len as f64 * 8.0).sum::<f64>() / 10.0 / 1e6;
        assert!((5.4..6.6).contains(&rate), "{rate}");
        let mut pictures: Vec<(u64, usize)> = Vec::new();
        for (at, len) in sent {
            match pictures.last_mut() {
                Some(last) if last.0 == at => last.1 += len,
                _ => pictures.push((at, len)),
            }
        }
        assert!((299..=300).contains(&pictures.len()), "{}", pictures.len());
        let mean = |offset: usize| {
            pictures
                .iter()
                .skip(offset)
                .step_by(30)
                .map(|p| p.1)
                .sum::<usize>()
                / 10
        };
        assert!(mean(0) > 3 * mean(1), "{} and {}", mean(0), mean(1));
    }
}
