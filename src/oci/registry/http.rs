//! Requests to one registry: where it is, who we are to it, where it sends us, and what its errors mean.

use std::io::{self, Read};
use std::net::IpAddr;

use serde::Deserialize;
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body, Timeout};

use super::challenge::{self, Challenge};
use super::credentials::Credentials;
use crate::host::https::{Peer, client};
use crate::image::manifest::harmless;
use crate::image::reference::{DOCKER_HUB, Reference};
use crate::oci::error::OciError;

/// docker.io is a name; this is where its registry answers.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const MAX_REDIRECTS: usize = 5;
/// The longest error or token, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
const MAX_TOKEN: usize = 64 << 10;

pub struct Http {
    agent: Agent,
    registry: String,
    repository: String,
    image: String,
    /// Scheme, host and port.
    base: String,
    /// It is on this machine, and nobody said whether it speaks http or https.
    guessed: bool,
    credentials: Option<Credentials>,
    /// The Authorization header that was accepted last.
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorBody>,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Http {
    pub fn new(reference: &Reference, credentials: Option<Credentials>) -> Self {
        let registry = reference.registry();
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let local = is_local(reference.host());
        let (scheme, peer) = if local { ("http", Peer::Local) } else { ("https", Peer::Remote) };
        Self {
            agent: client(peer, concat!("banger/", env!("CARGO_PKG_VERSION"))),
            registry: registry.to_owned(),
            repository: reference.repository().to_owned(),
            image: reference.familiar(),
            base: format!("{scheme}://{host}"),
            guessed: local,
            credentials,
            authorization: None,
        }
    }

    /// Sends a request below the registry's root, with whatever authorization it wants, and returns a successful answer.
    pub fn request(
        &mut self,
        method: &Method,
        path: &str,
        accept: &[&str],
    ) -> Result<Response<Body>, OciError> {
        let mut asked = false;
        loop {
            let mut response = self.follow(method, path, accept)?;
            if response.status().is_success() {
                self.guessed = false;
                return Ok(response);
            }
            if response.status() == StatusCode::UNAUTHORIZED && !asked {
                asked = true;
                // A token may have expired since: then it is asked for once more.
                self.authorization = None;
                if let Some(authorization) = self.authorize(&response)? {
                    self.authorization = Some(authorization);
                    continue;
                }
            }
            let body = self.body(&mut response, MAX_ANSWER).unwrap_or_default();
            // What Go's and nginx's TLS servers answer to plain http; there is no status of its own for it.
            let wants_tls = response.status() == StatusCode::BAD_REQUEST
                && body.windows(5).any(|word| word == b"HTTPS".as_slice());
            if self.guessed && wants_tls {
                self.guessed = false;
                self.base = self.base.replacen("http://", "https://", 1);
                continue;
            }
            return Err(self.refusal(response.status(), said(&body)));
        }
    }

    /// Sends a request and follows redirects. The authorization goes to the registry alone: whoever it redirects to, such
    /// as a CDN with its own signed URLs, must not see it.
    fn follow(&self, method: &Method, path: &str, accept: &[&str]) -> Result<Response<Body>, OciError> {
        let start: Uri = format!("{}{path}", self.base).parse().map_err(|_| self.protocol("no URL"))?;
        let mut uri = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder().method(method).uri(&uri).header("accept", accept.join(", "));
            if let Some(authorization) = self.authorization.as_ref().filter(|_| same_origin(&uri, &start)) {
                request = request.header("authorization", authorization);
            }
            let request = request.body(()).map_err(|_| self.protocol("it redirects to no URL"))?;
            let response = self.agent.run(request).map_err(|e| self.failed(&uri, e))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|l| l.to_str().ok());
            let location = location.ok_or_else(|| self.protocol("it redirects to nowhere"))?;
            uri = redirected(&uri, location).map_err(|why| self.protocol(why))?;
        }
        Err(self.protocol("it redirects in circles"))
    }

    /// Meets the challenge of a 401; None: there is none that can be met.
    fn authorize(&self, response: &Response<Body>) -> Result<Option<String>, OciError> {
        let headers = response.headers().get_all("www-authenticate");
        match challenge::choose(headers.iter().filter_map(|h| h.to_str().ok())) {
            Some(Challenge::Basic) => Ok(self.credentials.as_ref().map(Credentials::basic)),
            Some(Challenge::Bearer { realm, service }) => {
                let base = self.base.parse().map_err(|_| self.protocol("no URL"))?;
                let url = challenge::token_url(&realm, service.as_deref(), &self.repository, &base)
                    .map_err(|why| self.protocol(why))?;
                self.token(&url).map(|token| Some(format!("Bearer {token}")))
            }
            None => Ok(None),
        }
    }

    fn token(&self, url: &Uri) -> Result<String, OciError> {
        let mut request = Request::builder().method(Method::GET).uri(url);
        if let Some(credentials) = &self.credentials {
            request = request.header("authorization", credentials.basic());
        }
        let request = request.body(()).map_err(|_| self.protocol("its token realm is no URL"))?;
        // No redirect is followed: it would carry a password away.
        let mut response = self.agent.run(request).map_err(|e| self.failed(url, e))?;
        if !response.status().is_success() {
            let body = self.body(&mut response, MAX_ANSWER).unwrap_or_default();
            return Err(self.refusal(response.status(), said(&body)));
        }
        let body = self.body(&mut response, MAX_ANSWER)?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|_| self.protocol("its token server answers no JSON"))?;
        let token = token.token.filter(|t| !t.is_empty()).or(token.access_token).unwrap_or_default();
        let visible = token.bytes().all(|b| b.is_ascii_graphic());
        if token.is_empty() || token.len() > MAX_TOKEN || !visible {
            return Err(self.protocol("its token server gives no token"));
        }
        Ok(token)
    }

    /// A whole body, if it is no longer than `limit`.
    pub fn body(&self, response: &mut Response<Body>, limit: u64) -> Result<Vec<u8>, OciError> {
        let mut body = vec![];
        let mut reader = response.body_mut().as_reader().take(limit + 1);
        reader.read_to_end(&mut body).map_err(|e| self.transfer_failed(e))?;
        if body.len() as u64 > limit {
            return Err(self.protocol(&format!("its answer is longer than {} MiB", limit >> 20)));
        }
        Ok(body)
    }

    fn refusal(&self, status: StatusCode, said: String) -> OciError {
        let (registry, image) = (self.registry.clone(), self.image.clone());
        match status.as_u16() {
            401 | 403 => OciError::Denied { registry, image, said, anonymous: self.credentials.is_none() },
            404 => OciError::NotFound { image },
            429 => OciError::Throttled { registry, said },
            status => OciError::Refused { registry, status, said },
        }
    }

    fn protocol(&self, why: &str) -> OciError {
        OciError::Protocol { registry: self.registry.clone(), why: why.to_owned() }
    }

    /// Why a body did not come to its end.
    pub fn transfer_failed(&self, error: io::Error) -> OciError {
        let host = &self.registry;
        classify(host, ureq::Error::from(error))
    }

    fn failed(&self, uri: &Uri, error: ureq::Error) -> OciError {
        // Through a redirect it may be another host that fails.
        let host = match uri.authority() {
            Some(authority) if authority.as_str() != DOCKER_HUB_HOST => harmless(authority.as_str()),
            _ => self.registry.clone(),
        };
        classify(&host, error)
    }
}

