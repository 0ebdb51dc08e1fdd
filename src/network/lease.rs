//! Leases: which VM has which address. A VM keeps its lease as long as it exists, and no two ever have one slot.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::network::subnet::Subnet;
use crate::vm::id::VmId;

/// A VM's slot: its place in the subnet, and in the jail's range of uids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub vm: VmId,
    pub slot: u16,
}

/// The slot that a new VM gets: the one after the last that was given away, so that an address is not another VM's a moment after
/// it was freed (neighbours remember it); then from the beginning. None: all are taken.
pub fn next_slot(subnet: Subnet, taken: &BTreeSet<u16>, last: u16) -> Option<u16> {
    let after = (last.saturating_add(1))..=subnet.last_slot();
    let before = 1..=last.min(subnet.last_slot());
    after.chain(before).find(|slot| !taken.contains(slot) && subnet.address(*slot).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_in_turn_and_never_twice() {
        let subnet: Subnet = "10.0.0.1/29".parse().expect("a subnet");
        let mut taken = BTreeSet::new();
        let mut last = 0;
        let mut given = vec![];
        while let Some(slot) = next_slot(subnet, &taken, last) {
            taken.insert(slot);
            given.push(slot);
            last = slot;
        }
        assert_eq!(given, [2, 3, 4, 5, 6], "1 is the gateway's, 7 is broadcast");
        taken.remove(&3);
        assert_eq!(next_slot(subnet, &taken, 6), Some(3));
        taken.remove(&5);
        assert_eq!(next_slot(subnet, &taken, 3), Some(5), "the one freed before stays free for longer");
        assert_eq!(next_slot(subnet, &taken, 9999), Some(3));
    }
}
