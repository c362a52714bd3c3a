//! The bottleneck's queue over time, looked at by the clock and not by its frames: a frame that
//! arrives sees the queue that its own burst has made.

use std::time::Duration;

use hdrhistogram::Histogram;
use shardgate_core::time::Time;
use shardgate_sim::path::QUEUE_FRAMES_MAX;

use super::report::{QueueReport, Spread};

/// Time between two looks: a few dozen in a round trip of a WAN.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);
/// Samples in a window at first.
const SAMPLES_PER_WINDOW: u64 = 10;
/// Windows kept. When they are full, each two become one: an hour is then seen in windows of 26 s,
/// the first 25 s in windows of 100 ms.
const WINDOWS_MAX: usize = 256;
/// Delays are recorded up to a minute, in 1 % steps.
const DELAY_NS_MAX: u64 = 60_000_000_000;

/// Sums over some samples.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    samples: u64,
    frames: u64,
    delay_ns: u64,
}

/// Samples of one queue: distributions over the whole run, and means over windows of it. All
/// memory is taken when it is made.
#[derive(Debug)]
pub(super) struct QueueSampler {
    next: Time,
    samples_per_window: u64,
    windows: Vec<Window>,
    frames: Histogram<u64>,
    delay_ns: Histogram<u64>,
}

impl QueueSampler {
    /// A sampler that looks first one interval after the clock's zero; `None` only if the
    /// histograms refuse their bounds, which are constants.
    pub fn new() -> Option<Self> {
        Some(Self {
            next: Time::ZERO + SAMPLE_INTERVAL,
            samples_per_window: SAMPLES_PER_WINDOW,
            windows: Vec::with_capacity(WINDOWS_MAX),
            frames: Histogram::new_with_bounds(1, u64::from(QUEUE_FRAMES_MAX), 2).ok()?,
            delay_ns: Histogram::new_with_bounds(1, DELAY_NS_MAX, 2).ok()?,
        })
    }

    /// Takes the samples that are due at `now`. `look` says how many frames are queued at a time,
    /// and how long the next one would wait: a caller that was held up is asked about the past.
    pub fn sample(&mut self, now: Time, look: impl Fn(Time) -> (usize, Duration)) {
        while self.next <= now {
            let (frames, delay) = look(self.next);
            self.record(frames as u64, delay.as_nanos() as u64);
            self.next += SAMPLE_INTERVAL;
        }
    }

    fn record(&mut self, frames: u64, delay_ns: u64) {
        self.frames.saturating_record(frames);
        self.delay_ns.saturating_record(delay_ns);
        let samples_per_window = self.samples_per_window;
        match self.windows.last_mut() {
            Some(window) if window.samples < samples_per_window => window.add(frames, delay_ns),
            _ => {
                if self.windows.len() >= WINDOWS_MAX {
                    self.halve();
                }
                let mut window = Window::default();
                window.add(frames, delay_ns);
                self.windows.push(window);
            }
        }
    }

    /// Makes one window of each two. The number of full windows is even when this is called.
    fn halve(&mut self) {
        for index in 0..self.windows.len() / 2 {
            let (first, second) = (self.windows[2 * index], self.windows[2 * index + 1]);
            self.windows[index] = Window {
                samples: first.samples + second.samples,
                frames: first.frames + second.frames,
                delay_ns: first.delay_ns + second.delay_ns,
            };
        }
        self.windows.truncate(self.windows.len() / 2);
        self.samples_per_window *= 2;
    }

    /// What was seen.
    pub fn report(&self) -> QueueReport {
        let interval_ms = SAMPLE_INTERVAL.as_secs_f64() * 1e3;
        let mean = |sum: u64, samples: u64| sum as f64 / samples.max(1) as f64;
        let all = self
            .windows
            .iter()
            .fold(Window::default(), |all, window| Window {
                samples: all.samples + window.samples,
                frames: all.frames + window.frames,
                delay_ns: all.delay_ns + window.delay_ns,
            });
        QueueReport {
            sample_ms: interval_ms,
            samples: all.samples,
            frames: Spread::of(&self.frames, mean(all.frames, all.samples), 1.0),
            delay_ms: Spread::of(&self.delay_ns, mean(all.delay_ns, all.samples), 1e6),
            window_ms: interval_ms * self.samples_per_window as f64,
            window_frames: (self.windows.iter())
                .map(|window| mean(window.frames, window.samples))
                .collect(),
            window_delay_ms: (self.windows.iter())
                .map(|window| mean(window.delay_ns, window.samples) / 1e6)
                .collect(),
        }
    }
}

impl Window {
    fn add(&mut self, frames: u64, delay_ns: u64) {
        self.samples += 1;
        self.frames += frames;
        self.delay_ns += delay_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue whose length is the time in samples.
    fn ramp(at: Time) -> (usize, Duration) {
        let samples = at.as_nanos() / SAMPLE_INTERVAL.as_nanos() as u64;
        (samples as usize, Duration::from_millis(samples))
    }

    fn sampler() -> QueueSampler {
        QueueSampler::new().expect("bounds that a histogram accepts")
    }

    #[test]
    fn samples_by_the_clock_however_often_it_is_asked() {
        let (mut often, mut seldom) = (sampler(), sampler());
        for us in 0..=1_000_000 {
            often.sample(Time::ZERO + Duration::from_micros(us), ramp);
        }
        for ms in [7, 500, 995, 1_000] {
            seldom.sample(Time::ZERO + Duration::from_millis(ms), ramp);
        }
        assert_eq!(often.report(), seldom.report());
        let report = often.report();
        assert_eq!((report.samples, report.frames.max), (100, 100.0));
        assert_eq!(report.frames.mean, 50.5);
        assert_eq!(report.delay_ms.mean, 50.5);
        assert_eq!(report.window_ms, 100.0);
        let means: Vec<f64> = (0..10).map(|tens| f64::from(tens) * 10.0 + 5.5).collect();
        assert_eq!(report.window_frames, means);
        assert_eq!(report.window_delay_ms, means);
    }

    #[test]
    fn windows_grow_and_keep_the_sums() {
        let mut sampler = sampler();
        // Three halvings: 256 windows of 10 samples, and of 20, and of 40, and some of 80.
        let samples = 2_560 * 5 + 13;
        for sample in 1..=samples {
            sampler.sample(Time::ZERO + SAMPLE_INTERVAL * sample, ramp);
        }
        assert!(sampler.windows.len() <= WINDOWS_MAX);
        assert_eq!(sampler.windows.capacity(), WINDOWS_MAX, "no allocation");
        let report = sampler.report();
        assert_eq!(report.samples, u64::from(samples));
        assert_eq!(report.window_ms, 800.0);
        assert_eq!(report.frames.mean, f64::from(samples + 1) / 2.0);
        let (last, full) = report.window_frames.split_last().expect("windows");
        for (index, mean) in full.iter().enumerate() {
            assert_eq!(*mean, index as f64 * 80.0 + 40.5);
        }
        assert_eq!(*last, f64::from(samples) - 6.0, "13 samples in the last");
    }

    #[test]
    fn what_is_beyond_the_histograms_is_not_lost_from_the_mean() {
        let mut sampler = sampler();
        let minutes = Duration::from_secs(120);
        sampler.sample(Time::ZERO + SAMPLE_INTERVAL, |_| (1 << 21, minutes));
        let report = sampler.report();
        assert_eq!(report.delay_ms.mean, 120e3);
        assert!(report.delay_ms.max < 61e3, "{report:?}");
        assert_eq!(report.frames.mean, f64::from(1 << 21));
    }
}
