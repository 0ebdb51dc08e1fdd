//! Which VMM runs a guest, and what executes its instructions (DESIGN D4): decided from what was observed of the host.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::host::cmd::CmdError;
use crate::vm::spec::{AccelChoice, VmmChoice};
use crate::vmm::firecracker::Firecracker;
use crate::vmm::firecracker::version::{self, OLDEST, Version};
use crate::vmm::observe::observe;
use crate::vmm::qemu::{Qemu, VsockDevice};
use crate::vmm::{Accel, Kind, Vmm, tsc};

/// What the host has to run guests with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub kvm: Result<(), KvmProblem>,
    pub qemu: Option<PathBuf>,
    pub firecracker: Option<PathBuf>,
    /// Where the configuration says that Firecracker is, whether it is there or not.
    pub firecracker_bin: Option<PathBuf>,
    pub vhost_device_vsock: Option<PathBuf>,
    /// /dev/vhost-vsock opens.
    pub vhost_vsock: bool,
    /// It is there, whoever may open it.
    pub has_vhost_vsock: bool,
}

impl HostFacts {
    /// The same host, as `starter` has it: to root, devices that are there open.
    pub fn opened_by(self, starter: Starter) -> Self {
        if starter == Starter::Ourselves {
            return self;
        }
        let kvm = match self.kvm {
            Err(KvmProblem::Denied) => Ok(()),
            seen => seen,
        };
        Self { kvm, vhost_vsock: self.vhost_vsock || self.has_vhost_vsock, ..self }
    }
}

/// Why KVM cannot run a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmProblem {
    Missing,
    Denied,
    Broken(Errno),
    /// It answers, but the processor has neither vmx nor svm.
    Paravirtual,
}

/// A VMM that this host can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    Firecracker(Firecracker),
    Qemu(Qemu),
}

/// Why there is none as asked for.
#[derive(Debug)]
pub enum VmmError {
    NoQemu,
    NoVsock,
    NoFirecracker { configured: Option<PathBuf> },
    FirecrackerEmulated,
    FirecrackerWithoutKvm(KvmProblem),
    Kvm(KvmProblem),
    FirecrackerTooOld { program: PathBuf, version: Version },
    FirecrackerVersion { program: PathBuf, source: CmdError },
    FirecrackerUnknown { program: PathBuf, said: String },
}

/// Who will start the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// This process's user.
    Ourselves,
    /// Root, who may open what we may not.
    Root,
}

/// Observes the host, chooses, and completes the choice: Firecracker's version is checked, the time stamp counter of an
/// emulated machine is measured (20 ms, once in a process).
///
/// # Errors
/// [`VmmError`], a sentence that says what to install or to ask for instead.
pub fn find(
    vmm: VmmChoice,
    accel: AccelChoice,
    firecracker_bin: Option<&Path>,
    starter: Starter,
) -> Result<Chosen, VmmError> {
    let host = observe(firecracker_bin).opened_by(starter);
    let chosen = choose(vmm, accel, &host)?;
    match chosen.complete() {
        // Nobody asked for Firecracker: one that cannot be used is as good as none.
        Err(unusable) if vmm == VmmChoice::Auto => {
            log::warn!("{unusable}; taking QEMU instead");
            choose(VmmChoice::Qemu, accel, &host).map_err(|_| unusable)?.complete()
        }
        other => other,
    }
}

/// Chooses a VMM and its accelerator for `host`. Automatic is Firecracker where it is installed and KVM is usable, else
/// QEMU, with KVM where that is usable.
///
/// # Errors
/// [`VmmError`] for a VMM or an accelerator that was asked for and cannot be had, and where there is no VMM at all.
pub fn choose(vmm: VmmChoice, accel: AccelChoice, host: &HostFacts) -> Result<Chosen, VmmError> {
    match vmm {
        VmmChoice::Firecracker => firecracker(accel, host),
        VmmChoice::Qemu => qemu(accel, host),
        VmmChoice::Auto => {
            let fit = accel != AccelChoice::Tcg && host.kvm.is_ok() && host.firecracker.is_some();
            if fit { firecracker(accel, host) } else { qemu(accel, host) }
        }
    }
}

