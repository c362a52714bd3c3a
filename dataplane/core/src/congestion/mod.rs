//! Congestion: what the tunnel adds to a path is bounded, and what it hides from the senders
//! inside it makes up for.
//!
//! | type | what it decides |
//! |---|---|
//! | [`TokenBucket`] | whether a repeat, a repair shard or a probe may be sent |
//! | [`QueueControl`] | which frame carries a signal that the path's queue stands |
//! | [`is_queue_full`] | whether a loss is the queue's doing |

mod bucket;
mod full;
mod overflow;
mod queue_control;
mod witness;

pub use bucket::{Addition, TokenBucket};
pub use full::is_queue_full;
pub use queue_control::QueueControl;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
