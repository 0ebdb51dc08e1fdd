//! Taps: one for each VM, an isolated port of the bridge, stamped; only what bears the stamp is ever touched.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Uid;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::netlink::tun::Tap;
use crate::netlink::{Link, Netlink, Port};
use crate::network::guest::Guest;
use crate::network::names::{BRIDGE, TAP_GROUP, TapName};

use super::links::LinkError;

/// Makes the tap of `guest`, which `owner` may open, or makes sure that it is as it should be.
///
/// # Errors
/// [`LinkError::Foreign`]; [`LinkError::NoBridge`]. Nothing is left of a tap that was made here.
pub fn create(guest: &Guest, owner: Uid) -> Result<(), LinkError> {
    let mut netlink = open_netlink(guest.tap)?;
    let name = guest.tap.to_string();
    let port = Port {
        link: 0,
        bridge: netlink.index(BRIDGE).map_err(|_| LinkError::NoBridge)?,
        alias: &guest.tap.stamp(),
        group: TAP_GROUP,
        mac: guest.mac,
    };
    if let Some(link) = find(&mut netlink, guest.tap)? {
        match Tap::open(&name) {
            Ok(tap) => tap.give(owner).map_err(LinkError::kernel("give away", &name))?,
            // A VMM is behind it, so that it was given to the right one.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
            Err(e) => return Err(LinkError::kernel("open", &name)(e)),
        }
        return netlink.join(&Port { link: link.index, ..port }).map_err(LinkError::refused(&name));
    }
    // Until it is told to stay it is gone with its descriptor, so that no crash leaves one without a stamp.
    let tap = Tap::create(&name).map_err(LinkError::kernel("create", &name))?;
    tap.give(owner).map_err(LinkError::kernel("give away", &name))?;
    let link = netlink.index(&name).map_err(LinkError::kernel("find", &name))?;
    netlink.join(&Port { link, ..port }).map_err(LinkError::refused(&name))?;
    tap.stay().map_err(LinkError::kernel("keep", &name))
}

/// The tap's other end, for a VMM that does not open it by its name.
///
/// # Errors
/// [`LinkError::Foreign`]; [`LinkError::Kernel`] with EBUSY: a VMM is behind it.
pub fn open(tap: TapName) -> Result<OwnedFd, LinkError> {
    let missing = || io::Error::from_raw_os_error(rustix::io::Errno::NODEV.raw_os_error());
    match find(&mut open_netlink(tap)?, tap)? {
        Some(_) => Tap::open(&tap.to_string()).map(OwnedFd::from).map_err(LinkError::kernel("open", tap)),
        None => Err(LinkError::kernel("open", tap)(missing())),
    }
}

/// Removes a tap, if it is there.
///
/// # Errors
/// [`LinkError::Foreign`]
pub fn delete(tap: TapName) -> Result<(), LinkError> {
    let mut netlink = open_netlink(tap)?;
    match find(&mut netlink, tap)? {
        Some(link) => netlink.delete_links(&[link.index].into(), 0).map_err(LinkError::refused(tap)),
        None => Ok(()),
    }
}

/// Removes those of `taps` that are there and ours, in about the time that one takes.
pub fn delete_all(taps: &BTreeSet<TapName>) -> Result<(), LinkError> {
    let what = format!("{} taps", taps.len());
    let mut netlink = Netlink::open().map_err(LinkError::kernel("ask the kernel about", &what))?;
    let links = netlink.links().map_err(LinkError::kernel("ask the kernel about", &what))?;
    let ours = links.iter().filter(|link| ours(link).is_some_and(|tap| taps.contains(&tap)));
    let indexes: BTreeSet<u32> = ours.map(|link| link.index).collect();
    let group = free_group(&links).map_err(LinkError::kernel("choose a group for", &what))?;
    netlink.delete_links(&indexes, group).map_err(LinkError::refused(&what))
}

/// All taps that bear our stamp.
pub fn stamped() -> Result<BTreeSet<TapName>, LinkError> {
    let asking = || LinkError::kernel("ask the kernel about", "taps");
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).map_err(asking())?;
    Ok(links.iter().filter_map(ours).collect())
}

fn open_netlink(tap: TapName) -> Result<Netlink, LinkError> {
    Netlink::open().map_err(LinkError::kernel("ask the kernel about", tap))
}

fn find(netlink: &mut Netlink, tap: TapName) -> Result<Option<Link>, LinkError> {
    match netlink.link(&tap.to_string()).map_err(LinkError::kernel("ask the kernel about", tap))? {
        Some(link) if ours(&link) == Some(tap) => Ok(Some(link)),
        Some(_) => Err(LinkError::Foreign { link: tap.to_string() }),
        None => Ok(None),
    }
}

fn ours(link: &Link) -> Option<TapName> {
    let tap = TapName::parse(&link.name)?;
    (link.alias.as_deref() == Some(tap.stamp().as_str())).then_some(tap)
}

/// A group that no link has: what is removed by its group's number must be nobody else's.
fn free_group(links: &[Link]) -> io::Result<u32> {
    loop {
        let mut bytes = [0; 4];
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        // The kernel reads it as an int.
        let group = u32::from_ne_bytes(bytes) >> 1;
        if group != 0 && links.iter().all(|link| link.group != group) {
            return Ok(group);
        }
    }
}
