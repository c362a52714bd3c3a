//! See, reserve and mount hugepages.
//!
//! DPDK keeps packets in hugepages, so that a burst of packets does not cost a burst of TLB
//! misses. The kernel hands them out from one pool per page size; a pool is filled by writing to
//! `/sys/kernel/mm/hugepages`, and processes take pages from it through a `hugetlbfs` mount.
//!
//! | question | here |
//! |---|---|
//! | what is there | [`Hugepages::pools`], [`Hugepages::mounts`] |
//! | is it enough for N MB | [`Hugepages::preflight`] |
//! | make it so | [`Hugepages::reserve`], [`Hugepages::mount`] |
//! | and after a reboot | [`Hugepages::persist`]: a systemd unit |
//!
//! Everything is looked up below a root folder, `/` on a real machine, so that tests bring their
//! own. Every error is one line that says what to do about it. Sources: the kernel's
//! `admin-guide/mm/hugetlbpage`, and "System Requirements" of the DPDK guide.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod size;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use error::HugepageError;
pub use size::{PageSize, parse_size};

const POOLS: &str = "sys/kernel/mm/hugepages";
const MOUNTS: &str = "proc/mounts";
const MEMINFO: &str = "proc/meminfo";
/// What a reservation leaves to the rest of the machine: a tenth of its memory, but never less
/// than a small system needs to stay responsive.
const MARGIN_SHARE: u64 = 10;
const MARGIN_BYTES_MIN: u64 = 256 << 20;
const UNIT: &str = "etc/systemd/system/shardgate-hugepages.service";
const UNIT_WANTED: &str = "etc/systemd/system/sysinit.target.wants/shardgate-hugepages.service";
const UNIT_TEXT: &str = include_str!("../shardgate-hugepages.service");

/// The kernel's pool of one page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Size of its pages.
    pub size: PageSize,
    /// Pages in the pool.
    pub total: u64,
    /// Pages not in use. Some of them may be promised already.
    pub free: u64,
    /// Free pages that are promised to a process which has not touched them yet.
    pub reserved: u64,
}

impl Pool {
    /// Pages a new process can have.
    pub fn available(&self) -> u64 {
        self.free.saturating_sub(self.reserved)
    }

    /// The same in bytes.
    pub fn available_bytes(&self) -> u64 {
        self.available().saturating_mul(self.size.bytes())
    }
}

/// A `hugetlbfs` mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub dir: PathBuf,
    /// Which pages.
    pub size: PageSize,
}

/// Whether DPDK will need a mount: not with `--in-memory`, which takes pages by `memfd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountNeed {
    /// Only pages of a mounted size count.
    Required,
    /// Every page counts.
    NotRequired,
}

/// A machine's hugepages.
#[derive(Clone, Debug)]
pub struct Hugepages {
    root: PathBuf,
}

impl Default for Hugepages {
    fn default() -> Self {
        Self::new()
    }
}

impl Hugepages {
    /// This machine's.
    pub fn new() -> Self {
        Self::at("/")
    }

