//! Requests to one place that has an image, a registry or a mirror of it: where it is, who we are to it, and where it sends us.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::Body;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::challenge::{self, Challenge};
use super::credentials::Credentials;
use super::login::Login;
use super::redirect::{redirected, same_origin};
use super::refusal::{said, unanswered, unfinished, wait};
use super::token::{self, Realm};
use crate::host::https::{Client, is_loopback};
use crate::image::manifest::harmless;
use crate::image::reference::{DOCKER_HUB, Reference};
use crate::oci::error::OciError;
use crate::oci::registries::Mirror;

/// docker.io is a name; this is where its registry answers.
pub const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const MAX_REDIRECTS: usize = 5;
/// The longest error or token, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

pub struct Http<'a> {
    client: Arc<Client>,
    /// What people call it.
    name: String,
    repository: String,
    image: String,
    login: Login<'a>,
    standing: Mutex<Standing>,
    /// Held while a token is fetched: one is enough for all threads.
    authorizing: Mutex<()>,
    answered: AtomicBool,
}

/// What has been found out.
#[derive(Debug, Clone)]
struct Standing {
    /// Scheme, host and port.
    base: String,
    otherwise: Otherwise,
    /// The Authorization header that was accepted last.
    authorization: Option<String>,
}

/// What to try when nobody has said which of http and https it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    Nothing,
    /// It is on this machine, and http has been tried first.
    HttpsIfItAsks,
    /// It is allowed to be insecure, and https has been tried first.
    HttpIfHttpsFails,
}

/// A request below the registry's root.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'r> {
    pub method: &'r Method,
    /// `manifests` or `blobs`.
    pub kind: &'r str,
    pub target: &'r str,
    pub accept: &'r [&'r str],
    /// The first byte that is wanted.
    pub from: u64,
}

impl<'a> Http<'a> {
    /// The registry itself. `insecure`: it may speak http, though it is not on this machine.
    pub fn registry(reference: &Reference, insecure: bool, client: Arc<Client>, login: Login<'a>) -> Self {
        let registry = reference.registry();
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let (scheme, otherwise) = match insecure {
            true => ("https", Otherwise::HttpIfHttpsFails),
            false if is_loopback(reference.host()) => ("http", Otherwise::HttpsIfItAsks),
            false => ("https", Otherwise::Nothing),
        };
        Self::new(
            registry.to_owned(),
            reference.repository().to_owned(),
            reference,
            Standing { base: format!("{scheme}://{host}"), otherwise, authorization: None },
            client,
            login,
        )
    }

    /// A mirror of it.
    pub fn mirror(mirror: &Mirror, reference: &Reference, client: Arc<Client>, login: Login<'a>) -> Self {
        let standing = Standing { base: mirror.base(), otherwise: Otherwise::Nothing, authorization: None };
        let repository = mirror.repository(reference.repository());
        Self::new(mirror.to_string(), repository, reference, standing, client, login)
    }

    fn new(
        name: String,
        repository: String,
        reference: &Reference,
        standing: Standing,
        client: Arc<Client>,
        login: Login<'a>,
    ) -> Self {
        Self {
            client,
            name,
            repository,
            image: reference.familiar(),
            login,
            standing: Mutex::new(standing),
            authorizing: Mutex::new(()),
            answered: AtomicBool::new(false),
        }
    }

