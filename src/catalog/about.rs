//! What a catalog says of an image or a kernel, and its bundle's manifest again: the same fields, parsed in one place.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::image::manifest::harmless;
use crate::image::reference::Reference;
use crate::kernel::record::is_kernel_name;

/// An image. Made by [`ImageAbout::parse`] alone, so that each field is what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageAbout {
    pub name: String,
    pub distro: String,
    /// `amd64`, `arm64`.
    pub arch: String,
    /// The name of the kernel that it wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    pub description: String,
}

/// A kernel. Made by [`KernelAbout::parse`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelAbout {
    pub name: String,
    pub arch: String,
    /// `uname -r` of it.
    pub version: String,
    pub description: String,
}

/// The fields as they are written.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RawAbout {
    pub name: String,
    pub arch: String,
    #[serde(default)]
    pub distro: Option<String>,
    #[serde(default)]
    pub kernel: Option<String>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub description: String,
}

/// A field that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadField {
    pub field: &'static str,
    pub why: String,
}

const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 300;

impl ImageAbout {
    pub fn parse(raw: RawAbout) -> Result<Self, BadField> {
        Ok(Self {
            name: image_name(raw.name)?,
            distro: word("distro", raw.distro.unwrap_or_default())?,
            arch: word("arch", raw.arch)?,
            kernel: raw.kernel.map(|name| kernel_name("kernel", name)).transpose()?,
            description: description(raw.description)?,
        })
    }
}

impl KernelAbout {
    pub fn parse(raw: RawAbout) -> Result<Self, BadField> {
        Ok(Self {
            name: kernel_name("name", raw.name)?,
            arch: word("arch", raw.arch)?,
            version: kernel_name("version", raw.version.unwrap_or_default())?,
            description: description(raw.description)?,
        })
    }
}

/// Whether a text can name an image in a catalog: one part of a repository's name, so that no registry, path, tag or digest is
/// taken for it.
pub fn is_image_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && !text.contains(['/', ':', '@'])
        && text.parse::<Reference>().is_ok_and(|reference| reference.local_name() == text)
}

fn image_name(text: String) -> Result<String, BadField> {
    if is_image_name(&text) {
        return Ok(text);
    }
    let why = format!(
        "{:?} cannot name an image; use up to 64 lower-case letters and digits, with '.', '_' and '-' between them",
        harmless(&text)
    );
    Err(BadField { field: "name", why })
}

fn kernel_name(field: &'static str, text: String) -> Result<String, BadField> {
    if is_kernel_name(&text) {
        return Ok(text);
    }
    let why = format!(
        "{:?} is not up to 100 letters, digits and . _ + ~ -, beginning with a letter or digit",
        harmless(&text)
    );
    Err(BadField { field, why })
}

fn word(field: &'static str, text: String) -> Result<String, BadField> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text);
    }
    let why = format!("{:?} is not up to 32 lower-case letters, digits and . _ -", harmless(&text));
    Err(BadField { field, why })
}

fn description(text: String) -> Result<String, BadField> {
    if text.chars().count() > MAX_DESCRIPTION {
        let why = format!("it is longer than {MAX_DESCRIPTION} characters");
        return Err(BadField { field: "description", why });
    }
    if text.contains(|c: char| c.is_control()) {
        let why = "it has control characters; a description is one line".to_owned();
        return Err(BadField { field: "description", why });
    }
    Ok(text)
}

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {}: {}", self.field, self.why)
    }
}

impl std::error::Error for BadField {}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawAbout {
        RawAbout {
            name: "golden".to_owned(),
            arch: "amd64".to_owned(),
            distro: Some("debian".to_owned()),
            version: Some("6.1.0-56-cloud-amd64".to_owned()),
            ..RawAbout::default()
        }
    }

    #[test]
    fn a_field_that_could_do_harm_is_named() {
        ImageAbout::parse(raw()).expect("good");
        KernelAbout::parse(raw()).expect("good");
        type Spoil = fn(&mut RawAbout);
        let table: [(Spoil, &str); 9] = [
            (|r| r.name = "../x".to_owned(), "name"),
            (|r| r.name = String::new(), "name"),
            (|r| r.name = "x".repeat(101), "name"),
            (|r| r.name = "a\u{1b}[2J".to_owned(), "name"),
            (|r| r.arch = "AMD 64".to_owned(), "arch"),
            (|r| r.arch = String::new(), "arch"),
            (|r| r.description = "a\nb".to_owned(), "description"),
            (|r| r.description = "\u{1b}[2J".to_owned(), "description"),
            (|r| r.description = "x".repeat(301), "description"),
        ];
        for (spoil, field) in table {
            let mut bad = raw();
            spoil(&mut bad);
            for error in
                [ImageAbout::parse(bad.clone()).expect_err(field), KernelAbout::parse(bad).expect_err(field)]
            {
                assert_eq!(error.field, field);
                assert!(!error.to_string().contains(|c: char| c.is_control()), "{error}");
            }
        }
        let without = |change: fn(&mut RawAbout)| {
            let mut raw = raw();
            change(&mut raw);
            raw
        };
        assert_eq!(ImageAbout::parse(without(|r| r.distro = None)).expect_err("none").field, "distro");
        assert_eq!(
            ImageAbout::parse(without(|r| r.kernel = Some("a/b".to_owned()))).expect_err("no").field,
            "kernel"
        );
        assert_eq!(KernelAbout::parse(without(|r| r.version = None)).expect_err("none").field, "version");
    }

    #[test]
    fn what_names_a_registry_a_tag_or_a_digest_cannot_be_a_catalogs() {
        for good in ["debian-bookworm", "a", "a.b", "node20", "a__b"] {
            assert!(is_image_name(good), "{good}");
        }
        for bad in
            ["debian:12", "me/app", "localhost/app", "ghcr.io/a", "a@sha256:0", "Debian", "", "-a", "a b"]
        {
            assert!(!is_image_name(bad), "{bad}");
        }
        assert!(!is_image_name(&"ab".repeat(32)), "that is an id");
    }
}
