//! What a stream's predictor has said, what it was worth, and what it has learned: as the lcore
//! publishes it, and as it is shown.

use serde::Serialize;
use shardgate_core::histogram::{BUCKETS, LogHistogram};
use shardgate_core::predict::{
    Bin, Fault, Foretold, Model, Policy, RATIO_BINS, RELIABILITY_BINS, Reliability, STATE_LEN,
};

use super::snapshot::Distribution;
use crate::counters::Words;

/// The judgement of a model, as words.
#[derive(Clone, Copy, Default)]
pub struct Predictions {
    /// False where nothing predicts; then the rest means nothing.
    is_model: bool,
    learned: u32,
    log_price: f64,
    reliability: Reliability,
}

impl Predictions {
    /// Of a model as it is now.
    pub fn new(model: &Model) -> Self {
        Self {
            is_model: true,
            learned: model.learned(),
            log_price: f64::from(model.log_price()),
            reliability: *model.reliability(),
        }
    }
}

impl Words for Predictions {
    const WORDS: usize = 14 + 3 * RELIABILITY_BINS + RATIO_BINS + 2 * BUCKETS;

    fn for_each(&self, mut put: impl FnMut(u64)) {
        let all = &self.reliability;
        let fault = match all.fault {
            None => 0,
            Some(Fault::Calibration) => 1,
            Some(Fault::Slow) => 2,
        };
        for word in [
            u64::from(self.is_model),
            u64::from(self.learned),
            self.log_price.to_bits(),
            u64::from(all.is_fallen_back),
            fault,
            all.fallbacks,
            all.path_changes,
            all.squared_error.to_bits(),
            all.losses,
            all.ask_ms.to_bits(),
            all.rack_ms.to_bits(),
            all.late,
            all.late_asked,
            all.foretold.said,
        ] {
            put(word);
        }
        for bin in &all.bins {
            put(bin.holes);
            put(bin.predicted.to_bits());
            put(bin.lost);
        }
        let Foretold {
            sooner,
            later,
            ratio,
            ..
        } = &all.foretold;
        let counts = ratio.iter().chain(sooner.counts()).chain(later.counts());
        counts.copied().for_each(put);
    }

    fn collect(mut words: impl FnMut() -> u64) -> Self {
        // Fields are read in the order they are written in.
        Self {
            is_model: words() == 1,
            learned: u32::try_from(words()).unwrap_or(u32::MAX),
            log_price: f64::from_bits(words()),
            reliability: Reliability {
                is_fallen_back: words() == 1,
                fault: match words() {
                    1 => Some(Fault::Calibration),
                    2 => Some(Fault::Slow),
                    _ => None,
                },
                fallbacks: words(),
                path_changes: words(),
                squared_error: f64::from_bits(words()),
                losses: words(),
                ask_ms: f64::from_bits(words()),
                rack_ms: f64::from_bits(words()),
                late: words(),
                late_asked: words(),
                foretold: Foretold {
                    said: words(),
                    ..Foretold::default()
                },
                ..Reliability::default()
            },
        }
        .with_tables(words)
    }
}

impl Predictions {
    fn with_tables(mut self, mut words: impl FnMut() -> u64) -> Self {
        for bin in &mut self.reliability.bins {
            *bin = Bin {
                holes: words(),
                predicted: f64::from_bits(words()),
                lost: words(),
            };
        }
        let foretold = &mut self.reliability.foretold;
        foretold.ratio = std::array::from_fn(|_| words());
        for histogram in [&mut foretold.sooner, &mut foretold.later] {
            *histogram = LogHistogram::from_counts(std::array::from_fn(|_| words()));
        }
        self
    }
}

/// What a model has learned, as it saves it: all zeros if there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Learned(pub [u8; STATE_LEN]);

impl Default for Learned {
    fn default() -> Self {
        Self([0; STATE_LEN])
    }
}

impl Words for Learned {
    const WORDS: usize = STATE_LEN.div_ceil(8);

    fn for_each(&self, mut put: impl FnMut(u64)) {
        for bytes in self.0.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            put(u64::from_be_bytes(word));
        }
    }

    fn collect(mut words: impl FnMut() -> u64) -> Self {
        let mut learned = Self::default();
        for bytes in learned.0.chunks_mut(8) {
            let word = words().to_be_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        learned
    }
}

/// Who says when the missing shards of a stream are asked for, and what that was worth.
#[derive(Clone, Debug, Serialize)]
pub struct PredictorSnapshot {
    /// The policy that is configured.
    pub policy: String,
    /// The one that decides: another one while the model has fallen back.
    pub deciding: String,
    /// What was wrong with the model, if it has fallen back.
    pub fallback_reason: Option<&'static str>,
    /// Of a policy that learns.
    pub model: Option<ModelSnapshot>,
}

