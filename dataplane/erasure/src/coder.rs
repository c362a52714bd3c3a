//! One API over the portable code and ISA-L.

use crate::field;
#[cfg(isal)]
use crate::isal;

/// A source symbol is longer than the one it should be added to, or the numbers of coefficients
/// and symbols do not match. Nothing has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("symbols or coefficients of the wrong length")]
pub struct LengthError;

/// Bytes scaled at a time, through a buffer on the stack.
const SCALE_LEN: usize = 1024;

/// Multiplies and adds symbols. Cheap to copy; two coders give the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Coder {
    #[cfg(isal)]
    isal: Option<&'static isal::Tables>,
}

impl Default for Coder {
    fn default() -> Self {
        Self::new()
    }
}

impl Coder {
    /// The fastest there is.
    pub fn new() -> Self {
        Self::isal().unwrap_or(Self::portable())
    }

    /// The code that runs everywhere.
    pub fn portable() -> Self {
        Self {
            #[cfg(isal)]
            isal: None,
        }
    }

    /// ISA-L, if it was there at build time.
    pub fn isal() -> Option<Self> {
        #[cfg(isal)]
        return isal::tables().map(|tables| Self { isal: Some(tables) });
        #[cfg(not(isal))]
        None
    }

    /// `isal` or `portable`, for stats and benchmarks.
    pub fn name(self) -> &'static str {
        #[cfg(isal)]
        if self.isal.is_some() {
            return "isal";
        }
        "portable"
    }

    /// `target += coefficient * source`. A source that is shorter counts as padded with zeros.
    ///
    /// # Errors
    ///
    /// If the source is longer.
    pub fn multiply_accumulate(
        self,
        coefficient: u8,
        source: &[u8],
        target: &mut [u8],
    ) -> Result<(), LengthError> {
        self.multiply_accumulate_many(&[coefficient], source, &mut [target])
    }

    /// `targets[i] += coefficients[i] * source` for all i, in one pass over the source: all open
    /// windows at once.
    ///
    /// # Errors
    ///
    /// If the source is longer than a target, or there is not one coefficient for each.
    pub fn multiply_accumulate_many<T: AsMut<[u8]>>(
        self,
        coefficients: &[u8],
        source: &[u8],
        targets: &mut [T],
    ) -> Result<(), LengthError> {
        let fits = |target: &mut T| target.as_mut().len() >= source.len();
        if coefficients.len() != targets.len() || !targets.iter_mut().all(fits) {
            return Err(LengthError);
        }
        #[cfg(isal)]
        if let Some(tables) = self.isal {
            tables.multiply_accumulate(coefficients, source, targets);
            return Ok(());
        }
        for (&coefficient, target) in coefficients.iter().zip(targets) {
            field::multiply_accumulate(coefficient, source, target.as_mut());
        }
        Ok(())
    }

    /// `data *= factor`.
    pub fn scale(self, factor: u8, data: &mut [u8]) {
        if factor == 1 {
            return;
        }
        let mut copy = [0u8; SCALE_LEN];
        for chunk in data.chunks_mut(SCALE_LEN) {
            let copy = &mut copy[..chunk.len()];
            copy.copy_from_slice(chunk);
            chunk.fill(0);
            // The two are of one length, so this cannot fail.
            let _ = self.multiply_accumulate(factor, copy, chunk);
        }
    }

    /// Computes `symbols[r] = sum over c of coefficients[r * sources.len() + c] * sources[c]`: a
    /// whole block at once. Symbols as long as the longest source.
    ///
    /// # Errors
    ///
    /// If a source is longer than a symbol, or there are not `symbols * sources` coefficients.
    pub fn encode<S: AsRef<[u8]>, T: AsMut<[u8]>>(
        self,
        coefficients: &[u8],
        sources: &[S],
        symbols: &mut [T],
    ) -> Result<(), LengthError> {
        let longest = sources.iter().map(|source| source.as_ref().len()).max();
        let fits = |symbol: &mut T| Some(symbol.as_mut().len()) >= longest;
        if coefficients.len() != sources.len() * symbols.len() || !symbols.iter_mut().all(fits) {
            return Err(LengthError);
        }
        for (r, symbol) in symbols.iter_mut().enumerate() {
            let row = &coefficients[r * sources.len()..][..sources.len()];
            symbol.as_mut().fill(0);
            for (&coefficient, source) in row.iter().zip(sources) {
                self.multiply_accumulate(coefficient, source.as_ref(), symbol.as_mut())?;
            }
        }
        Ok(())
    }
}
