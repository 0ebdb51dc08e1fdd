//! A machine as root is asked to start it in a jail: numbers, and descriptors that we opened with our own rights.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::daemon::fault::Fault;
use crate::proto::api::Code;
use crate::proto::root::{DriveKind, Launch, Root, Vmm, Vsock};
use crate::vm::boot::{self, Boot};
use crate::vm::record::VmRecord;
use crate::vmm::choose::Chosen;
use crate::vmm::qemu::{Qemu, VsockDevice};
use crate::vmm::{Accel, Drive, Kind, Machine};

/// The request that starts `machine`, which boots by the words of `boot`, and its descriptors.
pub fn order(
    record: &VmRecord,
    boot: &Boot,
    machine: &Machine,
    chosen: &Chosen,
) -> Result<(Launch, Vec<OwnedFd>), Fault> {
    let vmm = chosen.vmm();
    let launch = Launch {
        vm: record.id,
        name: record.name.clone(),
        vmm: match (vmm.kind(), vmm.accel()) {
            (Kind::Firecracker, _) => Vmm::Firecracker,
            (Kind::Qemu, Accel::Kvm) => Vmm::QemuKvm,
            (Kind::Qemu, Accel::Tcg) => Vmm::QemuTcg,
        },
        vsock: match chosen {
            Chosen::Qemu(Qemu { vsock: VsockDevice::Kernel, .. }) => Vsock::Kernel,
            Chosen::Qemu(_) | Chosen::Firecracker(_) => Vsock::Device,
        },
        vcpu: machine.vcpu,
        memory: machine.memory,
        drives: machine.drives.iter().map(kind).collect(),
        root: match &boot.root {
            boot::Root::Snapshot { sectors, .. } => Root::Snapshot { sectors: *sectors },
            boot::Root::Plain { .. } => Root::Plain,
        },
        modules: boot.modules.is_some(),
        network: boot.net.is_some(),
        ready_port: boot.ready_port,
    };
    let mut descriptors = vec![];
    let mut add = |path: &Path, opened: io::Result<File>| {
        let opened = opened.map_err(|e| Fault::failed(format!("cannot open {}", path.display()), &e))?;
        descriptors.push(opened.into());
        Ok::<(), Fault>(())
    };
    let read = |path: &Path| File::open(path);
    let append = |path: &Path| OpenOptions::new().append(true).open(path);
    add(&machine.sockets, read(&machine.sockets))?;
    add(&machine.console_log, append(&machine.console_log))?;
    add(&machine.vmm_log, append(&machine.vmm_log))?;
    add(&machine.kernel, read(&machine.kernel))?;
    add(&machine.initrd, read(&machine.initrd))?;
    for Drive { path, read_only, .. } in &machine.drives {
        add(path, OpenOptions::new().read(true).write(!read_only).open(path))?;
    }
    match descriptors.len() {
        n if n <= crate::proto::root::MAX_DESCRIPTORS => Ok((launch, descriptors)),
        n => Err(Fault::new(Code::Failed, format!("{n} files are too many for one jail"))),
    }
}

fn kind(drive: &Drive) -> DriveKind {
    match (drive.read_only, drive.disposable) {
        (true, _) => DriveKind::ReadOnly,
        (false, true) => DriveKind::Disposable,
        (false, false) => DriveKind::Writable,
    }
}
