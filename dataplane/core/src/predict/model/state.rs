//! What a model has learned, as bytes that survive a restart.
//!
//! Big-endian: magic, version, fates learned from, the histogram's weights by context, the logistic
//! weights, the logarithm of the price, CRC-32C of all before. The file lies where others may write,
//! so nothing in it is believed that the model could not have learned itself.

use core::fmt;

use super::lateness::{BUCKETS, CONTEXTS};
use super::logistic::FEATURES;
use super::{LEARNED_MAX, Model};

const MAGIC: [u8; 4] = *b"SGPM";
const VERSION: u16 = 3;

/// Numbers beside the head: weights of the histogram and of the features, knots, and the price.
const NUMBERS: usize = CONTEXTS * BUCKETS + FEATURES + 1;

/// Bytes of a saved model.
pub const STATE_LEN: usize = MAGIC.len() + 2 + 4 + NUMBERS * 4 + 4;

/// Why saved bytes are no model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Not [`STATE_LEN`] bytes.
    Length,
    /// Of something else, or of another version.
    Version,
    /// Damaged.
    Checksum,
    /// A number is none, or outside what can be learned.
    Range,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "has the wrong length",
            Self::Version => "is of another version, or something else",
            Self::Checksum => "is damaged",
            Self::Range => "holds a number that cannot be",
        })
    }
}

impl core::error::Error for StateError {}

/// Takes big-endian numbers from the front; what is missing counts as zeros, and the length was
/// checked.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((taken, rest)) = self.0.split_first_chunk() else {
            return [0; N];
        };
        self.0 = rest;
        *taken
    }

    fn number(&mut self) -> f32 {
        f32::from_be_bytes(self.take())
    }

    fn numbers<const N: usize>(&mut self) -> [f32; N] {
        core::array::from_fn(|_| self.number())
    }
}

impl Model {
    /// What it has learned, to be given to [`restore`](Self::restore) of a later one.
    pub fn save(&self) -> [u8; STATE_LEN] {
        let mut state = [0; STATE_LEN];
        let mut left = &mut state[..];
        let mut put = |bytes: &[u8]| {
            if let Some((to, rest)) = core::mem::take(&mut left).split_at_mut_checked(bytes.len()) {
                to.copy_from_slice(bytes);
                left = rest;
            }
        };
        put(&MAGIC);
        put(&VERSION.to_be_bytes());
        put(&self.learned.to_be_bytes());
        let histogram = self.lateness.weights().iter().flatten();
        for number in histogram
            .chain(&self.odds.weights)
            .chain([&self.price.log()])
        {
            put(&number.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&state[..STATE_LEN - 4]);
        state[STATE_LEN - 4..].copy_from_slice(&checksum.to_be_bytes());
        state
    }

    /// Takes what an earlier one has learned. Its knobs stay its own.
    ///
    /// # Errors
    /// Bytes that no model has saved change nothing.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: &[u8; STATE_LEN] = state.try_into().map_err(|_| StateError::Length)?;
        let mut reader = Reader(state);
        if reader.take() != MAGIC || u16::from_be_bytes(reader.take()) != VERSION {
            return Err(StateError::Version);
        }
        let checksum = crc32c::crc32c(&state[..STATE_LEN - 4]);
        if state[STATE_LEN - 4..] != checksum.to_be_bytes() {
            return Err(StateError::Checksum);
        }
        let learned = u32::from_be_bytes(reader.take());
        let weights = [(); CONTEXTS].map(|()| reader.numbers());
        let odds_weights = reader.numbers();
        let log_price = reader.number();
        let (mut lateness, mut price) = (self.lateness.clone(), self.price);
        let mut odds = self.odds;
        let is_valid = learned <= LEARNED_MAX
            && lateness.restore(weights)
            && odds.restore(odds_weights)
            && price.restore(log_price);
        if !is_valid {
            return Err(StateError::Range);
        }
        self.learned = learned;
        self.lateness = lateness;
        (self.odds, self.price) = (odds, price);
        Ok(())
    }
}
