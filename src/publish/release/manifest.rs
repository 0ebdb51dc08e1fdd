//! The manifest, with one release more.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{MANIFEST, ReleaseError, SIGNATURE, SUMS};
use crate::host::location::Location;
use crate::release::manifest::{MAX_MANIFEST, Manifest};
use crate::release::version::Version;

/// Where OUT will be: a plain URL without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(String);

/// A text that is no such URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBase(String);

impl FromStr for Base {
    type Err = BadBase;

    fn from_str(text: &str) -> Result<Self, BadBase> {
        let bad = || BadBase(text.chars().take(120).flat_map(char::escape_debug).collect());
        // These mean nothing to a shell; install.sh has it.
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b));
        match text.parse::<Location>() {
            Ok(Location::Remote(_) | Location::Loopback(_)) if plain => {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            _ => Err(bad()),
        }
    }
}

impl Base {
    /// The URL of a file of OUT.
    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }
}

impl fmt::Display for BadBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is no place for releases; it takes a plain https URL of a directory, such as https://example.org/banger",
            self.0
        )
    }
}

impl std::error::Error for BadBase {}

/// What the manifest will say of the release.
pub struct Entry {
    pub version: Version,
    /// The file's name.
    pub tarball: String,
    pub expires: Option<String>,
    pub min_version: Option<Version>,
}

/// A manifest that can be uploaded.
pub struct Merged {
    pub bytes: Vec<u8>,
    pub latest_stable: Version,
}

/// Adds a release to the `old` manifest, which is at a path, or begins one. The newest release comes first. It becomes the
/// latest stable one unless it is a preview, or older than the one that is.
pub fn add(old: Option<(&Path, &[u8])>, entry: &Entry, base: &Base) -> Result<Merged, ReleaseError> {
    // Fields that this banger does not know are kept: a later publisher's, who has kept the schema.
    let (mut fields, mut releases, latest) = match old {
        Some((path, bytes)) => {
            let bad = |e| ReleaseError::Manifest(path.to_owned(), e);
            let known = Manifest::parse(bytes).map_err(bad)?;
            if known.releases.iter().any(|release| release.version == entry.version) {
                return Err(ReleaseError::Reused(entry.version.clone()));
            }
            let mut fields: Map<String, Value> = serde_json::from_slice(bytes)
                .map_err(|e| ReleaseError::Io { op: format!("read {}", path.display()), source: e.into() })?;
            let raw = match fields.remove("releases") {
                Some(Value::Array(releases)) => releases,
                _ => vec![],
            };
            let versions = known.releases.into_iter().map(|release| release.version);
            (fields, versions.zip(raw).collect::<Vec<_>>(), Some(known.latest_stable))
        }
        None => (Map::new(), vec![], None),
    };
    let latest =
        latest.filter(|latest| !replaces(&entry.version, latest)).unwrap_or_else(|| entry.version.clone());
    releases.push((entry.version.clone(), described(entry, base)));
    releases.sort_by(|(a, _), (b, _)| b.cmp(a));
    fields.insert("schema_version".to_owned(), json!(1));
    fields.insert("latest_stable".to_owned(), json!(latest));
    fields.insert("releases".to_owned(), releases.into_iter().map(|(_, release)| release).collect());
    let mut bytes = serde_json::to_vec_pretty(&fields)
        .map_err(|e| ReleaseError::Io { op: "write the manifest".to_owned(), source: e.into() })?;
    bytes.push(b'\n');
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(ReleaseError::TooMany);
    }
    let read = Manifest::parse(&bytes).map_err(|e| ReleaseError::Manifest(MANIFEST.into(), e))?;
    Ok(Merged { bytes, latest_stable: read.latest_stable })
}

fn replaces(new: &Version, latest: &Version) -> bool {
    match (new.is_pre_release(), latest.is_pre_release()) {
        (false, true) => true,
        (true, false) => false,
        (false, false) | (true, true) => new > latest,
    }
}

