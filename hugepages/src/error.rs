//! What can go wrong with hugepages, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why something about hugepages failed. Every message is one line with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum HugepageError {
    /// The kernel has no hugepages.
    #[error(
        "{}: not there; this kernel has no hugepages: run one with CONFIG_HUGETLBFS, or set hugepages = \"off\"",
        dir.display()
    )]
    Unsupported {
        /// The folder that is missing.
        dir: PathBuf,
    },
    /// The kernel has hugepages, but not of this size.
    #[error(
        "no hugepages of {kib} KiB on this machine; `ls /sys/kernel/mm/hugepages` names the sizes it has"
    )]
    NoSuchSize {
        /// The size asked for.
        kib: u64,
    },
    /// A file of the kernel cannot be read.
    #[error("{}: {error}; run as root, or mount /proc and /sys", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: {error}; run as root, with /sys and /etc writable", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file of the kernel does not hold what it should.
    #[error("{}: not as expected of a kernel; is the right file system mounted there?", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
    },
    /// Not an amount of memory.
    #[error("`{text}` is not a size; write a whole number and K, M or G, such as 512M")]
    Size {
        /// What was given.
        text: String,
    },
    /// The kernel found less memory in one piece than asked for.
    #[error(
        "the kernel found memory for {got} of {count} hugepages of {kib} KiB; none were kept: free memory or run `echo 1 > /proc/sys/vm/compact_memory` and try again, or put hugepages={count} on the kernel's command line"
    )]
    Fragmented {
        /// Pages asked for.
        count: u64,
        /// Pages there are.
        got: u64,
        /// Their size.
        kib: u64,
    },
    /// More than the machine can spare.
    #[error(
        "{megabytes} MB more of hugepages asked for, {usable_megabytes} MB can be had (what is available less {margin_megabytes} MB for the rest of the machine); ask for less, or free memory"
    )]
    TooMuch {
        /// Asked for beyond what is in the pool.
        megabytes: u64,
        /// What may be taken.
        usable_megabytes: u64,
        /// What is left to others.
        margin_megabytes: u64,
    },
    /// Less is available than needed.
    #[error(
        "{megabytes} MB of hugepages needed, {available_megabytes} MB available; run `shardgate hugepages reserve {reserve_megabytes}M`"
    )]
    TooFew {
        /// Needed.
        megabytes: u64,
        /// Free and not promised, all sizes together.
        available_megabytes: u64,
        /// The size of the pool that would do, with what others use.
        reserve_megabytes: u64,
    },
    /// The pages are there, but no mount to take them from.
    #[error(
        "{megabytes} MB of hugepages are there but not mounted; run `mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages`"
    )]
    NotMounted {
        /// Needed.
        megabytes: u64,
    },
    /// mount(8) failed.
    #[error(
        "cannot mount hugepages of {kib} KiB at {}: {reason}; run as root, outside of a container without CAP_SYS_ADMIN",
        dir.display()
    )]
    Mount {
        /// Where.
        dir: PathBuf,
        /// Which pages.
        kib: u64,
        /// What it said.
        reason: String,
    },
}

impl HugepageError {
    pub(crate) fn read(file: &Path, error: io::Error) -> Self {
        Self::Read {
            file: file.into(),
            error,
        }
    }

    pub(crate) fn write(file: &Path, error: io::Error) -> Self {
        Self::Write {
            file: file.into(),
            error,
        }
    }
}
