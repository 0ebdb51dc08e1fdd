//! The bridge: made once, mended whenever it is asked for, and never taken from anybody else.

use std::io;

use crate::host::undo::Undo;
use crate::netlink::{Address, Link, Netlink, Route};
use crate::network::names::{BRIDGE, BRIDGE_MAC};
use crate::network::subnet::Subnet;

use super::forwarding;
use super::links::LinkError;

/// A wider route is a way for everything, written in halves so that it beats the default one (OpenVPN's redirect-gateway def1).
const WIDEST_NETWORK: u8 = 8;

/// Makes the bridge with its address and settings, or mends what is missing. `stamp`: the alias by which it is this banger's.
///
/// # Errors
/// [`LinkError::Foreign`]; [`LinkError::Clash`], when others have the network; [`LinkError::InUse`]. What was made here is undone.
pub fn ensure(subnet: Subnet, stamp: &str) -> Result<(), LinkError> {
    let mut netlink = Netlink::open().map_err(LinkError::kernel("ask the kernel about", BRIDGE))?;
    let mut undo = Undo::default();
    if find(&mut netlink, stamp)?.is_none() {
        refuse_clash(&mut netlink, subnet, None)?;
        netlink.create_bridge(BRIDGE, BRIDGE_MAC, stamp).map_err(LinkError::refused(BRIDGE))?;
        let stamp = stamp.to_owned();
        undo.push(BRIDGE, move || delete(&stamp).map_err(io::Error::other));
    }
    let bridge = find(&mut netlink, stamp)?.ok_or(LinkError::NoBridge)?;
    forwarding::set_bridge()?;
    ensure_address(&mut netlink, &bridge, subnet)?;
    // A bridge adopts the lowest MAC among its members unless it is given one. To give it that which it has would make the host
    // forget its neighbours (NETDEV_CHANGEADDR).
    let mac = (bridge.mac != Some(BRIDGE_MAC)).then_some(BRIDGE_MAC);
    netlink.mend_bridge(bridge.index, mac).map_err(LinkError::refused(BRIDGE))?;
    undo.commit();
    Ok(())
}

/// Removes the bridge, if it is there.
///
/// # Errors
/// [`LinkError::Foreign`]
pub fn delete(stamp: &str) -> Result<(), LinkError> {
    let mut netlink = Netlink::open().map_err(LinkError::kernel("ask the kernel about", BRIDGE))?;
    match find(&mut netlink, stamp)? {
        Some(bridge) => netlink.delete_links(&[bridge.index].into(), 0).map_err(LinkError::refused(BRIDGE)),
        None => Ok(()),
    }
}

/// The bridge, if it is there and this banger's.
fn find(netlink: &mut Netlink, stamp: &str) -> Result<Option<Link>, LinkError> {
    match netlink.link(BRIDGE).map_err(LinkError::kernel("ask the kernel about", BRIDGE))? {
        Some(link) if link.alias.as_deref() == Some(stamp) && link.kind.as_deref() == Some("bridge") => {
            Ok(Some(link))
        }
        Some(_) => Err(LinkError::Foreign { link: BRIDGE.to_owned() }),
        None => Ok(None),
    }
}

/// What else the bridge has stays, if it has the right address; else it goes, as no VM is there that would miss it.
fn ensure_address(netlink: &mut Netlink, bridge: &Link, subnet: Subnet) -> Result<(), LinkError> {
    let asking = || LinkError::kernel("ask for the addresses of", BRIDGE);
    let wanted = Address { address: subnet.gateway(), prefix: subnet.prefix(), link: bridge.index };
    let mut others = netlink.addresses().map_err(asking())?;
    others.retain(|address| address.link == bridge.index);
    if others.contains(&wanted) {
        return Ok(());
    }
    if !others.is_empty() {
        let links = netlink.links().map_err(asking())?;
        if links.iter().any(|link| link.master == Some(bridge.index)) {
            return Err(LinkError::InUse { subnet });
        }
    }
    refuse_clash(netlink, subnet, Some(bridge.index))?;
    for other in others {
        netlink.delete_address(other).map_err(LinkError::kernel("remove an address from", BRIDGE))?;
    }
    netlink
        .add_address(BRIDGE, subnet.gateway(), subnet.prefix())
        .map_err(LinkError::kernel("add an address to", BRIDGE))
}

