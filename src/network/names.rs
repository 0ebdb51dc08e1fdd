//! What the host calls a VM's links, and how they are stamped: banger removes only what bears its stamp.

use std::fmt;
use std::net::Ipv4Addr;

use crate::vm::id::VmId;

/// The one bridge.
pub const BRIDGE: &str = "br-banger";
/// The bridge's own MAC, locally administered; pinned, since a bridge takes the lowest of its members' otherwise.
pub const BRIDGE_MAC: Mac = Mac([0x06, 0xba, 0x9e, 0x00, 0x00, 0x01]);
/// The group of links (IFLA_GROUP) of all taps, by which the firewall knows them: a name's beginning may be anybody's.
pub const TAP_GROUP: u32 = 0xba9e;
/// The beginning of every tap's name.
pub const TAP_PREFIX: &str = "bgr";

/// A VM's tap: `bgr` and the id, 15 bytes, all that a name may have (linux/if.h, IFNAMSIZ with the final NUL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TapName(VmId);

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl TapName {
    pub fn of(vm: VmId) -> Self {
        Self(vm)
    }

    pub fn vm(self) -> VmId {
        self.0
    }

    /// The alias (IFLA_IFALIAS) of a tap that is banger's.
    pub fn stamp(self) -> String {
        format!("banger:{}", self.0)
    }

    /// The tap of that name; None if it is not made like ours.
    pub fn parse(name: &str) -> Option<Self> {
        name.strip_prefix(TAP_PREFIX)?.parse().ok().map(Self)
    }
}

impl Mac {
    /// A guest's, of its address: locally administered, and unique where the address is.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x06, 0xba, a, b, c, d])
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TAP_PREFIX}{}", self.0)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taps_name_fits_and_leads_back_to_its_vm() {
        let tap = TapName::of(VmId::from_random(u64::MAX));
        assert_eq!(tap.to_string(), "bgrffffffffffff");
        assert_eq!(tap.to_string().len(), 15);
        assert_eq!(TapName::parse(&tap.to_string()), Some(tap));
        for foreign in ["br-banger", "bgr", "bgrFFFFFFFFFFFF", "bgr00000000000", "tap0"] {
            assert_eq!(TapName::parse(foreign), None, "{foreign}");
        }
        assert_eq!(TapName::of(VmId::from_random(7)).stamp(), "banger:000000000007");
    }

    #[test]
    fn macs_are_local_unicast_and_never_the_bridges() {
        let mac = Mac::of(Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(mac.to_string(), "06:ba:ac:10:00:02");
        assert_eq!(mac.0[0] & 0b11, 0b10, "locally administered, unicast (IEEE 802)");
        // 158.0.0.1 is in no private network.
        assert_ne!(mac, BRIDGE_MAC);
    }
}
