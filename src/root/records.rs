//! What was made, written before it is made and removed last, so that whoever comes after a crash knows all of it (FAULTS F5).
//!
//! `vms/<id>.json` for each VM and `bridge.json`, in root's own directory below /run: they are gone after a reboot, as is what they
//! stand for. The files are the truth; what is in memory is a copy, so that no request reads a hundred files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::host::files;
use crate::network::subnet::Subnet;
use crate::proto::root::Port;
use crate::vm::id::VmId;
use crate::vm::state::Processes;

/// One VM's. Fields that it does not know are another version's, which may come back (DESIGN D10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub vm: VmId,
    pub port: Port,
    /// Of those that were launched and have not been removed.
    #[serde(default)]
    pub processes: Option<Processes>,
    /// What had been begun when this was written. At rest there is nothing.
    #[serde(default)]
    pub doing: Option<Doing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    CreatingTap,
    Launching,
    Removing,
}

/// The bridge's, and what its firewall is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRecord {
    pub subnet: Subnet,
    pub dns_port: u16,
}

/// All records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exists {
    pub bridge: Option<BridgeRecord>,
    pub vms: BTreeMap<VmId, Record>,
    /// VMs whose records cannot be read. Nothing of theirs is touched.
    pub unreadable: BTreeSet<VmId>,
}

#[derive(Debug)]
pub struct Records {
    vms: PathBuf,
    bridge: PathBuf,
    copy: Mutex<Exists>,
}

impl Records {
    /// Reads those in `vms`, a directory that is there, and beside it.
    pub fn open(vms: &Path) -> io::Result<Self> {
        let bridge = vms.with_file_name("bridge.json");
        let mut exists = Exists { bridge: read(&bridge)?, ..Exists::default() };
        for entry in std::fs::read_dir(vms)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Some(vm) = name.strip_suffix(".json").and_then(|id| id.parse::<VmId>().ok()) else {
                // Content that was not whole when we died; nothing had been made yet.
                files::remove_if_present(&path)?;
                continue;
            };
            match read::<Record>(&path)? {
                Some(record) if record.vm == vm => {
                    exists.vms.insert(vm, record);
                }
                Some(_) | None => {
                    log::error!("{} is no record of a VM; what it stands for stays as it is", path.display());
                    exists.unreadable.insert(vm);
                }
            }
        }
        Ok(Self { vms: vms.to_owned(), bridge, copy: Mutex::new(exists) })
    }

    pub fn exists(&self) -> MutexGuard<'_, Exists> {
        // The copy is written by single inserts, which a panic leaves whole.
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self, record: &Record) -> io::Result<()> {
        files::write_atomic(&self.path(record.vm), &serde_json::to_vec(record)?, 0o600)?;
        self.exists().vms.insert(record.vm, *record);
        Ok(())
    }

    pub fn remove(&self, vm: VmId) -> io::Result<()> {
        files::remove_if_present(&self.path(vm))?;
        self.exists().vms.remove(&vm);
        Ok(())
    }

    pub fn write_bridge(&self, bridge: &BridgeRecord) -> io::Result<()> {
        files::write_atomic(&self.bridge, &serde_json::to_vec(bridge)?, 0o600)?;
        self.exists().bridge = Some(*bridge);
        Ok(())
    }

    pub fn remove_bridge(&self) -> io::Result<()> {
        files::remove_if_present(&self.bridge)?;
        self.exists().bridge = None;
        Ok(())
    }

    fn path(&self, vm: VmId) -> PathBuf {
        self.vms.join(format!("{vm}.json"))
    }
}

/// None: it is not there, or cannot be understood.
fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::state::Process;

    fn record(n: u64) -> Record {
        let processes = Some(Processes { vmm: Process { pid: 7, started: 99 }, vsock: None });
        Record {
            vm: VmId::from_random(n),
            port: Port { slot: 2, nat: true, lan: false, direct: false },
            processes,
            doing: Some(Doing::Launching),
        }
    }

    #[test]
    fn what_was_written_is_there_for_whoever_comes_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let vms = dir.path().join("vms");
        std::fs::create_dir(&vms).expect("makes a directory");
        let records = Records::open(&vms).expect("opens");
        let bridge = BridgeRecord { subnet: crate::network::subnet::DEFAULT, dns_port: 42069 };
        records.write_bridge(&bridge).expect("writes");
        for n in 1..=3 {
            records.write(&record(n)).expect("writes");
        }
        records.remove(VmId::from_random(2)).expect("removes");
        records.remove(VmId::from_random(2)).expect("removes what is not there");
        let again = Records::open(&vms).expect("opens");
        assert_eq!(*again.exists(), *records.exists());
        assert_eq!(again.exists().vms.len(), 2);
        assert_eq!(again.exists().vms[&VmId::from_random(3)], record(3));
        again.remove_bridge().expect("removes");
        assert_eq!(Records::open(&vms).expect("opens").exists().bridge, None);
    }

    #[test]
    fn a_record_that_cannot_be_read_still_claims_its_vm_and_one_that_was_not_whole_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("000000000001.json"), "{}").expect("writes");
        let mut newer = serde_json::to_value(record(2)).expect("serialises");
        newer["invented_later"] = true.into();
        std::fs::write(path("000000000002.json"), newer.to_string()).expect("writes");
        std::fs::write(path(".staged-000000000003.json"), "{").expect("writes");
        let records = Records::open(dir.path()).expect("opens");
        assert_eq!(records.exists().unreadable, [VmId::from_random(1)].into());
        assert_eq!(records.exists().vms[&VmId::from_random(2)], record(2));
        assert!(!path(".staged-000000000003.json").exists());
    }
}