    /// Those described by the files below `root`, laid out as on a real machine.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// All pools, smallest pages first; empty ones too.
    ///
    /// # Errors
    ///
    /// If the kernel has no hugepages or its files cannot be read.
    pub fn pools(&self) -> Result<Vec<Pool>, HugepageError> {
        let dir = self.root.join(POOLS);
        let entries = fs::read_dir(&dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => HugepageError::Unsupported { dir: dir.clone() },
            _ => HugepageError::read(&dir, error),
        })?;
        let mut pools = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| HugepageError::read(&dir, error))?;
            if let Some(size) = entry.file_name().to_str().and_then(PageSize::from_dir_name) {
                pools.push(self.pool(size)?);
            }
        }
        pools.sort_by_key(|pool| pool.size);
        Ok(pools)
    }

    /// The pool of one page size.
    ///
    /// # Errors
    ///
    /// If the kernel has no pages of that size or its files cannot be read.
    pub fn pool(&self, size: PageSize) -> Result<Pool, HugepageError> {
        let dir = self.pool_dir(size)?;
        Ok(Pool {
            size,
            total: read_count(&dir.join("nr_hugepages"))?,
            free: read_count(&dir.join("free_hugepages"))?,
            reserved: read_count(&dir.join("resv_hugepages"))?,
        })
    }

    /// The page size of a plain `hugetlbfs` mount.
    ///
    /// # Errors
    ///
    /// If the kernel names none.
    pub fn default_size(&self) -> Result<PageSize, HugepageError> {
        let file = self.root.join(MEMINFO);
        let text = fs::read_to_string(&file).map_err(|error| HugepageError::read(&file, error))?;
        meminfo_bytes(&text, "Hugepagesize:")
            .and_then(PageSize::from_bytes)
            .ok_or(HugepageError::Malformed { file })
    }

    /// All `hugetlbfs` mounts.
    ///
    /// # Errors
    ///
    /// If `/proc/mounts` or, for a mount that names no page size, the default cannot be read.
    pub fn mounts(&self) -> Result<Vec<Mount>, HugepageError> {
        let file = self.root.join(MOUNTS);
        let text = fs::read_to_string(&file).map_err(|error| HugepageError::read(&file, error))?;
        let mut mounts = Vec::new();
        for line in text.lines() {
            // Device, folder, type, options, and two numbers (fstab(5)).
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (Some(dir), Some("hugetlbfs"), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let size = match options.split(',').find_map(|o| o.strip_prefix("pagesize=")) {
                Some(size) => PageSize::from_bytes(parse_size(size)?)
                    .ok_or_else(|| HugepageError::Malformed { file: file.clone() })?,
                None => self.default_size()?,
            };
            mounts.push(Mount {
                dir: unescape(dir).into(),
                size,
            });
        }
        Ok(mounts)
    }

    /// Fills the pool of one page size to at least `count` pages, used ones included; it never
    /// shrinks. Gives the pool as it is then.
    ///
    /// # Errors
    ///
    /// Without the right to; if that would leave the machine less memory than it needs to go on;
    /// or if the kernel found less in one piece than asked for. The pool is then as before.
    pub fn reserve(&self, size: PageSize, count: u64) -> Result<Pool, HugepageError> {
        let before = self.pool(size)?;
        if before.total >= count {
            return Ok(before);
        }
        self.require_memory(size, count - before.total)?;
        let file = self.pool_dir(size)?.join("nr_hugepages");
        let set = |count: u64| {
            fs::write(&file, count.to_string()).map_err(|error| HugepageError::write(&file, error))
        };
        grow(before, count, set, || self.pool(size))
    }

    /// The kernel takes what a pool asks for from everything else, until it kills processes.
    fn require_memory(&self, size: PageSize, pages: u64) -> Result<(), HugepageError> {
        let file = self.root.join(MEMINFO);
        let text = fs::read_to_string(&file).map_err(|error| HugepageError::read(&file, error))?;
        let field = |name: &str| {
            meminfo_bytes(&text, name)
                .ok_or_else(|| HugepageError::Malformed { file: file.clone() })
        };
        let margin = MARGIN_BYTES_MIN.max(field("MemTotal:")? / MARGIN_SHARE);
        let usable = field("MemAvailable:")?.saturating_sub(margin);
        let needed = pages.saturating_mul(size.bytes());
        if needed <= usable {
            return Ok(());
        }
        Err(HugepageError::TooMuch {
            megabytes: needed.div_ceil(1 << 20),
            usable_megabytes: usable >> 20,
            margin_megabytes: margin >> 20,
        })
    }

    /// A mount for pages of `size`: the one there is, or a new one at
    /// [`Self::mount_dir`], by mount(8).
    ///
    /// # Errors
    ///
    /// Without the right to, or if mount(8) fails.
    pub fn mount(&self, size: PageSize) -> Result<Mount, HugepageError> {
        if let Some(mount) = self.mounts()?.into_iter().find(|mount| mount.size == size) {
            return Ok(mount);
        }
        self.pool_dir(size)?;
        let dir = self.root.join(self.mount_dir(size)?);
        fs::create_dir_all(&dir).map_err(|error| HugepageError::write(&dir, error))?;
        let failed = |reason: String| HugepageError::Mount {
            dir: dir.clone(),
            kib: size.kib(),
            reason,
        };
        let output = Command::new("mount")
            .args(["-t", "hugetlbfs", "-o"])
            .arg(format!("pagesize={}K", size.kib()))
            .arg("hugetlbfs")
            .arg(&dir)
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(failed(reason.lines().next().unwrap_or("").to_owned()));
        }
        Ok(Mount { dir, size })
    }

    /// Where pages of `size` are mounted, relative to the root: `dev/hugepages`, as systemd does
    /// it, for the default size, and a folder that names its size for others.
    ///
    /// # Errors
    ///
    /// If the default size cannot be read.
    pub fn mount_dir(&self, size: PageSize) -> Result<PathBuf, HugepageError> {
        Ok(if self.default_size()? == size {
            "dev/hugepages".into()
        } else {
            format!("dev/hugepages-{}kB", size.kib()).into()
        })
    }

    /// Whether a process that needs `megabytes` (2^20 bytes) of hugepages can start now. Gives
    /// the pools it can draw on; DPDK mixes page sizes.
    ///
    /// # Errors
    ///
    /// If there is too little, with the command that mends it, or if the pages are there and only
    /// the mount is missing.
    pub fn preflight(&self, megabytes: u64, need: MountNeed) -> Result<Vec<Pool>, HugepageError> {
        let mut pools = self.pools()?;
        let needed = megabytes.saturating_mul(1 << 20);
        let sum = |pools: &[Pool]| {
            pools
                .iter()
                .fold(0u64, |sum, pool| sum.saturating_add(pool.available_bytes()))
        };
        let available = sum(&pools);
        if available < needed {
            let size = self.default_size()?;
            // What others use must stay in the pool beside what is needed.
            let pool = self.pool(size)?;
            let used_pages = pool.total.saturating_sub(pool.available());
            let used = used_pages.saturating_mul(size.bytes());
            return Err(HugepageError::TooFew {
                megabytes,
                available_megabytes: available >> 20,
                reserve_megabytes: used.saturating_add(needed).div_ceil(1 << 20),
            });
        }
        if need == MountNeed::Required {
            let mounts = self.mounts()?;
            pools.retain(|pool| mounts.iter().any(|mount| mount.size == pool.size));
            if sum(&pools) < needed {
                return Err(HugepageError::NotMounted { megabytes });
            }
        }
        Ok(pools)
    }

    /// Writes and enables a systemd unit that reserves and mounts the same at every boot. Gives
    /// the unit's file.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn persist(&self, size: PageSize, count: u64) -> Result<PathBuf, HugepageError> {
        let dir = Path::new("/").join(self.mount_dir(size)?);
        let text = UNIT_TEXT
            .replace("@COUNT@", &count.to_string())
            .replace("@KIB@", &size.kib().to_string())
            .replace("@DIR@", &dir.to_string_lossy());
        let (unit, wanted) = (self.root.join(UNIT), self.root.join(UNIT_WANTED));
        if let Some(parent) = wanted.parent() {
            fs::create_dir_all(parent).map_err(|error| HugepageError::write(parent, error))?;
        }
        fs::write(&unit, text).map_err(|error| HugepageError::write(&unit, error))?;
        match std::os::unix::fs::symlink("../shardgate-hugepages.service", &wanted) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(HugepageError::write(&wanted, error))
            }
            _ => Ok(unit),
        }
    }

    fn pool_dir(&self, size: PageSize) -> Result<PathBuf, HugepageError> {
        let dir = self.root.join(POOLS).join(size.dir_name());
        if dir.is_dir() {
            Ok(dir)
        } else {
            Err(HugepageError::NoSuchSize { kib: size.kib() })
        }
    }
}

