//! A seccomp filter that refuses a list of system calls with EPERM (seccomp(2)), by hand, since it is eight instructions and a list.
//!
//! It is a list of what is refused and not of what is allowed: programs that others have built are started under it (nft, the
//! jailer, QEMU), each with the system calls of its own C library, and a list of those would break with the next one.
#![allow(unsafe_code)]

use std::io;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS, SECCOMP_SET_MODE_FILTER, SYS_ioctl, SYS_seccomp, c_long, sock_filter,
    sock_fprog,
};

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Its lower half, which both architectures below have first.
const SECOND_ARGUMENT: u32 = 24;
const EPERM: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;
/// linux/audit.h: the ELF machine, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const OURS: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OURS: u32 = 0xc000_00b7;
/// The numbers of the x32 ABI, which would slip past a list of the others (arch/x86: __X32_SYSCALL_BIT). No other architecture has so many.
const FIRST_X32: u32 = 0x4000_0000;

/// Refuses the system calls of `lists` to this thread and all that it will start. It must have no_new_privs, or CAP_SYS_ADMIN.
///
/// # Errors
/// ENOSYS or EINVAL where the kernel has no such filters.
pub fn refuse(lists: &[&[c_long]]) -> io::Result<()> {
    load(&program(lists))
}

/// Refuses those of `commands` to ioctl(2), whatever they are asked of. As [`refuse`].
pub fn refuse_ioctls(commands: &[u64]) -> io::Result<()> {
    load(&ioctls(commands))
}

fn load(filter: &[sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `program` and the `length` instructions that it points to during the call, writes to neither, and
    // both live until it returns.
    match unsafe { libc::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn ioctls(commands: &[u64]) -> Vec<sock_filter> {
    let mut program = program(&[]);
    let allow = program.pop();
    program.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl as u32, 1, 0));
    program.extend(allow);
    program.push(instruction(BPF_LD | BPF_W | BPF_ABS, SECOND_ARGUMENT, 0, 0));
    for command in commands {
        // The kernel takes an unsigned int.
        program.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, *command as u32, 0, 1));
        program.push(instruction(BPF_RET | BPF_K, EPERM, 0, 0));
    }
    program.extend(allow);
    program
}

fn program(lists: &[&[c_long]]) -> Vec<sock_filter> {
    let mut program = vec![
        instruction(BPF_LD | BPF_W | BPF_ABS, ARCHITECTURE, 0, 0),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, OURS, 1, 0),
        instruction(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0),
        instruction(BPF_LD | BPF_W | BPF_ABS, NUMBER, 0, 0),
        instruction(BPF_JMP | BPF_JGE | BPF_K, FIRST_X32, 0, 1),
        instruction(BPF_RET | BPF_K, EPERM, 0, 0),
    ];
    for number in lists.iter().copied().flatten() {
        program.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, *number as u32, 0, 1));
        program.push(instruction(BPF_RET | BPF_K, EPERM, 0, 0));
    }
    program.push(instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0));
    program
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // The codes have eight bits (linux/bpf_common.h).
    sock_filter { code: code as u16, jt, jf, k }
}

/// What neither the helper nor any VMM has business with: other kernels, modules, programs in the kernel, other processes'
/// memory, time, swap, keys, and handles that open files past their directories. io_uring, since it does what other system calls
/// do and is not seen by filters (QEMU goes without where it is refused).
pub const NOBODYS: &[c_long] = &[
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// What only launches need: mounts and namespaces, devices, other users' files and uids.
pub const THE_LAUNCHERS: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_mknodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// What a VMM must not do to its tap, though whoever has one open may (drivers/net/tun.c, __tun_chr_ioctl). A port's own address takes
/// the place of what the bridge was told of another port: with the MAC of another VM, that one would hear nothing any more.
pub const NO_VMMS: &[u64] = &[libc::SIOCSIFHWADDR, TUNSETPERSIST, TUNSETOWNER, TUNSETLINK, TUNSETGROUP];
/// linux/if_tun.h.
const TUNSETPERSIST: u64 = 0x4004_54cb;
const TUNSETOWNER: u64 = 0x4004_54cc;
const TUNSETLINK: u64 = 0x4004_54cd;
const TUNSETGROUP: u64 = 0x4004_54ce;

/// The same by older names, which newer architectures have not.
#[cfg(target_arch = "x86_64")]
pub const OLDER: &[c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
pub const OLDER: &[c_long] = &[];
#[cfg(target_arch = "x86_64")]
pub const THE_LAUNCHERS_OLDER: &[c_long] = &[libc::SYS_mknod, libc::SYS_chown, libc::SYS_lchown];
#[cfg(not(target_arch = "x86_64"))]
pub const THE_LAUNCHERS_OLDER: &[c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's interpreter, as far as these programs go.
    fn verdict(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        verdict_of(program, architecture, number, 0)
    }

    fn verdict_of(program: &[sock_filter], architecture: u32, number: u32, second: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            match u32::from(i.code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    loaded = match i.k {
                        ARCHITECTURE => architecture,
                        NUMBER => number,
                        _ => second,
                    };
                }
                c if c == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if loaded == i.k { i.jt } else { i.jf });
                }
                c if c == BPF_JMP | BPF_JGE | BPF_K => {
                    at += usize::from(if loaded >= i.k { i.jt } else { i.jf });
                }
                _ => return i.k,
            }
        }
    }

    #[test]
    fn what_is_on_the_list_is_refused_and_nothing_else_whatever_the_abi() {
        let program = program(&[NOBODYS, OLDER]);
        let eperm = EPERM;
        for number in 0..600u32 {
            let listed = NOBODYS.iter().chain(OLDER).any(|n| *n == c_long::from(number));
            let want = if listed { eperm } else { SECCOMP_RET_ALLOW };
            assert_eq!(verdict(&program, OURS, number), want, "{number}");
            assert_eq!(verdict(&program, OURS, number | FIRST_X32), eperm);
            assert_eq!(verdict(&program, 0x4000_0003, number), SECCOMP_RET_KILL_PROCESS, "i386");
        }
    }

    #[test]
    fn of_what_ioctl_does_only_what_is_listed_is_refused() {
        let program = ioctls(NO_VMMS);
        let of = |number: c_long, command: u64| verdict_of(&program, OURS, number as u32, command as u32);
        for command in NO_VMMS {
            assert_eq!(of(SYS_ioctl, *command), EPERM, "{command:x}");
            assert_eq!(of(SYS_ioctl, *command | 1 << 40), EPERM, "the kernel looks at the lower half");
            assert_eq!(of(libc::SYS_read, *command), SECCOMP_RET_ALLOW);
        }
        const TUNSETIFF: u64 = 0x4004_54ca;
        assert_eq!(of(SYS_ioctl, TUNSETIFF), SECCOMP_RET_ALLOW);
        assert_eq!(verdict_of(&program, 0x4000_0003, 54, 0), SECCOMP_RET_KILL_PROCESS, "i386");
    }
}
