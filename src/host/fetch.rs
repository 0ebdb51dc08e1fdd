//! Reading what lies at a location: a file, or the body of an answer, never more of it than was allowed.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::{HeaderMap, Method, Request, Response, Uri};

use crate::host::environment::Environment;
use crate::host::https::{Client, absolute};
use crate::host::location::Location;
use crate::host::progress::Progress;

const MAX_REDIRECTS: usize = 5;
/// How long all of a document may take; a transfer that stands still ends sooner.
const PATIENCE: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("banger/", env!("CARGO_PKG_VERSION"));

/// What an answer says of itself, so that the next request can ask whether it is still so (RFC 9110, section 13).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// Why nothing was read.
#[derive(Debug)]
pub enum FetchError {
    /// No answer, or none to its end.
    Unreachable { at: String, source: Box<dyn Error + Send + Sync> },
    /// An answer, but not what was asked for.
    Status { at: String, status: u16 },
    /// An answer that breaks the protocol, or leads somewhere unsafe.
    Protocol { at: String, why: &'static str },
    /// More than there may be, in bytes.
    TooLong { at: String, limit: u64 },
}

impl FetchError {
    /// Whether it may be different in an hour, without anybody's doing here: a server that is down, or not itself.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Status { .. } => true,
            Self::Protocol { .. } | Self::TooLong { .. } => false,
        }
    }
}

/// What requests go through; `environment` says by which proxies and with which certificates.
pub fn client(environment: &Environment) -> Client {
    Client::new(environment, USER_AGENT)
}

/// Tells what is wrong with the certificates that the environment names, if they were needed.
pub fn tell_problems(client: &Client, progress: &dyn Progress) {
    client.problems().iter().for_each(|problem| progress.note(problem));
}

/// Content that is being read.
pub struct Opened {
    /// In bytes, where it is said beforehand.
    pub length: Option<u64>,
    pub validators: Validators,
    pub reader: Box<dyn Read>,
}

/// Opens what lies at `location`; None: it is as it was when it was described by `known`.
pub fn open(client: &Client, location: &Location, known: &Validators) -> Result<Option<Opened>, FetchError> {
    match location {
        Location::File(path) => {
            let open = || -> io::Result<Opened> {
                let file = File::open(path)?;
                let meta = file.metadata()?;
                if !meta.is_file() {
                    // A pipe would be waited for without end.
                    return Err(io::Error::other("it is no regular file"));
                }
                let length = Some(meta.len());
                Ok(Opened { length, validators: Validators::default(), reader: Box::new(file) })
            };
            let unreachable =
                |e: io::Error| FetchError::Unreachable { at: location.to_string(), source: e.into() };
            open().map(Some).map_err(unreachable)
        }
        Location::Remote(uri) | Location::Loopback(uri) => request(client, location, uri, known),
    }
}

/// All of what lies at `location`; None as with [`open`].
///
/// # Errors
/// [`FetchError::TooLong`] above `limit` bytes.
pub fn read(
    client: &Client,
    location: &Location,
    known: &Validators,
    limit: u64,
) -> Result<Option<(Vec<u8>, Validators)>, FetchError> {
    let Some(opened) = open(client, location, known)? else { return Ok(None) };
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = vec![];
    let too_long = || FetchError::TooLong { at: location.to_string(), limit };
    let broken = |e: io::Error| FetchError::Unreachable { at: location.to_string(), source: e.into() };
    if opened.length.is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut reader = opened.reader.take(limit + 1);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(broken(e)),
        }
        // Each byte may be in time, and all of them not.
        if Instant::now() > deadline {
            return Err(broken(io::ErrorKind::TimedOut.into()));
        }
    }
    if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(Some((bytes, opened.validators))) }
}

fn request(
    client: &Client,
    location: &Location,
    start: &Uri,
    known: &Validators,
) -> Result<Option<Opened>, FetchError> {
    let protocol = |why| FetchError::Protocol { at: location.to_string(), why };
    let mut uri = start.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = ask(client, &uri, known)
            .map_err(|e| FetchError::Unreachable { at: location.to_string(), source: Box::new(e) })?;
        match response.status().as_u16() {
            200 => return Ok(Some(opened(response))),
            304 if *known != Validators::default() => return Ok(None),
            301 | 302 | 303 | 307 | 308 => {
                let to = response.headers().get("location").and_then(|l| l.to_str().ok());
                uri = redirected(&uri, to.unwrap_or_default()).map_err(protocol)?;
            }
            status => return Err(FetchError::Status { at: location.to_string(), status }),
        }
    }
    Err(protocol("it redirects in circles"))
}

