//! HTTP and HTTPS for a static binary: our own resolver, ring's cryptography, the host's certificate authorities, the proxies of the
//! environment, and timeouts.

mod forward;
mod proxy;
mod roots;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{Request, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as UreqResolver};
use ureq::unversioned::transport::{Connector, DefaultConnector, NextTimeout, TcpConnector};
use ureq::{Agent, AsSendBody, Body, Proxy, ProxyProtocol};

use crate::host::environment::Environment;
use crate::host::resolver::Resolver;
use forward::Forward;

/// For name, address and TLS handshake together.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a transfer may stand still.
pub const STALLED: Duration = Duration::from_secs(30);
const RESOLVE: Duration = Duration::from_secs(20);

/// A client. It follows no redirects, since only the caller knows what may be sent to whom; a status is not an error.
#[derive(Debug)]
pub struct Client {
    environment: Environment,
    user_agent: &'static str,
    stalled: Duration,
    /// For the head of an answer; None: as long as it does not stand still.
    answer: Option<Duration>,
    unverified: Vec<String>,
    /// Read when they are first needed, with what is wrong with them.
    roots: OnceLock<(RootCerts, Vec<String>)>,
    agents: Mutex<Agents>,
}

#[derive(Debug, Default)]
struct Agents {
    made: HashMap<Route, Agent>,
    closed: bool,
}

/// Requests that go the same way share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    proxy: Option<Proxy>,
    /// Somebody on the way proves who they are.
    secure: bool,
    /// The proxy is asked for a URL, not for a tunnel.
    forwarded: bool,
    /// Any certificate will do.
    unverified: bool,
}

impl Client {
    pub fn new(environment: &Environment, user_agent: &'static str) -> Self {
        Self {
            environment: environment.clone(),
            user_agent,
            stalled: STALLED,
            answer: None,
            unverified: vec![],
            roots: OnceLock::new(),
            agents: Mutex::default(),
        }
    }

    /// A transfer that stands still for `patience` has failed, instead of [`STALLED`].
    #[must_use]
    pub fn stalled_after(self, patience: Duration) -> Self {
        Self { stalled: patience, ..self }
    }

    /// An answer's head must be whole within `patience`: one that comes a byte at a time never stands still.
    #[must_use]
    pub fn answered_within(self, patience: Duration) -> Self {
        Self { answer: Some(patience), ..self }
    }

    /// Takes any certificate for `authorities`, each a host with its port where a URL has one.
    #[must_use]
    pub fn without_verifying(self, authorities: Vec<String>) -> Self {
        Self { unverified: authorities, ..self }
    }

    /// What is wrong with the certificates that the environment names, if they were needed; sentences.
    pub fn problems(&self) -> &[String] {
        self.roots.get().map(|(_, problems)| problems.as_slice()).unwrap_or_default()
    }

    /// Sends a request and returns the head of the answer, whose body can then be read.
    pub fn run<S: AsSendBody>(&self, request: Request<S>) -> Result<Response<Body>, ureq::Error> {
        self.agent(request.uri())?.run(request)
    }

    /// Ends all that goes on, in other threads too, and refuses what would begin.
    pub fn close(&self) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.closed = true;
        for (_, agent) in agents.made.drain() {
            agent.shutdown();
        }
    }

    fn agent(&self, uri: &Uri) -> Result<Agent, ureq::Error> {
        let proxy = proxy::choose(&self.environment, uri).map_err(|bad| ureq::Error::Other(Box::new(bad)))?;
        let plain = uri.scheme_str() == Some("http");
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        let protocol = proxy.as_ref().map(Proxy::protocol);
        let route = Route {
            secure: !plain || protocol == Some(ProxyProtocol::Https),
            forwarded: plain && protocol == Some(ProxyProtocol::Http),
            unverified: self.unverified.iter().any(|a| a == authority),
            proxy,
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.closed {
            return Err(ureq::Error::Io(std::io::ErrorKind::NotConnected.into()));
        }
        Ok(agents.made.entry(route).or_insert_with_key(|route| self.make(route)).clone())
    }

    fn make(&self, route: &Route) -> Agent {
        let mut tls = TlsConfig::builder().disable_verification(route.unverified);
        if route.secure {
            tls = tls.root_certs(self.roots.get_or_init(|| roots::roots(&self.environment)).0.clone());
        }
        let builder = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(self.user_agent)
            .timeout_resolve(Some(RESOLVE))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(self.stalled))
            .timeout_per_write(Some(self.stalled))
            .timeout_recv_response(self.answer)
            .tls_config(tls.build());
        match &route.proxy {
            Some(proxy) if route.forwarded => {
                let connector = ().chain(TcpConnector::default()).chain(Forward::new(proxy));
                let names = Names { resolver: Resolver::default(), instead: Some(proxy.clone()) };
                Agent::with_parts(builder.proxy(None).build(), connector, names)
            }
            proxy => {
                let names = Names { resolver: Resolver::default(), instead: None };
                let config = builder.proxy(proxy.clone()).build();
                Agent::with_parts(config, DefaultConnector::new(), names)
            }
        }
    }
}

/// Whether a host is this machine, where plain http shows nothing to anyone: docker takes the same for "insecure", and Go never goes
/// there through a proxy.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The URL that a Location header means in the answer of `from`: it may leave out the scheme, and the host
/// (RFC 9110, 10.2.2). Whether it may be followed is the caller's to say.
pub fn absolute(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map(ToString::to_string).unwrap_or_default();
    match location {
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        to => to.to_owned(),
    }
}

/// The port of a URL, or its scheme's.
pub fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("http") => 80,
        Some(scheme) if scheme.starts_with("socks") => 1080,
        _ => 443,
    })
}

#[derive(Debug)]
struct Names {
    resolver: Resolver,
    /// Whose address is looked up, whoever is asked for: a proxy looks up the others itself.
    instead: Option<Proxy>,
}

impl UreqResolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (host, port) = match &self.instead {
            Some(proxy) => (proxy.host(), proxy.port()),
            None => {
                let host = uri.host().ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
                (host, port(uri))
            }
        };
        let deadline = Instant::now() + (*timeout.after).min(RESOLVE);
        let found = self.resolver.lookup(host, deadline).map_err(|e| ureq::Error::Other(Box::new(e)))?;
        let mut addresses = self.empty();
        let family = config.ip_family();
        for address in family.keep_wanted(found.into_iter().map(|ip| (ip, port).into())).take(16) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}
