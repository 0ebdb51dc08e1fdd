//! Who we are to a registry: docker's config.json (docker docs, "docker login"), `auths`, `credHelpers` and `credsStore`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::image::reference::DOCKER_HUB;

#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// What a token is had for, instead of a password (OAuth 2.0's refresh token).
    Identity {
        token: String,
    },
}

/// A password is for nobody's log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Credentials({})", user.escape_debug()),
            Self::Identity { .. } => f.write_str("Credentials(an identity token)"),
        }
    }
}

impl Credentials {
    /// The value of an Authorization header (RFC 7617); None: they are for a token server only.
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Identity { .. } => None,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: Option<BTreeMap<String, Auth>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Where the credentials for a registry are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The name of a program to ask, as the file has it.
    pub helper: Option<String>,
    /// What the file itself says.
    pub written: Option<Credentials>,
}

/// What the text of a config.json says of `registry`.
///
/// # Errors
/// Why the text is no config.json.
pub fn place(config: &[u8], registry: &str) -> Result<Place, String> {
    let file: File = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    let auths = file.auths.unwrap_or_default();
    let helper = entry(&file.cred_helpers.unwrap_or_default(), registry).cloned().or(file.creds_store);
    let written = entry(&auths, registry).and_then(credentials);
    Ok(Place { helper: helper.filter(|name| !name.is_empty()), written })
}

/// A key is a host, or a URL with it; an exact one goes first.
fn entry<'m, T>(map: &'m BTreeMap<String, T>, registry: &str) -> Option<&'m T> {
    let exact = map.get(registry);
    exact.or_else(|| map.iter().find(|(key, _)| same(key, registry)).map(|(_, value)| value))
}

fn same(key: &str, registry: &str) -> bool {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = key.split('/').next().unwrap_or_default();
    let hub = |host: &str| matches!(host, DOCKER_HUB | "index.docker.io" | "registry-1.docker.io");
    host == registry || hub(host) && hub(registry)
}

fn credentials(auth: &Auth) -> Option<Credentials> {
    if let Some(token) = auth.identitytoken.clone().filter(|t| !t.is_empty()) {
        return Some(Credentials::Identity { token });
    }
    if let Some(encoded) = auth.auth.as_deref().filter(|a| !a.is_empty()) {
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // Docker pads with NULs.
        let password = password.trim_end_matches('\0');
        return Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() });
    }
    Some(Credentials::Password { user: auth.username.clone()?, password: auth.password.clone()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn credentials_are_found_for_their_registry_only() {
        let config = br#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnA6dw=="},
            "host:5000":{"username":"u","password":"p"},
            "https://ghcr.io":{"auth":"!"},
            "azure.example":{"auth":"dXNlcjo=","identitytoken":"long"},
            "empty.example":{}}}"#;
        let of = |registry: &str| place(config, registry).expect("parses").written;
        assert_eq!(of("docker.io"), password("hub", "p:w"));
        assert_eq!(of("host:5000"), password("u", "p"));
        assert_eq!(of("azure.example"), Some(Credentials::Identity { token: "long".to_owned() }));
        for other in
            ["host", "host:5001", "ghcr.io", "empty.example", "evil-host:5000", "index.docker.io.evil"]
        {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(place(b"{}", "docker.io"), Ok(Place::default()));
        assert!(place(b"nonsense", "docker.io").is_err());
        assert!(place(br#"{"auths":null,"credHelpers":null,"credsStore":null}"#, "docker.io").is_ok());
    }

    #[test]
    fn a_helper_for_one_registry_goes_before_the_store_for_all() {
        let config = br#"{"auths":{"a.example":{}},"credsStore":"desktop",
            "credHelpers":{"gcr.io":"gcloud","https://index.docker.io/v1/":"hub","none.example":""}}"#;
        let helper = |registry: &str| place(config, registry).expect("parses").helper;
        assert_eq!(helper("gcr.io").as_deref(), Some("gcloud"));
        assert_eq!(helper("docker.io").as_deref(), Some("hub"));
        assert_eq!(helper("eu.gcr.io").as_deref(), Some("desktop"));
        assert_eq!(helper("none.example"), None, "docker means the file by it");
    }

    #[test]
    fn basic_authorization_is_base64_and_nothing_is_shown() {
        let c = password("Aladdin", "open sesame").expect("credentials");
        assert_eq!(c.basic().as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert!(!format!("{c:?}").contains("sesame"));
        let identity = Credentials::Identity { token: "sesame".to_owned() };
        assert_eq!(identity.basic(), None);
        assert!(!format!("{identity:?}").contains("sesame"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}", auth in "[A-Za-z0-9+/=]{0,20}") {
            drop(place(text.as_bytes(), "docker.io"));
            drop(place(format!(r#"{{"auths":{{"docker.io":{{"auth":"{auth}"}}}}}}"#).as_bytes(), "docker.io"));
        }
    }
}
