//! Catalogs: JSON lists of images and kernels by name, version 1.
//!
//! ```json
//! {"version": 1,
//!  "images": [{"name": "debian-bookworm", "distro": "debian", "arch": "amd64", "description": "Debian 12",
//!              "reference": "docker.io/library/debian:bookworm"},
//!             {"name": "golden", "distro": "debian", "arch": "amd64", "kernel": "generic-6.12", "description": "...",
//!              "url": "https://example.org/golden-amd64-0123456789ab.tar.zst", "sha256": "...", "size": 123456789}],
//!  "kernels": [{"name": "generic-6.12", "arch": "amd64", "version": "6.12.30", "description": "...",
//!               "url": "https://...", "sha256": "...", "size": 12345678}]}
//! ```
//!
//! What is not known is passed over, so that later banger may add fields; a version that is higher changes their meaning, and
//! is refused. One bad entry makes all of it bad: a list that nobody has read through is not one to install from.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::about::{BadField, ImageAbout, KernelAbout, RawAbout};
use crate::host::location::Location;
use crate::image::digest::Digest;
use crate::image::manifest::harmless;
use crate::image::reference::Reference;

pub const VERSION: u64 = 1;
/// The longest catalog, in bytes.
pub const MAX_CATALOG: u64 = 1 << 20;
/// The largest bundle of an image, in bytes.
pub const MAX_IMAGE: u64 = 16 << 30;
/// The largest bundle of a kernel, in bytes; one of a distribution with every driver has about 150 MB.
pub const MAX_KERNEL: u64 = 2 << 30;

/// All entries, for whichever architecture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    pub images: Vec<ImageEntry>,
    pub kernels: Vec<KernelEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    pub about: ImageAbout,
    pub source: ImageSource,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A registry.
    Reference(Reference),
    Bundle(BundleAt),
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(f),
            Self::Bundle(bundle) => bundle.location.fmt(f),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelEntry {
    pub about: KernelAbout,
    pub bundle: BundleAt,
}

/// A bundle as a catalog pins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleAt {
    pub location: Location,
    /// `sha256:...`.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// Why a text is no catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadCatalog {
    NotJson(String),
    NoVersion,
    TooNew(u64),
    /// `which`: `image 3 (golden)`.
    Entry {
        which: String,
        source: BadField,
    },
}

#[derive(Deserialize)]
struct RawCatalog {
    #[serde(default)]
    images: Vec<RawEntry>,
    #[serde(default)]
    kernels: Vec<RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(flatten)]
    about: RawAbout,
    reference: Option<String>,
    url: Option<String>,
    sha256: Option<String>,
    size: Option<u64>,
}

/// Reads a catalog that lies at `from`; None: in this executable.
pub fn parse(bytes: &[u8], from: Option<&Location>) -> Result<Catalog, BadCatalog> {
    #[derive(Deserialize)]
    struct Versioned {
        version: Option<u64>,
    }
    let not_json = |e: serde_json::Error| BadCatalog::NotJson(harmless(&e.to_string()));
    // The version first: what follows in a newer one may not even look like ours.
    match serde_json::from_slice::<Versioned>(bytes).map_err(not_json)?.version {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => return Err(BadCatalog::TooNew(newer)),
        _ => return Err(BadCatalog::NoVersion),
    }
    let raw: RawCatalog = serde_json::from_slice(bytes).map_err(not_json)?;
    let images = entries("image", raw.images, |raw| image(raw, from))?;
    let kernels = entries("kernel", raw.kernels, |raw| kernel(raw, from))?;
    once("image", images.iter().map(|i| (&i.about.name, &i.about.arch)))?;
    once("kernel", kernels.iter().map(|k| (&k.about.name, &k.about.arch)))?;
    Ok(Catalog { images, kernels })
}

fn entries<T>(
    kind: &str,
    raw: Vec<RawEntry>,
    parse: impl Fn(RawEntry) -> Result<T, BadField>,
) -> Result<Vec<T>, BadCatalog> {
    let numbered = raw.into_iter().enumerate();
    let each = numbered.map(|(at, raw)| {
        let which = format!("{kind} {} ({})", at + 1, harmless(&raw.about.name));
        parse(raw).map_err(|source| BadCatalog::Entry { which, source })
    });
    each.collect()
}