fn described(entry: &Entry, base: &Base) -> Value {
    let at = |name: &str| base.at(&format!("{}/{name}", entry.version));
    let mut release = json!({
        "version": entry.version,
        "tarball_url": at(&entry.tarball),
        "sha256sums_url": at(SUMS),
        "sha256sums_sig_url": at(SIGNATURE),
    });
    if let Some(expires) = &entry.expires {
        release["expires"] = json!(expires);
    }
    if let Some(min_version) = &entry.min_version {
        release["min_version"] = json!(min_version);
    }
    release
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: &str) -> Entry {
        Entry {
            version: version.parse().expect(version),
            tarball: format!("banger-{version}-x86_64-linux.tar.gz"),
            expires: None,
            min_version: None,
        }
    }

    fn base() -> Base {
        "https://example.org/banger/".parse().expect("a URL")
    }

    /// Adds them one after the other; the versions and the latest stable one.
    fn after(versions: &[&str]) -> (Vec<String>, String) {
        let mut bytes: Option<Vec<u8>> = None;
        for version in versions {
            let old = bytes.as_deref().map(|bytes| (Path::new("old.json"), bytes));
            bytes = Some(add(old, &entry(version), &base()).unwrap_or_else(|e| panic!("{e}")).bytes);
        }
        let manifest = Manifest::parse(&bytes.expect("one at least")).expect("a manifest");
        (
            manifest.releases.iter().map(|r| r.version.to_string()).collect(),
            manifest.latest_stable.to_string(),
        )
    }

    #[test]
    fn the_newest_release_is_first_and_the_newest_that_is_no_preview_is_the_stable_one() {
        for (versions, order, latest) in [
            (&["v0.1.0"][..], &["v0.1.0"][..], "v0.1.0"),
            (&["v0.1.0", "v0.2.0"], &["v0.2.0", "v0.1.0"], "v0.2.0"),
            (&["v0.2.0", "v0.10.0"], &["v0.10.0", "v0.2.0"], "v0.10.0"),
            (&["v0.2.0", "v0.1.1"], &["v0.2.0", "v0.1.1"], "v0.2.0"),
            (&["v0.2.0", "v0.3.0-rc.1"], &["v0.3.0-rc.1", "v0.2.0"], "v0.2.0"),
            (&["v0.2.0", "v0.3.0-rc.1", "v0.3.0"], &["v0.3.0", "v0.3.0-rc.1", "v0.2.0"], "v0.3.0"),
            (&["v0.3.0-rc.1", "v0.3.0-rc.2"], &["v0.3.0-rc.2", "v0.3.0-rc.1"], "v0.3.0-rc.2"),
            (&["v0.3.0-rc.1", "v0.2.0"], &["v0.3.0-rc.1", "v0.2.0"], "v0.2.0"),
        ] {
            let (found, stable) = after(versions);
            assert_eq!(
                (found, stable.as_str()),
                (order.iter().map(|v| (*v).to_owned()).collect(), latest),
                "{versions:?}"
            );
        }
    }

    #[test]
    fn a_version_is_never_used_twice() {
        let first = add(None, &entry("v0.1.0"), &base()).map_err(|e| e.to_string()).expect("a manifest");
        let error =
            add(Some((Path::new("m"), &first.bytes)), &entry("v0.1.0"), &base()).err().expect("refused");
        assert!(matches!(error, ReleaseError::Reused(_)), "{error}");
    }

    #[test]
    fn an_entry_says_where_everything_is_and_what_was_there_stays() {
        let old = br#"{"schema_version": 1, "channels": {"beta": "x"}, "latest_stable": "v0.1.0", "releases": [{"version": "v0.1.0",
            "tarball_url": "https://a/t", "sha256sums_url": "https://a/s", "sha256sums_sig_url": "https://a/g", "notes": "first"}]}"#;
        let mut new = entry("v0.2.0");
        new.expires = Some("2027-01-01T00:00:00Z".to_owned());
        new.min_version = "v0.1.0".parse().ok();
        let merged = add(Some((Path::new("old.json"), old)), &new, &base())
            .map_err(|e| e.to_string())
            .expect("a manifest");
        let found: Value = serde_json::from_slice(&merged.bytes).expect("JSON");
        assert_eq!(
            found["releases"][0],
            json!({
                "version": "v0.2.0",
                "tarball_url": "https://example.org/banger/v0.2.0/banger-v0.2.0-x86_64-linux.tar.gz",
                "sha256sums_url": "https://example.org/banger/v0.2.0/SHA256SUMS",
                "sha256sums_sig_url": "https://example.org/banger/v0.2.0/SHA256SUMS.sig",
                "expires": "2027-01-01T00:00:00Z",
                "min_version": "v0.1.0",
            })
        );
        assert_eq!(
            (&found["releases"][1]["notes"], &found["channels"]["beta"]),
            (&json!("first"), &json!("x"))
        );
    }

    #[test]
    fn what_no_banger_would_read_is_not_written() {
        let refused = |old: &str, new: &Entry| {
            let old = (!old.is_empty()).then_some((Path::new("old.json"), old.as_bytes()));
            add(old, new, &base()).err().expect("refused")
        };
        for old in ["{}", "[]", "no JSON", r#"{"schema_version": 2}"#] {
            assert!(matches!(refused(old, &entry("v0.1.0")), ReleaseError::Manifest(..)), "{old}");
        }
        let long = json!({"schema_version": 1, "latest_stable": "v0.1.0", "notes": "x".repeat(1 << 20), "releases": [
            {"version": "v0.1.0", "tarball_url": "https://a/t", "sha256sums_url": "https://a/s", "sha256sums_sig_url": "https://a/g"}]});
        assert!(matches!(refused(&long.to_string(), &entry("v0.2.0")), ReleaseError::TooMany));
        let never = Entry { expires: Some("tomorrow".to_owned()), ..entry("v0.1.0") };
        assert!(matches!(refused("", &never), ReleaseError::Manifest(..)));
    }

    #[test]
    fn releases_are_at_a_plain_url() {
        for (text, want) in [
            ("https://example.org/banger", Some("https://example.org/banger")),
            ("https://example.org/banger//", Some("https://example.org/banger")),
            ("http://127.0.0.1:8000", Some("http://127.0.0.1:8000")),
            ("http://[::1]:8000/r", Some("http://[::1]:8000/r")),
            ("http://example.org/banger", None),
            ("/srv/releases", None),
            ("https://example.org/?a=b", None),
            ("https://example.org/$(id)", None),
            ("https://example.org/'", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Base>().ok().map(|base| base.0).as_deref(), want, "{text}");
        }
    }
}
