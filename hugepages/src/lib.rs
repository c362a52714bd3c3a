//! hugepages
#![forbid(unsafe_code)]