fn read_count(file: &Path) -> Result<u64, HugepageError> {
    let text = fs::read_to_string(file).map_err(|error| HugepageError::read(file, error))?;
    text.trim()
        .parse()
        .map_err(|_| HugepageError::Malformed { file: file.into() })
}

/// A field of `/proc/meminfo`, which counts in KiB.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Sets a pool to `count` pages. The kernel takes any number and keeps what it found memory for:
/// unless that is all, the old count is set again.
fn grow(
    before: Pool,
    count: u64,
    set: impl Fn(u64) -> Result<(), HugepageError>,
    read: impl Fn() -> Result<Pool, HugepageError>,
) -> Result<Pool, HugepageError> {
    let grown = set(count).and_then(|()| read()).and_then(|pool| {
        if pool.total >= count {
            return Ok(pool);
        }
        Err(HugepageError::Fragmented {
            count,
            got: pool.total,
            kib: pool.size.kib(),
        })
    });
    if grown.is_err() {
        // The first error is the one to tell.
        let _ = set(before.total);
    }
    grown
}

/// Undoes the octal escapes of `/proc/mounts` (`\040` is a space).
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn a_pool_that_cannot_grow_so_far_is_put_back() {
        // A kernel that finds memory for 100 pages.
        let pool = Cell::new(pool(7));
        let writes = RefCell::new(Vec::new());
        let reserve = |count| {
            let set = |count: u64| {
                writes.borrow_mut().push(count);
                pool.set(self::pool(count.min(100)));
                Ok(())
            };
            grow(pool.get(), count, set, || Ok(pool.get()))
        };
        let error = reserve(101).expect_err("one short").to_string();
        assert!(error.contains("100 of 101"), "{error}");
        assert_eq!(*writes.borrow(), [101, 7]);
        assert_eq!(reserve(100).expect("enough").total, 100);
        assert_eq!(*writes.borrow(), [101, 7, 100]);
    }

    #[test]
    fn a_pool_that_cannot_be_read_back_is_put_back() {
        let writes = RefCell::new(Vec::new());
        let set = |count: u64| {
            writes.borrow_mut().push(count);
            Ok(())
        };
        let unreadable = || Err(HugepageError::NoSuchSize { kib: 2048 });
        assert!(grow(pool(7), 9, set, unreadable).is_err());
        assert_eq!(*writes.borrow(), [9, 7]);
    }

    fn pool(total: u64) -> Pool {
        Pool {
            size: PageSize::MIB_2,
            total,
            free: total,
            reserved: 0,
        }
    }

    #[test]
    fn octal_escapes_of_proc_mounts() {
        assert_eq!(unescape("/mnt/huge"), "/mnt/huge");
        assert_eq!(unescape(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescape(r"\"), r"\");
        assert_eq!(unescape(r"\9é\400"), r"\9é\400");
    }
}
