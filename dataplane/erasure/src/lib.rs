//! dataplane/erasure
