//! How a path loses: how often, and how many in a row.

use core::time::Duration;

use super::{Tally, seconds};
use crate::time::Time;

/// Shards after which a fate counts 1/e. At 20,000 shards a second that is half a second, and at 1 %
/// in bursts of 3 it leaves some 30 bursts to judge by.
const MEMORY_SHARDS: f64 = 10_000.0;
/// Time after which a fate counts 1/e: a thin path adapts within seconds, not minutes.
const MEMORY: f64 = 3.0;
/// Weight of a burst among the last ones: a path that turns to bursts shows it in eight of them.
const RECENT_WEIGHT: f64 = 1.0 / 8.0;
/// Loss events are divided by no less than this: one loss in the first millisecond is no thousand a
/// second.
const EVENTS_OVER_MIN: f64 = 1.0;

/// Loss rate and mean burst of a path: the two numbers of Gilbert's channel (1960), fitted to the
/// fates of its shards with forgetting.
///
/// Both are ratios of sums whose terms lose weight with each later shard and with time. The rate is
/// lost shards to all shards. The mean burst is that of whole bursts, so that an outage longer than
/// the memory still counts once.
#[derive(Clone, Debug, Default)]
pub struct LossRuns {
    tally: Tally,
    started: Time,
    all: f64,
    lost: f64,
    /// Ended bursts and the shards in them.
    bursts: f64,
    in_bursts: f64,
    /// Mean length of the last few.
    recent: Option<f64>,
    /// Lost shards in a row, up to now.
    run: u64,
    /// Bursts begun, forgotten with time alone.
    events: f64,
    last_loss: Option<Time>,
}

impl LossRuns {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fate of the path's next shard.
    pub fn outcome(&mut self, lost: bool, now: Time) {
        if lost {
            self.losses(1, now);
        } else {
            self.outcomes(1, now);
        }
    }

    /// The path's next `received_run` shards all arrived.
    pub fn outcomes(&mut self, received_run: u32, now: Time) {
        if received_run == 0 {
            return;
        }
        self.forget(received_run, now);
        if self.run > 0 {
            // The burst ended one shard into this run.
            let weight = (-f64::from(received_run - 1) / MEMORY_SHARDS).exp();
            self.bursts += weight;
            self.in_bursts += weight * self.run as f64;
            let run = self.run as f64;
            let recent = self.recent.get_or_insert(run);
            *recent += RECENT_WEIGHT * (run - *recent);
            self.run = 0;
        }
    }

    /// The path's next `lost_run` shards are all lost.
    pub fn losses(&mut self, lost_run: u32, now: Time) {
        if lost_run == 0 {
            return;
        }
        self.lost += self.forget(lost_run, now);
        if self.run == 0 {
            self.events += 1.0;
        }
        self.run = self.run.saturating_add(u64::from(lost_run));
        self.last_loss = Some(now);
    }

    /// A shard that was declared lost came after all.
    ///
    /// Which burst it was declared part of is not known; it is taken from the mean one, so that
    /// the mean stays and a path that only reorders ends with no bursts at all.
    pub fn was_late(&mut self, _now: Time) {
        let burst = self.burst_len().unwrap_or(1.0);
        self.lost = (self.lost - 1.0).max(0.0);
        self.events = (self.events - 1.0 / burst).max(0.0);
        if self.in_bursts > 0.0 {
            let left = (self.in_bursts - 1.0).max(0.0);
            self.bursts *= left / self.in_bursts;
            self.in_bursts = left;
        } else {
            self.run = self.run.saturating_sub(1);
        }
        // Below half a shard of weight nothing is left but rounding and what was forgotten.
        if self.lost < 0.5 && self.run == 0 {
            (self.lost, self.bursts, self.in_bursts) = (0.0, 0.0, 0.0);
            (self.last_loss, self.recent) = (None, None);
        }
    }

    /// Share of shards that are lost, 0 to 1.
    pub fn loss_rate(&self) -> Option<f64> {
        (self.tally.count > 0).then(|| (self.lost / self.all).clamp(0.0, 1.0))
    }

