//! GF(2^8) erasure coding: multiply-accumulate over byte slices, encode, and solve.
//!
//! A repair symbol is the sum of source symbols, each times a coefficient; bytes are elements of
//! GF(2^8) modulo `x^8 + x^4 + x^3 + x^2 + 1` (0x11d), where addition is XOR. The sender adds
//! every source shard into its open symbols as it passes ([`Coder::multiply_accumulate_many`]).
//! The receiver subtracts what it has from a symbol, which is the same operation, and once it has
//! as many symbols as unknowns it solves for them ([`Coder::solve`]).
//!
//! Coefficients are those of a Cauchy matrix, [`coefficient`]: every square submatrix of one is
//! invertible, so *any* e symbols over one window give back *any* e lost shards. (A Vandermonde
//! matrix, the other common choice, does not promise that from five repairs on.)
//!
//! | module | what |
//! |---|---|
//! | `field` | the field: tables made at compile time, and the portable multiply-accumulate |
//! | `isal` | the same by ISA-L's vector kernels; the only unsafe code, present if libisal was there at build time |
//! | `coder` | one API over both; the caller picks at run time, the answers are the same |
//! | `solve` | Gauss-Jordan elimination in place, for small systems |
//!
//! Nothing here allocates. Symbols shorter than the one they are added to count as padded with
//! zeros, so shards of different lengths share a window.
//!
//! Source: J. Blömer et al., "An XOR-based erasure-resilient coding scheme", ICSI TR-95-048.
#![cfg_attr(not(isal), forbid(unsafe_code))]
#![deny(missing_docs)]

mod coder;
mod field;
#[cfg(isal)]
mod isal;
mod solve;

pub use coder::{Coder, LengthError};
pub use field::{SOURCES_MAX, coefficient, inverse, multiply};
pub use solve::{SOLVE_MAX, SolveError};
