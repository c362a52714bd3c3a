//! The model's judgement of itself.

use super::foretold::Foretold;

/// Holes between two judgements.
const WINDOW: u32 = 10_000;

/// Bins of the reliability table.
pub const RELIABILITY_BINS: usize = 10;

/// Predictions that are off by more than this on average are no predictions.
const CALIBRATION_ERROR_MAX: f32 = 0.2;

/// How much slower than RACK the model may be, over losses.
const SLOWER_MAX: f64 = 2.0;

/// Fewer losses do not tell which is slower.
const LOSSES_MIN: u32 = 100;

/// A bin of the reliability table: holes of which a loss was predicted about as likely.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Holes.
    pub holes: u64,
    /// Sum of the probabilities of a loss.
    pub predicted: f64,
    /// Losses.
    pub lost: u64,
}

/// Why a model fell back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its probabilities were not what turned out.
    Calibration,
    /// It asked for losses later than twice RACK's time.
    Slow,
}

/// What a model's predictions were worth. Only `is_fallen_back` ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reliability {
    /// Holes by predicted probability of a loss, in tenths.
    pub bins: [Bin; RELIABILITY_BINS],
    /// Sum of squared errors.
    pub squared_error: f64,
    /// Losses, and how long after their holes had opened the model asks for them, and RACK would,
    /// in milliseconds, all together.
    pub losses: u64,
    /// See `losses`.
    pub ask_ms: f64,
    /// See `losses`.
    pub rack_ms: f64,
    /// Late shards that were asked for, of those that came before the cap.
    pub late_asked: u64,
    /// Late shards that came before the cap.
    pub late: u64,
    /// Expected arrivals against what came.
    pub foretold: Foretold,
    /// Whether adaptive RACK decides, because the model was no good.
    pub is_fallen_back: bool,
    /// What was wrong with it, while it has fallen back.
    pub fault: Option<Fault>,
    /// How often that began.
    pub fallbacks: u64,
    /// How often the path became another.
    pub path_changes: u64,
}

impl Reliability {
    fn holes(&self) -> u64 {
        self.bins.iter().map(|bin| bin.holes).sum()
    }

    /// Mean squared error of the predicted probabilities (Brier 1950): 0.25 for who always says one
    /// half. Unknown before the first hole.
    pub fn brier(&self) -> Option<f64> {
        let holes = self.holes();
        (holes > 0).then(|| self.squared_error / holes as f64)
    }

    /// Mean distance between what was predicted and what turned out, over bins weighted by holes.
    pub fn calibration_error(&self) -> Option<f64> {
        let holes = self.holes();
        let error = |bin: &Bin| (bin.predicted - bin.lost as f64).abs();
        (holes > 0).then(|| self.bins.iter().map(error).sum::<f64>() / holes as f64)
    }
}

/// Judges every 10,000 holes.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    pub(super) all: Reliability,
    /// In this window: holes, sum of probabilities and losses by bin, and times asked.
    holes: u32,
    errors: [f32; RELIABILITY_BINS],
    losses: u32,
    ask_ms: f64,
    rack_ms: f64,
}

impl Watch {
    /// A hole of which a loss was predicted with `loss` was one, or not.
    pub(super) fn fate(&mut self, loss: f32, is_lost: bool) {
        let bin = ((loss * RELIABILITY_BINS as f32) as usize).min(RELIABILITY_BINS - 1);
        let outcome = f32::from(u8::from(is_lost));
        let all = &mut self.all.bins[bin];
        all.holes += 1;
        all.predicted += f64::from(loss);
        all.lost += u64::from(is_lost);
        self.all.squared_error += f64::from((loss - outcome).powi(2));
        self.errors[bin] += loss - outcome;
        self.holes += 1;
        if self.holes == WINDOW {
            self.judge();
        }
    }

    /// A loss was asked for after so long, and RACK would have.
    pub(super) fn loss(&mut self, ask_ms: f32, rack_ms: f32) {
        self.all.losses += 1;
        self.all.ask_ms += f64::from(ask_ms);
        self.all.rack_ms += f64::from(rack_ms);
        self.losses += 1;
        self.ask_ms += f64::from(ask_ms);
        self.rack_ms += f64::from(rack_ms);
    }

    /// A late shard came before the cap.
    pub(super) fn late(&mut self, asked: bool) {
        self.all.late += 1;
        self.all.late_asked += u64::from(asked);
    }

    fn judge(&mut self) {
        let error = self.errors.iter().map(|error| error.abs()).sum::<f32>() / self.holes as f32;
        let is_slow = self.losses >= LOSSES_MIN && self.ask_ms > SLOWER_MAX * self.rack_ms;
        let was = self.all.is_fallen_back;
        self.all.fault = if error > CALIBRATION_ERROR_MAX {
            Some(Fault::Calibration)
        } else if is_slow {
            Some(Fault::Slow)
        } else {
            None
        };
        self.all.is_fallen_back = self.all.fault.is_some();
        self.all.fallbacks += u64::from(self.all.is_fallen_back && !was);
        *self = Self {
            all: self.all,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(watch: &mut Watch, said: f32, lost_of_10: u32, ask_ms: f32) {
        for hole in 0..WINDOW {
            let is_lost = hole % 10 < lost_of_10;
            if is_lost {
                watch.loss(ask_ms, 10.0);
            }
            watch.fate(said, is_lost);
        }
    }

    #[test]
    fn falls_back_when_it_is_wrong_or_slow_and_comes_back_when_neither() {
        let mut watch = Watch::default();
        window(&mut watch, 0.31, 3, 5.0);
        assert!(!watch.all.is_fallen_back);
        window(&mut watch, 0.91, 3, 5.0);
        assert_eq!(watch.all.fault, Some(Fault::Calibration));
        window(&mut watch, 0.31, 3, 19.0);
        assert!(!watch.all.is_fallen_back);
        window(&mut watch, 0.31, 3, 21.0);
        assert!(watch.all.is_fallen_back);
        assert_eq!(watch.all.fault, Some(Fault::Slow));
        assert_eq!(watch.all.fallbacks, 2);
    }

    #[test]
    fn scores_are_those_of_the_textbook() {
        let mut watch = Watch::default();
        assert_eq!(watch.all.brier(), None);
        for (said, is_lost) in [(0.9, true), (0.8, false), (0.25, false), (1.0, true)] {
            watch.fate(said, is_lost);
        }
        let brier = (0.01 + 0.64 + 0.0625) / 4.0;
        assert!((watch.all.brier().unwrap() - brier).abs() < 1e-6);
        // Bins: 0.9 and 1.0 together say 1.9 of 2; 0.8 of 0; 0.25 of 0.
        let error = (0.1 + 0.8 + 0.25) / 4.0;
        assert!((watch.all.calibration_error().unwrap() - error).abs() < 1e-6);
    }
}
