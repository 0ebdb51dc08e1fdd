//! Sizes as people write them: `4G`, `512MiB`, `1.5g`, or a bare number of MiB.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of memory or disk, in whole MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mib(pub u64);

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSize(String);

impl Mib {
    pub const fn bytes(self) -> u64 {
        self.0 << 20
    }

    /// The least whole number of MiB that holds `bytes`.
    pub const fn holding(bytes: u64) -> Self {
        Self(bytes.div_ceil(1 << 20))
    }
}

/// Whole GiB are written as `8 GiB`, the rest as `1536 MiB`.
impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % 1024 == 0 => write!(f, "{} GiB", n / 1024),
            n => write!(f, "{n} MiB"),
        }
    }
}

impl FromStr for Mib {
    type Err = BadSize;
    /// Reads a number with an optional unit: K, M, G or T, alone or followed by `B` or `iB`, in any case, all powers
    /// of 1024. Without a unit it is MiB. Fractions round up to the next MiB.
    fn from_str(s: &str) -> Result<Self, BadSize> {
        let bad = || BadSize(s.to_owned());
        let text = s.trim().to_ascii_lowercase();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let bytes_per: u64 = match unit.trim_start() {
            "" | "m" | "mb" | "mib" => 1 << 20,
            "k" | "kb" | "kib" => 1 << 10,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let bytes = (number * bytes_per as f64).ceil();
        // 2^53: the last whole number that an f64 holds exactly; far above any disk.
        if !(1.0..=9_007_199_254_740_992.0).contains(&bytes) {
            return Err(bad());
        }
        Ok(Self::holding(bytes as u64))
    }
}

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no size; write it like 512M or 4G", self.0)
    }
}

impl std::error::Error for BadSize {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, mib) in [
            ("4G", 4096),
            ("4GiB", 4096),
            ("4gb", 4096),
            ("512MiB", 512),
            ("4KiB", 1),
            ("1.5G", 1536),
            ("700", 700),
            ("1T", 1 << 20),
            (" 2 G ", 2048),
        ] {
            assert_eq!(text.parse(), Ok(Mib(mib)), "{text}");
        }
        for bad in ["", "G", "0", "-1G", "1X", "1.2.3G", "1e9", "99999999999T", "4 G 2", "NaN", "inf"] {
            assert!(bad.parse::<Mib>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        assert_eq!(Mib(8192).to_string(), "8 GiB");
        assert_eq!(Mib(1536).to_string(), "1536 MiB");
        assert_eq!(Mib(0).to_string(), "0 MiB");
    }
}
