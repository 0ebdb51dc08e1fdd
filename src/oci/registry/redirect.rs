//! Where a registry sends us, and what may go along.

use ureq::http::Uri;

use crate::host::https::{absolute, port};

/// Whether two URLs lead to the same host, whatever its port.
pub fn same_host(a: &Uri, b: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    host(a) == host(b)
}

/// Whether two URLs lead to the same server, which alone may see what was meant for it.
pub fn same_origin(a: &Uri, b: &Uri) -> bool {
    a.scheme_str() == b.scheme_str() && same_host(a, b) && port(a) == port(b)
}

/// Where a Location header leads; from https never to http.
pub fn redirected(from: &Uri, location: &str) -> Result<Uri, &'static str> {
    const NOWHERE: &str = "it redirects to no URL";
    let scheme = from.scheme_str().unwrap_or("https");
    let uri: Uri = absolute(from, location).parse().map_err(|_| NOWHERE)?;
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
    fn credentials_belong_to_an_origin() {
        let same = |a: &str, b: &str| same_origin(&a.parse().expect("a URL"), &b.parse().expect("a URL"));
        assert!(same("https://a/x", "https://a:443/y"));
        for other in ["https://a.b/x", "http://a/x", "https://a:444/x"] {
            assert!(!same("https://a/x", other), "{other}");
        }
    }
}
