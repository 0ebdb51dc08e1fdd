//! Names: what people call a VM, and its label in DNS.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A VM's name and DNS label: 1 to 32 of `a-z`, `0-9`, `-`, starting with a letter, not ending with `-` (RFC 1035, 2.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// The text is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName(String);

impl VmName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name such as `calm-otter`, picked by `random`; the next free one of the list when `taken` says that it is in use.
    /// None when every name of the list is taken.
    pub fn pick(random: u64, taken: impl Fn(&VmName) -> bool) -> Option<Self> {
        let pairs = ADJECTIVES.len() * NOUNS.len();
        let start = (random % pairs as u64) as usize;
        (0..pairs)
            .map(|step| (start + step) % pairs)
            .map(|i| Self(format!("{}-{}", ADJECTIVES[i / NOUNS.len()], NOUNS[i % NOUNS.len()])))
            .find(|name| !taken(name))
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VmName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let ok = s.len() <= 32
            && s.starts_with(|c: char| c.is_ascii_lowercase())
            && !s.ends_with('-')
            && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            // Every resolver answers this one itself (RFC 6761, 6.3).
            && s != "localhost";
        if ok { Ok(Self(s.to_owned())) } else { Err(BadName(s.to_owned())) }
    }
}

impl TryFrom<String> for VmName {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> String {
        name.0
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} cannot name a VM; use 1 to 32 of a-z, 0-9 and -, starting with a letter and not ending with -",
            self.0
        )
    }
}

impl std::error::Error for BadName {}

const ADJECTIVES: [&str; 48] = [
    "agile", "amber", "bold", "brave", "brief", "bright", "brisk", "calm", "clear", "clever", "cosy",
    "crisp", "daring", "deft", "eager", "early", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad",
    "grand", "happy", "hardy", "honest", "jolly", "keen", "kind", "light", "lively", "lucid", "lucky",
    "mellow", "merry", "neat", "nimble", "noble", "plain", "prime", "proud", "quick", "quiet", "rapid",
    "spry", "sunny", "swift",
];

const NOUNS: [&str; 64] = [
    "ant", "badger", "bat", "bear", "beaver", "bee", "bison", "boar", "crab", "crane", "crow", "deer",
    "dingo", "dove", "duck", "eagle", "eel", "elk", "falcon", "finch", "fox", "frog", "gecko", "goat",
    "goose", "hare", "hawk", "heron", "horse", "ibis", "jay", "kiwi", "koala", "lark", "lemur", "lion",
    "lynx", "mole", "moose", "moth", "mouse", "newt", "orca", "otter", "owl", "panda", "pike", "pony",
    "puffin", "quail", "raven", "robin", "seal", "shark", "shrew", "sloth", "snail", "stork", "swan",
    "tiger", "trout", "viper", "whale", "wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_that_starts_with_a_letter() {
        for good in ["a", "dev", "dev-2", "a--b", &"x".repeat(32)] {
            assert!(good.parse::<VmName>().is_ok(), "{good}");
        }
        for bad in ["", "Dev", "2dev", "-dev", "dev-", "de_v", "dev.vm", "dév", "localhost", &"x".repeat(33)]
        {
            assert!(bad.parse::<VmName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_automatic_name_is_a_name() {
        let pairs = (ADJECTIVES.len() * NOUNS.len()) as u64;
        for random in 0..pairs {
            let name = VmName::pick(random, |_| false).expect("none is taken");
            assert_eq!(name.as_str().parse(), Ok(name.clone()));
        }
    }

    #[test]
    fn an_automatic_name_steps_over_those_in_use() {
        let first = VmName::pick(5, |_| false).expect("free");
        let second = VmName::pick(5, |name| *name == first).expect("free");
        assert_ne!(first, second);
        assert_eq!(VmName::pick(5, |_| true), None);
    }
}
