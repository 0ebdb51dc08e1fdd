//! Firewalls of others: what ours lets pass, they must let pass too.
//!
//! A packet passes if every table lets it (nftables' wiki, "Configuring chains": accept ends one base chain, drop is final). Docker
//! sets the policy of `ip filter FORWARD` to DROP, ufw those of INPUT and FORWARD, and firewalld rejects what enters by a link of no
//! zone; with any of them VMs would have neither internet nor DNS. So where there is one, and it blocks, it gets rules of ours that say
//! no more than is needed, and go with the bridge. What VMs may do is still up to our own tables alone.
//!
//! Not known, and left alone: a chain that somebody has written for nft by himself, as a VPN's kill switch is. It means what it says.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::host::cmd::{self, CmdError};
use crate::netlink::nftables::{self, BaseChain, Family};
use crate::network::names::BRIDGE;

mod iptables;

/// The tables of iptables' older kind, as this network namespace has them; to ask iptables itself would make them.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
/// firewall-cmd waits for firewalld, which waits for much.
const PATIENCE: Duration = Duration::from_secs(30);
/// Firewalld's zone whose packets all pass: ours has the last word on them.
const ZONE: &str = "trusted";

/// Another firewall does not let VMs' packets pass.
#[derive(Debug)]
pub enum OthersError {
    Iptables(CmdError),
    Firewalld(CmdError),
    /// It could not be seen which there are.
    Look(io::Error),
}

/// Makes other firewalls let pass what ours lets pass, where they would not. What is so already is left as it is.
pub fn ensure(dns_port: u16) -> Result<(), OthersError> {
    each(Some(dns_port))
}

/// Takes out of other firewalls what [`ensure`] put there.
pub fn delete() -> Result<(), OthersError> {
    each(None)
}

/// `dns_port`: None for nothing of ours.
fn each(dns_port: Option<u16>) -> Result<(), OthersError> {
    let chains = nftables::base_chains().map_err(OthersError::Look)?;
    // One that fails must not keep the others from it.
    let mut results = vec![];
    for kind in [Kind::Nft, Kind::Legacy] {
        if kind.is_there(&chains).map_err(OthersError::Look)? {
            results.push(change_iptables(kind, dns_port).map_err(OthersError::Iptables));
        }
    }
    // Its table, not its process: stopped, it takes its table along.
    if chains.iter().any(|chain| chain.table == "firewalld") {
        results.push(change_firewalld(dns_port.is_some()).map_err(OthersError::Firewalld));
    }
    results.into_iter().collect()
}

/// iptables has two kinds, with tables of their own, and a host can have both.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Nft,
    Legacy,
}

impl Kind {
    fn is_there(self, chains: &[BaseChain]) -> io::Result<bool> {
        match self {
            Self::Nft => Ok(chains.iter().any(|chain| {
                chain.family == Family::Ipv4 as u8
                    && chain.table == "filter"
                    && iptables::CHAINS.contains(&chain.name.as_str())
            })),
            Self::Legacy => match fs::read_to_string(LEGACY_TABLES) {
                Ok(names) => Ok(names.lines().any(|name| name == "filter")),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            },
        }
    }

    /// The program of this kind. Some systems call it just iptables, whichever it is.
    fn program(self) -> Result<&'static str, CmdError> {
        let (own, word) = match self {
            Self::Nft => ("iptables-nft", "nf_tables"),
            Self::Legacy => ("iptables-legacy", "legacy"),
        };
        match cmd::run(own, ["-V"]) {
            Err(CmdError::Spawn { .. }) => {}
            other => return other.map(|_| own),
        }
        let version = cmd::run("iptables", ["-V"])?;
        if String::from_utf8_lossy(&version).contains(word) {
            return Ok("iptables");
        }
        Err(CmdError::Spawn { program: own.to_owned(), source: io::ErrorKind::NotFound.into() })
    }
}

fn change_iptables(kind: Kind, dns_port: Option<u16>) -> Result<(), CmdError> {
    let program = kind.program()?;
    // -w: of the older kind, only one may run at a time.
    let listing = cmd::run(program, ["-w", "5", "-S"])?;
    let Some(script) = iptables::script(&String::from_utf8_lossy(&listing), dns_port) else {
        return Ok(());
    };
    log::info!(
        "{program}: {}",
        if dns_port.is_some() { "letting VMs' packets pass" } else { "no rules of ours any more" }
    );
    cmd::run_reading(&format!("{program}-restore"), ["-w", "5", "--noflush"], script.as_bytes())?;
    Ok(())
}

/// Firewalld 2.1 and later owns its table, so that nobody can add a rule to it (NftablesTableOwner in firewalld.conf(5)). A zone it
/// forgets when it is reloaded (FlushAllOnReload there), which [`super::firewall::watch`] sees.
fn change_firewalld(wanted: bool) -> Result<(), CmdError> {
    let known = knows_bridge()?;
    if known == wanted {
        return Ok(());
    }
    if wanted {
        log::info!("firewalld: {BRIDGE} goes into zone {ZONE}");
        return firewall_cmd(&[&format!("--zone={ZONE}"), &format!("--add-interface={BRIDGE}")]);
    }
    let link = format!("--query-interface={BRIDGE}");
    match firewall_cmd(&["--permanent", &format!("--zone={ZONE}"), &link]) {
        // Not our doing.
        Ok(()) => Ok(()),
        Err(CmdError::Failed { .. }) => match firewall_cmd(&[&format!("--zone={ZONE}"), &link]) {
            Ok(()) => firewall_cmd(&[&format!("--zone={ZONE}"), &format!("--remove-interface={BRIDGE}")]),
            Err(CmdError::Failed { .. }) => Ok(()),
            Err(e) => Err(e),
        },
        Err(e) => Err(e),
    }
}

/// Whether firewalld has the bridge in some zone, be it by our doing or the user's: nft says so 30 times sooner than firewall-cmd.
fn knows_bridge() -> Result<bool, CmdError> {
    let listing = cmd::run("nft", ["-j", "list", "table", "inet", "firewalld"])?;
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap_or_default();
    Ok(mentions(&listing, BRIDGE))
}

fn mentions(value: &serde_json::Value, name: &str) -> bool {
    match value {
        serde_json::Value::String(text) => text == name,
        serde_json::Value::Array(list) => list.iter().any(|value| mentions(value, name)),
        serde_json::Value::Object(map) => map.values().any(|value| mentions(value, name)),
        _ => false,
    }
}

fn firewall_cmd(args: &[&str]) -> Result<(), CmdError> {
    let program = "firewall-cmd";
    let env = [("PATH", cmd::PATH), ("LC_ALL", "C")];
    let args = [&["--quiet"], args].concat();
    let out = cmd::run_fed(Path::new(program), &args, &env, b"", PATIENCE)?;
    if out.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(CmdError::Failed { program: program.to_owned(), status: out.status, stderr })
}

impl fmt::Display for OthersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables(e) => {
                write!(f, "iptables' rules may keep VMs from the internet and from DNS: {e}")
            }
            Self::Firewalld(e) => write!(f, "firewalld may keep VMs from the internet and from DNS: {e}"),
            Self::Look(e) => write!(f, "cannot see which other firewalls there are: {e}"),
        }
    }
}

impl std::error::Error for OthersError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Iptables(e) | Self::Firewalld(e) => Some(e),
            Self::Look(e) => Some(e),
        }
    }
}
