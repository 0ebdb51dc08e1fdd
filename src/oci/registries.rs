//! What a user says of registries: which mirrors are asked before them, and which need not prove who they are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ureq::http::Uri;

use crate::image::reference::Reference;

/// Registries by their names as references have them: `docker.io`, `192.168.0.5:5000`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries(BTreeMap<String, Terms>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Asked in this order, then the registry itself.
    pub mirrors: Vec<Mirror>,
    /// https with any certificate, or plain http.
    pub insecure: bool,
}

/// Where copies of a registry's content are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    secure: bool,
    authority: String,
    /// Before the repository's name there; empty, or with a `/` at its end.
    prefix: String,
}

/// A text is no mirror's URL, or no registry's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRegistry(String);

impl Registries {
    /// Adds what is said of `registry`, which may be spelt as in any reference.
    pub fn add(&mut self, registry: &str, terms: Terms) -> Result<(), BadRegistry> {
        let reference = format!("{registry}/x").parse::<Reference>().ok();
        let known = reference.filter(|r| r.registry() == registry || registry == "index.docker.io");
        let known = known.ok_or_else(|| {
            BadRegistry(format!(
                "{registry:?} is no registry; write it as in a reference, like ghcr.io or 10.0.0.1:5000"
            ))
        })?;
        self.0.insert(known.registry().to_owned(), terms);
        Ok(())
    }

    pub fn mirrors(&self, registry: &str) -> &[Mirror] {
        self.0.get(registry).map(|terms| terms.mirrors.as_slice()).unwrap_or_default()
    }

    pub fn is_insecure(&self, registry: &str) -> bool {
        self.0.get(registry).is_some_and(|terms| terms.insecure)
    }
}

impl Mirror {
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Scheme, host and port.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }

    /// What `repository` is called there.
    pub fn repository(&self, repository: &str) -> String {
        format!("{}{repository}", self.prefix)
    }
}

impl FromStr for Mirror {
    type Err = BadRegistry;

    fn from_str(text: &str) -> Result<Self, BadRegistry> {
        let bad = |why: &str| {
            BadRegistry(format!("{text:?} is no mirror: {why}; an example is https://mirror.example"))
        };
        let uri: Uri = text.parse().map_err(|_| bad("it is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("it begins with neither https:// nor http://")),
        };
        let authority =
            uri.authority().filter(|a| !a.host().is_empty()).ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user name; use 'docker login'"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(bad("it has more than a host and a path"));
        }
        let path = uri.path().trim_matches('/');
        // Where the path is, is the name of a repository.
        let fits = !path.contains([':', '@']) && format!("host.example/{path}").parse::<Reference>().is_ok();
        if !path.is_empty() && !fits {
            return Err(bad("its path cannot begin a repository's name"));
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Ok(Self { secure, authority: authority.as_str().to_owned(), prefix })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base())?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix.trim_end_matches('/')) }
    }
}

impl fmt::Display for BadRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRegistry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_known_by_its_name_in_references() {
        let mut registries = Registries::default();
        for name in ["index.docker.io", "192.168.0.5:5000", "[::1]:5000", "localhost", "ghcr.io"] {
            registries.add(name, Terms { insecure: true, mirrors: vec![] }).expect(name);
        }
        for name in ["docker.io", "192.168.0.5:5000", "[::1]:5000", "localhost", "ghcr.io"] {
            assert!(registries.is_insecure(name), "{name}");
        }
        assert!(!registries.is_insecure("192.168.0.5"));
        for name in ["", "https://ghcr.io", "ghcr.io/owner", "a b", "ghcr.io:99999", "library"] {
            registries.add(name, Terms::default()).expect_err(name);
        }
    }

    #[test]
    fn a_mirror_is_a_url_whose_path_goes_before_the_repository() {
        let table = [
            ("https://mirror.example", "https://mirror.example", "library/debian"),
            ("http://127.0.0.1:5001/", "http://127.0.0.1:5001", "library/debian"),
            ("https://[fd00::1]:5000", "https://[fd00::1]:5000", "library/debian"),
            ("https://harbor.example/hub/cache/", "https://harbor.example", "hub/cache/library/debian"),
        ];
        for (text, base, repository) in table {
            let mirror: Mirror = text.parse().expect(text);
            assert_eq!(
                (mirror.base().as_str(), mirror.repository("library/debian").as_str()),
                (base, repository)
            );
            assert_eq!(mirror.to_string(), text.trim_end_matches('/'));
        }
        for text in [
            "",
            "mirror.example",
            "ftp://mirror.example",
            "https://",
            "https://user@mirror.example",
            "https://mirror.example/?x",
            "https://mirror.example/Upper",
            "https://mirror.example/a:b",
            "https://mirror.example/#a",
            "https://mirror.example/../x",
        ] {
            text.parse::<Mirror>().expect_err(text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_mirror_or_is_refused(text in "\\PC{0,60}|https?://[a-z0-9./:@\\[\\]-]{0,40}") {
            if let Ok(mirror) = text.parse::<Mirror>() {
                proptest::prop_assert_eq!(mirror.to_string().parse::<Mirror>().expect("its own form parses"), mirror);
            }
        }
    }
}