fn firecracker(accel: AccelChoice, host: &HostFacts) -> Result<Chosen, VmmError> {
    if accel == AccelChoice::Tcg {
        return Err(VmmError::FirecrackerEmulated);
    }
    let program = host
        .firecracker
        .clone()
        .ok_or_else(|| VmmError::NoFirecracker { configured: host.firecracker_bin.clone() })?;
    host.kvm.map_err(VmmError::FirecrackerWithoutKvm)?;
    Ok(Chosen::Firecracker(Firecracker { program }))
}

fn qemu(accel: AccelChoice, host: &HostFacts) -> Result<Chosen, VmmError> {
    let program = host.qemu.clone().ok_or(VmmError::NoQemu)?;
    let accel = match (accel, host.kvm) {
        (AccelChoice::Tcg, _) | (AccelChoice::Auto, Err(_)) => Accel::Tcg,
        (AccelChoice::Kvm | AccelChoice::Auto, Ok(())) => Accel::Kvm,
        (AccelChoice::Kvm, Err(problem)) => return Err(VmmError::Kvm(problem)),
    };
    let vsock = match (&host.vhost_device_vsock, host.vhost_vsock) {
        (_, true) => VsockDevice::Kernel,
        (Some(program), false) => VsockDevice::Process { program: program.clone() },
        (None, false) => return Err(VmmError::NoVsock),
    };
    Ok(Chosen::Qemu(Qemu { program, accel, vsock, tsc_khz: None }))
}

impl Chosen {
    pub fn vmm(&self) -> &dyn Vmm {
        match self {
            Self::Firecracker(firecracker) => firecracker,
            Self::Qemu(qemu) => qemu,
        }
    }

    pub fn kind(&self) -> Kind {
        self.vmm().kind()
    }

    /// Finds out what is worth asking only of the VMM that was chosen.
    fn complete(self) -> Result<Self, VmmError> {
        match self {
            Self::Firecracker(firecracker) => {
                let program = firecracker.program.clone();
                match version::ask(&program) {
                    Ok(Ok(version)) if version >= OLDEST => Ok(Self::Firecracker(firecracker)),
                    Ok(Ok(version)) => Err(VmmError::FirecrackerTooOld { program, version }),
                    Ok(Err(said)) => Err(VmmError::FirecrackerUnknown { program, said }),
                    Err(source) => Err(VmmError::FirecrackerVersion { program, source }),
                }
            }
            Self::Qemu(qemu) if qemu.accel == Accel::Tcg => {
                Ok(Self::Qemu(Qemu { tsc_khz: tsc::khz(), ..qemu }))
            }
            Self::Qemu(qemu) => Ok(Self::Qemu(qemu)),
        }
    }
}

impl fmt::Display for KvmProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "there is no /dev/kvm (switch virtualisation on in the firmware, then `modprobe kvm_intel` or `modprobe kvm_amd`)",
            ),
            Self::Denied => f.write_str(
                "you may not open /dev/kvm (run `sudo usermod -aG kvm $USER` and log in again)",
            ),
            Self::Broken(errno) => write!(f, "/dev/kvm makes no virtual machine ({errno})"),
            Self::Paravirtual => f.write_str(
                "/proc/cpuinfo shows neither vmx nor svm, so this host is a virtual machine without nested virtualisation",
            ),
        }
    }
}

