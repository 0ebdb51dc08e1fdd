//! Who we are to a registry: the `auths` of docker's config.json (docker docs, "docker login").

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::image::reference::DOCKER_HUB;

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

/// A password is for nobody's log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.user.escape_debug())
    }
}

impl Credentials {
    /// The value of an Authorization header (RFC 7617).
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The credentials for `registry` in the text of a config.json; None: there are none for it.
///
/// # Errors
/// Why the text is no config.json.
pub fn find(config: &[u8], registry: &str) -> Result<Option<Credentials>, String> {
    let file: File = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    let auths = file.auths.unwrap_or_default();
    // A key is a host, or a URL with it; an exact one goes first.
    let exact = auths.get(registry);
    let found = exact.or_else(|| auths.iter().find(|(key, _)| same(key, registry)).map(|(_, auth)| auth));
    Ok(found.and_then(credentials))
}

fn same(key: &str, registry: &str) -> bool {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = key.split('/').next().unwrap_or_default();
    let hub = |host: &str| matches!(host, DOCKER_HUB | "index.docker.io" | "registry-1.docker.io");
    host == registry || hub(host) && hub(registry)
}

fn credentials(auth: &Auth) -> Option<Credentials> {
    if let Some(encoded) = auth.auth.as_deref().filter(|a| !a.is_empty()) {
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // Docker pads with NULs.
        let password = password.trim_end_matches('\0');
        return Some(Credentials { user: user.to_owned(), password: password.to_owned() });
    }
    Some(Credentials { user: auth.username.clone()?, password: auth.password.clone()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_for_their_registry_only() {
        let config = br#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnA6dw=="},
            "host:5000":{"username":"u","password":"p"},
            "https://ghcr.io":{"auth":"!"},
            "empty.example":{}},"credsStore":"desktop"}"#;
        let of = |registry: &str| find(config, registry).expect("parses").map(|c| (c.user, c.password));
        assert_eq!(of("docker.io"), Some(("hub".to_owned(), "p:w".to_owned())));
        assert_eq!(of("host:5000"), Some(("u".to_owned(), "p".to_owned())));
        for other in
            ["host", "host:5001", "ghcr.io", "empty.example", "evil-host:5000", "index.docker.io.evil"]
        {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(find(b"{}", "docker.io").expect("parses").is_none());
        assert!(find(b"nonsense", "docker.io").is_err());
    }

    #[test]
    fn basic_authorization_is_base64() {
        let c = Credentials { user: "Aladdin".to_owned(), password: "open sesame".to_owned() };
        assert_eq!(c.basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{c:?}").contains("sesame"));
    }
}
