//! The network's verbs in the words of requests: what is recorded, in terms of links, sets and settings, and errors with their code.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::Uid;

use crate::netlink::Netlink;

use crate::network::guest::Guest;
use crate::network::names::{BRIDGE, TapName};
use crate::network::ruleset::Ruleset;
use crate::network::subnet::Subnet;
use crate::proto::root::{self as proto, Code};
use crate::root::error::RootError;
use crate::root::firewall::{self, FirewallError};
use crate::root::links::LinkError;
use crate::root::policy::Denied;
use crate::root::reconcile::Bridge;
use crate::root::records::{BridgeRecord, Doing, Exists, Record};
use crate::root::settings::Settings;
use crate::root::{Ground, bridge, forwarding, resolver, tap};
use crate::vm::id::VmId;

pub fn ensure_bridge(ground: &Ground, subnet: Subnet) -> Result<(), RootError> {
    bridge::ensure(subnet, &stamp(ground)).map_err(link("make the bridge"))
}

pub fn delete_bridge(ground: &Ground) -> Result<(), RootError> {
    bridge::delete(&stamp(ground)).map_err(link("delete the bridge"))
}

/// By its stamp, the state directory: two bangers, of two roots, do not have one bridge.
fn stamp(ground: &Ground) -> String {
    ground.dirs.state.display().to_string()
}

/// Whose the bridge is.
pub fn bridge_is(ground: &Ground) -> Result<Bridge, RootError> {
    let looked = Netlink::open().and_then(|mut netlink| netlink.link(BRIDGE));
    Ok(match looked.map_err(RootError::effect("look for the bridge"))? {
        None => Bridge::Missing,
        Some(link) if link.alias == Some(stamp(ground)) => Bridge::Ours,
        Some(_) => Bridge::Foreign,
    })
}

/// What is recorded, as the firewall knows it.
fn guest(bridge: &BridgeRecord, record: &Record) -> Result<Guest, RootError> {
    let Record { vm, port, .. } = *record;
    let denied = Denied::Slot { slot: port.slot, subnet: bridge.subnet };
    port.guest(vm, bridge.subnet).ok_or(RootError::Denied(denied))
}

pub fn create_tap(bridge: &BridgeRecord, record: &Record, user: Uid) -> Result<(), RootError> {
    let guest = guest(bridge, record)?;
    tap::create(&guest, user).map_err(link(&format!("create the tap of VM {}", record.vm)))
}

/// No error for one that is not there.
pub fn delete_tap(vm: VmId) -> Result<(), RootError> {
    tap::delete(TapName::of(vm)).map_err(link(&format!("delete the tap of VM {vm}")))
}

pub fn taps() -> Result<BTreeSet<TapName>, RootError> {
    tap::stamped().map_err(link("look for taps"))
}

/// All that has been recorded and is not being removed.
pub fn ruleset(bridge: &BridgeRecord, exists: &Exists) -> Result<Ruleset, RootError> {
    let stay = exists.vms.values().filter(|record| record.doing != Some(Doing::Removing));
    let guests = stay.map(|record| guest(bridge, record)).collect::<Result<_, _>>()?;
    Ok(Ruleset { subnet: bridge.subnet, dns_port: bridge.dns_port, guests })
}

pub fn load(bridge: &BridgeRecord, exists: &Exists) -> Result<(), RootError> {
    firewall::load(&ruleset(bridge, exists)?).map_err(RootError::effect("load the firewall"))
}

/// Loads what is missing; whether anything was.
pub fn mend(bridge: &BridgeRecord, exists: &Exists) -> Result<bool, RootError> {
    firewall::mend(&ruleset(bridge, exists)?).map_err(RootError::effect("mend the firewall"))
}

/// Whether any of the firewall is there.
pub fn is_loaded() -> Result<bool, RootError> {
    firewall::is_there().map_err(RootError::effect("look for the firewall"))
}

