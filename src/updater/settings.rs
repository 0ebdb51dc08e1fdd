//! What the administrator says of updates: `[update]` in the installation's config.toml.

use std::path::Path;

use serde::Deserialize;

use crate::host::location::Location;
use crate::host::trusted::{self, Untrusted};

/// Where releases are published.
pub const MANIFEST: &str = "https://releases.thaloco.com/banger/manifest.json";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub manifest: Location,
    /// Whether what a manifest says counts beyond its time.
    pub refuse_expired: bool,
}

/// Other keys are others', who say what is wrong with them.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    update: Update,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Update {
    manifest_url: Option<String>,
    #[serde(default)]
    refuse_expired: bool,
}

impl Settings {
    /// Reads `path`; without it, everything is as it is by default.
    ///
    /// # Errors
    /// [`Untrusted`], also for a file that somebody else than root can have written.
    pub fn read(path: &Path) -> Result<Self, Untrusted> {
        let text = trusted::read(path)?.unwrap_or_default();
        Self::parse(&text).map_err(|why| Untrusted::Invalid(path.to_owned(), why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::of(text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?)
    }

    /// Reads `table`, and leaves the keys alone that are others'.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn of(table: toml::Table) -> Result<Self, String> {
        let Raw { update } = table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let url = update.manifest_url.as_deref().unwrap_or(MANIFEST);
        let manifest = url.parse().map_err(|e| format!("update.manifest_url: {e}"))?;
        Ok(Self { manifest, refuse_expired: update.refuse_expired })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional_and_a_misspelt_one_is_refused() {
        let settings = Settings::parse("dns_port = 5353\n").expect("others' keys");
        assert_eq!((settings.manifest.to_string().as_str(), settings.refuse_expired), (MANIFEST, false));
        let text = "[update]\nmanifest_url = 'https://example.org/m.json'\nrefuse_expired = true\n";
        let settings = Settings::parse(text).expect("settings");
        assert_eq!(settings.manifest.to_string(), "https://example.org/m.json");
        assert!(settings.refuse_expired);
        for (text, why) in [
            ("[update]\nrefuse = true\n", "unknown field"),
            ("[update]\nmanifest_url = 'http://example.org/m.json'\n", "http is for this machine alone"),
            ("[update]\nmanifest_url = 'm.json'\n", "no place to read from"),
            ("update = 1\n", "invalid type"),
        ] {
            let error = Settings::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
