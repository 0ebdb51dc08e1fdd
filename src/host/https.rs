//! HTTP and HTTPS for a static binary: our own resolver, ring's cryptography, the host's root certificates, and timeouts.

use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as UreqResolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::host::resolver::Resolver;

/// For name, address and TLS handshake together.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a transfer may stand still.
const STALLED: Duration = Duration::from_secs(30);
const RESOLVE: Duration = Duration::from_secs(20);

/// Whom a client talks to, which decides how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This machine: never through a proxy (as Go's ProxyFromEnvironment has it).
    Local,
    /// Anyone: through the proxy that the environment names (HTTPS_PROXY, NO_PROXY, ...).
    Remote,
}

/// A client. It follows no redirects, since only the caller knows what may be sent to whom; a status is not an error.
pub fn client(peer: Peer, user_agent: &str) -> Agent {
    let builder = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(user_agent)
        .timeout_resolve(Some(RESOLVE))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(STALLED))
        .timeout_per_write(Some(STALLED))
        .tls_config(TlsConfig::builder().root_certs(roots()).build());
    let config = match peer {
        Peer::Local => builder.proxy(None).build(),
        Peer::Remote => builder.build(),
    };
    Agent::with_parts(config, DefaultConnector::new(), Names(Resolver::default()))
}

/// The host's bundle, or the one that SSL_CERT_FILE or SSL_CERT_DIR names; Mozilla's where there is none, as in an empty
/// root directory.
fn roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("cannot use a root certificate: {error}");
    }
    if found.certs.is_empty() {
        return RootCerts::WebPki;
    }
    let certs: Vec<Certificate<'static>> =
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    RootCerts::new_with_certs(&certs)
}

#[derive(Debug)]
struct Names(Resolver);

impl UreqResolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let deadline = Instant::now() + (*timeout.after).min(RESOLVE);
        let found = self.0.lookup(host, deadline).map_err(|e| ureq::Error::Other(Box::new(e)))?;
        let mut addresses = self.empty();
        let family = config.ip_family();
        for address in family.keep_wanted(found.into_iter().map(|ip| (ip, port).into())).take(16) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}
