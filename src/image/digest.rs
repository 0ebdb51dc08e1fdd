//! Digests: the name of content (image-spec descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The algorithms that the specification registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hash, in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// `sha256:` or `sha512:` and the hash in lower-case hexadecimal, of the right length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The digest with this hash; None if the hash is not as long as `algorithm` makes it.
    pub fn new(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        let hex = hash.iter().map(|b| format!("{b:02x}")).collect();
        (hash.len() == algorithm.bytes()).then_some(Self { algorithm, hex })
    }

    /// The digest with a hash that `algorithm` made.
    pub fn of_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        Self { algorithm, hex: hash.iter().map(|b| format!("{b:02x}")).collect() }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash alone: hexadecimal, so it is a file name.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// The text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadDigest;

impl fmt::Display for BadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is sha256: and 64, or sha512: and 128, lower-case hexadecimal digits")
    }
}

impl std::error::Error for BadDigest {}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let (name, hex) = text.split_once(':').ok_or(BadDigest)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(BadDigest),
        };
        let ok =
            hex.len() == 2 * algorithm.bytes() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ok { Ok(Self { algorithm, hex: hex.to_owned() }) } else { Err(BadDigest) }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_a_known_algorithm_and_all_its_digits() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().expect("parses").to_string(), good);
        assert_eq!(Digest::new(Algorithm::Sha256, &[0x0a; 32]).expect("fits").to_string(), good);
        assert!(Digest::new(Algorithm::Sha256, &[0; 31]).is_none());
        let long = format!("sha512:{}", "b".repeat(128));
        assert_eq!(long.parse::<Digest>().expect("parses").algorithm(), Algorithm::Sha512);
        let bad = [
            String::new(),
            "sha256:".to_owned(),
            "0a".repeat(32),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:{}", "/.".repeat(32)),
            format!("sha512:{}", "0a".repeat(32)),
            format!("md5:{}", "0a".repeat(16)),
        ];
        for text in bad {
            assert_eq!(text.parse::<Digest>(), Err(BadDigest), "{text}");
        }
    }
}