fn ask(client: &Client, uri: &Uri, known: &Validators) -> Result<Response<Body>, ureq::Error> {
    let mut request = Request::builder().method(Method::GET).uri(uri);
    if let Some(etag) = &known.etag {
        request = request.header("if-none-match", etag);
    }
    if let Some(date) = &known.last_modified {
        request = request.header("if-modified-since", date);
    }
    client.run(request.body(()).map_err(ureq::Error::Http)?)
}

fn opened(response: Response<Body>) -> Opened {
    let header = |headers: &HeaderMap, name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        // It is kept in a file and sent back as it is.
        (text.len() <= 256).then(|| text.to_owned())
    };
    let headers = response.headers();
    let length = header(headers, "content-length").and_then(|l| l.parse().ok());
    let validators =
        Validators { etag: header(headers, "etag"), last_modified: header(headers, "last-modified") };
    Opened { length, validators, reader: Box::new(response.into_body().into_reader()) }
}

/// Where a Location header leads: from https never to http, and from elsewhere never to this machine.
fn redirected(from: &Uri, to: &str) -> Result<Uri, &'static str> {
    let scheme = from.scheme_str().unwrap_or("https");
    let place =
        |text: &str| text.parse::<Location>().map_err(|_| "it redirects to where nothing may be read from");
    match (place(&from.to_string())?, place(&absolute(from, to))?) {
        (_, Location::File(_)) => Err("it redirects to a file"),
        (from, to) if !from.may_name(&to) => Err("it redirects to this machine"),
        (_, Location::Loopback(uri)) if scheme == "https" && uri.scheme_str() == Some("http") => {
            Err("it redirects from https to http")
        }
        (_, Location::Remote(uri) | Location::Loopback(uri)) => Ok(uri),
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { at, .. } => write!(f, "cannot read {at}"),
            Self::Status { at, status: 404 } => write!(f, "there is nothing at {at} (status 404)"),
            Self::Status { at, status } => write!(f, "{at} cannot be had (status {status})"),
            Self::Protocol { at, why } => write!(f, "cannot read {at}: {why}"),
            Self::TooLong { at, limit } => write!(f, "{at} is longer than {limit} bytes"),
        }
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(&**source),
            Self::Status { .. } | Self::Protocol { .. } | Self::TooLong { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_no_less_safe_a_place() {
        let to =
            |from: &str, to: &str| redirected(&from.parse().expect("a URL"), to).map(|uri| uri.to_string());
        for (from, location, want) in [
            ("https://a.example/x", "https://b.example/y?z=1", "https://b.example/y?z=1"),
            ("https://a.example:8443/x", "/y", "https://a.example:8443/y"),
            ("https://a.example/x", "//b.example/y", "https://b.example/y"),
            ("http://127.0.0.1:80/x", "https://b.example/y", "https://b.example/y"),
            ("http://127.0.0.1:80/x", "http://localhost:81/y", "http://localhost:81/y"),
        ] {
            assert_eq!(to(from, location).as_deref(), Ok(want));
        }
        for (from, location) in [
            ("https://a.example/x", "http://a.example/x"),
            ("https://a.example/x", "https://127.0.0.1/x"),
            ("https://a.example/x", "http://localhost/x"),
            ("https://127.0.0.1/x", "http://127.0.0.1/x"),
            ("http://127.0.0.1/x", "http://a.example/x"),
            ("http://127.0.0.1/x", "file:///etc/passwd"),
            ("https://a.example/x", "y"),
            ("https://a.example/x", ""),
        ] {
            to(from, location).expect_err(location);
        }
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c");
        std::fs::write(&path, b"content").expect("writes");
        let location = Location::File(path);
        let client = client(&Environment::default());
        let all = |limit| read(&client, &location, &Validators::default(), limit);
        assert_eq!(all(7).expect("reads").expect("is there").0, b"content");
        assert!(matches!(all(6), Err(FetchError::TooLong { limit: 6, .. })));
        for other in [dir.path().to_owned(), dir.path().join("none"), "/dev/zero".into()] {
            let error =
                read(&client, &Location::File(other), &Validators::default(), 10).expect_err("no file");
            assert!(error.is_passing(), "{error}");
        }
    }
}
