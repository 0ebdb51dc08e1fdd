//! Where a catalog or a bundle is: at an https URL, at an http URL of this machine, or in a file of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ureq::http::Uri;

use crate::host::https::is_loopback;

/// A place that content is read from. What is read is judged by its signature or its digest; the rules here keep names and
/// requests from strangers on the network, and a stranger's list from pointing into this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// https, from anywhere.
    Remote(Uri),
    /// http or https, from this machine.
    Loopback(Uri),
    /// An absolute path.
    File(PathBuf),
}

/// Why a text is no location; the sentence says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLocation {
    text: String,
    why: &'static str,
}

/// The longest location, in bytes.
const MAX: usize = 2048;

impl Location {
    /// Where the detached signature of what is here lies: `.sig` behind its path.
    pub fn signature(&self) -> Result<Self, BadLocation> {
        let text = self.to_string();
        match text.split_once('?') {
            Some((path, query)) if !matches!(self, Self::File(_)) => format!("{path}.sig?{query}").parse(),
            _ => format!("{text}.sig").parse(),
        }
    }

    /// Whether a list that lies here may name `other`: one from elsewhere must not send this machine to its own files and
    /// services.
    pub fn may_name(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Remote(_), Self::Remote(_)) => true,
            (Self::Remote(_), Self::Loopback(_) | Self::File(_)) => false,
            (Self::Loopback(_) | Self::File(_), _) => true,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(uri) | Self::Loopback(uri) => uri.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        parse(text).map_err(|why| BadLocation { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<Location, &'static str> {
    if text.len() > MAX {
        return Err("it is longer than 2048 characters");
    }
    if text.contains(|c: char| c.is_control()) {
        return Err("it has control characters");
    }
    if let Some(path) = text.strip_prefix("file://") {
        // A URL of a file may say characters by %; nobody should have to know which.
        let plain = path.starts_with('/') && !path.contains(['%', '?', '#']);
        return if plain {
            Ok(Location::File(path.into()))
        } else {
            Err("write a file's path as it is, from / on")
        };
    }
    if Path::new(text).is_absolute() {
        return Ok(Location::File(text.into()));
    }
    let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
    let host = uri.host().unwrap_or_default();
    if host.is_empty() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        // A password in a URL ends up in logs and errors.
        return Err("a URL needs a host, without a user before it");
    }
    match (uri.scheme_str(), is_this_machine(host)) {
        (Some("https" | "http"), true) => Ok(Location::Loopback(uri)),
        (Some("https"), false) => Ok(Location::Remote(uri)),
        (Some("http"), false) => Err("http is for this machine alone; use https"),
        _ => Err("use an https URL or an absolute path"),
    }
}

/// Whether a URL's host is this machine; an IPv6 address is in brackets there.
fn is_this_machine(host: &str) -> bool {
    is_loopback(&host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase())
}

impl fmt::Display for BadLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().take(120).flat_map(char::escape_debug).collect();
        write!(f, "'{shown}' is no place to read from: {}", self.why)
    }
}

impl std::error::Error for BadLocation {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn https_is_for_everyone_and_http_for_this_machine() {
        let kind = |text: &str| match text.parse::<Location>() {
            Ok(Location::Remote(_)) => "remote",
            Ok(Location::Loopback(_)) => "loopback",
            Ok(Location::File(_)) => "file",
            Err(_) => "refused",
        };
        for (text, want) in [
            ("https://example.org/catalog.json", "remote"),
            ("https://example.org:8443/c?x=1", "remote"),
            ("http://127.0.0.1:8000/c", "loopback"),
            ("http://localhost/c", "loopback"),
            ("http://[::1]:8000/c", "loopback"),
            ("https://127.0.0.1/c", "loopback"),
            ("/srv/catalog.json", "file"),
            ("file:///srv/catalog.json", "file"),
            ("http://example.org/c", "refused"),
            ("http://127.0.0.1.example.org/c", "refused"),
            ("https://user:secret@example.org/c", "refused"),
            ("https:///c", "refused"),
            ("ftp://example.org/c", "refused"),
            ("file://host/c", "refused"),
            ("file:///a%20b", "refused"),
            ("srv/catalog.json", "refused"),
            ("./catalog.json", "refused"),
            ("", "refused"),
            ("https://example.org/\n", "refused"),
        ] {
            assert_eq!(kind(text), want, "{text:?}");
        }
        assert_eq!(kind(&format!("https://example.org/{}", "x".repeat(MAX))), "refused");
    }

    #[test]
    fn a_signature_lies_beside_what_it_signs() {
        for (text, want) in [
            ("https://example.org/c.json", "https://example.org/c.json.sig"),
            ("https://example.org/c.json?a=b", "https://example.org/c.json.sig?a=b"),
            ("/srv/c.json", "/srv/c.json.sig"),
            ("/srv/c?", "/srv/c?.sig"),
        ] {
            let location: Location = text.parse().expect(text);
            assert_eq!(location.signature().expect("a place").to_string(), want);
        }
    }

    #[test]
    fn a_list_from_elsewhere_cannot_point_into_this_machine() {
        let at = |text: &str| text.parse::<Location>().expect(text);
        let (remote, loopback, file) = (at("https://example.org/c"), at("http://127.0.0.1/c"), at("/srv/c"));
        assert!(remote.may_name(&at("https://other.example/b")));
        assert!(!remote.may_name(&loopback) && !remote.may_name(&file));
        for here in [&loopback, &file] {
            assert!(here.may_name(&remote) && here.may_name(&loopback) && here.may_name(&file));
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_in_a_tame_sentence(text in "\\PC{0,60}|[a-z:/.%@\\[\\]\\x00-\\x20]{0,60}") {
            match text.parse::<Location>() {
                Ok(location) => prop_assert_eq!(location.to_string().parse::<Location>(), Ok(location)),
                Err(e) => prop_assert!(!e.to_string().contains(|c: char| c.is_control())),
            }
        }
    }
}
