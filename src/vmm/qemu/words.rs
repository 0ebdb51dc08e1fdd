//! The words that QEMU's guests get on their kernel command line, before the machine's own.

use crate::vmm::Accel;

/// For every guest: the serial console, silent but for what is critical (that a microvm has no PCI is an error to the kernel,
/// level 3); a panic, which is always shown, resets at once, which ends QEMU (-no-reboot);
/// the kernel's algorithms are not tested anew at every boot.
const COMMON: &str = "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t cryptomgr.notests";

/// Where every instruction of the guest is translated: what costs most at boot and guards against nothing here. There is no
/// processor to mitigate, and the signatures that the certificates are for are not demanded (CONFIG_MODULE_SIG_FORCE).
const EMULATED: &str = "mitigations=off initcall_blacklist=load_system_certificate_list,init_kprobe_trace";

/// Under KVM: the mitigations stay; there is no timer to check and no keyboard to look for.
const ACCELERATED: &str = "no_timer_check i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd";

pub fn words(accel: Accel, vcpu: u8, tsc_khz: Option<u32>) -> String {
    let mut words = vec![COMMON.to_owned()];
    match accel {
        Accel::Kvm => words.push(ACCELERATED.to_owned()),
        Accel::Tcg => {
            words.push(EMULATED.to_owned());
            // Turning the locks of one processor into plain instructions rewrites code all over the kernel, which is then
            // translated a second time: a tenth of the whole boot.
            if vcpu == 1 {
                words.push("noreplace-smp".to_owned());
            }
            if let Some(khz) = tsc_khz {
                // Reliable: all virtual processors read the host's counter, which is one for all. The kernel would not
                // trust that of two AMD processors, and fall back to a clock of 4 ms (refined-jiffies).
                words.push(format!("tsc_early_khz={khz} tsc=reliable"));
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_weaken_the_guest_are_for_emulation_only() {
        let kvm = words(Accel::Kvm, 1, Some(7));
        let tcg = words(Accel::Tcg, 1, Some(7));
        for word in ["mitigations=off", "initcall_blacklist=", "tsc_early_khz=7", "noreplace-smp"] {
            assert!(tcg.contains(word) && !kvm.contains(word), "{word}");
        }
        assert!(kvm.contains("no_timer_check") && kvm.contains("i8042.noaux"));
        let unmeasured = words(Accel::Tcg, 2, None);
        assert!(!unmeasured.contains("tsc_early_khz") && !unmeasured.contains("noreplace-smp"));
    }
}
