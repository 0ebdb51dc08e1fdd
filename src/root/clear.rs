//! Removes all that was ever made: what `banger system uninstall` asks for, when nobody is served any more.

use crate::root::error::{RootError, chain};
use crate::root::perform::Root;
use crate::root::reconcile::Bridge;
use crate::root::{launch, wires};

impl Root {
    /// Ends every VM that is in a jail, and removes taps, bridge, firewall and what the resolver was told; the host forwards packets
    /// only if it did so before.
    ///
    /// # Errors
    /// The first of what could not be done; the rest was done all the same, and this can be tried again.
    pub fn clear(&self) -> Result<(), RootError> {
        let mut first = None;
        let mut done = |result: Result<(), RootError>| {
            if let Err(e) = result {
                log::error!("{}", chain(&e));
                first = first.take().or(Some(e));
            }
        };
        let exists = self.records.exists().clone();
        for vm in exists.vms.keys() {
            done(self.remove(*vm));
        }
        for vm in &exists.unreadable {
            done(self.remove_jail(*vm, None));
            let forget = || self.records.remove(*vm).map_err(RootError::effect(format!("forget VM {vm}")));
            done(wires::delete_tap(*vm).and_then(|()| forget()));
        }
        match self.jails() {
            Ok(jails) => jails.into_iter().for_each(|vm| done(self.remove_jail(vm, None))),
            Err(e) => done(Err(e)),
        }
        match wires::bridge_is(&self.ground) {
            // Another banger's, of another root, whose taps and firewall these are then.
            Ok(Bridge::Foreign) => log::warn!("the bridge is somebody else's; it stays"),
            Ok(Bridge::Ours | Bridge::Missing) => self.clear_network(&mut done),
            Err(e) => done(Err(e)),
        }
        done(launch::remove_cgroups().map_err(RootError::effect("remove the cgroup of VMs")));
        first.map_or(Ok(()), Err)
    }

    fn clear_network(&self, done: &mut impl FnMut(Result<(), RootError>)) {
        let _network = self.network();
        match wires::taps() {
            Ok(taps) => taps.into_iter().for_each(|tap| done(wires::delete_tap(tap.vm()))),
            Err(e) => done(Err(e)),
        }
        done(self.clear_resolver());
        // As it was made, backwards: nothing is forwarded without a firewall.
        done(wires::restore_forwarding(&self.ground));
        done(wires::unload());
        done(wires::delete_bridge(&self.ground));
        done(self.records.remove_bridge().map_err(RootError::effect("forget the bridge")));
    }
}
