//! What the helper takes away from itself before it listens to anybody.
//!
//! It is two processes. The *front* reads requests, judges them, and does the network's part; the *launcher* ([`super::launcher`]) is
//! started first and does what belongs to jails. Both lose what they do not need, and never get it back:
//!
//! | | front | launcher | why not less for the launcher |
//! |---|---|---|---|
//! | capabilities | one or two | [`LAUNCHER`] | jails are mounts, devices, uids |
//! | no_new_privs | yes | yes | |
//! | seccomp | both lists | [`seccomp::NOBODYS`] | the jailer mounts, unshares, makes devices and becomes the VM's user |
//! | landlock: files | what the network needs | no | it forbids every mount to whoever is under it (landlock(7)), and VMMs inherit it |
//! | landlock: TCP, abstract sockets | none | none | |
//! | landlock: signals | only to its children | any | it ends VMMs that an earlier launcher has started |
//!
//! All of it is inherited, so VMMs have at most what the launcher has.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::root::{Ground, seccomp};

/// NET_ADMIN: links, the firewall, the network's sysctls; NET_RAW: iptables, where it is the older one, speaks to the kernel over a
/// raw socket (raw(7)). What it writes is root's own, so that nothing else is needed.
pub const FRONT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// For jails, each with its witness:
/// SYS_ADMIN: mount, umount2, pivot_root, unshare (the jailer's new mount and pid namespaces);
/// SYS_CHROOT: chroot(2); MKNOD: /dev/kvm, /dev/net/tun and /dev/urandom in a chroot; SETUID, SETGID: becoming the VM's user;
/// CHOWN, FOWNER, DAC_OVERRIDE: files in the chroot become the VM's, and the owner's directories are entered; KILL: VMMs run as
/// other users; NET_ADMIN: attaching to a tap that is another user's (drivers/net/tun.c, tun_not_capable).
pub const LAUNCHER: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_ADMIN);

/// The newest rights that this file knows; an older kernel has fewer, and the log says so.
const KNOWN: ABI = ABI::V6;

/// Hardens the front. Before any thread is started: threads have capabilities, filters and domains of their own.
///
/// # Errors
/// Where capabilities or no_new_privs cannot be given up; what the kernel lacks is only logged.
pub fn front(ground: &Ground) -> io::Result<()> {
    keep_only(FRONT)?;
    filter(
        "front",
        &[seccomp::NOBODYS, seccomp::OLDER, seccomp::THE_LAUNCHERS, seccomp::THE_LAUNCHERS_OLDER],
    );
    confine("front", front_domain(ground));
    Ok(())
}

/// Hardens the launcher. As [`front`].
pub fn launcher() -> io::Result<()> {
    keep_only(LAUNCHER)?;
    filter("launcher", &[seccomp::NOBODYS, seccomp::OLDER]);
    confine("launcher", launcher_domain());
    Ok(())
}

/// Gives up every other capability: in the bounding set too, so that no program that is root gets it back by execve(2).
fn keep_only(wanted: CapabilitySet) -> io::Result<()> {
    let have = capabilities(None)?;
    for capability in CapabilitySet::all().difference(wanted).iter() {
        match remove_capability_from_bounding_set(capability) {
            // EINVAL: this kernel does not know it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            // Without SETPCAP there is nothing to take away from: then a unit's CapabilityBoundingSet has done it, or nobody.
            Err(rustix::io::Errno::PERM) => {
                log::warn!("cannot reduce the bounding set of capabilities: CAP_SETPCAP is missing");
                break;
            }
            Err(e) => return Err(e.into()),
        }
    }
    clear_ambient_capability_set()?;
    let kept = have.permitted.intersection(wanted);
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    if kept != wanted {
        log::warn!(
            "these capabilities are missing, and with them what they are for: {:?}",
            wanted.difference(kept)
        );
    }
    set_no_new_privs(true)?;
    log::info!("capabilities: {kept:?}; no_new_privs");
    Ok(())
}

fn filter(who: &str, lists: &[&[libc::c_long]]) {
    match seccomp::refuse(lists) {
        Ok(()) => {
            log::info!(
                "{who}: seccomp refuses {} system calls",
                lists.iter().map(|l| l.len()).sum::<usize>()
            );
        }
        Err(e) => log::warn!("{who}: this kernel has no seccomp filters ({e}); going on without"),
    }
}

fn confine(who: &str, domain: Result<RulesetCreated, RulesetError>) {
    match domain.and_then(RulesetCreated::restrict_self).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => log::info!("{who}: landlock applied, all of it"),
        Ok(RulesetStatus::PartiallyEnforced) => {
            log::info!("{who}: landlock applied as far as this kernel knows it; newer ones restrict more");
        }
        Ok(RulesetStatus::NotEnforced) => log::warn!(
            "{who}: this kernel's landlock, if it has any, knows nothing of what is given up here; going on without"
        ),
        Err(e) => log::warn!("{who}: landlock could not be applied ({e}); going on without"),
    }
}

fn launcher_domain() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::AbstractUnixSocket)?
        .create()
}

fn front_domain(ground: &Ground) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::AbstractUnixSocket)?
        .scope(Scope::Signal)?
        .create()?;
    for (path, access) in front_paths(ground) {
        // What is not there cannot be needed; the rest of the list holds.
        if let Ok(fd) = PathFd::new(&path) {
            let access = if is_directory(&path) { access } else { access & AccessFs::from_file(KNOWN) };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    Ok(ruleset)
}

fn is_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// What the front reaches: nft and resolvectl with their libraries, /proc with the network's sysctls, the door to taps, its records.
fn front_paths(ground: &Ground) -> Vec<(PathBuf, landlock::BitFlags<AccessFs>)> {
    let programs = AccessFs::from_read(KNOWN);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate;
    let device = write | AccessFs::IoctlDev;
    [
        ("/usr", programs),
        ("/bin", programs),
        ("/sbin", programs),
        ("/lib", programs),
        ("/lib64", programs),
        ("/etc", read),
        ("/proc", read),
        ("/proc/sys/net", write),
        ("/run", read),
        // resolvectl's and our own look at links.
        ("/sys", read),
        ("/dev/net/tun", device),
        // iptables', the older one's; the newer needs none.
        ("/run/xtables.lock", write),
        ("/dev/null", device),
        ("/dev/urandom", read),
    ]
    .into_iter()
    .map(|(path, access)| (PathBuf::from(path), access))
    .chain([(ground.dirs.root_runtime.clone(), AccessFs::from_all(KNOWN))])
    .collect()
}