/// A model's judgement of itself since the start.
#[derive(Clone, Debug, Serialize)]
pub struct ModelSnapshot {
    /// Fates learned from, those of earlier runs included.
    pub learned: u64,
    /// How often it fell back.
    pub fallbacks: u64,
    /// How often the path became another.
    pub path_changes: u64,
    /// By how much a needless request is dearer than it was taken for at first.
    pub price_factor: f64,
    /// Late shards that came before a request would be sent whatever was predicted.
    pub late: u64,
    /// Of those: asked for.
    pub late_asked: u64,
    /// Their share; unknown without any.
    pub late_asked_share: Option<f64>,
    /// What it is steered to.
    pub late_asked_share_aimed: f64,
    /// Mean squared error of the probabilities.
    pub brier: Option<f64>,
    /// Mean distance between predicted and observed shares.
    pub calibration_error: Option<f64>,
    /// Predicted against observed, by predicted probability.
    pub reliability: Vec<BinSnapshot>,
    /// Losses.
    pub losses: u64,
    /// How long after their holes had opened the model asks for them, on average.
    pub ask_delay_mean_ms: Option<f64>,
    /// And adaptive RACK would have.
    pub rack_ask_delay_mean_ms: Option<f64>,
    /// Expected arrivals against what came.
    pub expected: ExpectedSnapshot,
}

/// Holes of which a loss was predicted about as likely.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BinSnapshot {
    /// Least probability of a loss.
    pub from: f64,
    /// The next bin's least.
    pub to: f64,
    /// Mean of the probabilities; unknown without holes.
    pub predicted: Option<f64>,
    /// Share that were losses.
    pub observed: Option<f64>,
    /// Holes.
    pub holes: u64,
}

/// When missing shards were expected, and when they came, whatever way.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectedSnapshot {
    /// Holes of which a time was said when they opened.
    pub published: u64,
    /// Of those: filled so far.
    pub filled: u64,
    /// By how much too soon those came that came before it.
    pub sooner: Distribution,
    /// By how much too late the others came.
    pub later: Distribution,
    /// Actual over expected time.
    pub ratio: Vec<RatioSnapshot>,
}

/// Filled holes by actual over expected time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RatioSnapshot {
    /// Least ratio.
    pub from: f64,
    /// The next bin's least; the last bin has none.
    pub to: Option<f64>,
    /// Holes.
    pub holes: u64,
}

impl PredictorSnapshot {
    /// What was published of a stream that runs this policy.
    pub(super) fn new(policy: Policy, predictions: &Predictions) -> Self {
        let name = policy.to_string();
        let Policy::Model(config) = policy else {
            return Self {
                deciding: name.clone(),
                policy: name,
                fallback_reason: None,
                model: None,
            };
        };
        let all = &predictions.reliability;
        let reason = |fault: Fault| match fault {
            Fault::Calibration => "calibration",
            Fault::Slow => "slow",
        };
        Self {
            deciding: if all.is_fallen_back {
                "rack".into()
            } else {
                name.clone()
            },
            policy: name,
            fallback_reason: all.fault.map(reason),
            model: predictions
                .is_model
                .then(|| ModelSnapshot::new(predictions, f64::from(config.alpha))),
        }
    }
}

/// A part of a whole, if there is any.
fn share(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / whole as f64)
}

impl ModelSnapshot {
    fn new(predictions: &Predictions, aimed: f64) -> Self {
        let all = &predictions.reliability;
        Self {
            learned: predictions.learned.into(),
            fallbacks: all.fallbacks,
            path_changes: all.path_changes,
            price_factor: predictions.log_price.exp(),
            late: all.late,
            late_asked: all.late_asked,
            late_asked_share: share(all.late_asked as f64, all.late),
            late_asked_share_aimed: aimed,
            brier: all.brier(),
            calibration_error: all.calibration_error(),
            reliability: bins(&all.bins),
            losses: all.losses,
            ask_delay_mean_ms: share(all.ask_ms, all.losses),
            rack_ask_delay_mean_ms: share(all.rack_ms, all.losses),
            expected: ExpectedSnapshot {
                published: all.foretold.said,
                filled: all.foretold.filled(),
                sooner: Distribution::from(&all.foretold.sooner),
                later: Distribution::from(&all.foretold.later),
                ratio: ratios(&all.foretold.ratio),
            },
        }
    }
}

fn bins(bins: &[Bin; RELIABILITY_BINS]) -> Vec<BinSnapshot> {
    let edge = |index: usize| index as f64 / RELIABILITY_BINS as f64;
    let bins = bins.iter().enumerate();
    bins.map(|(index, bin)| BinSnapshot {
        from: edge(index),
        to: edge(index + 1),
        predicted: share(bin.predicted, bin.holes),
        observed: share(bin.lost as f64, bin.holes),
        holes: bin.holes,
    })
    .collect()
}