fn refuse_clash(netlink: &mut Netlink, subnet: Subnet, bridge: Option<u32>) -> Result<(), LinkError> {
    let asking = || LinkError::kernel("ask for the routes beside", BRIDGE);
    let (routes, addresses) = (netlink.routes().map_err(asking())?, netlink.addresses().map_err(asking())?);
    let links = netlink.links().map_err(asking())?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.as_str());
    match clash(subnet, bridge, &routes, &addresses, name) {
        Some(with) => Err(LinkError::Clash { subnet, with }),
        None => Ok(()),
    }
}

/// Who has addresses of `subnet` already, as a sentence; what the bridge itself has is no clash.
fn clash<'a>(
    subnet: Subnet,
    bridge: Option<u32>,
    routes: &[Route],
    addresses: &[Address],
    name: impl Fn(u32) -> Option<&'a str>,
) -> Option<String> {
    let named = |link: u32| name(link).map_or_else(|| format!("link {link}"), str::to_owned);
    let route = routes
        .iter()
        // What refuses or drops packets is there for all that nobody else wants.
        .filter(|route| route.unicast && route.prefix >= WIDEST_NETWORK)
        .filter(|route| route.link.is_none() || route.link != bridge)
        .find(|route| subnet.overlaps(route.network, route.prefix));
    if let Some(route) = route {
        let to = route.link.map_or_else(|| "several links".to_owned(), named);
        return Some(format!("{}/{} is already routed to {to}", route.network, route.prefix));
    }
    addresses
        .iter()
        .find(|address| Some(address.link) != bridge && subnet.contains(address.address))
        .map(|address| format!("{} is already an address of {}", address.address, named(address.link)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::network::subnet;

    fn route(text: &str, link: u32) -> Route {
        let (network, prefix) = text.split_once('/').expect("a slash");
        Route {
            network: network.parse().expect("an address"),
            prefix: prefix.parse().expect("bits"),
            link: Some(link),
            unicast: true,
        }
    }

    fn found(routes: &[Route], addresses: &[Address]) -> Option<String> {
        clash(subnet::DEFAULT, Some(9), routes, addresses, |index| {
            ["lo", "eth0"].get(index as usize - 1).copied()
        })
    }

    #[test]
    fn a_clash_names_the_network_and_the_link() {
        assert_eq!(found(&[route("0.0.0.0/0", 2), route("192.168.1.0/24", 2)], &[]), None);
        assert_eq!(
            found(&[route("172.16.0.0/24", 2)], &[]).as_deref(),
            Some("172.16.0.0/24 is already routed to eth0")
        );
        assert_eq!(
            found(&[route("172.16.0.0/12", 5)], &[]).as_deref(),
            Some("172.16.0.0/12 is already routed to link 5")
        );
        let alone = Address { address: Ipv4Addr::new(172, 16, 0, 9), prefix: 32, link: 1 };
        assert_eq!(found(&[], &[alone]).as_deref(), Some("172.16.0.9 is already an address of lo"));
    }

    #[test]
    fn default_routes_refusals_and_what_is_the_bridges_own_are_no_clash() {
        let halves = [route("0.0.0.0/1", 2), route("128.0.0.0/1", 2)];
        assert_eq!(found(&halves, &[]), None);
        let own = Address { address: Ipv4Addr::new(172, 16, 0, 1), prefix: 24, link: 9 };
        assert_eq!(found(&[route("172.16.0.0/24", 9)], &[own]), None);
        let refusal = Route { unicast: false, ..route("172.16.0.0/12", 1) };
        assert_eq!(found(&[refusal], &[]), None);
    }
}
