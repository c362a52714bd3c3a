//! ISA-L's kernels: SSE, AVX2 or AVX-512, chosen by the library for the CPU it runs on.

use std::ffi::c_int;
use std::sync::OnceLock;

use crate::field;

/// Targets per call: enough for every open window of a stream, and 512 bytes of tables.
const TARGETS_MAX: usize = 16;
/// Bytes that ISA-L's documentation gives a coefficient's table.
const TABLE_LEN: usize = 32;
/// Updates of other lengths are not exact in every version of the library.
const LEN_UNIT: usize = 32;
/// The shortest run that all its vector kernels take.
const LEN_MIN: usize = 64;

/// The functions of `erasure_code.h` that are used; their addresses do not change since 2.16.
mod ffi {
    use std::ffi::c_int;

    unsafe extern "C" {
        /// Expands a `rows` by `k` matrix at `a` into tables at `tables`.
        pub(super) fn ec_init_tables(k: c_int, rows: c_int, a: *mut u8, tables: *mut u8);
        /// Adds source `index` of `k`, times its coefficients, to each of `rows` targets.
        pub(super) fn ec_encode_data_update(
            len: c_int,
            k: c_int,
            rows: c_int,
            index: c_int,
            tables: *mut u8,
            data: *mut u8,
            coding: *mut *mut u8,
        );
    }
}

/// The tables of all 256 coefficients, in whichever form this CPU's kernel wants them.
#[derive(Debug)]
pub(crate) struct Tables {
    entries: Box<[[u8; TABLE_LEN]; 256]>,
    /// Bytes from one coefficient's table to the next: 32, or 8 where the library uses GFNI.
    stride: usize,
}

/// The tables of this process, made at the first call; None if the library lays them out in a way
/// that is not known here.
pub(crate) fn tables() -> Option<&'static Tables> {
    static TABLES: OnceLock<Option<Tables>> = OnceLock::new();
    TABLES.get_or_init(Tables::new).as_ref()
}

fn init_tables<const N: usize>(mut coefficients: [u8; N]) -> [[u8; TABLE_LEN]; N] {
    let mut tables = [[0; TABLE_LEN]; N];
    // SAFETY: one column of N rows reads N coefficients and writes at most 32 bytes for each;
    // both arrays are that long, ours alone, and N is at most 2.
    unsafe {
        ffi::ec_init_tables(
            1,
            N as c_int,
            coefficients.as_mut_ptr(),
            tables.as_mut_ptr().cast(),
        );
    }
    tables
}

impl Tables {
    fn new() -> Option<Self> {
        let mut entries = Box::new([[0; TABLE_LEN]; 256]);
        for (coefficient, entry) in (0u8..=255).zip(entries.iter_mut()) {
            [*entry] = init_tables([coefficient]);
        }
        // Two coefficients at once show how far apart their tables are.
        let pair = init_tables([0x53, 0xca]);
        let flat = pair.as_flattened();
        let stride = [8, TABLE_LEN].into_iter().find(|&stride| {
            flat[..stride] == entries[0x53][..stride]
                && flat[stride..2 * stride] == entries[0xca][..stride]
        })?;
        Some(Self { entries, stride })
    }

    /// `targets[i] += coefficients[i] * source` for all i. Every target is at least as long as
    /// the source, and there are as many as coefficients: [`crate::Coder`] has checked both.
    pub(crate) fn multiply_accumulate<T: AsMut<[u8]>>(
        &self,
        coefficients: &[u8],
        source: &[u8],
        targets: &mut [T],
    ) {
        // The library counts in int; a symbol is at most a jumbo frame.
        let wide = match source.len() / LEN_UNIT * LEN_UNIT {
            len if (LEN_MIN..=c_int::MAX as usize).contains(&len) => len,
            _ => 0,
        };
        let (head, tail) = source.split_at(wide);
        for (coefficients, targets) in coefficients
            .chunks(TARGETS_MAX)
            .zip(targets.chunks_mut(TARGETS_MAX))
        {
            if wide > 0 {
                self.update(coefficients, head, targets);
            }
            if !tail.is_empty() {
                for (&coefficient, target) in coefficients.iter().zip(targets) {
                    if let Some(target) = target.as_mut().get_mut(wide..) {
                        field::multiply_accumulate(coefficient, tail, target);
                    }
                }
            }
        }
    }

    fn update<T: AsMut<[u8]>>(&self, coefficients: &[u8], source: &[u8], targets: &mut [T]) {
        let mut tables = [0u8; TARGETS_MAX * TABLE_LEN];
        let mut pointers = [std::ptr::null_mut::<u8>(); TARGETS_MAX];
        let mut rows = 0;
        for (&coefficient, target) in coefficients.iter().zip(targets) {
            let target = target.as_mut();
            if target.len() < source.len() {
                continue;
            }
            let entry = &self.entries[usize::from(coefficient)][..self.stride];
            tables[rows * self.stride..][..self.stride].copy_from_slice(entry);
            pointers[rows] = target.as_mut_ptr();
            rows += 1;
        }
        if rows == 0 {
            return;
        }
        // SAFETY: `rows` is 1 to 16, and the first `rows` tables and pointers are set. Each
        // pointer leads to `source.len()` bytes or more of a target that is borrowed mutably
        // until the end of this function, so it overlaps neither the source nor, by the
        // contract of `AsMut`, another target. The source is only read, whatever the C
        // signature says; its length fits an int, is a multiple of 32 and at least 64.
        unsafe {
            ffi::ec_encode_data_update(
                source.len() as c_int,
                1,
                rows as c_int,
                0,
                tables.as_mut_ptr(),
                source.as_ptr().cast_mut(),
                pointers.as_mut_ptr(),
            );
        }
    }
}
