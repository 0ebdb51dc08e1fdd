//! What guests run with: KVM, a VMM, and a way to their vsock.

use std::path::Path;

use crate::daemon::fault::chain;
use crate::daemon::guest_text::harmless;
use crate::host::cmd::CmdError;
use crate::proto::finding::Finding;
use crate::vm::spec::{AccelChoice, VmmChoice};
use crate::vmm::choose::{self, HostFacts, Starter};
use crate::vmm::firecracker::faults::faults;
use crate::vmm::firecracker::version::{self, OLDEST, Version};
use crate::vmm::observe::observe;
use crate::vmm::{Accel, Kind, qemu};

/// What Firecracker said when asked for its version.
type Said = Result<Result<Version, String>, CmdError>;

/// `starter`: who starts VMMs here.
pub fn rows(firecracker_bin: Option<&Path>, starter: Starter) -> Vec<Finding> {
    let seen = observe(firecracker_bin);
    let host = seen.clone().opened_by(starter);
    let said = host.firecracker.as_deref().map(version::ask);
    let faults: Vec<String> = match &said {
        Some(Ok(Ok(version))) => faults(*version).iter().map(ToString::to_string).collect(),
        Some(_) | None => vec![],
    };
    let mut rows = vec![kvm(&seen, &host), vmm(&host), firecracker(&host, said.as_ref(), &faults)];
    rows.extend(host.qemu.as_deref().map(|program| qemu(program, qemu::version::ask(program))));
    rows.push(vsock(&host));
    rows
}

/// `seen` by this process, `host` as whoever starts VMMs has it.
fn kvm(seen: &HostFacts, host: &HostFacts) -> Finding {
    match &host.kvm {
        Ok(()) if seen.kvm.is_err() => Finding::pass("kvm", "usable by root, who starts VMs here"),
        Ok(()) => Finding::pass("kvm", "usable"),
        Err(problem) => Finding::warn(
            "kvm",
            problem.to_string(),
            "Without KVM guests are emulated, which works, and is five to twenty times slower.",
        ),
    }
}

/// What `vm run` takes when nobody chooses.
fn vmm(host: &HostFacts) -> Finding {
    match choose::choose(VmmChoice::Auto, AccelChoice::Auto, host) {
        Ok(chosen) => {
            let accel = match chosen.vmm().accel() {
                Accel::Kvm => "KVM",
                Accel::Tcg => "emulation",
            };
            Finding::pass("vmm", format!("{} with {accel}", chosen.kind()))
        }
        Err(e) => Finding::fail("vmm", "none that can be run", format!("{e}.")),
    }
}

/// `faults`: what is known to be wrong with that version; sentences.
fn firecracker(host: &HostFacts, said: Option<&Said>, faults: &[String]) -> Finding {
    let subject = "firecracker";
    let at = |path: &Path| path.display().to_string();
    match (&host.firecracker, &host.firecracker_bin, said) {
        (None, Some(configured), _) => Finding::fail(
            subject,
            format!("firecracker_bin is {}, which is no program", at(configured)),
            "Correct it in config.toml, or leave it out to have Firecracker looked for.",
        ),
        (None, None, _) | (Some(_), _, None) => Finding::pass(subject, "not installed; VMs run under QEMU"),
        (Some(program), _, Some(Ok(Ok(version)))) if *version < OLDEST => Finding::warn(
            subject,
            format!("{version} at {}, which is too old", at(program)),
            format!("Install {OLDEST} or later; until then VMs run under QEMU."),
        ),
        (Some(program), _, Some(Ok(Ok(version)))) => match faults {
            [] => Finding::pass(subject, format!("{version} at {}", at(program))),
            faults => Finding::warn(subject, format!("{version} at {}", at(program)), faults.join(" ")),
        },
        (Some(program), _, Some(Ok(Err(said)))) => Finding::warn(
            subject,
            format!("{} says {:?}, which is no version", at(program), harmless(said, 80)),
            "Install another; until then VMs run under QEMU.",
        ),
        (Some(program), _, Some(Err(e))) => Finding::warn(
            subject,
            format!("cannot ask {} for its version: {}", at(program), chain(e)),
            "Install another; until then VMs run under QEMU.",
        ),
    }
}