fn ratios(ratio: &[u64; RATIO_BINS]) -> Vec<RatioSnapshot> {
    let edge = |index: usize| 2f64.powi(index as i32 - RATIO_BINS as i32 / 2);
    let bins = ratio.iter().enumerate();
    bins.map(|(index, &holes)| RatioSnapshot {
        from: if index == 0 { 0.0 } else { edge(index) },
        to: (index + 1 < RATIO_BINS).then(|| edge(index + 1)),
        holes,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardgate_core::predict::{ModelConfig, Rack};

    use super::*;
    use crate::counters::Published;

    fn histogram(ms: &[u64]) -> LogHistogram {
        let mut histogram = LogHistogram::default();
        for ms in ms {
            histogram.record(Duration::from_millis(*ms));
        }
        histogram
    }

    /// Every field with a value of its own.
    fn predictions() -> Predictions {
        let mut bins = [Bin::default(); RELIABILITY_BINS];
        for (index, bin) in bins.iter_mut().enumerate().skip(1) {
            *bin = Bin {
                holes: 100 * index as u64,
                predicted: 10.5 * index as f64,
                lost: 11 * index as u64,
            };
        }
        Predictions {
            is_model: true,
            learned: 4_321,
            log_price: -0.5,
            reliability: Reliability {
                bins,
                squared_error: 450.0,
                losses: 495,
                ask_ms: 990.0,
                rack_ms: 1_980.0,
                late_asked: 5,
                late: 100,
                foretold: Foretold {
                    said: 4_500,
                    sooner: histogram(&[1, 2, 2]),
                    later: histogram(&[7]),
                    ratio: [0, 0, 1, 2, 1, 0, 0, 0],
                },
                is_fallen_back: true,
                fault: Some(Fault::Slow),
                fallbacks: 2,
                path_changes: 3,
            },
        }
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        let published = Published::<Predictions>::default();
        assert!(!published.load().is_model);
        let mut count = 0;
        predictions().for_each(|_| count += 1);
        assert_eq!(count, Predictions::WORDS);
        published.store(&predictions());
        let (read, written) = (published.load(), predictions());
        assert_eq!(read.reliability, written.reliability);
        assert_eq!(
            (read.is_model, read.learned, read.log_price),
            (true, 4_321, -0.5)
        );
    }

    #[test]
    fn what_was_learned_is_published_byte_for_byte() {
        let published = Published::<Learned>::default();
        assert!(published.load() == Learned::default());
        let saved = Learned(std::array::from_fn(|index| (index * 7 + 1) as u8));
        let mut count = 0;
        saved.for_each(|_| count += 1);
        assert_eq!(count, Learned::WORDS);
        published.store(&saved);
        assert!(published.load() == saved);
    }

    #[test]
    fn shares_and_means_are_those_of_the_sums() {
        let policy = Policy::Model(ModelConfig::default());
        let shown = PredictorSnapshot::new(policy, &predictions());
        assert_eq!((&*shown.policy, &*shown.deciding), ("model", "rack"));
        assert_eq!(shown.fallback_reason, Some("slow"));
        let model = shown.model.unwrap();
        assert_eq!(model.late_asked_share, Some(0.05));
        assert!((model.late_asked_share_aimed - 0.05).abs() < 1e-6);
        assert_eq!(model.brier, Some(0.1));
        assert!((model.calibration_error.unwrap() - 0.005).abs() < 1e-9);
        assert_eq!(model.ask_delay_mean_ms, Some(2.0));
        assert_eq!(model.rack_ask_delay_mean_ms, Some(4.0));
        assert!((model.price_factor - 0.606_53).abs() < 1e-4);
        let bin = model.reliability[3];
        assert_eq!((bin.from, bin.to, bin.holes), (0.3, 0.4, 300));
        assert_eq!((bin.predicted, bin.observed), (Some(0.105), Some(0.11)));
        assert_eq!(model.reliability[0].observed, None);
        let expected = &model.expected;
        assert_eq!((expected.published, expected.filled), (4_500, 4));
        assert_eq!((expected.sooner.count, expected.later.count), (3, 1));
        let edges: Vec<_> = expected
            .ratio
            .iter()
            .map(|bin| (bin.from, bin.to))
            .collect();
        assert_eq!(edges[0], (0.0, Some(0.125)));
        assert_eq!(edges[4], (1.0, Some(2.0)));
        assert_eq!(edges[7], (8.0, None));
    }

    #[test]
    fn who_does_not_predict_shows_that_and_no_zeros() {
        let shown = PredictorSnapshot::new(Policy::Rack(Rack::default()), &Predictions::default());
        assert_eq!((&*shown.policy, &*shown.deciding), ("rack", "rack"));
        assert!(shown.model.is_none() && shown.fallback_reason.is_none());
        let model = Policy::Model(ModelConfig::default());
        let shown = PredictorSnapshot::new(model, &Predictions::default());
        assert!(shown.model.is_none(), "nothing published yet");
    }
}
