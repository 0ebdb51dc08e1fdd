//! The jails' part of what is done: launches, signals, and what is left of a VM.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::build;
use crate::host::failpoint::reach;
use crate::host::undo::Undo;
use crate::proto::root::{Answer, Code, Launch, Signal, Status, VmStatus};
use crate::root::chores::{Chore, Failed, Outcome};
use crate::root::error::{RootError, chain};
use crate::root::perform::Root;
use crate::root::policy::Denied;
use crate::root::records::{Doing, Record};
use crate::root::wires;
use crate::vm::id::VmId;
use crate::vm::state::Processes;

impl Root {
    pub(super) fn launch(&self, launch: &Launch, descriptors: Vec<OwnedFd>) -> Result<Answer, RootError> {
        let vm = launch.vm;
        let before = self.record(vm)?;
        let bridge = self.bridge()?;
        let mut undo = Undo::default();
        self.write(&Record { doing: Some(Doing::Launching), ..before })?;
        undo.push(format!("the record of VM {vm}"), {
            let records = Arc::clone(&self.records);
            move || records.write(&before)
        });
        reach("launch-vm:recorded");
        let chore = Chore::Launch { launch: launch.clone(), port: before.port, subnet: bridge.subnet };
        let processes = match self.chore(format!("launch VM {vm}"), chore, descriptors)? {
            Outcome::Launched { processes, .. } => processes,
            other => return Err(unexpected(&other)),
        };
        reach("launch-vm:launched");
        let written = self.write(&Record { processes: Some(processes), doing: None, ..before });
        if let Err(e) = written {
            // Unknown to the records, it must not run.
            self.remove_jail(vm, Some(processes))?;
            return Err(e);
        }
        undo.commit();
        reach("launch-vm:done");
        log::info!("VM {vm}: launched as pid {}", processes.vmm.pid);
        Ok(Answer::Launched { processes })
    }

    pub(super) fn signal(&self, vm: VmId, signal: Signal) -> Result<(), RootError> {
        let processes = self.record(vm)?.processes.ok_or(Denied::NotLaunched(vm))?;
        self.chore(format!("signal VM {vm}"), Chore::Signal { processes, signal }, vec![])?;
        Ok(())
    }

    pub(super) fn remove_jail(&self, vm: VmId, processes: Option<Processes>) -> Result<(), RootError> {
        self.chore(format!("remove the jail of VM {vm}"), Chore::Remove { vm, processes }, vec![])?;
        Ok(())
    }

    pub(super) fn jails(&self) -> Result<Vec<VmId>, RootError> {
        match self.chore("look at the jails".to_owned(), Chore::Jails, vec![])? {
            Outcome::Jails { vms } => Ok(vms),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn status(&self) -> Result<Status, RootError> {
        let (mut notes, no_firecracker) =
            match self.chore("look at the programs".to_owned(), Chore::Notes, vec![])? {
                Outcome::Notes { notes, no_firecracker } => (notes, no_firecracker),
                other => return Err(unexpected(&other)),
            };
        // A guard in what follows would keep every other request waiting for all of it.
        let exists = self.records.exists().clone();
        let vm = |record: &Record| VmStatus {
            vm: record.vm,
            port: Some(record.port),
            processes: record.processes,
        };
        // A network that cannot be looked at is a reason to say so, not to say nothing.
        let network = wires::seen(&self.ground, &exists);
        notes.extend(network.as_ref().err().map(|e| chain(e)));
        Ok(Status {
            pid: std::process::id(),
            version: build::VERSION.to_owned(),
            subnet: exists.bridge.map(|bridge| bridge.subnet),
            vms: exists.vms.values().map(vm).collect(),
            notes,
            no_firecracker,
            network: network.ok(),
        })
    }

    fn chore(&self, what: String, chore: Chore, descriptors: Vec<OwnedFd>) -> Result<Outcome, RootError> {
        self.hands
            .ask(&self.ground, &self.settings, chore, descriptors)
            .map_err(|failed: Failed| RootError::Effect { what, code: failed.code, source: failed.into() })
    }
}

fn unexpected(outcome: &Outcome) -> RootError {
    RootError::Effect {
        what: "understand the launcher".to_owned(),
        code: Code::Failed,
        source: format!("it answered {outcome:?}").into(),
    }
}