    /// What people call it: `docker.io`, or a mirror's URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether anything was ever heard of it.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, with whatever authorization is wanted, and returns a successful answer.
    pub fn request(&self, ask: &Ask<'_>) -> Result<Response<Body>, OciError> {
        let mut asked = false;
        loop {
            let standing = self.standing().clone();
            let mut response = match self.follow(ask, &standing) {
                Err(e) if standing.otherwise == Otherwise::HttpIfHttpsFails && is_connecting(&e) => {
                    self.plain_instead(&standing, ask, e)?;
                    continue;
                }
                other => other?,
            };
            self.answered.store(true, Ordering::Relaxed);
            if response.status().is_success() {
                self.standing().otherwise = Otherwise::Nothing;
                return Ok(response);
            }
            if response.status() == StatusCode::UNAUTHORIZED && !asked {
                asked = true;
                if self.authorize(&standing, &response)? {
                    continue;
                }
            }
            let body = self.body(&mut response, MAX_ANSWER).unwrap_or_default();
            if standing.otherwise == Otherwise::HttpsIfItAsks && wants_tls(response.status(), &body) {
                let base = standing.base.replacen("http://", "https://", 1);
                *self.standing() = Standing { base, otherwise: Otherwise::Nothing, authorization: None };
                continue;
            }
            return Err(self.refusal(response.status(), response.headers(), ask, said(&body)));
        }
    }

    /// Tries http, since https has failed with `error`, which stays the reason if that fails too.
    fn plain_instead(&self, standing: &Standing, ask: &Ask<'_>, error: OciError) -> Result<(), OciError> {
        let base = standing.base.replacen("https://", "http://", 1);
        let plain = Standing { base, otherwise: Otherwise::Nothing, authorization: None };
        match self.follow(ask, &plain) {
            Ok(_) => *self.standing() = plain,
            // It does speak http, and sends us on to somebody who cannot be trusted.
            Err(elsewhere @ OciError::Tls { .. }) => return Err(elsewhere),
            Err(_) => return Err(error),
        }
        Ok(())
    }

    /// Sends a request and follows redirects. The authorization goes to where it was asked for alone: whoever it redirects to, such
    /// as a CDN with its own signed URLs, must not see it.
    fn follow(&self, ask: &Ask<'_>, standing: &Standing) -> Result<Response<Body>, OciError> {
        let Ask { method, kind, target, accept, from } = *ask;
        let start = format!("{}/v2/{}/{kind}/{target}", standing.base, self.repository);
        let start: Uri = start.parse().map_err(|_| self.protocol("no URL"))?;
        let mut uri = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder()
                .method(method)
                .uri(&uri)
                .header("accept", accept.join(", "))
                // A blob is wanted as it is: else its parts would be parts of something else.
                .header("accept-encoding", "identity");
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            if let Some(authorization) = standing.authorization.as_ref().filter(|_| same_origin(&uri, &start))
            {
                request = request.header("authorization", authorization);
            }
            let request = request.body(()).map_err(|_| self.protocol("it redirects to no URL"))?;
            let response = self.client.run(request).map_err(|e| self.failed(&uri, e))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|l| l.to_str().ok());
            let location = location.ok_or_else(|| self.protocol("it redirects to nowhere"))?;
            uri = redirected(&uri, location).map_err(|why| self.protocol(why))?;
        }
        Err(self.protocol("it redirects in circles"))
    }

    /// Meets the challenge of a 401 that was the answer to `standing`; false: it cannot be met.
    fn authorize(&self, standing: &Standing, response: &Response<Body>) -> Result<bool, OciError> {
        let _one_at_a_time = self.authorizing.lock().unwrap_or_else(PoisonError::into_inner);
        // A token may have expired; then another thread may have a new one already.
        let known = self.standing().authorization.clone();
        if known.is_some() && known != standing.authorization {
            return Ok(true);
        }
        let headers = response.headers().get_all("www-authenticate");
        let authorization = match challenge::choose(headers.iter().filter_map(|h| h.to_str().ok())) {
            Some(Challenge::Basic) => self.login.credentials().and_then(Credentials::basic),
            Some(Challenge::Bearer { realm, service }) => {
                let base = standing.base.parse().map_err(|_| self.protocol("no URL"))?;
                let realm = Realm::new(&realm, service.as_deref(), &self.repository, &base)
                    .map_err(|why| self.protocol(why))?;
                Some(format!("Bearer {}", self.token(&realm)?))
            }
            None => None,
        };
        let met = authorization.is_some();
        self.standing().authorization = authorization;
        Ok(met)
    }

    fn token(&self, realm: &Realm) -> Result<String, OciError> {
        let no_url = |_| self.protocol("its token realm is no URL");
        let (request, body) = realm.request(self.login.credentials()).map_err(no_url)?;
        // No redirect is followed: it would carry a password away.
        let answer = match body {
            None => self.client.run(request),
            Some(body) => self.client.run(request.map(|()| body)),
        };
        let mut response = answer.map_err(|e| self.failed(realm.url(), e))?;
        if !response.status().is_success() {
            let body = self.body(&mut response, MAX_ANSWER).unwrap_or_default();
            return Err(self.refused(response.status(), response.headers(), said(&body)));
        }
        let body = self.body(&mut response, MAX_ANSWER)?;
        token::read(&body).map_err(|why| self.protocol(why))
    }

    /// A whole body, if it is no longer than `limit`.
    pub fn body(&self, response: &mut Response<Body>, limit: u64) -> Result<Vec<u8>, OciError> {
        let mut body = vec![];
        let mut reader = response.body_mut().as_reader().take(limit + 1);
        reader.read_to_end(&mut body).map_err(|e| self.broken(e))?;
        if body.len() as u64 > limit {
            return Err(self.protocol(&format!("its answer is longer than {} MiB", limit >> 20)));
        }
        Ok(body)
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, ask: &Ask<'_>, said: String) -> OciError {
        match status {
            StatusCode::NOT_FOUND if ask.kind == "manifests" => {
                OciError::NotFound { image: self.image.clone() }
            }
            status => self.refused(status, headers, said),
        }
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap, said: String) -> OciError {
        let registry = self.name.clone();
        match status.as_u16() {
            401 | 403 => {
                let anonymous = self.login.is_anonymous();
                OciError::Denied { registry, image: self.image.clone(), said, anonymous }
            }
            429 => OciError::Throttled { registry, said, wait: wait(headers) },
            status => OciError::Refused { registry, status, said, wait: wait(headers) },
        }
    }

    pub fn protocol(&self, why: &str) -> OciError {
        OciError::Protocol { registry: self.name.clone(), why: why.to_owned() }
    }

    /// Why a body did not come to its end.
    pub fn broken(&self, error: io::Error) -> OciError {
        unfinished(&self.name, error)
    }

    fn failed(&self, uri: &Uri, error: ureq::Error) -> OciError {
        // Through a redirect it may be another host that fails.
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        let here = self.standing().base.ends_with(&format!("://{authority}"));
        unanswered(&if here { self.name.clone() } else { harmless(authority) }, error)
    }
}

