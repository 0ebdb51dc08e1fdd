//! References: what people call an image. The grammar and the rules for what may be left out are docker's
//! (distribution/reference, normalize.go).

use std::fmt;
use std::str::FromStr;

use crate::image::digest::Digest;

/// The registry that is meant when none is named.
pub const DOCKER_HUB: &str = "docker.io";

/// A registry, a repository there, and a tag or a digest in it; everything that was left out is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/python`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest where there is one, since it says more than a tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            // By construction there is one of the two.
            (None, None) => "latest".to_owned(),
        }
    }

    /// The registry's host, without the port; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => self.registry.as_str(),
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// As people write it: without docker.io and library/.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_repository();
        if let Some(tag) = &self.tag {
            text = format!("{text}:{tag}");
        }
        if let Some(digest) = &self.digest {
            text = format!("{text}@{digest}");
        }
        text
    }

    /// The name that the image gets here: as people write it, without `:latest`. What was pulled as `debian`,
    /// `debian:latest` or `docker.io/library/debian` is `debian`.
    pub fn local_name(&self) -> String {
        let repository = self.familiar_repository();
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{repository}@{digest}"),
            (None, Some(tag)) if tag != "latest" => format!("{repository}:{tag}"),
            (None, _) => repository,
        }
    }

    fn familiar_repository(&self) -> String {
        match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DOCKER_HUB, Some(name)) if !name.contains('/') => name.to_owned(),
            (DOCKER_HUB, _) => self.repository.clone(),
            (registry, _) => format!("{registry}/{}", self.repository),
        }
    }
}

/// The full form, with nothing left out.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadReference {
    text: String,
    why: &'static str,
}

impl fmt::Display for BadReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may come from an archive, and is shown on a terminal.
        let shown: String = self.text.chars().take(80).flat_map(char::escape_debug).collect();
        write!(f, "'{shown}' is no image reference: {}; an example is python:3.12", self.why)
    }
}