fn qemu(program: &Path, said: Result<Result<qemu::version::Version, String>, CmdError>) -> Finding {
    let (subject, place) = ("qemu", program.display());
    let oldest = qemu::version::OLDEST;
    match said {
        Ok(Ok(version)) if version < oldest => Finding::fail(
            subject,
            format!("{version} at {place}, which is too old"),
            format!("Install {oldest} or later; VMs do not start under this one."),
        ),
        Ok(Ok(version)) => {
            let faults: Vec<String> =
                qemu::version::faults(version).iter().map(ToString::to_string).collect();
            match faults.is_empty() {
                true => Finding::pass(subject, format!("{version} at {place}")),
                false => Finding::warn(
                    subject,
                    format!("{version} at {place}"),
                    format!(
                        "If its distributor has not mended it, {}; install 7.0 or later.",
                        faults.join(", and ")
                    ),
                ),
            }
        }
        Ok(Err(said)) => Finding::warn(
            subject,
            format!("{place} says {:?}, which is no version", harmless(&said, 80)),
            format!("banger needs {oldest} or later."),
        ),
        Err(e) => Finding::fail(
            subject,
            format!("cannot ask {place} for its version: {}", chain(&e)),
            "Install it again.",
        ),
    }
}

fn vsock(host: &HostFacts) -> Finding {
    let subject = "vsock";
    let chosen = choose::choose(VmmChoice::Auto, AccelChoice::Auto, host).map(|chosen| chosen.kind());
    match (&host.vhost_device_vsock, chosen) {
        _ if host.vhost_vsock => Finding::pass(subject, "the kernel's, /dev/vhost-vsock"),
        (Some(program), _) => Finding::pass(subject, program.display().to_string()),
        (None, Ok(Kind::Firecracker)) => Finding::pass(subject, "Firecracker's own"),
        (None, _) => Finding::fail(
            subject,
            "QEMU has no vsock device here",
            "Run `modprobe vhost_vsock` as root, or `cargo install vhost-device-vsock --locked`.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::vmm::choose::KvmProblem;

    fn host(parts: &str) -> HostFacts {
        let has = |part: &str| parts.split_whitespace().any(|p| p == part);
        let program = |part: &str| has(part).then(|| PathBuf::from("/bin").join(part));
        HostFacts {
            kvm: if has("kvm") { Ok(()) } else { Err(KvmProblem::Paravirtual) },
            qemu: program("qemu"),
            firecracker: program("firecracker"),
            firecracker_bin: has("configured").then(|| PathBuf::from("/opt/fc")),
            vhost_device_vsock: program("device"),
            vhost_vsock: has("vhost"),
            has_vhost_vsock: has("vhost"),
        }
    }

    #[test]
    fn every_host_has_its_verdicts() {
        let emulated = "Warn kvm: /proc/cpuinfo shows neither vmx nor svm, so this host is a virtual machine without nested \
                        virtualisation => Without KVM guests are emulated, which works, and is five to twenty times slower.";
        let modprobe = "Fail vsock: QEMU has no vsock device here => Run `modprobe vhost_vsock` as root, or `cargo install \
                        vhost-device-vsock --locked`.";
        let none = "Fail vmm: none that can be run => QEMU is not installed; `apt install qemu-system-x86` installs it.";
        let no_way = "Fail vmm: none that can be run => QEMU has no vsock device here; run `modprobe vhost_vsock` as root, or `cargo \
                      install vhost-device-vsock --locked`.";
        let table = [
            (
                "kvm qemu vhost",
                ["Pass kvm: usable", "Pass vmm: qemu with KVM", "Pass vsock: the kernel's, /dev/vhost-vsock"],
            ),
            ("qemu device", [emulated, "Pass vmm: qemu with emulation", "Pass vsock: /bin/device"]),
            (
                "kvm firecracker",
                ["Pass kvm: usable", "Pass vmm: firecracker with KVM", "Pass vsock: Firecracker's own"],
            ),
            ("qemu", [emulated, no_way, modprobe]),
            ("kvm", ["Pass kvm: usable", none, modprobe]),
        ];
        for (parts, want) in table {
            let host = host(parts);
            assert_eq!([kvm(&host, &host), vmm(&host), vsock(&host)].map(|f| f.line()), want, "{parts}");
        }
    }

    #[test]
    fn what_only_root_may_open_will_do_where_root_starts_vms() {
        let seen =
            HostFacts { kvm: Err(KvmProblem::Denied), has_vhost_vsock: true, ..host("qemu firecracker") };
        let rows = |starter| {
            let host = seen.clone().opened_by(starter);
            [kvm(&seen, &host), vmm(&host), vsock(&host)].map(|f| f.line())
        };
        let root = [
            "Pass kvm: usable by root, who starts VMs here",
            "Pass vmm: firecracker with KVM",
            "Pass vsock: the kernel's, /dev/vhost-vsock",
        ];
        assert_eq!(rows(Starter::Root), root);
        let ourselves = rows(Starter::Ourselves);
        assert!(ourselves[0].starts_with("Warn kvm: you may not open /dev/kvm"), "{ourselves:?}");
        assert!(ourselves[1..].iter().all(|row| row.starts_with("Fail ")), "{ourselves:?}");
    }

    #[test]
    fn qemu_is_judged_by_its_version() {
        let row = |line: &str| {
            qemu(Path::new("/bin/q"), Ok(qemu::version::parse(line).ok_or_else(|| line.to_owned()))).line()
        };
        assert_eq!(row("QEMU emulator version 7.2.22 (Debian)"), "Pass qemu: 7.2.22 at /bin/q");
        assert!(
            row("QEMU emulator version 4.2.1").starts_with("Fail qemu: 4.2.1 at /bin/q, which is too old")
        );
        let jammy = row("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)");
        assert!(
            jammy.starts_with(
                "Warn qemu: 6.2.0 at /bin/q => If its distributor has not mended it, a guest can "
            ),
            "{jammy}"
        );
        assert!(jammy.ends_with("(CVE-2022-26354); install 7.0 or later."), "{jammy}");
        assert!(row("hello").starts_with("Warn qemu: /bin/q says \"hello\", which is no version"));
    }

    #[test]
    fn firecracker_is_judged_by_its_version() {
        let version = |major, minor, patch| Ok(Ok(Version { major, minor, patch }));
        let row = |parts: &str, said: Option<Said>, faults: &[&str]| {
            let faults: Vec<String> = faults.iter().map(|f| (*f).to_owned()).collect();
            firecracker(&host(parts), said.as_ref(), &faults).line()
        };
        assert_eq!(row("", None, &[]), "Pass firecracker: not installed; VMs run under QEMU");
        assert_eq!(
            row("firecracker", Some(version(1, 15, 0)), &[]),
            "Pass firecracker: 1.15.0 at /bin/firecracker"
        );
        assert_eq!(
            row("firecracker", Some(version(1, 14, 0)), &["Its jailer follows symlinks."]),
            "Warn firecracker: 1.14.0 at /bin/firecracker => Its jailer follows symlinks."
        );
        assert_eq!(
            row("firecracker", Some(version(1, 4, 9)), &[]),
            "Warn firecracker: 1.4.9 at /bin/firecracker, which is too old => Install 1.5.0 or later; until then VMs run under QEMU."
        );
        assert!(
            row("firecracker", Some(Ok(Err("\u{1b}[2J".to_owned()))), &[])
                .contains("says \"\\\\u{1b}[2J\", which is no version")
        );
        assert!(row("configured", None, &[]).starts_with("Fail firecracker: firecracker_bin is /opt/fc"));
    }
}