/// Whether it failed before anything was asked.
fn is_connecting(error: &OciError) -> bool {
    matches!(error, OciError::Tls { .. } | OciError::Unreachable { .. } | OciError::Protocol { .. })
}

/// What Go's and nginx's TLS servers answer to plain http; there is no status of its own for it.
fn wants_tls(status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::BAD_REQUEST && body.windows(5).any(|word| word == b"HTTPS".as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::environment::Environment;
    use crate::host::progress::Silent;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain_http_unless_one_is_called_insecure() {
        let environment = Environment::default();
        let client = Arc::new(Client::new(&environment, "test"));
        let base = |text: &str, insecure| {
            let login = Login::new(None, "", &environment, &Silent);
            let reference = text.parse().expect("a reference");
            let http = Http::registry(&reference, insecure, Arc::clone(&client), login);
            http.standing().base.clone()
        };
        assert_eq!(base("debian", false), "https://registry-1.docker.io");
        assert_eq!(base("[::1]:5000/a", false), "http://[::1]:5000");
        assert_eq!(base("localhost:5000/a", false), "http://localhost:5000");
        assert_eq!(base("192.168.0.1:5000/a", false), "https://192.168.0.1:5000");
        assert_eq!(base("localhost.example/a", false), "https://localhost.example");
        // What is insecure is asked for https all the same, and first.
        assert_eq!(base("192.168.0.1:5000/a", true), "https://192.168.0.1:5000");
        assert_eq!(base("127.0.0.1:5000/a", true), "https://127.0.0.1:5000");
    }
}
