//! Leases as they are kept: who has which slot of the bridge's network.

use std::collections::BTreeSet;

use crate::daemon::Daemon;
use crate::daemon::fault::Fault;
use crate::network::lease::{Lease, next_slot};
use crate::network::subnet::Subnet;
use crate::proto::api::Code;
use crate::store::Changes;
use crate::store::record::Setting;
use crate::vm::id::VmId;

/// The setting that holds the slot that was given away last.
const LAST: &str = "last_slot";

/// The lease of `vm`: the one that it has, or, where it has none or that lies outside of `subnet`, which has been made smaller, a new
/// one, stored before it is used.
///
/// # Errors
/// All addresses of `subnet` are taken.
pub fn ensure(d: &Daemon, vm: VmId, subnet: Subnet) -> Result<Lease, Fault> {
    // Two VMs that start together must not be given one slot.
    let _ledger = d.ledger();
    if let Some(lease) = d.store.get::<Lease>(vm)?
        && subnet.address(lease.slot).is_some()
    {
        return Ok(lease);
    }
    let taken: BTreeSet<u16> = d.store.all::<Lease>()?.into_iter().map(|lease| lease.slot).collect();
    let last = d.store.get::<Setting>(LAST)?.and_then(|setting| setting.value.parse().ok()).unwrap_or(0);
    let slot = next_slot(subnet, &taken, last).ok_or_else(|| {
        Fault::new(
            Code::Conflict,
            format!(
                "all addresses of {subnet} are taken; delete VMs that are not needed, or set bridge_address in config.toml to a \
                 wider network"
            ),
        )
    })?;
    let lease = Lease { vm, slot };
    let last = Setting { name: LAST.to_owned(), value: slot.to_string() };
    d.store.apply(Changes::new().put(&lease).put(&last))?;
    Ok(lease)
}
