//! Whether KVM can run a guest: by asking it for one (kernel: virt/kvm/api.rst).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};

use crate::vmm::choose::KvmProblem;

/// Opens /dev/kvm, has it make a virtual machine, and drops that again.
pub fn probe() -> Result<(), KvmProblem> {
    let kvm = match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(file) => file,
        Err(e) => {
            return Err(match Errno::from_io_error(&e) {
                Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) | None => KvmProblem::Missing,
                // Whoever may open it would find the same processor.
                Some(Errno::ACCESS | Errno::PERM) if !has_virtualisation() => KvmProblem::Paravirtual,
                Some(Errno::ACCESS | Errno::PERM) => KvmProblem::Denied,
                Some(errno) => KvmProblem::Broken(errno),
            });
        }
    };
    // SAFETY: CreateVm describes KVM_CREATE_VM truthfully (below), and the descriptor is /dev/kvm's; on any other
    // character device the kernel would answer ENOTTY.
    drop(unsafe { ioctl::ioctl(&kvm, CreateVm) }.map_err(KvmProblem::Broken)?);
    if has_virtualisation() { Ok(()) } else { Err(KvmProblem::Paravirtual) }
}

fn has_virtualisation() -> bool {
    !cfg!(target_arch = "x86_64") || shows_virtualisation(&first_processor())
}

/// The flags of the first processor in /proc/cpuinfo; empty where it cannot be read.
fn first_processor() -> String {
    // The kernel asks every processor for its clock while it writes this file, which takes milliseconds on large hosts;
    // the first page holds the first processor.
    let mut page = [0; 4096];
    let read = File::open(Path::new("/proc/cpuinfo")).and_then(|mut file| file.read(&mut page)).unwrap_or(0);
    String::from_utf8_lossy(&page[..read]).into_owned()
}

/// Whether the processor has hardware virtualisation of its own. A paravirtual KVM opens without it, but cannot boot stock
/// kernels (DESIGN D4).
fn shows_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm"))
}

/// `ioctl(kvm, KVM_CREATE_VM, 0)`: a descriptor of a new, empty machine of the default type.
struct CreateVm;

// SAFETY: KVM_CREATE_VM is _IO(0xAE, 0x01), takes an integer (the machine type, 0), which `as_ptr` passes as a null pointer
// that nobody dereferences, writes no memory of ours, and returns a new descriptor or an error.
unsafe impl Ioctl for CreateVm {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::none(0xAE, 0x01)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: a successful KVM_CREATE_VM returns an open descriptor that nothing else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_processor_with_vmx_or_svm_can_run_stock_kernels() {
        assert!(shows_virtualisation("model name\t: x\nflags\t\t: fpu vme svm lm\n"));
        assert!(shows_virtualisation("flags\t\t: fpu vmx\n"));
        assert!(!shows_virtualisation("flags\t\t: fpu hypervisor\nbugs\t\t: vmx svm\n"));
        assert!(!shows_virtualisation(""));
    }
}
