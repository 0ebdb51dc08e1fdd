//! A VM on the bridge: what may come from its tap, and where it may send packets.

use std::net::Ipv4Addr;

use crate::network::names::{Mac, TapName};
use crate::network::subnet::Subnet;
use crate::vm::id::VmId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    pub tap: TapName,
    pub mac: Mac,
    pub address: Ipv4Addr,
    /// To the internet, by masquerade.
    pub nat: bool,
    /// To private networks too; means nothing without `nat`.
    pub lan: bool,
}

impl Guest {
    /// The VM that has slot `slot` of `subnet`, and may send nothing to the outside. None: the slot is no VM's.
    pub fn new(vm: VmId, slot: u16, subnet: Subnet) -> Option<Self> {
        let address = subnet.address(slot)?;
        Some(Self { tap: TapName::of(vm), mac: Mac::of(address), address, nat: false, lan: false })
    }
}