/// The words of an error: code and message of the first one, made harmless.
fn said(body: &[u8]) -> String {
    match serde_json::from_slice::<Errors>(body).map(|e| e.errors.into_iter().next()) {
        Ok(Some(error)) => {
            let words: Vec<String> = [error.code, error.message].into_iter().flatten().collect();
            harmless(&words.join(": "))
        }
        Ok(None) => String::new(),
        // Not in the specification's form: a line of text may still help, a page of HTML does not.
        Err(_) => match std::str::from_utf8(body) {
            Ok(text) if !text.trim_start().starts_with(['<', '{']) => {
                harmless(text.trim().lines().next().unwrap_or_default())
            }
            _ => String::new(),
        },
    }
}

fn classify(host: &str, error: ureq::Error) -> OciError {
    let host = host.to_owned();
    match error {
        ureq::Error::Timeout(Timeout::Resolve) => OciError::TimedOut { host, during: "looking up its name" },
        ureq::Error::Timeout(Timeout::Connect) => OciError::TimedOut { host, during: "connecting" },
        ureq::Error::Timeout(_) => OciError::TimedOut { host, during: "the transfer" },
        // rustls hands its errors over as invalid data; a socket has none of those.
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
            OciError::Tls { host, source: Box::new(e) }
        }
        e @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_)) => {
            OciError::Tls { host, source: Box::new(e) }
        }
        ureq::Error::Protocol(e) => OciError::Protocol { registry: host, why: harmless(&e.to_string()) },
        ureq::Error::LargeResponseHeader(..) => {
            OciError::Protocol { registry: host, why: "its answer's header is too long".to_owned() }
        }
        ureq::Error::Io(e) => OciError::Unreachable { host, source: Box::new(e) },
        ureq::Error::Other(e) => OciError::Unreachable { host, source: e },
        e => OciError::Unreachable { host, source: Box::new(e) },
    }
}