    /// Mean shards lost in a row, at least 1; unknown while no loss is remembered.
    ///
    /// A burst that has not ended counts once it is longer than the mean of the others.
    pub fn burst_len(&self) -> Option<f64> {
        let run = self.run as f64;
        let ended = (self.bursts > 0.0).then(|| self.in_bursts / self.bursts);
        let burst = match ended {
            Some(mean) if run <= mean => mean,
            _ if self.run == 0 => return None,
            _ => (self.in_bursts + run) / (self.bursts + 1.0),
        };
        Some(burst.max(1.0))
    }

    /// Mean length of the last few bursts that have ended, at least 1; wavers more than
    /// [`burst_len`](Self::burst_len), and follows sooner. Unknown before the first, and while no
    /// loss is remembered.
    pub fn recent_burst_len(&self) -> Option<f64> {
        self.burst_len()?;
        self.recent
    }

    /// Bursts of loss a second, over the last few seconds.
    pub fn events_per_second(&self, now: Time) -> Option<f64> {
        let age = seconds(self.tally.age(now)?);
        let over = seconds(now.since(self.started)).max(EVENTS_OVER_MIN);
        Some(self.events * (-age / MEMORY).exp() / (MEMORY * (1.0 - (-over / MEMORY).exp())))
    }

    /// How long ago a loss was last declared.
    pub fn since_loss(&self, now: Time) -> Option<Duration> {
        self.last_loss.map(|at| now.since(at))
    }

    /// How many recent shards the estimate rests on, by weight.
    pub fn weight(&self) -> f64 {
        self.all
    }

    /// How many shards' fates were told.
    pub fn count(&self) -> u64 {
        self.tally.count
    }

    /// How long ago the last one was.
    pub fn age(&self, now: Time) -> Option<Duration> {
        self.tally.age(now)
    }

    /// Ages all sums by `shards` shards and the time since the last; returns the weight of the
    /// new shards together.
    fn forget(&mut self, shards: u32, now: Time) -> f64 {
        let Some(passed) = self.tally.age(now) else {
            self.started = now;
            return self.grow(shards, 1.0, now);
        };
        let by_time = (-seconds(passed) / MEMORY).exp();
        self.events *= by_time;
        self.grow(shards, by_time, now)
    }

