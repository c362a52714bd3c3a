//! dataplane/sim
#![forbid(unsafe_code)]
