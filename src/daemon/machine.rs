//! From a VM's record to what a VMM runs: which kernel, which drives, which words, and everything on disk for it.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::daemon::driver::remove_sockets;
use crate::daemon::fault::Fault;
use crate::daemon::network::{self, Way};
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, images, initramfs, jail, kernels, log_times, programs, sparse};
use crate::host::failpoint;
use crate::host::files::{create_private_dir, remove_if_present, remove_tree_if_present, staged_name};
use crate::host::undo::Undo;
use crate::kernel::record::KernelRecord;
use crate::proto::agent::READY_PORT;
use crate::proto::api::Code;
use crate::proto::root::Launch;
use crate::store::record::{Reach, Run};
use crate::vm::boot::{Boot, Net, Root, systemd_words};
use crate::vm::record::VmRecord;
use crate::vm::size::Mib;
use crate::vm::spec::VmmChoice;
use crate::vmm::channel::Listener;
use crate::vmm::choose::{self, Chosen, Starter};
use crate::vmm::{Accel, Channel, Drive, Kind, Machine, Nic, Plan, Tap};

/// The guest's serial console, in the VM's directory.
pub const CONSOLE: &str = "console.log";
/// What the VMM and its vsock device say.
pub const VMM_LOG: &str = "vmm.log";
/// What the guest has written, as a device-mapper snapshot keeps it.
pub const COW: &str = "cow";
/// The VM's own copy of its image, where its kernel cannot build snapshots.
pub const COPY: &str = "disk.ext4";

/// A machine that only has to be launched.
pub struct Ready {
    pub how: How,
    pub channel: Channel,
    pub run: Run,
    /// Where the guest will say that it is up.
    pub listener: Listener,
    /// How long that may take.
    pub patience: Duration,
}

/// Who starts the VMM.
pub enum How {
    /// This daemon, as its own user.
    Direct(Plan),
    /// Root, in a jail; the descriptors are those that the request wants.
    Jailed(Launch, Vec<OwnedFd>),
}

/// Chooses what runs the VM and prepares it all on disk, and its port of the bridge where there is one. Nothing is left behind
/// on an error.
pub fn prepare(d: &Shared, record: &VmRecord, op: &Op) -> Result<Ready, Fault> {
    let way = network::way(d);
    let jailed = matches!(way, Way::Bridge(_)) && d.config.jailer;
    let chosen = choose(d, record, way, jailed)?;
    let vmm = chosen.vmm();
    let kernel = kernels::for_start(d, record.kernel.as_deref())?;
    let initrd = initramfs::ensure(&d.dirs, &kernel.name, op)?;
    let failed = |what: &'static str| move |e: std::io::Error| Fault::failed(format!("cannot {what}"), &e);
    let planned = |e| Fault::failed("cannot run it", &e);

    let mut undo = Undo::default();
    let sockets = d.dirs.vm_sockets(record.id);
    remove_sockets(&sockets).map_err(failed("remove old sockets"))?;
    create_private_dir(&sockets).map_err(failed("make the directory for sockets"))?;
    undo.push(format!("directory {}", sockets.display()), {
        let sockets = sockets.clone();
        move || remove_tree_if_present(&sockets)
    });
    let cid = record.id.cid();
    let channel = vmm.channel(&sockets, cid).map_err(planned)?;
    let listener = channel.listen(READY_PORT).map_err(failed("listen for the guest"))?;

    failpoint::reach("start: sockets made");
    let directory = d.dirs.vm(record.id);
    let (root, drives) = drives(d, op, record, &kernel, &directory)?;
    // Each run has its own: the console of the one before would be taken for this one's.
    for log in [CONSOLE, VMM_LOG] {
        fresh(&directory.join(log)).map_err(failed("make the logs"))?;
        remove_if_present(&log_times::beside(&directory.join(log))).map_err(failed("make the logs"))?;
    }
    let joined = match way {
        Way::Bridge(subnet) => Some(network::join(d, record, subnet, !jailed, &mut undo)?),
        Way::User => None,
    };
    let net = match &joined {
        Some(joined) => Some(joined.net.clone()),
        None => record.spec.nat.then(user_network),
    };
    let boot = Boot {
        id: record.id,
        name: record.name.clone(),
        root,
        modules: kernel.modules.then(|| device(drives.len() - 1)),
        net: net.clone(),
        ready_port: listener.port(),
        halt: vmm.halt(),
    };
    let nic = match &joined {
        Some(joined) => Some(Nic::Tap { tap: Tap::Named(joined.tap), mac: joined.mac }),
        None => net.as_ref().map(|_| Nic::User),
    };
    let machine = Machine {
        vcpu: record.spec.vcpu,
        memory: record.spec.memory,
        kernel: d.dirs.kernel(&kernel.name).join("vmlinux"),
        initrd,
        words: format!("{boot} {}", systemd_words(record.id)),
        drives,
        cid,
        nic,
        sockets,
        console_log: directory.join(CONSOLE),
        vmm_log: directory.join(VMM_LOG),
    };
    let (how, control) = match jailed {
        false => {
            let plan = vmm.plan(&machine).map_err(planned)?;
            plan.prepare().map_err(failed("write the VMM's files"))?;
            log::debug!("{op} vm {}: {:?}", record.name, plan.vmm.argv);
            let control = plan.vmm.socket.clone();
            (How::Direct(plan), control)
        }
        true => {
            let (launch, descriptors) = jail::order(record, &boot, &machine, &chosen)?;
            let control = machine.sockets.join(vmm.kind().control_socket());
            (How::Jailed(launch, descriptors), control)
        }
    };
    failpoint::reach("start: prepared");
    undo.commit();
    let accel = vmm.accel();
    let run = Run {
        vm: record.id,
        vmm: vmm.kind().name().to_owned(),
        accel: accel_name(accel).to_owned(),
        channel: reach(&channel),
        control: Some(control),
        kernel: kernel.name,
        address: net.map(|net| net.address.to_string()),
        bridged: joined.is_some(),
        jailed,
        spec: Some(record.spec),
        ports: vec![],
    };
    Ok(Ready { how, channel, run, listener, patience: patience(accel) })
}