impl fmt::Display for VmmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoQemu => f.write_str("QEMU is not installed; `apt install qemu-system-x86` installs it"),
            Self::NoVsock => f.write_str(
                "QEMU has no vsock device here; run `modprobe vhost_vsock` as root, or `cargo install vhost-device-vsock --locked`",
            ),
            Self::NoFirecracker { configured: Some(path) } => {
                write!(f, "firecracker_bin is {path:?}, which is no program that can be run; correct it in config.toml")
            }
            Self::NoFirecracker { configured: None } => f.write_str(
                "Firecracker is not installed; put `firecracker` of https://github.com/firecracker-microvm/firecracker/releases \
                 on the PATH, or use --vmm qemu",
            ),
            Self::FirecrackerEmulated => {
                f.write_str("Firecracker cannot emulate a processor; use --vmm qemu with --accel tcg")
            }
            Self::FirecrackerWithoutKvm(problem) => {
                write!(f, "Firecracker needs KVM, and {problem}; use --vmm qemu")
            }
            Self::Kvm(problem) => write!(f, "KVM is not usable: {problem}; use --accel tcg"),
            Self::FirecrackerTooOld { program, version } => {
                write!(f, "{} is Firecracker {version}; banger needs {OLDEST} or later", program.display())
            }
            Self::FirecrackerVersion { program, .. } => {
                write!(f, "cannot ask {} for its version", program.display())
            }
            Self::FirecrackerUnknown { program, said } => {
                write!(f, "`{} --version` says {said:?}, which names no version of Firecracker", program.display())
            }
        }
    }
}

impl std::error::Error for VmmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::FirecrackerVersion { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use AccelChoice as A;
    use VmmChoice as V;

    const FULL: &str = "kvm qemu firecracker vhost device";

    /// A host that has the parts that `parts` names.
    fn host(parts: &str) -> HostFacts {
        let has = |part: &str| parts.split_whitespace().any(|p| p == part);
        let program = |part: &str| has(part).then(|| PathBuf::from("/bin").join(part));
        HostFacts {
            kvm: if has("kvm") { Ok(()) } else { Err(KvmProblem::Paravirtual) },
            qemu: program("qemu"),
            firecracker: program("firecracker"),
            firecracker_bin: None,
            vhost_device_vsock: program("device"),
            vhost_vsock: has("vhost"),
            has_vhost_vsock: has("vhost") || has("closed-vhost"),
        }
    }

    /// The choice in a few words, or the first word of what is wrong.
    fn outcome(vmm: V, accel: A, parts: &str) -> String {
        match choose(vmm, accel, &host(parts)) {
            Ok(Chosen::Firecracker(f)) => format!("{} kvm", f.program.display()),
            Ok(Chosen::Qemu(q)) => format!("{} {:?} {:?}", q.program.display(), q.accel, q.vsock),
            Err(e) => format!("{e:?}"),
        }
    }

    #[test]
    fn every_wish_on_every_host_has_its_outcome() {
        let device = "Process { program: \"/bin/device\" }";
        let qemu = |accel: &str, vsock: &str| format!("/bin/qemu {accel} {vsock}");
        let table = [
            (V::Auto, A::Auto, FULL, "/bin/firecracker kvm".to_owned()),
            (V::Auto, A::Kvm, FULL, "/bin/firecracker kvm".to_owned()),
            (V::Auto, A::Tcg, FULL, qemu("Tcg", "Kernel")),
            (V::Auto, A::Auto, "kvm qemu vhost", qemu("Kvm", "Kernel")),
            (V::Auto, A::Auto, "qemu firecracker device", qemu("Tcg", device)),
            (V::Auto, A::Kvm, "qemu firecracker device", "Kvm(Paravirtual)".to_owned()),
            (V::Auto, A::Auto, "firecracker device", "NoQemu".to_owned()),
            (V::Auto, A::Auto, "", "NoQemu".to_owned()),
            (V::Auto, A::Auto, "qemu", "NoVsock".to_owned()),
            (V::Auto, A::Auto, "kvm firecracker", "/bin/firecracker kvm".to_owned()),
            (V::Qemu, A::Auto, FULL, qemu("Kvm", "Kernel")),
            (V::Qemu, A::Kvm, "kvm qemu device", qemu("Kvm", device)),
            (V::Qemu, A::Tcg, "kvm qemu device", qemu("Tcg", device)),
            (V::Qemu, A::Kvm, "qemu device", "Kvm(Paravirtual)".to_owned()),
            (V::Qemu, A::Auto, "kvm firecracker vhost", "NoQemu".to_owned()),
            (V::Firecracker, A::Auto, FULL, "/bin/firecracker kvm".to_owned()),
            (V::Firecracker, A::Kvm, "kvm firecracker", "/bin/firecracker kvm".to_owned()),
            (V::Firecracker, A::Tcg, FULL, "FirecrackerEmulated".to_owned()),
            (V::Firecracker, A::Auto, "kvm qemu", "NoFirecracker { configured: None }".to_owned()),
            (V::Firecracker, A::Auto, "firecracker", "FirecrackerWithoutKvm(Paravirtual)".to_owned()),
        ];
        for (vmm, accel, parts, want) in table {
            assert_eq!(outcome(vmm, accel, parts), want, "{vmm:?} {accel:?} on {parts:?}");
        }
    }