/// Of two entries of one name nobody could say which is meant.
fn once<'a>(kind: &str, names: impl Iterator<Item = (&'a String, &'a String)>) -> Result<(), BadCatalog> {
    let mut seen = HashSet::new();
    for (at, (name, arch)) in names.enumerate() {
        if !seen.insert((name, arch)) {
            let why = format!("there is one of this name for {arch} before it");
            let source = BadField { field: "name", why };
            return Err(BadCatalog::Entry { which: format!("{kind} {} ({name})", at + 1), source });
        }
    }
    Ok(())
}

fn image(raw: RawEntry, from: Option<&Location>) -> Result<ImageEntry, BadField> {
    let source = match (&raw.reference, &raw.url) {
        (Some(text), None) => {
            let reference: Reference = text.parse().map_err(bad("reference"))?;
            ImageSource::Reference(reference)
        }
        (None, Some(_)) => ImageSource::Bundle(bundle(&raw, from, MAX_IMAGE)?),
        (Some(_), Some(_)) | (None, None) => {
            let why = "either a reference or a url is due".to_owned();
            return Err(BadField { field: "reference", why });
        }
    };
    Ok(ImageEntry { about: ImageAbout::parse(raw.about)?, source })
}

fn kernel(raw: RawEntry, from: Option<&Location>) -> Result<KernelEntry, BadField> {
    let bundle = bundle(&raw, from, MAX_KERNEL)?;
    Ok(KernelEntry { about: KernelAbout::parse(raw.about)?, bundle })
}

fn bundle(raw: &RawEntry, from: Option<&Location>, largest: u64) -> Result<BundleAt, BadField> {
    let location: Location = raw.url.as_deref().unwrap_or_default().parse().map_err(bad("url"))?;
    if from.is_some_and(|from| !from.may_name(&location)) {
        let why = "a catalog from elsewhere cannot name files and services of this machine".to_owned();
        return Err(BadField { field: "url", why });
    }
    let digest = format!("sha256:{}", raw.sha256.as_deref().unwrap_or_default());
    let digest: Digest = digest.parse().map_err(|_| BadField {
        field: "sha256",
        why: "it is not 64 lower-case hexadecimal digits".to_owned(),
    })?;
    let size = raw
        .size
        .filter(|size| (1..=largest).contains(size))
        .ok_or_else(|| BadField { field: "size", why: format!("it is not from 1 to {largest} bytes") })?;
    Ok(BundleAt { location, digest, size })
}

fn bad<E: std::error::Error>(field: &'static str) -> impl Fn(E) -> BadField {
    move |e| BadField { field, why: e.to_string() }
}

/// An entry as it is written into a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written<A> {
    #[serde(flatten)]
    pub about: A,
    pub url: String,
    pub sha256: String,
    pub size: u64,
}

impl fmt::Display for BadCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "it is not JSON as a catalog has it: {why}"),
            Self::NoVersion => write!(f, "it does not say that it is of version {VERSION}"),
            Self::TooNew(version) => write!(
                f,
                "it is of version {version}, and this banger knows catalogs up to version {VERSION}; update banger"
            ),
            Self::Entry { which, .. } => write!(f, "its {which} is not as it should be"),
        }
    }
}

