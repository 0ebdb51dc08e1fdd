//! manifest.json: the releases that there are, as a publisher says. It is not signed; what it leads to is.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::release::version::{BadVersion, Version};

/// The longest manifest, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;
/// The schema that this banger reads.
const SCHEMA: u64 = 1;
const MAX_RELEASES: usize = 4096;
/// The longest URL, in bytes.
const MAX_URL: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub latest_stable: Version,
    pub releases: Vec<Release>,
}

/// A release, and where its parts are: absolute URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub version: Version,
    pub tarball: String,
    pub sums: String,
    pub signature: String,
    /// Seconds since 1970. From then on there should be a newer one; whoever still says otherwise may be holding it back.
    pub expires: Option<u64>,
    /// The oldest banger that can update to it by itself.
    pub min_version: Option<Version>,
}

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadManifest {
    /// Of a later schema.
    Newer(u64),
    NotJson(String),
    Version(BadVersion),
    /// A release, and what is wrong with it; a phrase.
    Release(String, &'static str),
    TooMany,
    /// `latest_stable` is none of the releases.
    NoLatest(Version),
}

#[derive(Deserialize)]
struct Schema {
    schema_version: u64,
}

/// Unknown fields are a later publisher's, who has kept the schema.
#[derive(Deserialize)]
struct Raw {
    latest_stable: String,
    releases: Vec<RawRelease>,
}

#[derive(Deserialize)]
struct RawRelease {
    version: String,
    tarball_url: String,
    sha256sums_url: String,
    #[serde(default)]
    sha256sums_sig_url: String,
    expires: Option<String>,
    min_version: Option<String>,
}

impl Manifest {
    /// Reads a manifest, all of it or nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        let not_json = |e: serde_json::Error| BadManifest::NotJson(e.to_string());
        // The schema comes first: of a later one nothing else is known.
        let Schema { schema_version } = serde_json::from_slice(bytes).map_err(not_json)?;
        if schema_version != SCHEMA {
            return Err(BadManifest::Newer(schema_version));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(not_json)?;
        if raw.releases.len() > MAX_RELEASES {
            return Err(BadManifest::TooMany);
        }
        let latest_stable = version(&raw.latest_stable)?;
        let releases = raw.releases.into_iter().map(release).collect::<Result<Vec<_>, _>>()?;
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = releases.iter().find(|release| !seen.insert(&release.version)) {
            return Err(BadManifest::Release(twice.version.to_string(), "is there twice"));
        }
        if !releases.iter().any(|release| release.version == latest_stable) {
            return Err(BadManifest::NoLatest(latest_stable));
        }
        Ok(Self { latest_stable, releases })
    }
}

fn version(text: &str) -> Result<Version, BadManifest> {
    text.parse().map_err(BadManifest::Version)
}

fn release(raw: RawRelease) -> Result<Release, BadManifest> {
    let bad = |why| {
        BadManifest::Release(version(&raw.version).map_or_else(|_| "?".to_owned(), |v| v.to_string()), why)
    };
    if raw.sha256sums_sig_url.is_empty() {
        return Err(bad("names no signature (sha256sums_sig_url), so nobody can tell whose it is"));
    }
    let url = |text: &str| match is_absolute(text) {
        true => Ok(text.to_owned()),
        false => Err(bad("has a URL that is no absolute https URL")),
    };
    Ok(Release {
        version: version(&raw.version)?,
        tarball: url(&raw.tarball_url)?,
        sums: url(&raw.sha256sums_url)?,
        signature: url(&raw.sha256sums_sig_url)?,
        expires: match &raw.expires {
            Some(text) => Some(seconds(text).ok_or_else(|| {
                bad("expires at no time that RFC 3339 knows, in UTC, such as 2027-01-01T00:00:00Z")
            })?),
            None => None,
        },
        min_version: raw.min_version.as_deref().map(version).transpose()?,
    })
}

/// http is for tests on this machine; who may use it is judged where it is fetched.
fn is_absolute(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && text.len() <= MAX_URL
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

fn seconds(text: &str) -> Option<u64> {
    let time: SystemTime = humantime::parse_rfc3339(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
}

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(schema) => write!(
                f,
                "it has schema {schema}, and this banger reads schema {SCHEMA}; update by hand: install.sh fetches the newest \
                 release and installs it over this one"
            ),
            Self::NotJson(why) => write!(f, "it is not the JSON of a manifest: {why}"),
            Self::Version(e) => e.fmt(f),
            Self::Release(version, why) => write!(f, "its release {version} {why}"),
            Self::TooMany => write!(f, "it has more than {MAX_RELEASES} releases"),
            Self::NoLatest(version) => write!(f, "its latest_stable {version} is none of its releases"),
        }
    }
}