/// Nobody asked for Firecracker: where root cannot run it in a jail, QEMU does.
fn choose(d: &Daemon, record: &VmRecord, way: Way, jailed: bool) -> Result<Chosen, Fault> {
    // User-mode networking, the only one there is without root, is QEMU's.
    let vmm = match record.spec.vmm {
        VmmChoice::Auto if record.spec.nat && way == Way::User => VmmChoice::Qemu,
        asked => asked,
    };
    let starter = if jailed { Starter::Root } else { Starter::Ourselves };
    let firecracker = programs::firecracker(d, jailed);
    let find = |vmm| {
        choose::find(vmm, record.spec.accel, firecracker.as_deref(), starter)
            .map_err(|e| Fault::new(Code::Failed, crate::daemon::fault::chain(&e)))
    };
    let chosen = find(vmm)?;
    if jailed
        && vmm == VmmChoice::Auto
        && chosen.kind() == Kind::Firecracker
        && let Some(why) = d.root.status()?.no_firecracker
    {
        log::warn!("root cannot run Firecracker: {why}; taking QEMU instead");
        return find(VmmChoice::Qemu);
    }
    Ok(chosen)
}

/// The drives in the guest's order, and how its root is made of them.
fn drives(
    d: &Daemon,
    op: &Op,
    record: &VmRecord,
    kernel: &KernelRecord,
    directory: &Path,
) -> Result<(Root, Vec<Drive>), Fault> {
    let disposable = record.owner.is_some();
    let read_only = |path| Drive { path, read_only: true, disposable: false };
    let writable = |path| Drive { path, read_only: false, disposable };
    let (copy, cow) = (directory.join(COPY), directory.join(COW));
    if !copy.exists() && !cow.exists() {
        return Err(Fault::new(
            Code::Failed,
            format!(
                "its disk is not in {}; bangerd ended while it made this VM, or somebody removed it; `banger vm delete {}` removes \
                 the rest",
                directory.display(),
                record.name
            ),
        ));
    }
    grow_disk(directory, record.spec.disk)
        .map_err(|e| Fault::failed(format!("cannot grow the disk of vm {}", record.name), &e))?;
    let (root, mut drives) = if copy.exists() {
        (Root::Plain { device: device(0) }, vec![writable(copy)])
    } else if kernel.snapshot {
        let root =
            Root::Snapshot { base: device(0), cow: device(1), sectors: record.spec.disk.bytes() / 512 };
        (root, vec![read_only(images::file(d, op, &record.image)?), writable(cow)])
    } else {
        return Err(Fault::new(
            Code::Conflict,
            format!(
                "kernel {} cannot build snapshots (it lacks dm-snapshot), and this VM's disk is one; start it with another kernel, or \
                 make a new VM",
                kernel.name
            ),
        ));
    };
    if kernel.modules {
        drives.push(read_only(d.dirs.kernel(&kernel.name).join("modules.ext4")));
    }
    Ok((root, drives))
}