impl std::error::Error for BadCatalog {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Entry { source, .. } => Some(source),
            Self::NotJson(_) | Self::NoVersion | Self::TooNew(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn good() -> Value {
        json!({
            "version": 1,
            "published": "later banger may add fields",
            "images": [
                {"name": "debian-bookworm", "distro": "debian", "arch": "amd64", "description": "Debian 12",
                 "reference": "docker.io/library/debian:bookworm", "mood": "good"},
                {"name": "golden", "distro": "debian", "arch": "amd64", "kernel": "generic-6.12", "description": "",
                 "url": "https://example.org/golden.tar.zst", "sha256": HEX, "size": 7},
                {"name": "golden", "distro": "debian", "arch": "arm64",
                 "url": "https://example.org/golden-arm64.tar.zst", "sha256": HEX, "size": 7},
            ],
            "kernels": [
                {"name": "generic-6.12", "arch": "amd64", "version": "6.12.30", "description": "small",
                 "url": "https://example.org/k.tar.zst", "sha256": HEX, "size": 9},
            ],
        })
    }

    fn read(value: &Value) -> Result<Catalog, String> {
        let from: Location = "https://example.org/catalog.json".parse().expect("a location");
        parse(value.to_string().as_bytes(), Some(&from)).map_err(|e| {
            let source = std::error::Error::source(&e).map(|s| format!(": {s}"));
            format!("{e}{}", source.unwrap_or_default())
        })
    }

    #[test]
    fn every_field_is_read_and_unknown_ones_are_passed_over() {
        let catalog = read(&good()).expect("reads");
        assert_eq!((catalog.images.len(), catalog.kernels.len()), (3, 1));
        let ImageSource::Reference(reference) = &catalog.images[0].source else { panic!("a reference") };
        assert_eq!(reference.to_string(), "docker.io/library/debian:bookworm");
        let ImageSource::Bundle(bundle) = &catalog.images[1].source else { panic!("a bundle") };
        assert_eq!((bundle.digest.hex(), bundle.size), (HEX, 7));
        assert_eq!(catalog.images[1].about.kernel.as_deref(), Some("generic-6.12"));
        assert_eq!(catalog.kernels[0].about.version, "6.12.30");
        assert_eq!(read(&json!({"version": 1})).expect("an empty one"), Catalog::default());
    }

    #[test]
    fn a_newer_version_is_refused_whatever_else_is_in_it() {
        let newer = json!({"version": 2, "images": "nobody knows"});
        assert_eq!(
            read(&newer).expect_err("too new"),
            "it is of version 2, and this banger knows catalogs up to version 1; update banger"
        );
        for bad in [json!({}), json!({"version": 0}), json!({"version": null})] {
            assert_eq!(read(&bad).expect_err("none"), "it does not say that it is of version 1");
        }
    }

    #[test]
    fn one_bad_entry_makes_all_of_it_bad_and_is_named() {
        let table: [(&str, Value, &str); 16] = [
            ("/images/0/name", json!("../x"), "image 1 (../x)"),
            ("/images/0/name", json!("golden"), "image 2 (golden)"),
            ("/images/0/reference", json!("No Reference"), "its reference"),
            ("/images/0/reference", Value::Null, "either a reference or a url"),
            ("/images/1/reference", json!("debian"), "either a reference or a url"),
            ("/images/1/url", json!("http://example.org/x"), "use https"),
            ("/images/1/url", json!("/etc/shadow"), "cannot name files"),
            ("/images/1/url", json!("http://127.0.0.1/x"), "cannot name files"),
            ("/images/1/sha256", json!(HEX.to_uppercase()), "hexadecimal"),
            ("/images/1/sha256", Value::Null, "hexadecimal"),
            ("/images/1/size", json!(0), "its size"),
            ("/images/1/size", json!(MAX_IMAGE + 1), "its size"),
            ("/images/1/size", json!(-1), "not JSON as a catalog has it"),
            ("/kernels/0/size", json!(MAX_KERNEL + 1), "kernel 1 (generic-6.12)"),
            ("/kernels/0/version", json!("a/b"), "its version"),
            ("/kernels/0/url", Value::Null, "its url"),
        ];
        for (at, value, want) in table {
            let mut bad = good();
            let place = match bad.pointer_mut(at) {
                Some(place) => place,
                None => {
                    let (parent, key) = at.rsplit_once('/').expect("a pointer");
                    &mut bad.pointer_mut(parent).expect("is there")[key]
                }
            };
            *place = value;
            let error = read(&bad).expect_err(at);
            assert!(error.contains(want), "{at}: {error}");
        }
    }

    #[test]
    fn a_catalog_of_this_machine_may_name_files_of_it() {
        let mut catalog = good();
        *catalog.pointer_mut("/images/1/url").expect("is there") = json!("/srv/golden.tar.zst");
        let from: Location = "/srv/catalog.json".parse().expect("a location");
        parse(catalog.to_string().as_bytes(), Some(&from)).expect("reads");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_catalog_or_refused_in_a_tame_sentence(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(e) = parse(&bytes, None) {
                prop_assert!(!e.to_string().contains(|c: char| c.is_control()));
            }
        }

        #[test]
        fn a_catalog_with_any_field_replaced_is_read_or_refused(which in 0usize..16, text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}", number in any::<i64>()) {
            let fields = ["name", "arch", "distro", "kernel", "version", "description", "reference", "url", "sha256", "size"];
            let mut catalog = good();
            let list = if which % 2 == 0 { "/images/1" } else { "/kernels/0" };
            let entry = catalog.pointer_mut(list).expect("is there");
            let field = fields[which % fields.len()];
            entry[field] = if which > 8 { json!(number) } else { json!(text) };
            match read(&catalog) {
                Ok(catalog) => prop_assert!(catalog.images.iter().all(|i| !i.about.name.contains('/'))),
                Err(e) => prop_assert!(!e.contains(|c: char| c.is_control()), "{e}"),
            }
        }
    }
}
