//! Congestion: what the tunnel adds to a path is bounded.

mod bucket;
mod full;

pub use bucket::{Addition, TokenBucket};
pub use full::is_queue_full;