    fn grow(&mut self, shards: u32, by_time: f64, now: Time) -> f64 {
        let kept = by_time * (-f64::from(shards) / MEMORY_SHARDS).exp();
        for sum in [
            &mut self.all,
            &mut self.lost,
            &mut self.bursts,
            &mut self.in_bursts,
        ] {
            *sum *= kept;
        }
        // The geometric series of the new shards' weights, the newest's being 1.
        let new = (-f64::from(shards) / MEMORY_SHARDS).exp_m1() / (-1.0 / MEMORY_SHARDS).exp_m1();
        self.all += new;
        self.tally.note(u64::from(shards), now);
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::noise::Noise;
    use super::*;

    /// Gilbert's channel: loss rate p, mean burst B.
    struct Gilbert {
        noise: Noise,
        bad: bool,
    }

    impl Gilbert {
        fn lost(&mut self, p: f64, burst: f64) -> bool {
            let leave = 1.0 / burst;
            let enter = p * leave / (1.0 - p);
            let draw = self.noise.uniform();
            self.bad = if self.bad {
                draw >= leave
            } else {
                draw < enter
            };
            self.bad
        }
    }

    /// Feeds `secs` of a channel at `rate` shards a second from `now` on.
    fn feed(
        runs: &mut LossRuns,
        channel: &mut Gilbert,
        rate: u64,
        secs: f64,
        p: f64,
        burst: f64,
        now: &mut Time,
    ) {
        for _ in 0..(rate as f64 * secs) as u64 {
            now.0 += 1_000_000_000 / rate;
            let lost = channel.lost(p, burst);
            runs.outcome(lost, *now);
        }
    }

    fn channel(seed: u64) -> Gilbert {
        Gilbert {
            noise: Noise(seed),
            bad: false,
        }
    }

    #[test]
    fn unknown_is_not_zero() {
        let mut runs = LossRuns::new();
        assert_eq!((runs.loss_rate(), runs.burst_len()), (None, None));
        assert_eq!(
            (runs.events_per_second(Time(1)), runs.since_loss(Time(1))),
            (None, None)
        );
        runs.outcomes(0, Time(1));
        assert_eq!((runs.count(), runs.age(Time(1))), (0, None));
        runs.outcomes(5, Time(1));
        assert_eq!((runs.loss_rate(), runs.burst_len()), (Some(0.0), None));
        assert_eq!(
            (runs.count(), runs.age(Time(4))),
            (5, Some(Duration::from_nanos(3)))
        );
    }

    #[test]
    fn finds_the_channels_numbers_at_any_rate() {
        for (rate, p, burst, tolerance) in [
            (200_000, 0.01, 3.0, 0.25),
            (20_000, 0.01, 3.0, 0.25),
            (20_000, 0.05, 1.0, 0.15),
            (5_000, 0.2, 8.0, 0.25),
            (100, 0.1, 2.0, 0.6),
        ] {
            let (mut p_sum, mut burst_sum, mut p_square) = (0.0, 0.0, 0.0);
            for seed in 0..40 {
                let (mut runs, mut now) = (LossRuns::new(), Time::ZERO);
                let secs = if rate > 50_000 { 0.5 } else { 10.0 };
                feed(
                    &mut runs,
                    &mut channel(seed),
                    rate,
                    secs,
                    p,
                    burst,
                    &mut now,
                );
                let found = runs.loss_rate().unwrap();
                p_sum += found / 40.0;
                p_square += (found / p - 1.0).powi(2) / 40.0;
                burst_sum += runs.burst_len().unwrap_or(1.0) / 40.0;
            }
            assert!(
                (p_sum / p - 1.0).abs() < tolerance / 2.0,
                "{rate} {p} {p_sum}"
            );
            assert!(
                p_square.sqrt() < tolerance,
                "{rate} {p} {}",
                p_square.sqrt()
            );
            assert!(
                (burst_sum / burst - 1.0).abs() < 0.15,
                "{rate} {burst} {burst_sum}"
            );
        }
    }

    #[test]
    fn adapts_within_two_seconds_even_when_thin() {
        for rate in [100, 20_000] {
            let (mut runs, mut now) = (LossRuns::new(), Time::ZERO);
            let mut channel = channel(3);
            feed(&mut runs, &mut channel, rate, 20.0, 0.0, 1.0, &mut now);
            assert_eq!(runs.loss_rate(), Some(0.0));
            feed(&mut runs, &mut channel, rate, 2.0, 0.2, 1.0, &mut now);
            let found = runs.loss_rate().unwrap();
            assert!(found > 0.06, "{rate}: {found}");
            feed(&mut runs, &mut channel, rate, 10.0, 0.0, 1.0, &mut now);
            assert!(runs.loss_rate().unwrap() < 0.01);
        }
    }

    #[test]
    fn events_a_second_count_bursts() {
        let (mut runs, mut now) = (LossRuns::new(), Time::ZERO);
        // A burst of 5 each 250 ms.
        for _ in 0..80 {
            now += Duration::from_millis(250);
            runs.outcomes(995, now);
            runs.losses(5, now);
        }
        let events = runs.events_per_second(now).unwrap();
        assert!((3.6..4.5).contains(&events), "{events}");
        assert!((runs.burst_len().unwrap() - 5.0).abs() < 1e-9);
        assert_eq!(runs.since_loss(now), Some(Duration::ZERO));
        let later = now + Duration::from_secs(30);
        assert!(runs.events_per_second(later).unwrap() < 0.001);
    }

    #[test]
    fn an_outage_counts_once_however_long() {
        let mut runs = LossRuns::new();
        runs.outcomes(1_000, Time(1));
        runs.losses(1_000_000, Time(2));
        assert_eq!(runs.burst_len(), Some(1_000_000.0));
        runs.outcomes(1, Time(3));
        let burst = runs.burst_len().unwrap();
        assert!((burst - 1_000_000.0).abs() < 1.0, "{burst}");
        assert!(runs.loss_rate().unwrap() > 0.99);
    }

    #[test]
    fn a_path_that_only_reorders_loses_nothing_in_the_end() {
        let (mut runs, mut now) = (LossRuns::new(), Time::ZERO);
        for _ in 0..500 {
            now += Duration::from_millis(10);
            runs.outcomes(99, now);
            runs.losses(1, now);
            runs.outcomes(1, now);
            runs.was_late(now);
        }
        assert!(runs.loss_rate().unwrap() < 1e-3);
        assert!(runs.events_per_second(now).unwrap() < 0.1);
        runs.losses(2, now);
        runs.was_late(now);
        runs.was_late(now);
        assert_eq!((runs.burst_len(), runs.since_loss(now)), (None, None));
    }

    #[test]
    fn eight_bursts_show_that_they_have_become_longer() {
        let (mut runs, mut now) = (LossRuns::new(), Time::ZERO);
        assert_eq!(runs.recent_burst_len(), None);
        let mut burst = |length: u32, runs: &mut LossRuns| {
            now.0 += 10_000_000;
            runs.losses(length, now);
            runs.outcomes(100, now);
            runs.recent_burst_len().unwrap()
        };
        for _ in 0..200 {
            assert_eq!(burst(1, &mut runs), 1.0);
        }
        let recent = (0..8).map(|_| burst(4, &mut runs)).last().unwrap();
        assert!((2.9..3.0).contains(&recent), "{recent}");
        assert!(runs.burst_len().unwrap() < 1.5);
    }

    proptest! {
        /// Against sums over the whole history, each term with its own weight.
        #[test]
        fn agrees_with_the_whole_history(
            steps in prop::collection::vec((any::<bool>(), 1u32..3_000, 0u64..400_000_000), 1..30),
        ) {
            let mut runs = LossRuns::new();
            let mut history = vec![];
            let mut now = Time::ZERO;
            for (lost, run, wait) in steps {
                now.0 += wait;
                if lost { runs.losses(run, now) } else { runs.outcomes(run, now) }
                (0..run).for_each(|_| history.push((lost, now)));
            }
            let weight = |index: usize| {
                let later = (history.len() - 1 - index) as f64;
                let age = now.since(history[index].1).as_secs_f64();
                (-later / MEMORY_SHARDS - age / MEMORY).exp()
            };
            let (mut all, mut lost, mut bursts, mut in_bursts, mut run) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (index, fate) in history.iter().enumerate() {
                all += weight(index);
                if fate.0 {
                    lost += weight(index);
                    run += 1.0;
                } else if run > 0.0 {
                    bursts += weight(index);
                    in_bursts += weight(index) * run;
                    run = 0.0;
                }
            }
            prop_assert!((runs.loss_rate().unwrap() - lost / all).abs() < 1e-6);
            prop_assert!((runs.weight() / all - 1.0).abs() < 1e-6);
            prop_assert_eq!(runs.count(), history.len() as u64);
            if run == 0.0 && bursts > 0.0 {
                prop_assert!((runs.burst_len().unwrap() / (in_bursts / bursts) - 1.0).abs() < 1e-6);
            }
        }

        #[test]
        fn stays_in_range_whatever_comes(
            steps in prop::collection::vec((0u8..3, any::<u32>(), any::<u32>()), 1..60),
        ) {
            let mut runs = LossRuns::new();
            let mut now = Time::ZERO;
            for (kind, run, wait) in steps {
                now.0 += u64::from(wait) * 1_000;
                match kind {
                    0 => runs.losses(run, now),
                    1 => runs.outcomes(run, now),
                    _ => runs.was_late(now),
                }
                prop_assert!(runs.loss_rate().is_none_or(|p| (0.0..=1.0).contains(&p)));
                prop_assert!(runs.burst_len().is_none_or(|b| b >= 1.0 && b.is_finite()));
                prop_assert!(runs.events_per_second(now).is_none_or(|e| e >= 0.0 && e.is_finite()));
            }
        }
    }
}
