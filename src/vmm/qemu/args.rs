//! QEMU's command line. Options are made by name, never by position, and their values are escaped.

use std::path::Path;

use serde_json::json;

use crate::vmm::qemu::{Qemu, VsockDevice};
use crate::vmm::{Accel, Drive, Machine, Nic, PlanError, Tap, text};

/// What QEMU may not do once it runs a guest (QEMU: -sandbox).
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The arguments that run `machine` with the kernel command line `words`; `vhost` is the socket of the vsock process.
pub fn argv(
    qemu: &Qemu,
    machine: &Machine,
    words: &str,
    qmp: &Path,
    vhost: Option<&Path>,
) -> Result<Vec<String>, PlanError> {
    let mut args = Args(vec![text(&qemu.program)?.to_owned()]);
    args.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
    args.option("-display", "none").option("-sandbox", SANDBOX).option("-name", machine.name());
    args.option("-M", board(qemu, vhost.is_some()));
    args.option("-accel", accelerator(qemu.accel)).option("-cpu", processor(qemu.accel, machine.vcpu));
    args.option("-smp", machine.vcpu.to_string()).option("-m", format!("{}M", machine.memory.0));
    if vhost.is_some() {
        // The device's process maps the guest's memory, so it must be a file that can be shared.
        args.option("-object", format!("memory-backend-memfd,id=memory,size={}M,share=on", machine.memory.0));
    }
    args.option("-kernel", text(&machine.kernel)?).option("-initrd", text(&machine.initrd)?);
    args.option("-append", words);
    args.option("-chardev", format!("file,id=console,path={},append=on", value(text(&machine.console_log)?)));
    args.option("-serial", "chardev:console");
    args.option("-chardev", format!("socket,id=qmp,path={},server=on,wait=off", value(text(qmp)?)));
    args.option("-mon", "chardev=qmp,mode=control");
    // Virtio 1.0: the default over MMIO is still the legacy interface (QEMU: hw/virtio/virtio-mmio.c, force-legacy).
    args.option("-global", "virtio-mmio.force-legacy=off");

    // No bus= on any of them. QEMU gives out its virtio-mmio slots from the last to the first, and its ACPI tables, thus the
    // guest, list them in the same order (both walk one list: qbus_find_recursive, acpi_dsdt_add_virtio): the first drive
    // here is vda. Naming slots would tie us to that direction, and in slot 0 interrupts get lost (seen on 7.2).
    for (i, drive) in machine.drives.iter().enumerate() {
        args.option("-blockdev", blockdev(i, drive)?);
        args.option("-device", format!("virtio-blk-device,drive=drive{i}"));
    }
    match &machine.nic {
        None => {}
        Some(Nic::User) => {
            args.option("-netdev", "user,id=net,ipv6=off");
            args.option("-device", "virtio-net-device,netdev=net");
        }
        Some(Nic::Tap { tap, mac }) => {
            args.option("-netdev", netdev(*tap));
            args.option("-device", format!("virtio-net-device,netdev=net,mac={mac}"));
        }
    }
    match (&qemu.vsock, vhost) {
        (VsockDevice::Process { .. }, Some(socket)) => {
            args.option("-chardev", format!("socket,id=vsock,path={}", value(text(socket)?)));
            args.option("-device", "vhost-user-vsock-device,chardev=vsock");
        }
        (VsockDevice::Process { .. }, None) | (VsockDevice::Kernel, _) => {
            args.option("-device", format!("vhost-vsock-device,guest-cid={}", machine.cid));
        }
    }
    Ok(args.0)
}

/// QEMU would run /etc/qemu-ifup and -ifdown for a tap that it opens itself, unless it is told not to.
fn netdev(tap: Tap) -> String {
    match tap {
        Tap::Named(name) => format!("tap,id=net,ifname={name},script=no,downscript=no"),
        Tap::Open(fd) => format!("tap,id=net,fd={fd}"),
    }
}

fn board(qemu: &Qemu, shared_memory: bool) -> String {
    let mut board = "microvm,acpi=on".to_owned();
    match qemu.accel {
        // KVM has a clock of its own, so QEMU leaves the RTC out by itself.
        Accel::Kvm => {}
        // A guest with ACPI uses the APIC instead of the PIC. Without an RTC Debian's kernel waits two seconds for one.
        Accel::Tcg => board.push_str(",pic=off,rtc=on"),
    }
    if qemu.tsc_khz.is_some() {
        // All it would do is to tell the rate of the time stamp counter.
        board.push_str(",pit=off");
    }
    if shared_memory {
        board.push_str(",memory-backend=memory");
    }
    board
}

fn accelerator(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        // MiB for translated code, which is thrown away as a whole when full; taken from the host only as it fills.
        Accel::Tcg => "tcg,tb-size=1024",
    }
}

fn processor(accel: Accel, vcpu: u8) -> String {
    match accel {
        Accel::Kvm => "host".to_owned(),
        // Page tables of five levels make each miss of the emulated TLB longer. Processors with erms have kernels and libraries
        // copy with `rep movsb`, which is emulated byte by byte; without, words are copied: 7 % of a boot.
        Accel::Tcg => {
            let mut processor = "max,la57=off,erms=off,fsrm=off".to_owned();
            if vcpu > 1 {
                // Of Intel's, Linux takes for granted that the counter is constant, and spares each further processor the
                // measuring of its delay loop: 0.4 s of a boot with two.
                processor.push_str(",vendor=GenuineIntel");
            }
            processor
        }
    }
}

/// The drive as JSON, which needs no escapes. QEMU locks what a guest may write against a second writer and against readers;
/// any number of machines may read the same file.
pub(super) fn blockdev(i: usize, drive: &Drive) -> Result<String, PlanError> {
    Ok(json!({
        "driver": "raw",
        "node-name": format!("drive{i}"),
        "read-only": drive.read_only,
        "cache": {"no-flush": drive.disposable},
        "discard": if drive.read_only { "ignore" } else { "unmap" },
        "file": {
            "driver": "file",
            "filename": text(&drive.path)?,
            "read-only": drive.read_only,
            "cache": {"no-flush": drive.disposable},
            "discard": if drive.read_only { "ignore" } else { "unmap" },
        },
    })
    .to_string())
}

/// A value inside an option: QEMU reads `,,` as a comma (QEMU: util/qemu-option.c, get_opt_value).
fn value(text: &str) -> String {
    text.replace(',', ",,")
}

struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.0.extend([name.to_owned(), value.into()]);
        self
    }
}
