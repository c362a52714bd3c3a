//! A bug that only a search that sees coverage finds.

use std::hint::black_box;

/// Six bytes that must be right, one after the other: 1 in 2^48 for blind search, a step at a
/// time for a search that keeps what gets further.
pub fn fuzz(input: &[u8]) {
    if is_six_steps_in(input).is_some() {
        panic!("the planted bug was found");
    }
}

/// Written out, so that each step is a place of its own in the code.
fn is_six_steps_in(input: &[u8]) -> Option<()> {
    step(input, 0)?;
    step(input, 1)?;
    step(input, 2)?;
    step(input, 3)?;
    step(input, 4)?;
    step(input, 5)
}

/// No constant stands in the code that a traced comparison could give away at once.
#[inline(never)]
fn step(input: &[u8], at: u8) -> Option<()> {
    let wanted = black_box(at).wrapping_mul(37) ^ 0x5b;
    (black_box(*input.get(usize::from(at))?) == wanted).then_some(())
}