impl std::error::Error for BadReference {}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        parse(text).map_err(|why| BadReference { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains("://") {
        return Err("leave out what is before '://', and that");
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => (
            rest,
            Some(
                digest
                    .parse()
                    .map_err(|_| "its digest is not sha256: and 64 lower-case hexadecimal digits")?,
            ),
        ),
    };
    // A colon before the last slash belongs to a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "a tag is 1 to 128 letters, digits, '_', '.' and '-', and starts with none of the last two",
        );
    }
    if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits are an id");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if names_a_registry(first) => (first, rest),
        _ => (DOCKER_HUB, name),
    };
    let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
    if !is_registry(registry) {
        return Err("its registry is no host name");
    }
    let library = registry == DOCKER_HUB && !repository.contains('/');
    let repository = if library { format!("library/{repository}") } else { repository.to_owned() };
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    if !repository.split('/').all(is_path_component) {
        return Err("a repository is lower-case letters and digits, with '.', '_', '-' and '/' between them");
    }
    if registry.len() + 1 + repository.len() > 255 {
        return Err("it is longer than 255 characters");
    }
    let tag = match (tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// Whether the part before the first slash is a registry rather than the first part of a repository at docker.io.
fn names_a_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_ok = port
        .is_none_or(|p| p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
            edge(label.bytes().next())
                && edge(label.bytes().last())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    port_ok && host_ok
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Alphanumerics, with separators between them: one '.', one or two '_', or any number of '-'.
fn is_path_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().copied().is_some_and(alnum) && bytes.last().copied().is_some_and(alnum);
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    edges
        && separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_left_out_is_filled_in_as_docker_does() {
        let digest = format!("sha256:{HEX}");
        let table = [
            ("python:3.12", "docker.io/library/python:3.12".to_owned(), "python:3.12", "python:3.12"),
            ("debian", "docker.io/library/debian:latest".to_owned(), "debian:latest", "debian"),
            (
                "docker.io/library/debian:latest",
                "docker.io/library/debian:latest".to_owned(),
                "debian:latest",
                "debian",
            ),
            (
                "index.docker.io/debian",
                "docker.io/library/debian:latest".to_owned(),
                "debian:latest",
                "debian",
            ),
            ("me/app", "docker.io/me/app:latest".to_owned(), "me/app:latest", "me/app"),
            ("localhost/app", "localhost/app:latest".to_owned(), "localhost/app:latest", "localhost/app"),
            (
                "localhost:5000/a/b:1",
                "localhost:5000/a/b:1".to_owned(),
                "localhost:5000/a/b:1",
                "localhost:5000/a/b:1",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned(), "[::1]:5000/a:latest", "[::1]:5000/a"),
            ("ghcr.io/a/b__c/d-.e", String::new(), "", ""),
            (
                "ghcr.io/a/b__c/d--e",
                "ghcr.io/a/b__c/d--e:latest".to_owned(),
                "ghcr.io/a/b__c/d--e:latest",
                "ghcr.io/a/b__c/d--e",
            ),
            ("Host/app", "Host/app:latest".to_owned(), "Host/app:latest", "Host/app"),
        ];
        for (text, full, familiar, local) in &table {
            match text.parse::<Reference>() {
                Ok(r) => {
                    assert_eq!(r.to_string(), *full, "{text}");
                    assert_eq!(r.familiar(), *familiar, "{text}");
                    assert_eq!(r.local_name(), *local, "{text}");
                }
                Err(e) => assert!(full.is_empty(), "{e}"),
            }
        }
        let both: Reference = format!("host:5000/a/b:1@{digest}").parse().expect("parses");
        assert_eq!(both.to_string(), format!("host:5000/a/b:1@{digest}"));
        assert_eq!(both.local_name(), format!("host:5000/a/b@{digest}"));
        assert_eq!(both.target(), digest);
        let only: Reference = format!("debian@{digest}").parse().expect("parses");
        assert_eq!((only.tag(), only.familiar()), (None, format!("debian@{digest}")));
    }

    #[test]
    fn the_host_is_the_registry_without_its_port() {
        for (text, host) in [("a", "docker.io"), ("h:1/a", "h"), ("[::1]:5000/a", "::1"), ("[::1]/a", "::1")]
        {
            assert_eq!(text.parse::<Reference>().expect(text).host(), host);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        let table = [
            ("", "it is empty"),
            ("Debian", "lower case"),
            ("ghcr.io/A/b", "lower case"),
            ("a b", "lower-case letters and digits"),
            ("../etc", "no host name"),
            ("a//b", "lower-case letters and digits"),
            ("a/", "lower-case letters and digits"),
            ("/a", "lower-case letters and digits"),
            ("a:", "a tag is"),
            ("a:-x", "a tag is"),
            ("a@sha256:12", "its digest"),
            ("a___b", "lower-case letters and digits"),
            ("host:99999/a", "no host name"),
            ("host:/a", "no host name"),
            ("-h.io/a", "no host name"),
            ("https://ghcr.io/a", "leave out"),
            (HEX, "are an id"),
            ("[::g]:1/a", "no host name"),
        ];
        for (text, why) in table {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("ghcr.io/{}", "a".repeat(300)).parse::<Reference>().expect_err("too long");
        assert!(long.to_string().contains("longer than 255"), "{long}");
    }

    #[test]
    fn a_refusal_cannot_steer_a_terminal() {
        let error = "a\x1b[2J\u{202e}b".parse::<Reference>().expect_err("refused").to_string();
        assert!(!error.contains(['\x1b', '\u{202e}']), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_is_stable(text in "\\PC{0,80}|[a-zA-Z0-9./:@_\\[\\]-]{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                for form in [reference.to_string(), reference.familiar()] {
                    prop_assert_eq!(&form.parse::<Reference>().expect("its own forms parse"), &reference);
                }
                let local: Reference = reference.local_name().parse().expect("its name here parses");
                prop_assert_eq!(local.local_name(), reference.local_name());
            }
        }
    }
}
