//! Tokens: where they are asked for, how, and what the answer holds (distribution's docs, "Token Authentication" and
//! "Oauth2 Token Authentication").

use serde::Deserialize;
use ureq::http::{Method, Request, Uri};

use super::challenge::encode;
use super::credentials::Credentials;
use super::redirect::same_host;
use crate::host::https::is_loopback;

/// The longest token, in bytes.
const MAX_TOKEN: usize = 64 << 10;
const CLIENT_ID: &str = "banger";

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// A place that gives tokens, as a registry's challenge names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    url: Uri,
    service: Option<String>,
    scope: String,
}

impl Realm {
    /// The realm that gives tokens to pull `repository`.
    ///
    /// One on another host than the registry is followed over https only, and only if the registry itself speaks https: docker.io's
    /// is at auth.docker.io. Whoever can answer in a registry's place on the way, as with http, could send a password
    /// anywhere. On the registry's own host, https is not left for http.
    ///
    /// # Errors
    /// Why the realm is not to be followed.
    pub fn new(
        realm: &str,
        service: Option<&str>,
        repository: &str,
        registry: &Uri,
    ) -> Result<Self, &'static str> {
        let realm = realm.split('#').next().unwrap_or_default();
        let url: Uri = realm.parse().map_err(|_| "its token realm is no URL")?;
        url.host().ok_or("its token realm has no host")?;
        if url.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("its token realm holds a user name");
        }
        match (registry.scheme_str(), url.scheme_str()) {
            (Some("https"), Some("https")) => {}
            (Some("http"), Some("https" | "http"))
                if same_host(&url, registry) || both_here(&url, registry) => {}
            (Some("http"), Some("https" | "http")) => {
                return Err(
                    "it wants a token to be fetched from another host, but does not speak https itself",
                );
            }
            _ => return Err("it wants a token to be fetched over plain http from another host"),
        }
        let scope = format!("repository:{repository}:pull");
        Ok(Self { url, service: service.map(str::to_owned), scope })
    }

    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The request for a token, and its body: with an identity token OAuth 2.0's, else the older one, which has a password if
    /// there is one, and no body.
    pub fn request(
        &self,
        credentials: Option<&Credentials>,
    ) -> Result<(Request<()>, Option<String>), ureq::http::Error> {
        if let Some(Credentials::Identity { token }) = credentials {
            let mut form = vec![("grant_type", "refresh_token"), ("client_id", CLIENT_ID)];
            form.extend(self.service.as_deref().map(|service| ("service", service)));
            form.extend([("scope", self.scope.as_str()), ("refresh_token", token)]);
            let request = Request::builder()
                .method(Method::POST)
                .uri(&self.url)
                .header("content-type", "application/x-www-form-urlencoded");
            return Ok((request.body(())?, Some(query(&form))));
        }
        let mut asked = vec![];
        asked.extend(self.service.as_deref().map(|service| ("service", service)));
        asked.push(("scope", self.scope.as_str()));
        let separator = if self.url.query().is_some() { '&' } else { '?' };
        let mut request =
            Request::builder().method(Method::GET).uri(format!("{}{separator}{}", self.url, query(&asked)));
        if let Some(basic) = credentials.and_then(Credentials::basic) {
            request = request.header("authorization", basic);
        }
        Ok((request.body(())?, None))
    }
}

/// Whether both are on this machine, under whatever name.
fn both_here(a: &Uri, b: &Uri) -> bool {
    let bare = |uri: &Uri| uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    is_loopback(&bare(a)) && is_loopback(&bare(b))
}

fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// The token in a token server's answer.
pub fn read(body: &[u8]) -> Result<String, &'static str> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its token server answers no JSON")?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
    let visible = token.bytes().all(|b| b.is_ascii_graphic());
    if token.is_empty() || token.len() > MAX_TOKEN || !visible {
        return Err("its token server gives no token");
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(realm: &str, registry: &str) -> Result<Realm, &'static str> {
        Realm::new(realm, Some("a b&c"), "library/x", &registry.parse().expect("a URL"))
    }

    const LOCAL: &str = "http://127.0.0.1:5000";
    const REMOTE: &str = "https://registry.example";

    #[test]
    fn a_token_on_another_host_is_fetched_over_https_and_for_an_https_registry_only() {
        for (url, registry) in [
            ("https://auth.example/token", REMOTE),
            ("https://registry.example:8443/token", REMOTE),
            ("http://127.0.0.1:5001/token", LOCAL),
            ("https://127.0.0.1:5001/token", LOCAL),
            ("http://localhost:5001/token", LOCAL),
            ("http://[::1]:5001/token", LOCAL),
        ] {
            realm(url, registry).expect(url);
        }
        for (url, registry) in [
            ("http://auth.example/token", REMOTE),
            ("http://auth.example/token", LOCAL),
            ("https://auth.example/token", LOCAL),
            ("http://192.168.0.5:5001/token", LOCAL),
            ("http://registry.example/token", REMOTE),
            ("ftp://registry.example/token", REMOTE),
            ("https://user@auth.example/token", REMOTE),
            ("/token", REMOTE),
            ("nonsense realm", REMOTE),
        ] {
            realm(url, registry).expect_err(url);
        }
    }

    #[test]
    fn a_password_goes_in_a_header_and_an_identity_token_in_a_form() {
        let realm = realm("https://auth.example/token?x=1#frag", REMOTE).expect("followed");
        let (get, _) = realm.request(None).expect("a request");
        assert_eq!(
            get.uri().to_string(),
            "https://auth.example/token?x=1&service=a%20b%26c&scope=repository%3Alibrary%2Fx%3Apull"
        );
        assert!(get.headers().get("authorization").is_none());
        let password = Credentials::Password { user: "u".to_owned(), password: "p".to_owned() };
        let (get, body) = realm.request(Some(&password)).expect("a request");
        assert_eq!(body, None);
        assert_eq!(get.headers()["authorization"], "Basic dTpw");
        let identity = Credentials::Identity { token: "a+b".to_owned() };
        let (post, body) = realm.request(Some(&identity)).expect("a request");
        assert_eq!(
            (post.method(), post.uri().to_string().as_str()),
            (&Method::POST, "https://auth.example/token?x=1")
        );
        assert!(post.headers().get("authorization").is_none());
        let want = "grant_type=refresh_token&client_id=banger&service=a%20b%26c&scope=repository%3Alibrary%2Fx%3Apull\
                    &refresh_token=a%2Bb";
        assert_eq!(body.as_deref(), Some(want));
    }

    #[test]
    fn a_token_is_one_visible_word() {
        assert_eq!(read(br#"{"token":"abc"}"#).as_deref(), Ok("abc"));
        assert_eq!(read(br#"{"token":"","access_token":"abc"}"#).as_deref(), Ok("abc"));
        for body in
            [&b"{}"[..], b"nonsense", br#"{"token":"a\r\nX: y"}"#, br#"{"token":"a b"}"#, br#"{"token":5}"#]
        {
            assert!(read(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        assert!(read(format!(r#"{{"token":"{}"}}"#, "x".repeat(MAX_TOKEN + 1)).as_bytes()).is_err());
    }
}
