//! The network's part of what is done: each function is called with the locks that [`super::perform`] takes, and after its verdict.

use std::io;
use std::sync::Arc;

use crate::host::failpoint::reach;
use crate::host::undo::Undo;
use crate::network::subnet::Subnet;
use crate::proto::root::Port;
use crate::root::error::{RootError, chain};
use crate::root::perform::Root;
use crate::root::reconcile::Bridge;
use crate::root::records::{BridgeRecord, Doing, Exists, Record};
use crate::root::wires;
use crate::vm::id::VmId;

impl Root {
    pub(super) fn ensure_bridge(&self, subnet: Subnet, dns_port: u16) -> Result<(), RootError> {
        let bridge = BridgeRecord { subnet, dns_port };
        let before = self.records.exists().bridge;
        let mut undo = Undo::default();
        self.records.write_bridge(&bridge).map_err(RootError::effect("record the bridge"))?;
        undo.push("the bridge's record", {
            let records = Arc::clone(&self.records);
            move || before.map_or_else(|| records.remove_bridge(), |before| records.write_bridge(&before))
        });
        reach("ensure-bridge:recorded");
        let missing = wires::bridge_is(&self.ground)? == Bridge::Missing;
        wires::ensure_bridge(&self.ground, subnet)?;
        if missing {
            let ground = self.ground.clone();
            undo.push("the bridge", move || wires::delete_bridge(&ground).map_err(to_io));
        }
        reach("ensure-bridge:made");
        let exists = self.records.exists().clone();
        if missing {
            self.plug_in(&bridge, &exists);
        }
        wires::load(&bridge, &exists)?;
        undo.push("the firewall", move || {
            before.map_or_else(wires::unload, |before| wires::load(&before, &exists)).map_err(to_io)
        });
        reach("ensure-bridge:loaded");
        // Last, so that nothing is forwarded before there is a firewall.
        wires::enable_forwarding(&self.ground)?;
        undo.commit();
        reach("ensure-bridge:done");
        if before != Some(bridge) {
            log::info!("the bridge has {subnet}");
        }
        Ok(())
    }

    /// A bridge that was made again has no ports: each VM's tap is put in its place. One that cannot be must not keep the others out.
    fn plug_in(&self, bridge: &BridgeRecord, exists: &Exists) {
        let stays = |record: &&Record| !matches!(record.doing, Some(Doing::CreatingTap | Doing::Removing));
        for record in exists.vms.values().filter(stays) {
            if let Err(e) = wires::create_tap(bridge, record, self.user(record.port)) {
                log::error!("VM {}: {}", record.vm, chain(&e));
            }
        }
    }

    pub(super) fn create_tap(&self, vm: VmId, port: Port) -> Result<(), RootError> {
        let bridge = self.bridge()?;
        let mut record = Record { vm, port, processes: None, doing: Some(Doing::CreatingTap) };
        let mut undo = Undo::default();
        self.write(&record)?;
        undo.push(format!("the record of VM {vm}"), {
            let records = Arc::clone(&self.records);
            move || records.remove(vm)
        });
        reach("create-tap:recorded");
        wires::create_tap(&bridge, &record, self.user(port))?;
        undo.push(format!("the tap of VM {vm}"), move || wires::delete_tap(vm).map_err(to_io));
        reach("create-tap:made");
        // A guard in the call itself would keep every other request waiting for all of it.
        let exists = self.records.exists().clone();
        wires::admit(&bridge, &record, &exists)?;
        undo.push(format!("the firewall's part of VM {vm}"), move || {
            wires::dismiss(&bridge, &record).map_err(to_io)
        });
        reach("create-tap:admitted");
        record.doing = None;
        self.write(&record)?;
        undo.commit();
        reach("create-tap:done");
        log::info!("VM {vm}: tap created, address number {}", port.slot);
        Ok(())
    }

    /// Ends what is left of the VM, and removes all that it has. What fails is left to be tried again: the record goes last.
    pub(super) fn remove(&self, vm: VmId) -> Result<(), RootError> {
        let record = Record { doing: Some(Doing::Removing), ..self.record(vm)? };
        self.write(&record)?;
        reach("remove:recorded");
        self.remove_jail(vm, record.processes)?;
        reach("remove:ended");
        {
            let _network = self.network();
            // Without a bridge there is nothing that lets it pass.
            let bridge = self.records.exists().bridge;
            bridge.map_or(Ok(()), |bridge| wires::dismiss(&bridge, &record))?;
        }
        reach("remove:dismissed");
        // Without the lock: the kernel takes its time (synchronize_net), and the name is this VM's alone.
        wires::delete_tap(vm)?;
        reach("remove:deleted");
        self.records.remove(vm).map_err(RootError::effect(format!("forget VM {vm}")))?;
        reach("remove:done");
        log::info!("VM {vm}: removed");
        Ok(())
    }

    pub(super) fn set_nat(&self, vm: VmId, nat: bool, lan: bool) -> Result<(), RootError> {
        let bridge = self.bridge()?;
        let before = self.record(vm)?;
        let record = Record { port: Port { nat, lan, ..before.port }, ..before };
        let mut undo = Undo::default();
        self.write(&record)?;
        undo.push(format!("the record of VM {vm}"), {
            let records = Arc::clone(&self.records);
            move || records.write(&before)
        });
        reach("set-nat:recorded");
        let exists = self.records.exists().clone();
        wires::admit(&bridge, &record, &exists)?;
        undo.commit();
        reach("set-nat:done");
        log::info!("VM {vm}: nat {nat}, lan {lan}");
        Ok(())
    }

    pub(super) fn set_resolver(&self, dns_port: u16) -> Result<(), RootError> {
        wires::set_resolver(&self.settings, &self.bridge()?, dns_port)
    }

    pub(super) fn clear_resolver(&self) -> Result<(), RootError> {
        match wires::bridge_is(&self.ground)? {
            // What was set went with the link; what is set on somebody else's is his.
            Bridge::Missing | Bridge::Foreign => Ok(()),
            Bridge::Ours => wires::clear_resolver(),
        }
    }
}

fn to_io(e: RootError) -> io::Error {
    io::Error::other(chain(&e))
}
