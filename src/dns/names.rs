//! The zone as the daemon changes it while the servers read it.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::dns::zone::Zone;
use crate::network::subnet::Subnet;
use crate::network::suffix::Suffix;
use crate::vm::name::VmName;

/// A handle on the zone; all of its clones are of the same one.
#[derive(Debug, Clone)]
pub struct Names(Arc<RwLock<Zone>>);

impl Names {
    pub fn new(suffix: &Suffix) -> Self {
        Self(Arc::new(RwLock::new(Zone::new(suffix))))
    }

    /// From now on `name` has `address`, and the address that name.
    pub fn insert(&self, name: &VmName, address: Ipv4Addr) {
        self.write().insert(name, address);
    }

    /// From now on there is no such name.
    pub fn remove(&self, name: &VmName) {
        self.write().remove(name);
    }

    pub fn address(&self, name: &VmName) -> Option<Ipv4Addr> {
        self.read().address(name)
    }

    pub fn set_subnet(&self, subnet: Subnet) {
        self.write().set_subnet(subnet);
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Zone> {
        // A panic leaves at worst a name too many, which the next change mends.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Zone> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
