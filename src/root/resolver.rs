//! The host's systemd-resolved asks banger for names of VMs: a routing domain on the bridge's link (resolvectl(1)), and nothing else
//! of the host's changes.
//!
//! A server on a port of its own must be read back: resolved that cannot have one (before 246) leaves the setting out without a word.

use std::fmt;

use serde_json::Value;

use crate::host::cmd::{self, CmdError};
use crate::network::reverse;
use crate::network::subnet::Subnet;
use crate::network::suffix::Suffix;

const SERVICE: &str = "org.freedesktop.resolve1";

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// No systemd-resolved runs here; whatever resolves names has to be told by its own means (README, Names).
    NoResolved,
}

/// Why resolved does not ask us.
#[derive(Debug)]
pub enum ResolverError {
    /// There is no such link.
    NoLink(String),
    Command(CmdError),
    /// It was told and did not object, but does something else.
    NotTaken {
        link: String,
        what: &'static str,
        want: String,
        have: String,
    },
    /// What it says of itself cannot be read.
    Unreadable {
        what: &'static str,
    },
}

/// What resolved is told of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    server: ([u8; 4], u16),
    /// Without the `~` that makes them for routing only.
    domains: Vec<String>,
}

impl Routing {
    pub fn new(dns_port: u16, suffix: &Suffix, subnet: Subnet) -> Self {
        let mut domains = vec![suffix.to_string()];
        domains.extend(reverse::domains(subnet));
        Self { server: ([127, 0, 0, 1], dns_port), domains }
    }

    /// The arguments for resolvectl, one command each.
    pub fn commands(&self, link: &str) -> Vec<Vec<String>> {
        let command = |verb: &str, values: &[&str]| {
            [verb, link].iter().chain(values).map(|word| (*word).to_owned()).collect::<Vec<_>>()
        };
        let ([a, b, c, d], port) = self.server;
        let mut domain = command("domain", &[]);
        domain.extend(self.domains.iter().map(|domain| format!("~{domain}")));
        vec![
            // What is not below the domains goes elsewhere, and what is goes by plain DNS to us, who sign nothing.
            command("default-route", &["no"]),
            command("llmnr", &["no"]),
            command("mdns", &["no"]),
            command("dnssec", &["no"]),
            command("dnsovertls", &["no"]),
            command("dns", &[&format!("{a}.{b}.{c}.{d}:{port}")]),
            domain,
        ]
    }

    /// Checks what resolved says of the link's servers (DNSEx: interface family, address, port, name for TLS) and domains.
    fn check(&self, link: &str, servers: &Value, domains: &Value) -> Result<(), ResolverError> {
        const AF_INET: u8 = 2;
        let (address, port) = self.server;
        let want = serde_json::json!([[AF_INET, address, port, ""]]);
        let not_taken = |what, want: &Value, have: &Value| ResolverError::NotTaken {
            link: link.to_owned(),
            what,
            want: want.to_string(),
            have: have.to_string(),
        };
        if *servers != want {
            return Err(not_taken("servers", &want, servers));
        }
        let want: Vec<Value> = self.domains.iter().map(|domain| serde_json::json!([domain, true])).collect();
        // In which order it keeps them is its own affair.
        let have = domains.as_array().map(Vec::as_slice).unwrap_or_default();
        if have.len() != want.len() || !want.iter().all(|domain| have.contains(domain)) {
            return Err(not_taken("domains", &want.into(), domains));
        }
        Ok(())
    }
}

/// Has resolved ask 127.0.0.1, port `dns_port`, for names below `suffix` and of addresses in `subnet`, by way of the link `bridge`.
/// What fails is taken back.
///
/// # Errors
/// [`ResolverError`]; then the link is without settings.
pub fn set(bridge: &str, dns_port: u16, suffix: &Suffix, subnet: Subnet) -> Result<Outcome, ResolverError> {
    if !resolved_runs()? {
        return Ok(Outcome::NoResolved);
    }
    let index = link_index(bridge).ok_or_else(|| ResolverError::NoLink(bridge.to_owned()))?;
    let routing = Routing::new(dns_port, suffix, subnet);
    let told = routing
        .commands(bridge)
        .iter()
        .try_for_each(|arguments| cmd::run("resolvectl", arguments).map(drop).map_err(ResolverError::Command))
        .and_then(|()| {
            let link = link_object(index)?;
            routing.check(bridge, &property(&link, "DNSEx")?, &property(&link, "Domains")?)
        });
    if let Err(error) = told {
        if let Err(e) = revert(bridge) {
            log::error!("cannot take back what resolved was told of {bridge}: {e}");
        }
        return Err(error);
    }
    Ok(Outcome::Done)
}

/// Takes back what resolved was told of the link `bridge`. One that has gone took its settings along.
pub fn clear(bridge: &str) -> Result<Outcome, ResolverError> {
    if !resolved_runs()? {
        return Ok(Outcome::NoResolved);
    }
    let Some(index) = link_index(bridge) else { return Ok(Outcome::Done) };
    revert(bridge)?;
    let servers = property(&link_object(index)?, "DNSEx")?;
    if servers.as_array().is_none_or(|servers| !servers.is_empty()) {
        return Err(ResolverError::NotTaken {
            link: bridge.to_owned(),
            what: "servers",
            want: "[]".to_owned(),
            have: servers.to_string(),
        });
    }
    Ok(Outcome::Done)
}

