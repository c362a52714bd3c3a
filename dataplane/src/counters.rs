//! Counters that one lcore writes and the control thread reads.
//!
//! An lcore counts in plain fields and publishes them now and then ([`Published::store`]); readers
//! take what was published last ([`Published::load`]). Each value only grows, so a reader sees
//! each one as it was at some moment within the last publishing interval.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// A set of counters as a row of words.
pub trait Words: Default {
    /// How many words it takes.
    const WORDS: usize;

    /// Hands each word to `put`, always in the same order.
    fn for_each(&self, put: impl FnMut(u64));

    /// Rebuilds the set from words in that order.
    fn collect(words: impl FnMut() -> u64) -> Self;
}

/// A set of counters that another thread may read.
pub struct Published<C> {
    words: Box<[CachePadded<[AtomicU64; 8]>]>,
    set: std::marker::PhantomData<fn() -> C>,
}

impl<C: Words> Default for Published<C> {
    fn default() -> Self {
        Self {
            words: (0..C::WORDS.div_ceil(8))
                .map(|_| CachePadded::default())
                .collect(),
            set: std::marker::PhantomData,
        }
    }
}

impl<C: Words> Published<C> {
    /// Publishes the counters; only their one writer does that.
    pub fn store(&self, counters: &C) {
        let mut words = self.words.iter().flat_map(|line| line.iter());
        counters.for_each(|value| {
            if let Some(word) = words.next() {
                word.store(value, Ordering::Relaxed);
            }
        });
    }

    /// What was published last.
    pub fn load(&self) -> C {
        let mut words = self.words.iter().flat_map(|line| line.iter());
        C::collect(|| words.next().map_or(0, |word| word.load(Ordering::Relaxed)))
    }
}

/// Declares a set of `u64` counters that can be published and serialised.
#[macro_export]
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, serde::Serialize)]
        pub struct $name { $($(#[$field_meta])* pub $field: u64,)+ }

        impl $crate::counters::Words for $name {
            const WORDS: usize = [$(stringify!($field)),+].len();

            fn for_each(&self, mut put: impl FnMut(u64)) {
                $(put(self.$field);)+
            }

            fn collect(mut words: impl FnMut() -> u64) -> Self {
                Self { $($field: words(),)+ }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    counters! {
        /// More words than fit a cache line.
        pub struct Many { a, b, c, d, e, f, g, h, i, j, }
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let published = Published::<Many>::default();
        assert_eq!(published.load().j, 0);
        published.store(&Many {
            a: 1,
            h: 8,
            i: 9,
            j: 10,
            ..Many::default()
        });
        let read = published.load();
        assert_eq!((read.a, read.b, read.h, read.i, read.j), (1, 0, 8, 9, 10));
    }
}
