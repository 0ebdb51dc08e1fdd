//! Which of an index's images is for this machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An image's platform (image-spec image-index.md); the words are Go's GOOS and GOARCH.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Platform {
    /// Linux on this architecture, of whatever variant.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// How well it serves who wants `wanted`, lower is better; None: not at all.
    ///
    /// Without a wish for a variant the plainest is the best: that of amd64 is a microarchitecture level that the processor
    /// may lack. With one, a level up to it serves, the highest best (containerd: platforms.Only).
    pub fn rank(&self, wanted: &Self) -> Option<u8> {
        if self.os != "linux" || self.architecture != wanted.architecture {
            return None;
        }
        let (own, most) = (self.level(), wanted.level());
        match wanted.variant {
            None => Some(own - 1),
            Some(_) => most.checked_sub(own),
        }
    }

    /// The variant as a number, from 1 on; arm64 is always v8, which is its first.
    fn level(&self) -> u8 {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            (_, None | Some("")) | ("amd64", Some("v1")) | ("arm64", Some("v8")) => 1,
            ("amd64", Some("v2")) => 2,
            ("amd64", Some("v3")) => 3,
            ("amd64", Some("v4")) => 4,
            _ => 5,
        }
    }

    /// Whether it stands for no image at all: BuildKit files its attestations under `unknown/unknown`.
    pub fn is_attestation(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

/// `linux/arm64`, `linux/amd64/v3`, or the architecture alone: what people write after --platform.
impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(s: &str) -> Result<Self, BadPlatform> {
        let bad = || BadPlatform(s.to_owned());
        let word = |w: &&str| {
            !w.is_empty() && w.len() <= 32 && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let words: Vec<&str> = s.split('/').collect();
        if !words.iter().all(word) {
            return Err(bad());
        }
        match words[..] {
            [arch] | ["linux", arch] => Ok(Self::linux(architecture(arch))),
            ["linux", arch, variant] => {
                let platform = Self::linux(architecture(arch));
                Ok(Self { variant: Some(variant.to_owned()), ..platform })
            }
            _ => Err(bad()),
        }
    }
}

/// The text is no platform that a VM could have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPlatform(String);

impl fmt::Display for BadPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no platform of a Linux VM; write it like linux/amd64 or linux/amd64/v3", self.0)
    }
}

impl std::error::Error for BadPlatform {}

/// The word for the architecture of a Rust target, or of `uname -m`.
pub fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The architecture that an ELF header names, `e_machine` (elf.h); None: not ELF, or cut off, or not known.
pub fn elf_architecture(head: &[u8]) -> Option<&'static str> {
    let field = head.get(18..20)?;
    let machine = match head.get(5)? {
        1 => u16::from_le_bytes([field[0], field[1]]),
        2 => u16::from_be_bytes([field[0], field[1]]),
        _ => return None,
    };
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    match machine {
        3 => Some("386"),
        8 => Some("mips"),
        21 => Some("ppc64le"),
        22 => Some("s390x"),
        40 => Some("arm"),
        62 => Some("amd64"),
        183 => Some("arm64"),
        243 => Some("riscv64"),
        258 => Some("loong64"),
        _ => None,
    }
}

/// Whether a `host` kernel runs a program for `program`: its own, and its 32-bit ancestor's.
pub fn runs(host: &str, program: &str) -> bool {
    host == program || matches!((host, program), ("amd64", "386") | ("arm64", "arm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut words = text.split('/').map(str::to_owned);
        Platform {
            os: words.next().unwrap_or_default(),
            architecture: words.next().unwrap_or_default(),
            variant: words.next(),
        }
    }

    #[test]
    fn the_plain_variant_is_preferred_and_another_system_is_none() {
        let table = [
            ("linux/amd64", "amd64", Some(0)),
            ("linux/amd64/v1", "amd64", Some(0)),
            ("linux/amd64/v3", "amd64", Some(2)),
            ("linux/arm64/v8", "arm64", Some(0)),
            ("linux/arm64", "amd64", None),
            ("windows/amd64", "amd64", None),
            ("unknown/unknown", "amd64", None),
            ("linux/amd64", "linux/amd64/v3", Some(2)),
            ("linux/amd64/v3", "linux/amd64/v3", Some(0)),
            ("linux/amd64/v4", "linux/amd64/v3", None),
            ("linux/arm64", "linux/amd64/v3", None),
        ];
        for (text, wanted, want) in table {
            let wanted: Platform = wanted.parse().expect("a platform");
            assert_eq!(platform(text).rank(&wanted), want, "{text} for {wanted}");
            assert_eq!(platform(text).to_string(), text);
        }
    }

    #[test]
    fn what_people_write_is_a_platform_or_refused() {
        let parsed = |text: &str| text.parse::<Platform>().map(|p| p.to_string());
        assert_eq!(parsed("arm64").as_deref(), Ok("linux/arm64"));
        assert_eq!(parsed("linux/amd64/v3").as_deref(), Ok("linux/amd64/v3"));
        for bad in ["", "/", "linux/", "windows/amd64", "linux/amd64/v3/x", "linux/AMD64"] {
            parsed(bad).expect_err(bad);
        }
    }

    #[test]
    fn elf_headers_name_their_machine() {
        let elf = |class_data: [u8; 2], machine: [u8; 2]| {
            let mut head = b"\x7fELF".to_vec();
            head.extend(class_data);
            head.resize(18, 0);
            head.extend(machine);
            head
        };
        assert_eq!(elf_architecture(&elf([2, 1], [62, 0])), Some("amd64"));
        assert_eq!(elf_architecture(&elf([2, 1], [183, 0])), Some("arm64"));
        assert_eq!(elf_architecture(&elf([2, 2], [0, 22])), Some("s390x"));
        assert_eq!(elf_architecture(&elf([2, 1], [62, 0])[..19]), None);
        assert_eq!(elf_architecture(b"#!/bin/sh\n and then some more"), None);
        assert!(runs("amd64", "386") && !runs("amd64", "arm64"));
    }
}