    #[test]
    fn what_is_closed_to_us_is_open_to_root() {
        let closed = HostFacts { kvm: Err(KvmProblem::Denied), ..host("qemu closed-vhost device") };
        let chosen = |host: &HostFacts| match choose(V::Auto, A::Auto, host).expect("chosen") {
            Chosen::Qemu(q) => (q.accel, q.vsock),
            Chosen::Firecracker(_) => unreachable!("there is none"),
        };
        assert_eq!(chosen(&closed), (Accel::Tcg, VsockDevice::Process { program: "/bin/device".into() }));
        assert_eq!(chosen(&closed.opened_by(Starter::Root)), (Accel::Kvm, VsockDevice::Kernel));
        let broken = host("qemu device").opened_by(Starter::Root);
        assert_eq!(chosen(&broken).0, Accel::Tcg, "root does not make a processor");
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let text = |vmm, accel, parts| choose(vmm, accel, &host(parts)).expect_err("refused").to_string();
        assert_eq!(
            text(V::Auto, A::Auto, ""),
            "QEMU is not installed; `apt install qemu-system-x86` installs it"
        );
        let no_vsock = text(V::Auto, A::Auto, "qemu");
        assert!(no_vsock.contains("`modprobe vhost_vsock`"), "{no_vsock}");
        assert!(no_vsock.contains("`cargo install vhost-device-vsock --locked`"), "{no_vsock}");
        let no_kvm = text(V::Qemu, A::Kvm, "qemu vhost");
        assert!(no_kvm.contains("neither vmx nor svm") && no_kvm.ends_with("use --accel tcg"), "{no_kvm}");
        let bare = text(V::Firecracker, A::Auto, "firecracker");
        assert!(bare.starts_with("Firecracker needs KVM") && bare.ends_with("use --vmm qemu"), "{bare}");
        let configured = HostFacts { firecracker_bin: Some("/opt/fc".into()), ..host("kvm") };
        let error = choose(V::Firecracker, A::Auto, &configured).expect_err("refused").to_string();
        assert!(error.contains("\"/opt/fc\"") && error.contains("config.toml"), "{error}");
        assert!(KvmProblem::Denied.to_string().contains("usermod -aG kvm"));
        assert!(KvmProblem::Missing.to_string().contains("/dev/kvm"));
    }

    #[test]
    fn an_old_firecracker_is_refused_when_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        for (script, want) in [
            ("echo 'Firecracker v1.4.1'", "is Firecracker 1.4.1; banger needs 1.5.0 or later"),
            ("echo hello", "says \"hello\", which names no version of Firecracker"),
            ("exit 3", "cannot ask"),
        ] {
            let program = dir.path().join("firecracker");
            crate::host::files::write_atomic(&program, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755)
                .expect("writes");
            let chosen = Chosen::Firecracker(Firecracker { program });
            let error = chosen.complete().expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
