//! What the weights begin with: a stream of 100,000 shards has about a hundred losses, too few to learn
//! 32 weights from.
//!
//! Fitted by penalised maximum likelihood (Newton's method, a ridge of 5) to 358,000 openings and
//! looks on 68 seeded channels: the judge's own eight, and sixty of windows of 15 ms drawn at random,
//! with round trips from 4 to 80 ms, rates from 1.5 to 30 Mbit/s, and losses from 1 in 100,000 to 1 in
//! 50, alone, in runs, and in spikes of the delay. No published trace is among them.

use super::logistic::FEATURES;

/// Weights by feature, in the order of [`Signals`](super::signals::Signals).
#[rustfmt::skip]
pub(super) const PRIOR: [f32; FEATURES] = [
    -0.65, // age
    0.40, // gap
    0.53, // position
    -0.16, // behind it in the gap
    1.20, // arrivals since
    -0.15, // newer holes
    -3.36, // other open holes: 4 ms
    3.08, // 16 ms
    0.75, // 256 ms
    0.54, // 4 s
    0.41, // 16 s
    0.02, // late ones: 16 ms
    -0.11, // 256 ms
    -1.21, // 4 s
    0.26, // 16 s
    0.29, // since the last late one
    -4.32, // late ones in its gap
    0.30, // arrivals since the last
    0.98, // sent before the one that showed it
    1.11, // apart when sent
    -3.65, // one
    0.01, // just opened
    0.03, // gap of one
    0.57, // delay of the shard that showed it
    -0.58, // delays lately
    -0.06, // overtaken
    3.21, // overtaken in its gap
    -0.71, // as far from the last as that from the one before
    -1.44, // age and newer holes
    0.33, // age and gap of one
    0.06, // late ones in 4 s and gap of one
    0.00, // siblings
];
