//! What a registry's errors mean, and what a client may run into on the way to it.

use std::io;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use ureq::Timeout;
use ureq::http::HeaderMap;

use super::retry::retry_after;
use crate::image::manifest::harmless;
use crate::oci::error::OciError;

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

/// The words of an error (distribution-spec, "Error Codes"): code and message of the first one, made harmless.
pub fn said(body: &[u8]) -> String {
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

/// How long the registry wants to be left alone, if it says so.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get("retry-after")?.to_str().ok()?, SystemTime::now())
}

/// Why there is no answer.
pub fn unanswered(host: &str, error: ureq::Error) -> OciError {
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

/// Why an answer did not come to its end.
pub fn unfinished(host: &str, error: io::Error) -> OciError {
    match unanswered(host, ureq::Error::from(error)) {
        OciError::Unreachable { host, source } => OciError::Broken { host, source },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_ran_into_is_told_apart() {
        let shown = |e: ureq::Error| unanswered("host", e).to_string();
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
        let cut = unfinished("host", io::ErrorKind::UnexpectedEof.into());
        assert_eq!(cut.to_string(), "the connection to host broke");
    }

    proptest::proptest! {
        #[test]
        fn any_body_says_something_short_and_tame(body: Vec<u8>, text in "\\PC{0,300}") {
            let body = [body, text.into_bytes()].concat();
            let shown = said(&body);
            proptest::prop_assert!(shown.chars().all(|c| !c.is_control()));
        }
    }
}