impl std::error::Error for BadManifest {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn entry(version: &str) -> Value {
        json!({
            "version": version,
            "tarball_url": "https://example.org/t.tar.gz",
            "sha256sums_url": "https://example.org/SHA256SUMS",
            "sha256sums_sig_url": "https://example.org/SHA256SUMS.sig",
        })
    }

    fn manifest(latest: &str, releases: &[Value]) -> Value {
        json!({"schema_version": 1, "latest_stable": latest, "releases": releases})
    }

    fn parse(value: &Value) -> Result<Manifest, BadManifest> {
        Manifest::parse(value.to_string().as_bytes())
    }

    #[test]
    fn what_a_later_publisher_adds_is_passed_over() {
        let mut second = entry("v0.2.0");
        second["expires"] = json!("2027-01-01T00:00:00Z");
        second["min_version"] = json!("v0.1.0");
        second["notes"] = json!(["new"]);
        let mut value = manifest("v0.2.0", &[entry("v0.1.0"), second]);
        value["channels"] = json!({"beta": "v0.3.0"});
        let read = parse(&value).expect("a manifest");
        assert_eq!(read.latest_stable.to_string(), "v0.2.0");
        assert_eq!(read.releases[0].expires, None);
        assert_eq!(read.releases[1].expires, Some(1_798_761_600));
        assert_eq!(read.releases[1].min_version, "0.1.0".parse().ok());
        assert_eq!(read.releases[1].signature, "https://example.org/SHA256SUMS.sig");
    }

    #[test]
    fn a_later_schema_is_refused_before_anything_else_is_read() {
        let error = Manifest::parse(br#"{"schema_version": 2, "latest": 7}"#).expect_err("newer");
        assert_eq!(error, BadManifest::Newer(2));
        assert!(error.to_string().contains("update by hand"), "{error}");
        assert!(matches!(Manifest::parse(br#"{"schema_version": 0}"#), Err(BadManifest::Newer(0))));
    }

    #[test]
    fn a_release_without_its_signature_or_with_a_wrong_url_is_refused() {
        for (field, with, why) in [
            ("sha256sums_sig_url", json!(""), "names no signature"),
            ("sha256sums_sig_url", Value::Null, "not the JSON"),
            ("tarball_url", json!("banger.tar.gz"), "no absolute https URL"),
            ("tarball_url", json!("/srv/banger.tar.gz"), "no absolute https URL"),
            ("tarball_url", json!("file:///srv/banger.tar.gz"), "no absolute https URL"),
            ("tarball_url", json!("https:///x"), "no absolute https URL"),
            ("tarball_url", json!("https://a/\nx"), "no absolute https URL"),
            ("sha256sums_url", json!(format!("https://a/{}", "x".repeat(2048))), "no absolute https URL"),
            ("version", json!("2"), "is no version"),
            ("min_version", json!("x"), "is no version"),
            ("expires", json!("tomorrow"), "RFC 3339"),
            ("expires", json!("2027-01-01"), "RFC 3339"),
            ("expires", json!(1), "not the JSON"),
        ] {
            let mut bad = entry("v0.2.0");
            bad[field] = with;
            let error = parse(&manifest("v0.2.0", &[bad])).expect_err(field).to_string();
            assert!(error.contains(why), "{field}: {error}");
        }
        let mut unsigned = entry("v0.2.0");
        unsigned.as_object_mut().expect("an object").remove("sha256sums_sig_url");
        let error = parse(&manifest("v0.2.0", &[unsigned])).expect_err("unsigned").to_string();
        assert!(error.contains("names no signature"), "{error}");
        let twice = parse(&manifest("v0.2.0", &[entry("v0.2.0"), entry("0.2.0")])).expect_err("twice");
        assert_eq!(twice.to_string(), "its release v0.2.0 is there twice");
        let none = parse(&manifest("v0.3.0", &[entry("v0.2.0")])).expect_err("none");
        assert_eq!(none.to_string(), "its latest_stable v0.3.0 is none of its releases");
        Manifest::parse(b"<html>").expect_err("no JSON");
        Manifest::parse(b"").expect_err("nothing");
    }

    proptest! {
        #[test]
        fn any_text_is_a_manifest_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":,a-z0-9_.]{0,80}") {
            drop(Manifest::parse(&bytes));
            drop(Manifest::parse(text.as_bytes()));
        }
    }
}