/// What there is of the network, and of what is recorded to be on it.
pub fn seen(ground: &Ground, exists: &Exists) -> Result<proto::Network, RootError> {
    const LOOK: &str = "look at the network";
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).map_err(RootError::effect(LOOK))?;
    let bridge = links.iter().find(|link| link.name == BRIDGE);
    let stays = exists.vms.values().filter(|record| record.doing.is_none());
    let is_port = |record: &&Record| {
        let tap = TapName::of(record.vm).to_string();
        links.iter().any(|link| link.name == tap && bridge.is_some_and(|b| link.master == Some(b.index)))
    };
    let firewall = match exists.bridge {
        Some(bridge) => firewall::state(&ruleset(&bridge, exists)?).map_err(RootError::effect(LOOK))?,
        None => proto::Firewall::Missing,
    };
    Ok(proto::Network {
        bridge: match bridge {
            None => proto::Bridge::Missing,
            Some(link) if link.alias == Some(stamp(ground)) => proto::Bridge::Ours,
            Some(_) => proto::Bridge::Foreign,
        },
        firewall,
        forwarding: forwarding::is_enabled().map_err(RootError::effect(LOOK))?,
        unplugged: stays.filter(|record| !is_port(record)).count(),
    })
}

pub fn unload() -> Result<(), RootError> {
    firewall::delete().map_err(RootError::effect("unload the firewall"))
}

/// Lets the VM pass, or changes where to; it has been recorded.
pub fn admit(bridge: &BridgeRecord, record: &Record, exists: &Exists) -> Result<(), RootError> {
    match firewall::set(&guest(bridge, record)?) {
        // Somebody has flushed it a moment ago: with the rest comes this one.
        Err(FirewallError::Gone) => load(bridge, exists),
        other => other.map_err(RootError::effect(format!("let VM {} pass the firewall", record.vm))),
    }
}

pub fn dismiss(bridge: &BridgeRecord, record: &Record) -> Result<(), RootError> {
    match firewall::remove(&guest(bridge, record)?) {
        Ok(()) | Err(FirewallError::Gone) => Ok(()),
        Err(e) => Err(RootError::effect(format!("close the firewall to VM {}", record.vm))(e)),
    }
}

/// What the host did before is kept where only root can write; /run, like the setting itself, is new after a reboot.
pub fn enable_forwarding(ground: &Ground) -> Result<(), RootError> {
    let kept: &Path = &ground.dirs.root_runtime;
    forwarding::enable(kept).map_err(link("let packets be forwarded"))
}

/// As the host did before [`enable_forwarding`].
pub fn restore_forwarding(ground: &Ground) -> Result<(), RootError> {
    forwarding::restore(&ground.dirs.root_runtime).map_err(link("put back whether packets are forwarded"))
}

pub fn set_resolver(settings: &Settings, bridge: &BridgeRecord, dns_port: u16) -> Result<(), RootError> {
    match resolver::set(BRIDGE, dns_port, &settings.suffix, bridge.subnet) {
        Ok(resolver::Outcome::Done) => Ok(()),
        // The caller knows what to say of that, and it is no reason not to run VMs.
        Ok(resolver::Outcome::NoResolved) => Err(RootError::Effect {
            what: "have names of VMs resolved on this host".to_owned(),
            code: Code::NotFound,
            source: "no systemd-resolved runs here".into(),
        }),
        Err(e) => Err(RootError::effect("have names of VMs resolved on this host")(e)),
    }
}

pub fn clear_resolver() -> Result<(), RootError> {
    resolver::clear(BRIDGE).map(|_| ()).map_err(RootError::effect("take back what the resolver was told"))
}

/// For `map_err`, as [`RootError::effect`]: what is somebody else's is told apart.
fn link(what: &str) -> impl FnOnce(LinkError) -> RootError {
    move |e| {
        let code = match &e {
            LinkError::Foreign { .. } | LinkError::Clash { .. } => Code::Foreign,
            LinkError::InUse { .. } => Code::Conflict,
            LinkError::NoBridge => Code::NotFound,
            LinkError::Kernel { .. } | LinkError::Setting { .. } => Code::Failed,
        };
        RootError::Effect { what: what.to_owned(), code, source: e.into() }
    }
}
