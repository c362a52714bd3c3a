//! Solving for lost symbols: Gauss-Jordan elimination, in place.
//!
//! The work on symbols is e² multiply-accumulates for e unknowns, never k², which is why the
//! receiver subtracts what it has before it solves.

use crate::coder::Coder;
use crate::field::{inverse, multiply};

/// Most unknowns in one system.
pub const SOLVE_MAX: usize = 16;

/// Why a system was not solved. Its symbols are untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolveError {
    /// The equations are not independent: not solvable *yet*; another symbol may help.
    #[error("the equations are not independent")]
    Singular,
    /// No unknown or more than [`SOLVE_MAX`], not e² coefficients for e symbols, or symbols of
    /// different lengths.
    #[error("the system is not square, too large, or its symbols differ in length")]
    Shape,
}

type Cells = [[u8; SOLVE_MAX]; SOLVE_MAX];

/// One step of the elimination, as it applies to the symbols.
#[derive(Clone, Copy)]
enum Step {
    Swap(usize, usize),
    /// The first row plus the factor times the second.
    Add(usize, u8, usize),
    Scale(usize, u8),
}

impl Coder {
    /// Solves e equations in e unknowns. `coefficients[r * e + c]` is the factor of unknown `c`
    /// in equation `r`, `symbols[r]` its sum with everything known subtracted; afterwards
    /// `symbols[c]` *is* unknown `c`. Symbols trade places where the elimination has to.
    ///
    /// # Errors
    ///
    /// [`SolveError`]; nothing has been changed then.
    pub fn solve<T: AsMut<[u8]>>(
        self,
        coefficients: &[u8],
        symbols: &mut [T],
    ) -> Result<(), SolveError> {
        let size = symbols.len();
        if size == 0 || size > SOLVE_MAX || coefficients.len() != size * size {
            return Err(SolveError::Shape);
        }
        let len = symbols[0].as_mut().len();
        if symbols
            .iter_mut()
            .any(|symbol| symbol.as_mut().len() != len)
        {
            return Err(SolveError::Shape);
        }
        let mut cells: Cells = [[0; SOLVE_MAX]; SOLVE_MAX];
        for (row, given) in cells.iter_mut().zip(coefficients.chunks_exact(size)) {
            row[..size].copy_from_slice(given);
        }
        // A rehearsal without symbols: a singular system must not leave them half eliminated.
        eliminate(cells, size, |_| ())?;
        eliminate(cells, size, |step| match step {
            Step::Swap(a, b) => symbols.swap(a, b),
            Step::Scale(row, factor) => self.scale(factor, symbols[row].as_mut()),
            Step::Add(to, factor, from) => {
                if let Ok([to, from]) = symbols.get_disjoint_mut([to, from]) {
                    // Of one length, as checked above.
                    let _ = self.multiply_accumulate(factor, from.as_mut(), to.as_mut());
                }
            }
        })
    }
}

/// Turns the matrix into the identity and reports the steps that do it.
fn eliminate(mut cells: Cells, size: usize, mut step: impl FnMut(Step)) -> Result<(), SolveError> {
    for column in 0..size {
        let pivot = (column..size)
            .find(|&row| cells[row][column] != 0)
            .ok_or(SolveError::Singular)?;
        if pivot != column {
            cells.swap(pivot, column);
            step(Step::Swap(pivot, column));
        }
        let pivot_row = cells[column];
        let pivot_inverse = inverse(pivot_row[column]);
        for (row, target) in cells.iter_mut().enumerate().take(size) {
            if row == column || target[column] == 0 {
                continue;
            }
            let factor = multiply(target[column], pivot_inverse);
            for (cell, &value) in target.iter_mut().zip(&pivot_row) {
                *cell ^= multiply(factor, value);
            }
            step(Step::Add(row, factor, column));
        }
    }
    for (row, target) in cells.iter().enumerate().take(size) {
        step(Step::Scale(row, inverse(target[row])));
    }
    Ok(())
}
