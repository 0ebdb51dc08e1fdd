//! Does the image have an init of its own? Then it becomes process 1, as on any machine.
//!
//! A program that is called init is not always meant to be one: busybox and toybox bear the name in images that were never
//! meant to boot. They count only with an /etc/inittab that could work: Alpine's container image ships the one of its
//! installed system, whose programs (openrc) it does not have.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::console;
use crate::host::cmd::PATH;

/// Where inits are, the conventional names first.
const CANDIDATES: [&str; 4] =
    ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"];

/// What was found at one of the [`CANDIDATES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    executable: bool,
    /// It is busybox, or toybox: one executable for many names.
    multi_call: bool,
    inittab: Inittab,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inittab {
    Absent,
    /// It starts the system with programs that are not there.
    Broken,
    Usable,
}

/// Returns the path of the image's own init, if it has one.
pub fn own_init() -> Option<&'static str> {
    CANDIDATES.into_iter().find(|path| observe(Path::new(path)).is_some_and(is_init))
}

/// Keeps systemd from what cannot work in this image: with the kernel's modules there, it runs kmod, which images for
/// containers lack. In /run, so that it lasts for this boot only.
pub fn spare_kmod() {
    const UNIT: &str = "kmod-static-nodes.service";
    if ["/bin/kmod", "/usr/bin/kmod", "/sbin/kmod"].iter().any(|kmod| Path::new(kmod).exists()) {
        return;
    }
    let masked = fs::create_dir_all("/run/systemd/system")
        .and_then(|()| std::os::unix::fs::symlink("/dev/null", format!("/run/systemd/system/{UNIT}")));
    if let Err(e) = masked {
        console::say(format_args!("cannot mask {UNIT}: {e}"));
    }
}

/// Becomes the image's init. Returns only if that fails, having said so.
pub fn become_init(path: &str) {
    // Command gives the signal mask and SIGPIPE back to their defaults; Rust's own start changed the latter.
    let error =
        Command::new(path).env_clear().envs([("HOME", "/"), ("TERM", "linux"), ("PATH", PATH)]).exec();
    console::say(format_args!("cannot start the image's init {path}: {error}"));
}

fn is_init(facts: Facts) -> bool {
    facts.executable && (!facts.multi_call || facts.inittab == Inittab::Usable)
}

fn observe(path: &Path) -> Option<Facts> {
    let resolved = fs::canonicalize(path).ok()?;
    let meta = fs::metadata(&resolved).ok()?;
    let name = resolved.file_name().unwrap_or_default().to_string_lossy();
    // The official busybox image has hard links instead of symlinks.
    let linked =
        |other: &str| fs::metadata(other).is_ok_and(|o| o.dev() == meta.dev() && o.ino() == meta.ino());
    let multi_call = ["busybox", "toybox", "bbsuid"].iter().any(|known| name.starts_with(known))
        || linked("/bin/busybox")
        || linked("/bin/toybox");
    let inittab = match fs::read_to_string("/etc/inittab") {
        Err(_) => Inittab::Absent,
        Ok(text) if boot_programs(&text).iter().all(|program| Path::new(program).exists()) => Inittab::Usable,
        Ok(_) => Inittab::Broken,
    };
    let mut head = vec![];
    File::open(&resolved).ok()?.take(20).read_to_end(&mut head).ok()?;
    let executable = meta.is_file() && meta.mode() & 0o111 != 0 && runs_here(&head);
    Some(Facts { executable, multi_call, inittab })
}

/// Whether a file that begins with `head` is a program of this machine, or a script. Another one must not even be tried: libc's
/// exec gives what the kernel refuses to a shell, which as process 1 would take the machine down with it.
fn runs_here(head: &[u8]) -> bool {
    // e_machine (elf(5)); an x86-64 kernel runs 32-bit programs too.
    let ours: &[u16] = if cfg!(target_arch = "x86_64") { &[62, 3] } else { &[183] };
    let machine = head.get(18..20).map(|b| u16::from_le_bytes([b[0], b[1]]));
    head.starts_with(b"#!") || head.starts_with(b"\x7fELF") && machine.is_some_and(|m| ours.contains(&m))
}

/// The programs by which an inittab starts the system: `<tty>:<runlevels>:sysinit:<command>` (busybox: examples/inittab).
/// One may be named without a path; it is then found by busybox itself.
fn boot_programs(inittab: &str) -> Vec<&str> {
    inittab
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.splitn(4, ':').skip(2);
            (fields.next()? == "sysinit").then_some(())?;
            fields.next()?.trim_start_matches('-').split_whitespace().next()
        })
        .filter(|program| program.starts_with('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_executable_and_busybox_is_one_only_with_an_inittab_that_works() {
        use Inittab::{Absent, Broken, Usable};
        let table = [
            // executable, multi-call, inittab, own init
            (true, false, Absent, true),
            (true, false, Usable, true),
            (true, false, Broken, true),
            (false, false, Usable, false),
            (true, true, Absent, false),
            (true, true, Broken, false),
            (true, true, Usable, true),
            (false, true, Usable, false),
        ];
        for (executable, multi_call, inittab, want) in table {
            let facts = Facts { executable, multi_call, inittab };
            assert_eq!(is_init(facts), want, "{facts:?}");
        }
    }

    #[test]
    fn a_program_of_another_machine_is_none() {
        let elf = |machine: u16| [&b"\x7fELF"[..], &[0; 14], &machine.to_le_bytes()].concat();
        let native = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        assert!(runs_here(&elf(native)));
        assert!(!runs_here(&elf(40)));
        assert!(runs_here(b"#!/bin/sh\n"));
        assert!(!runs_here(b"") && !runs_here(b"\x7fELF") && !runs_here(b"init"));
    }

    #[test]
    fn an_inittab_names_the_programs_that_start_the_system() {
        let alpine = "# /etc/inittab\n::sysinit:/sbin/openrc sysinit\n::sysinit:/sbin/openrc boot\n::wait:/sbin/openrc default\n\
                      tty1::respawn:/sbin/getty 38400 tty1\n::shutdown:/sbin/openrc shutdown\n";
        assert_eq!(boot_programs(alpine), ["/sbin/openrc", "/sbin/openrc"]);
        assert_eq!(
            boot_programs("::sysinit:mount -a\n::sysinit:-/bin/sh -c x\n#::sysinit:/x\nnonsense\n"),
            ["/bin/sh"]
        );
        assert_eq!(boot_programs(""), [""; 0]);
    }
}
