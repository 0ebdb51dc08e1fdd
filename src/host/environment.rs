//! The variables of an environment that transfers go by: proxies, certificates, docker's logins.
//!
//! The daemon may have been started from another shell than the one that somebody pulls from, so a request brings its
//! caller's; where the caller has none, the daemon's count.

use std::collections::BTreeMap;
use std::path::Path;

/// What a caller may bring.
const CALLERS: [&str; 7] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "DOCKER_CONFIG"];
/// What only this process's own environment says, since programs are found and run by it.
const OWN: [&str; 4] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];

/// Variables by their names in upper case, none of them empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The variables that matter here, of those that `get` gives. Proxies may be in lower case too, as curl has them; of two
    /// the upper case counts, as for docker.
    fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let value = |name: &str| match name.ends_with("_PROXY") {
            true => get(name).or_else(|| get(&name.to_ascii_lowercase())),
            false => get(name),
        };
        Self(CALLERS.iter().chain(&OWN).filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect())
    }

    /// What a request brings along. A relative path becomes absolute, since the daemon has another working directory.
    pub fn to_bring(&self) -> BTreeMap<String, String> {
        let brought = self.0.iter().filter(|(name, _)| CALLERS.contains(&name.as_str()));
        brought.map(|(name, value)| (name.clone(), from_anywhere(name, value))).collect()
    }

    /// This environment, with what a caller brought over it. Of that, only what a caller may bring counts.
    #[must_use]
    pub fn with_callers(mut self, brought: &BTreeMap<String, String>) -> Self {
        self.0.extend(Self::read(|name| brought.get(name).cloned()).to_bring());
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Those of `names` that are set, as a program gets them.
    pub fn only<'a>(&'a self, names: &[&'a str]) -> Vec<(&'a str, &'a str)> {
        names.iter().filter_map(|name| Some((*name, self.get(name)?))).collect()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        let variables = BTreeMap::from(variables);
        Self::read(|name| variables.get(name).map(|value| (*value).to_owned()))
    }
}

/// The value as it is meant, whatever the working directory of its reader.
fn from_anywhere(name: &str, value: &str) -> String {
    let absolute = |path: &str| {
        let found = std::path::absolute(Path::new(path)).ok();
        found.and_then(|p| p.to_str().map(str::to_owned)).unwrap_or_else(|| path.to_owned())
    };
    match name {
        "SSL_CERT_FILE" | "DOCKER_CONFIG" => absolute(value),
        "SSL_CERT_DIR" => value.split(':').map(absolute).collect::<Vec<_>>().join(":"),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_brings_proxies_and_certificates_and_nothing_that_is_run() {
        let own = Environment::from([("PATH", "/bin"), ("HTTPS_PROXY", "http://old"), ("NO_PROXY", "a")]);
        let theirs = Environment::from([("https_proxy", "http://new"), ("SSL_CERT_FILE", "/ca.pem")]);
        let mut brought = theirs.to_bring();
        brought.insert("PATH".to_owned(), "/evil".to_owned());
        brought.insert("LD_PRELOAD".to_owned(), "/evil".to_owned());
        let both = own.with_callers(&brought);
        let want = [
            ("PATH", "/bin"),
            ("HTTPS_PROXY", "http://new"),
            ("NO_PROXY", "a"),
            ("SSL_CERT_FILE", "/ca.pem"),
        ];
        assert_eq!(both, Environment::from(want));
        assert_eq!(both.only(&["PATH", "HOME"]), [("PATH", "/bin")]);
    }

    #[test]
    fn an_empty_variable_is_none_and_the_upper_case_counts() {
        let environment =
            Environment::from([("HTTP_PROXY", "http://upper"), ("http_proxy", "http://lower"), ("HOME", "")]);
        assert_eq!(environment.get("HTTP_PROXY"), Some("http://upper"));
        assert_eq!(environment.get("HOME"), None);
    }

    #[test]
    fn a_relative_path_is_brought_as_an_absolute_one() {
        let here = std::env::current_dir().expect("a directory").display().to_string();
        let environment = Environment::from([("SSL_CERT_FILE", "ca.pem"), ("SSL_CERT_DIR", "/a:b")]);
        let brought = environment.to_bring();
        assert_eq!(brought["SSL_CERT_FILE"], format!("{here}/ca.pem"));
        assert_eq!(brought["SSL_CERT_DIR"], format!("/a:{here}/b"));
    }
}
