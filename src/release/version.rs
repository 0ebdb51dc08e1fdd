//! Versions of banger, in the order of Semantic Versioning 2.0.0 (section 11).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest version, in bytes.
const MAX: usize = 64;

/// `v1.2.3`, or `v1.2.3-rc.1` for what comes before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    numbers: [u64; 3],
    /// Empty for a release proper.
    pre: Vec<Identifier>,
}

/// A part of a pre-release: numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVersion(String);

impl Version {
    /// Whether it comes before a release proper.
    pub fn is_pre_release(&self) -> bool {
        !self.pre.is_empty()
    }

    /// Of what `banger --version` says: `banger v0.1.0 (commit abcd1234, built 2026-11-23T15:00:00Z)`.
    pub fn of_line(line: &str) -> Option<Self> {
        line.strip_prefix("banger ")?.split(' ').next()?.parse().ok()
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    /// The `v` may be missing, as in Cargo.toml.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        parse(text).ok_or_else(|| BadVersion(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Version> {
    if text.len() > MAX {
        return None;
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, pre.split('.').map(identifier).collect::<Option<_>>()?),
        None => (text, vec![]),
    };
    let mut parts = core.split('.').map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(Version { numbers, pre })
}

/// Digits, without a zero before them: each version is written in one way.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn identifier(text: &str) -> Option<Identifier> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return number(text).map(Identifier::Number);
    }
    let word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    word.then(|| Identifier::Word(text.to_owned()))
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // What comes before a release is older than it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "v{major}.{minor}.{patch}")?;
        for (i, part) in self.pre.iter().enumerate() {
            f.write_str(if i == 0 { "-" } else { "." })?;
            match part {
                Identifier::Number(n) => n.fmt(f)?,
                Identifier::Word(word) => f.write_str(word)?,
            }
        }
        Ok(())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for BadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(MAX).flat_map(char::escape_debug).collect();
        write!(f, "'{shown}' is no version; write it like v1.2.3")
    }
}

impl std::error::Error for BadVersion {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v(text: &str) -> Version {
        text.parse().expect(text)
    }

    #[test]
    fn versions_are_in_the_order_of_the_specification() {
        let ascending = [
            "v0.0.9",
            "v0.1.0",
            "v0.9.0",
            "v0.10.0",
            "v1.0.0-alpha",
            "v1.0.0-alpha.1",
            "v1.0.0-alpha.beta",
            "v1.0.0-beta",
            "v1.0.0-beta.2",
            "v1.0.0-beta.11",
            "v1.0.0-rc.1",
            "v1.0.0",
            "v1.0.1-0",
            "v1.0.1",
            "v2.0.0",
        ];
        for (i, a) in ascending.iter().enumerate() {
            assert_eq!(v(a).to_string(), *a);
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(v(a).cmp(&v(b)), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "v",
            "1",
            "1.2",
            "1.2.3.4",
            "v01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3+build",
            "1.2.x",
            "-1.2.3",
            "vv1.2.3",
            " 1.2.3",
            "1.2.3\n",
            "1.2.99999999999999999999",
        ] {
            text.parse::<Version>().expect_err(text);
        }
        format!("1.2.3-{}", "a".repeat(MAX)).parse::<Version>().expect_err("too long");
        assert_eq!(
            "x\n".parse::<Version>().expect_err("bad").to_string(),
            "'x\\n' is no version; write it like v1.2.3"
        );
    }

    #[test]
    fn a_binary_says_its_version_in_its_line() {
        let line = "banger v0.1.0 (commit abcd1234, built 2026-11-23T15:00:00Z)";
        assert_eq!(Version::of_line(line), Some(v("v0.1.0")));
        for other in ["", "banger", "banger ", "bangers v0.1.0", "v0.1.0", "banger v0.1"] {
            assert_eq!(Version::of_line(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn each_version_is_written_in_one_way(text in "v?[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z0-9.-]{1,9})?|\\PC{0,20}") {
            if let Ok(version) = text.parse::<Version>() {
                let written = version.to_string();
                prop_assert_eq!(written.trim_start_matches('v'), text.trim_start_matches('v'));
            }
        }
    }
}
