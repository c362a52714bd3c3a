//! Congestion: what the tunnel adds to a path is bounded.

mod bucket;

pub use bucket::{Addition, TokenBucket};
