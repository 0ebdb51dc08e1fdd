//! Which proxy a request goes through: the variables that curl and Go's programs know, with the meaning that Go gives them
//! (golang.org/x/net/http/httpproxy), so that banger does as docker does. Of ALL_PROXY, which Go does not know, curl's.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use super::{is_loopback, port};
use crate::host::environment::Environment;

/// A variable names no proxy. Its value may hold a password, and is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadProxy {
    variable: &'static str,
}

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the variable {} is no proxy's address; an example is http://proxy.example:3128",
            self.variable
        )
    }
}

impl std::error::Error for BadProxy {}

/// The proxy for a request to `uri`; None: it goes there directly, as it always does to this machine.
///
/// # Errors
/// [`BadProxy`], if the variable that counts names none.
pub fn choose(environment: &Environment, uri: &Uri) -> Result<Option<ureq::Proxy>, BadProxy> {
    let scheme = uri.scheme_str().unwrap_or("https");
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let own = if scheme == "http" { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let found = [own, "ALL_PROXY"].into_iter().find_map(|name| Some((name, environment.get(name)?)));
    let Some((variable, url)) = found else { return Ok(None) };
    if is_loopback(host) || is_exempt(environment.get("NO_PROXY").unwrap_or_default(), host, port(uri)) {
        return Ok(None);
    }
    ureq::Proxy::new(url.trim()).map(Some).map_err(|_| BadProxy { variable })
}

/// Whether NO_PROXY says that `host` is reached directly.
fn is_exempt(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    no_proxy.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| matches(entry, &host, port))
}

/// An entry is `*`, an address, a network as `10.0.0.0/8`, or a domain: `example.com` with all below it, `.example.com` only what
/// is below it. Addresses and domains may have a port.
fn matches(entry: &str, host: &str, port: u16) -> bool {
    let entry = entry.to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    let (name, wanted) = split_port(&entry);
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return is_within(address, name);
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        Some(domain) => is_below(host, domain),
        None => host == name || is_below(host, name),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// `name:port`, `[address]:port`; the colons of a bare IPv6 address belong to it.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((address, rest)) = entry.strip_prefix('[').and_then(|e| e.split_once(']')) {
        return (address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        Some((name, port)) if !port.contains(':') && port.parse::<u16>().is_ok() => (name, port.parse().ok()),
        _ => (entry, None),
    }
}

/// Whether `address` is the address, or in the network, that `text` is.
fn is_within(address: IpAddr, text: &str) -> bool {
    let Some((network, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().is_ok_and(|same| same == address);
    };
    let Ok(length) = length.parse::<u32>() else { return false };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let ((network, width), (address, same_width)) = (bits(network), bits(address));
    let differ = (network ^ address).checked_shr(128 - length.min(128)).unwrap_or(0);
    width == same_width && length <= width && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy_and_this_machine_has_none() {
        let environment = Environment::from([
            ("http_proxy", "plain.example:3128"),
            ("HTTPS_PROXY", "http://user:pa%40ss@secure.example"),
            ("NO_PROXY", "direct.example"),
        ]);
        let proxy = |uri: &str| {
            let found = choose(&environment, &uri.parse().expect("a URL")).expect("chosen");
            found.map(|p| (p.host().to_owned(), p.port(), p.password().map(str::to_owned)))
        };
        assert_eq!(proxy("http://a.example/x"), Some(("plain.example".to_owned(), 3128, None)));
        let secure = Some(("secure.example".to_owned(), 80, Some("pa@ss".to_owned())));
        assert_eq!(proxy("https://a.example/x"), secure);
        for uri in [
            "https://direct.example/",
            "http://localhost:5000/",
            "http://a.localhost/",
            "https://127.8.8.8/",
            "http://[::1]:5000/",
        ] {
            assert_eq!(proxy(uri), None, "{uri}");
        }
        let all = Environment::from([("all_proxy", "socks5h://socks.example")]);
        let found = choose(&all, &"https://a.example/".parse().expect("a URL")).expect("chosen");
        assert_eq!(found.map(|p| p.port()), Some(1080));
    }

    #[test]
    fn what_is_no_proxy_is_named_without_its_value() {
        let environment = Environment::from([("HTTPS_PROXY", "gopher://user:secret@proxy")]);
        let error = choose(&environment, &"https://a.example/".parse().expect("a URL")).expect_err("refused");
        assert!(
            error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn hosts_are_exempt_as_for_go() {
        let table = [
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", true),
            ("example.com", "badexample.com", false),
            (".example.com", "a.example.com", true),
            (".example.com", "example.com", false),
            ("*.example.com", "a.example.com", true),
            ("EXAMPLE.com", "example.COM.", true),
            ("a.b, example.com", "example.com", true),
            ("example.com:443", "example.com", true),
            ("example.com:80", "example.com", false),
            ("*", "anything", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3:443", "10.1.2.3", true),
            ("10.1.2.3/33", "10.1.2.3", false),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("[fd12::1]:443", "fd12::1", true),
            ("[fd12::1]:80", "fd12::1", false),
            ("fd12::1", "fd12::1", true),
            ("::/0", "10.1.2.3", false),
            ("", "example.com", false),
            (".", "example.com", false),
        ];
        for (no_proxy, host, want) in table {
            assert_eq!(is_exempt(no_proxy, host, 443), want, "{no_proxy} {host}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_in_no_proxy_is_read(text in "\\PC{0,40}|[0-9a-f:./*\\[\\], ]{0,40}", port: u16) {
            for host in ["a.example", "10.0.0.1", "fd00::1"] {
                is_exempt(&text, host, port);
            }
        }
    }
}
