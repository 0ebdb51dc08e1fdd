//! The firewall: loaded as a whole by nft, changed for one VM by elements of its sets, in this process.

use std::fmt;
use std::io;

use crate::host::cmd::{self, CmdError};
use crate::netlink::Refused;
use crate::netlink::nftables::{self, Change, Family, Key, Set};
use crate::network::guest::Guest;
use crate::network::ruleset::{self, GUESTS, LAN, NAT, Ruleset, TABLE};
use crate::proto::root::Firewall as State;

use super::others;

#[derive(Debug)]
pub enum FirewallError {
    /// The tables, or sets in them, are not there: load all of it.
    Gone,
    /// nf_tables did not take a change of elements.
    Elements(Refused),
    /// nft did not take the ruleset, or is not installed.
    Nft(CmdError),
    /// It could not be seen what is there.
    Look(io::Error),
}

/// Loads the whole, in place of what was there, in one transaction; connections go on. Then other firewalls are asked to let pass what
/// it lets pass: one that will not is logged, since VMs that need nothing of it run all the same.
pub fn load(ruleset: &Ruleset) -> Result<(), FirewallError> {
    run_nft(&ruleset.to_string())?;
    if let Err(e) = others::ensure(ruleset.dns_port) {
        log::warn!("{e}");
    }
    Ok(())
}

/// Makes sure that all of it is there, as after somebody's reload ([`watch`]), and that other firewalls let it work. What is there is
/// left as it is, so that this makes no change that would be its own cause. Returns whether something was missing.
pub fn mend(ruleset: &Ruleset) -> Result<bool, FirewallError> {
    if state(ruleset)? != State::Whole {
        load(ruleset)?;
        return Ok(true);
    }
    if let Err(e) = others::ensure(ruleset.dns_port) {
        log::warn!("{e}");
    }
    Ok(false)
}

/// Tells when tables, chains or rules change, whoever changes them: [`mend`] then.
pub fn watch() -> Result<nftables::Monitor, FirewallError> {
    nftables::Monitor::open().map_err(FirewallError::Look)
}

/// Lets a guest pass where it may; where it may no more, it can no more, in the same transaction.
///
/// # Errors
/// [`FirewallError::Gone`]
pub fn set(guest: &Guest) -> Result<(), FirewallError> {
    let either = |add| if add { Change::Add } else { Change::Remove };
    change(&[
        (Change::Add, set_of(Family::Bridge, GUESTS), port(guest)),
        (either(guest.nat), set_of(Family::Inet, NAT), Key::address(guest.address)),
        (either(ruleset::in_lan(guest)), set_of(Family::Inet, LAN), Key::address(guest.address)),
    ])
}

/// Lets nothing of a guest pass any more; it need not have been let.
///
/// # Errors
/// [`FirewallError::Gone`]
pub fn remove(guest: &Guest) -> Result<(), FirewallError> {
    change(&[
        (Change::Remove, set_of(Family::Bridge, GUESTS), port(guest)),
        (Change::Remove, set_of(Family::Inet, NAT), Key::address(guest.address)),
        (Change::Remove, set_of(Family::Inet, LAN), Key::address(guest.address)),
    ])
}

/// Removes all of it, also from other firewalls.
pub fn delete() -> Result<(), FirewallError> {
    if let Err(e) = others::delete() {
        log::warn!("{e}");
    }
    if is_there()? {
        run_nft(&ruleset::absent())?;
    }
    Ok(())
}

/// Whether any of it is there.
pub fn is_there() -> Result<bool, FirewallError> {
    let has = |family| nftables::has_table(family, TABLE).map_err(FirewallError::Look);
    Ok(has(Family::Bridge)? || has(Family::Inet)?)
}

/// Whether all rules are there: `nft flush table` takes them, and leaves chains that let everything pass. What they say is not compared;
/// who changes one of them has meant to. Nor are sets, which change from VM to VM: without an element nothing passes.
pub fn state(ruleset: &Ruleset) -> Result<State, FirewallError> {
    if !is_there()? {
        return Ok(State::Missing);
    }
    let count = |family| nftables::count_rules(family, TABLE).map_err(FirewallError::Look);
    let have = [count(Family::Bridge)?, count(Family::Inet)?];
    Ok(if have == ruleset.rules() { State::Whole } else { State::Changed })
}

fn set_of(family: Family, name: &'static str) -> Set<'static> {
    Set { family, table: TABLE, name }
}

fn port(guest: &Guest) -> Key {
    Key::port(&guest.tap.to_string(), guest.mac, guest.address)
}

fn change(changes: &[(Change, Set<'_>, Key)]) -> Result<(), FirewallError> {
    nftables::change_elements(changes).map_err(|refused| match refused.error.kind() {
        io::ErrorKind::NotFound => FirewallError::Gone,
        _ => FirewallError::Elements(refused),
    })
}

fn run_nft(text: &str) -> Result<(), FirewallError> {
    cmd::run_reading("nft", ["-f", "-"], text.as_bytes()).map(drop).map_err(FirewallError::Nft)
}

impl fmt::Display for FirewallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the firewall's tables are not there"),
            Self::Elements(_) => f.write_str("cannot change the firewall's sets"),
            Self::Nft(_) => f.write_str("cannot load the firewall; is nftables installed? (`network = \"user\"` in config.toml does without)"),
            Self::Look(_) => f.write_str("cannot ask for the firewall's tables"),
        }
    }
}

impl std::error::Error for FirewallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gone => None,
            Self::Elements(refused) => Some(refused),
            Self::Nft(error) => Some(error),
            Self::Look(error) => Some(error),
        }
    }
}