/// What the guest calls its drive `n`.
fn device(n: usize) -> String {
    format!("vd{}", char::from(b'a' + n as u8))
}

/// QEMU's user-mode network (QEMU: docs/system/devices/net.rst).
fn user_network() -> Net {
    Net {
        address: [10, 0, 2, 15].into(),
        prefix: 24,
        gateway: [10, 0, 2, 2].into(),
        dns: vec![[10, 0, 2, 3].into()],
    }
}

/// An empty file for this user only.
fn fresh(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// How long a boot may take: seconds under KVM, and many of them under emulation on a busy machine.
fn patience(accel: Accel) -> Duration {
    let asked = std::env::var("BANGER_BOOT_TIMEOUT").ok().and_then(|s| s.parse().ok());
    let seconds = asked.unwrap_or(match accel {
        Accel::Kvm => 60,
        Accel::Tcg => 180,
    });
    Duration::from_secs(seconds)
}

fn accel_name(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    }
}

fn reach(channel: &Channel) -> Reach {
    match channel {
        Channel::Hybrid { socket } => Reach::Hybrid(socket.clone()),
        Channel::Vhost { cid } => Reach::Vhost(*cid),
    }
}

/// The way to the guest of a run.
pub fn channel(run: &Run) -> Channel {
    match &run.channel {
        Reach::Hybrid(socket) => Channel::Hybrid { socket: socket.clone() },
        Reach::Vhost(cid) => Channel::Vhost { cid: *cid },
    }
}

/// Makes the disk of a new VM, `size` large, in its directory: sparse, nothing is copied where the kernel builds snapshots.
pub fn make_disk(directory: &Path, image: &Path, size: Mib, snapshot: bool) -> std::io::Result<()> {
    if snapshot {
        return fresh(&directory.join(COW))?.set_len(crate::vm::cow::file_bytes(size.bytes()));
    }
    let copy = directory.join(COPY);
    // A crash must not leave half a disk that could be booted.
    let staged = staged_name(&copy);
    let (from, to) = (File::open(image)?, fresh(&staged)?);
    sparse::copy(&from, &to)?;
    to.set_len(size.bytes())?;
    std::fs::rename(&staged, &copy)
}

/// Gives the disk the size that its VM is to have since the last start; sparse, and never less than it has. The guest grows the file
/// system.
fn grow_disk(directory: &Path, size: Mib) -> std::io::Result<()> {
    for (name, bytes) in [(COW, crate::vm::cow::file_bytes(size.bytes())), (COPY, size.bytes())] {
        match OpenOptions::new().write(true).open(directory.join(name)) {
            Ok(disk) if disk.metadata()?.len() < bytes => disk.set_len(bytes)?,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_a_snapshot_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        make_disk(dir.path(), Path::new("/nonexistent"), Mib(8192), true).expect("makes it");
        let meta = std::fs::metadata(dir.path().join(COW)).expect("stats");
        assert!(meta.len() > 8 << 30);
        assert_eq!(meta.blocks(), 0);
    }

    #[test]
    fn a_disk_grows_and_keeps_what_is_on_it() {
        use std::io::Write;
        let dir = tempfile::tempdir().expect("a directory");
        make_disk(dir.path(), Path::new("/nonexistent"), Mib(64), true).expect("makes it");
        std::fs::write(dir.path().join(COPY), "a copy").expect("writes");
        let cow = || std::fs::metadata(dir.path().join(COW)).expect("stats").len();
        let mut disk = OpenOptions::new().write(true).open(dir.path().join(COW)).expect("opens");
        disk.write_all(b"written").expect("writes");
        grow_disk(dir.path(), Mib(128)).expect("grows");
        let grown = crate::vm::cow::file_bytes(128 << 20);
        assert_eq!(cow(), grown);
        assert!(std::fs::read(dir.path().join(COW)).expect("reads").starts_with(b"written\0"));
        let copy = std::fs::read(dir.path().join(COPY)).expect("reads");
        assert!(copy.len() == 128 << 20 && copy.starts_with(b"a copy\0"));
        grow_disk(dir.path(), Mib(1)).expect("does nothing");
        assert_eq!(cow(), grown);
    }

    #[test]
    fn a_disk_that_is_a_copy_has_the_images_bytes_and_the_disks_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        std::fs::write(&image, b"the image").expect("writes");
        make_disk(dir.path(), &image, Mib(4), false).expect("makes it");
        let copy = std::fs::read(dir.path().join(COPY)).expect("reads");
        assert_eq!(copy.len(), 4 << 20);
        assert!(copy.starts_with(b"the image\0\0"));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 2, "the image and the disk");
    }
}
