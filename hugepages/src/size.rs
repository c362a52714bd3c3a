//! Sizes of pages and amounts of memory.

use std::fmt;

use crate::error::HugepageError;

/// A page size the kernel may offer: a power of two of KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize {
    kib: u64,
}

impl PageSize {
    /// 2 MiB: the default of x86-64.
    pub const MIB_2: Self = Self { kib: 2 << 10 };
    /// 1 GiB: fewest TLB misses; hard to get once the machine has been up for a while.
    pub const GIB_1: Self = Self { kib: 1 << 20 };

    /// A page of `kib` KiB, if that is a power of two and can be counted in bytes.
    pub fn from_kib(kib: u64) -> Option<Self> {
        (kib.is_power_of_two() && kib <= u64::MAX >> 10).then_some(Self { kib })
    }

    /// A page of `bytes` bytes, likewise.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        if !bytes.is_multiple_of(1024) {
            return None;
        }
        Self::from_kib(bytes / 1024)
    }

    /// In KiB.
    pub fn kib(self) -> u64 {
        self.kib
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.kib << 10
    }

    /// How many such pages hold `bytes`.
    pub fn pages_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// Name of its folder in `/sys/kernel/mm/hugepages`.
    pub(crate) fn dir_name(self) -> String {
        format!("hugepages-{}kB", self.kib)
    }

    pub(crate) fn from_dir_name(name: &str) -> Option<Self> {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        Self::from_kib(kib.parse().ok()?)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kib {
            kib if kib >= 1 << 20 => write!(f, "{} GiB", kib >> 20),
            kib if kib >= 1 << 10 => write!(f, "{} MiB", kib >> 10),
            kib => write!(f, "{kib} KiB"),
        }
    }
}

/// Bytes of an amount as people and the kernel write it: a number and K, M, G or T, powers of
/// 1024, with `B` or `iB` behind or not. A bare number is bytes.
///
/// # Errors
///
/// If it is not of that form or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, HugepageError> {
    let bad = || HugepageError::Size { text: text.into() };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(bad()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, bytes) in [
            ("0", 0),
            ("2048K", 2 << 20),
            ("2M", 2 << 20),
            ("1GiB", 1 << 30),
            ("512mb", 512 << 20),
        ] {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for text in [
            "",
            "M",
            "-1M",
            "+1M",
            "1.5G",
            "1X",
            "1 M",
            "99999999999T",
            "1Mé",
            "é",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn page_sizes() {
        assert_eq!(
            PageSize::from_dir_name("hugepages-2048kB"),
            Some(PageSize::MIB_2)
        );
        assert_eq!(PageSize::from_dir_name("hugepages-3kB"), None);
        assert_eq!(PageSize::from_dir_name("pages-2048kB"), None);
        assert_eq!(PageSize::from_bytes(1 << 30), Some(PageSize::GIB_1));
        assert_eq!(PageSize::from_bytes(1025), None);
        assert_eq!(PageSize::MIB_2.pages_for((512 << 20) + 1), 257);
        assert_eq!(PageSize::MIB_2.to_string(), "2 MiB");
    }
}