/// Whether a host is this machine, where plain http shows nothing to anyone: docker takes the same for "insecure".
fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    a.scheme_str() == b.scheme_str() && a.host() == b.host() && port(a) == port(b)
}

/// Where a Location header leads; from https never to http.
fn redirected(from: &Uri, location: &str) -> Result<Uri, &'static str> {
    const NOWHERE: &str = "it redirects to no URL";
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map(ToString::to_string).unwrap_or_default();
    let absolute = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        location.to_owned()
    };
    let uri: Uri = absolute.parse().map_err(|_| NOWHERE)?;
    match (scheme, uri.scheme_str(), uri.host()) {
        (_, Some("https"), Some(_)) | ("http", Some("http"), Some(_)) => Ok(uri),
        ("https", Some("http"), Some(_)) => Err("it redirects from https to http"),
        _ => Err(NOWHERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain_http() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "::1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["localhost.example", "127.0.0.1.example", "128.0.0.1", "192.168.0.1", "::2", "docker.io"]
        {
            assert!(!is_local(host), "{host}");
        }
        let http = |text: &str| Http::new(&text.parse().expect("a reference"), None).base;
        assert_eq!(http("debian"), "https://registry-1.docker.io");
        assert_eq!(http("[::1]:5000/a"), "http://[::1]:5000");
        assert_eq!(http("192.168.0.1:5000/a"), "https://192.168.0.1:5000");
    }

    #[test]
    fn redirects_stay_on_https() {
        let to = |from: &str, location: &str| {
            redirected(&from.parse().expect("a URL"), location).map(|u| u.to_string())
        };
        assert_eq!(to("https://a/x", "https://b/y?z=1").as_deref(), Ok("https://b/y?z=1"));
        assert_eq!(to("https://a:8/x", "/y").as_deref(), Ok("https://a:8/y"));
        assert_eq!(to("https://a/x", "//b/y").as_deref(), Ok("https://b/y"));
        assert_eq!(to("http://a/x", "http://b/").as_deref(), Ok("http://b/"));
        for (from, location) in [
            ("https://a/x", "http://a/x"),
            ("http://a/x", "file:///etc/passwd"),
            ("https://a/x", "y z"),
            ("https://a/x", ""),
        ] {
            to(from, location).expect_err(location);
        }
    }

    #[test]
    fn what_a_client_ran_into_is_told_apart() {
        let shown = |e: ureq::Error| classify("host", e).to_string();
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        assert!(
            shown(ureq::Error::Timeout(Timeout::Connect)).contains("does not answer (connecting timed out)")
        );
        assert!(
            shown(ureq::Error::Timeout(Timeout::PerRead))
                .contains("does not answer (the transfer timed out)")
        );
        assert!(shown(io(io::ErrorKind::InvalidData)).contains("SSL_CERT_FILE"));
        assert!(shown(ureq::Error::Tls("no")).starts_with("cannot trust host"));
        assert_eq!(shown(io(io::ErrorKind::ConnectionReset)), "cannot reach host");
        assert_eq!(shown(ureq::Error::HostNotFound), "cannot reach host");
    }

    #[test]
    fn credentials_belong_to_an_origin() {
        let same = |a: &str, b: &str| same_origin(&a.parse().expect("a URL"), &b.parse().expect("a URL"));
        assert!(same("https://a/x", "https://a:443/y"));
        for other in ["https://a.b/x", "http://a/x", "https://a:444/x"] {
            assert!(!same("https://a/x", other), "{other}");
        }
    }
}
