//! Names of objects, and how they come about.

use std::fmt;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::Format;

/// An object's name in either format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    length: u8,
    bytes: [u8; 32],
}

impl Id {
    /// From as many bytes as a format's names have.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { length: bytes.len() as u8, bytes: [0; 32] };
        matches!(bytes.len(), 20 | 32).then(|| {
            id.bytes[..bytes.len()].copy_from_slice(bytes);
            id
        })
    }

    /// From lower-case hexadecimal.
    pub fn parse(hex: &[u8]) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut id = Self { length: (hex.len() / 2) as u8, bytes: [0; 32] };
        if !matches!(hex.len(), 40 | 64) {
            return None;
        }
        for (byte, pair) in id.bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(id)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A digest under way: of an object, or of a whole file of git's.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    pub fn new(format: Format) -> Self {
        Self(Context::new(match format {
            Format::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Format::Sha256 => &SHA256,
        }))
    }

    /// Of an object, whose content follows.
    pub fn object(format: Format, kind: &str, size: u64) -> Self {
        let mut hasher = Self::new(format);
        hasher.update(format!("{kind} {size}\0").as_bytes());
        hasher
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Id {
        let digest = self.0.finish();
        let mut id = Id { length: digest.as_ref().len() as u8, bytes: [0; 32] };
        id.bytes[..digest.as_ref().len()].copy_from_slice(digest.as_ref());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_blob_has_its_well_known_names() {
        // `git hash-object -t blob /dev/null`, in a repository of each format.
        for (format, name) in [
            (Format::Sha1, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
            (Format::Sha256, "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"),
        ] {
            let id = Hasher::object(format, "blob", 0).finish();
            assert_eq!(id.to_string(), name);
            assert_eq!(Id::parse(name.as_bytes()), Some(id));
            assert_eq!(Id::from_bytes(id.bytes()), Some(id));
            assert_eq!(id.bytes().len(), format.id_bytes());
        }
        for bad in ["", "e69de29b", &"g".repeat(40), &"A".repeat(40), &"a".repeat(42)] {
            assert_eq!(Id::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