fn revert(bridge: &str) -> Result<(), ResolverError> {
    cmd::run("resolvectl", ["revert", bridge]).map(drop).map_err(ResolverError::Command)
}

/// Whether resolved runs. Asking it would start it where it is installed but not in use; asking the bus does not.
fn resolved_runs() -> Result<bool, ResolverError> {
    let asked = call(
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "NameHasOwner",
        &["s", SERVICE],
    );
    match asked {
        Ok(answer) => answer.as_bool().ok_or(ResolverError::Unreadable { what: "who is on the bus" }),
        // Without busctl there is no systemd; without a bus nobody is on it.
        Err(ResolverError::Command(_)) => Ok(false),
        Err(e) => Err(e),
    }
}

fn link_index(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// The bus's name for a link.
fn link_object(index: u32) -> Result<String, ResolverError> {
    let path = "/org/freedesktop/resolve1";
    let answer =
        call(SERVICE, path, "org.freedesktop.resolve1.Manager", "GetLink", &["i", &index.to_string()])?;
    answer.as_str().map(str::to_owned).ok_or(ResolverError::Unreadable { what: "its link" })
}

/// A property of a link of resolved's (org.freedesktop.resolve1(5)).
fn property(link: &str, name: &'static str) -> Result<Value, ResolverError> {
    busctl(&["get-property", SERVICE, link, "org.freedesktop.resolve1.Link", name], name)
}

/// Calls a method that returns one value.
fn call(
    service: &str,
    path: &str,
    interface: &str,
    method: &'static str,
    arguments: &[&str],
) -> Result<Value, ResolverError> {
    let words = [&["call", service, path, interface, method], arguments].concat();
    let answer = busctl(&words, method)?;
    answer.get(0).cloned().ok_or(ResolverError::Unreadable { what: method })
}

/// Runs busctl(1) and returns what is in `data` of the JSON that it prints.
fn busctl(words: &[&str], what: &'static str) -> Result<Value, ResolverError> {
    let options = ["--json=short", "--timeout=10"];
    let out = cmd::run("busctl", options.iter().chain(words)).map_err(ResolverError::Command)?;
    let answer: Value = serde_json::from_slice(&out).map_err(|_| ResolverError::Unreadable { what })?;
    answer.get("data").cloned().ok_or(ResolverError::Unreadable { what })
}

impl fmt::Display for ResolverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLink(link) => write!(f, "there is no link {link}"),
            Self::Command(_) => f.write_str("cannot tell systemd-resolved where names of VMs are"),
            Self::NotTaken { link, what, want, have } => {
                write!(f, "systemd-resolved was told {what} {want} for {link}, and has {have}")
            }
            Self::Unreadable { what } => write!(f, "cannot read what systemd-resolved says of {what}"),
        }
    }
}

impl std::error::Error for ResolverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Command(e) => Some(e),
            Self::NoLink(_) | Self::NotTaken { .. } | Self::Unreadable { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::network::subnet;

    fn routing() -> Routing {
        Routing::new(42069, &Suffix::default(), subnet::DEFAULT)
    }

    #[test]
    fn only_names_of_vms_and_of_their_addresses_are_routed() {
        let commands: Vec<String> =
            routing().commands("br-banger").iter().map(|words| words.join(" ")).collect();
        assert_eq!(
            commands,
            [
                "default-route br-banger no",
                "llmnr br-banger no",
                "mdns br-banger no",
                "dnssec br-banger no",
                "dnsovertls br-banger no",
                "dns br-banger 127.0.0.1:42069",
                "domain br-banger ~vm ~0.16.172.in-addr.arpa",
            ]
        );
    }

    #[test]
    fn a_setting_that_was_dropped_without_a_word_is_noticed() {
        // As resolved 252 says it.
        let servers = json!([[2, [127, 0, 0, 1], 42069, ""]]);
        let domains = json!([["vm", true], ["0.16.172.in-addr.arpa", true]]);
        let check = |servers: &Value, domains: &Value| routing().check("br-banger", servers, domains);
        check(&servers, &domains).expect("it was taken");
        check(&servers, &json!([["0.16.172.in-addr.arpa", true], ["vm", true]])).expect("in any order");
        for (servers, domains) in [
            (json!([]), domains.clone()),
            (json!([[2, [127, 0, 0, 1], 53, ""]]), domains.clone()),
            (json!([[2, [127, 0, 0, 1], 0, ""]]), domains.clone()),
            (servers.clone(), json!([])),
            (servers.clone(), json!([["vm", false], ["0.16.172.in-addr.arpa", true]])),
            (servers.clone(), json!([["vm", true]])),
            (servers.clone(), Value::Null),
        ] {
            let error = check(&servers, &domains).expect_err("it was not");
            assert!(error.to_string().starts_with("systemd-resolved was told "), "{error}");
        }
    }
}
