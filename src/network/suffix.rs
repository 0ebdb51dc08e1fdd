//! The domain below which VMs have their names: `vm`, so that VM dev is dev.vm.

use std::fmt;
use std::str::FromStr;

/// One or more DNS labels, in lower case, without dots at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix(String);

/// The text is no domain for VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSuffix {
    Malformed(String),
    /// Resolvers never ask for it, or ask elsewhere (RFC 6761, RFC 6762).
    Special(String),
}

/// With a VM's name of 32 bytes and a dot it must stay well below a name's 255 (RFC 1035, 2.3.4).
const LONGEST: usize = 100;
const LONGEST_LABEL: usize = 63;

impl Suffix {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `vm`.
impl Default for Suffix {
    fn default() -> Self {
        Self("vm".to_owned())
    }
}

impl FromStr for Suffix {
    type Err = BadSuffix;
    fn from_str(s: &str) -> Result<Self, BadSuffix> {
        let label = |l: &str| {
            (1..=LONGEST_LABEL).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if s.len() > LONGEST || !s.split('.').all(label) {
            return Err(BadSuffix::Malformed(s.to_owned()));
        }
        match s.rsplit('.').next() {
            Some("localhost" | "local" | "invalid" | "arpa") => Err(BadSuffix::Special(s.to_owned())),
            _ => Ok(Self(s.to_owned())),
        }
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadSuffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => {
                write!(f, "{text:?} is no domain; write it in lower case, like vm or dev.internal")
            }
            Self::Special(text) => {
                write!(f, "{text} has a meaning of its own in DNS; choose another, like vm or test")
            }
        }
    }
}

impl std::error::Error for BadSuffix {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_labels_without_a_meaning_of_their_own() {
        for good in ["vm", "test", "dev.internal", "a-1.b"] {
            assert_eq!(good.parse::<Suffix>().expect(good).to_string(), good);
        }
        let long = "a".repeat(64);
        for bad in ["", ".vm", "vm.", "a..b", "-a", "a-", "VM", "a b", "ä", "localhost", "x.local", &long] {
            bad.parse::<Suffix>().expect_err(bad);
        }
    }
}
