//! The descriptors that come with a launch: what each must be, judged on the descriptor itself and never on a path.
//!
//! The caller has opened them with his own rights, so he could read, or write, what they lead to; root lends him nothing by mounting
//! it. What root changes (a group, a mode) it changes only on files that are the owner's own and have no other name.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat};

use crate::proto::root::{DriveKind, Launch};

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The directory that the owner shares with the VMM.
    Sockets,
    Console,
    Log,
    Kernel,
    Initrd,
    Drive(usize, DriveKind),
}

/// What one sees of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub kind: FileType,
    pub uid: u32,
    /// The permission bits alone.
    pub mode: Mode,
    pub links: u64,
    pub flags: OFlags,
}

/// Why a launch does not take the descriptors that came with it.
#[derive(Debug)]
pub enum BadDescriptor {
    Count { want: usize, got: usize },
    Look { role: Role, source: io::Error },
    Unfit { role: Role, why: Unfit },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    Kind,
    Access,
    Owner(u32),
    Links(u64),
    /// The VMM's own user could not read it.
    Closed,
}

/// The roles of the descriptors of `launch`, in their order.
pub fn roles(launch: &Launch) -> Vec<Role> {
    let first = [Role::Sockets, Role::Console, Role::Log, Role::Kernel, Role::Initrd];
    let drives = launch.drives.iter().enumerate().map(|(i, kind)| Role::Drive(i, *kind));
    first.into_iter().chain(drives).collect()
}

/// Gives each descriptor its role; `owner` is whom the helper serves.
///
/// # Errors
/// [`BadDescriptor`] for the first that is not what its role wants.
pub fn sort(launch: &Launch, owner: u32, given: Vec<OwnedFd>) -> Result<Vec<(Role, OwnedFd)>, BadDescriptor> {
    let roles = roles(launch);
    if given.len() != roles.len() {
        return Err(BadDescriptor::Count { want: roles.len(), got: given.len() });
    }
    for (role, fd) in roles.iter().zip(&given) {
        let facts = look(fd).map_err(|source| BadDescriptor::Look { role: *role, source })?;
        judge(*role, &facts, owner).map_err(|why| BadDescriptor::Unfit { role: *role, why })?;
    }
    Ok(roles.into_iter().zip(given).collect())
}

fn look(fd: impl AsFd) -> io::Result<Facts> {
    let stat = fstat(&fd)?;
    Ok(Facts {
        kind: FileType::from_raw_mode(stat.st_mode),
        uid: stat.st_uid,
        mode: Mode::from_raw_mode(stat.st_mode),
        // Its type differs between machines.
        #[allow(clippy::useless_conversion)]
        links: stat.st_nlink.into(),
        flags: fcntl_getfl(&fd)?,
    })
}

/// Whether a descriptor is what `role` wants.
pub fn judge(role: Role, facts: &Facts, owner: u32) -> Result<(), Unfit> {
    let kind = match role {
        Role::Sockets => FileType::Directory,
        Role::Console | Role::Log | Role::Kernel | Role::Initrd | Role::Drive(..) => FileType::RegularFile,
    };
    if facts.kind != kind {
        return Err(Unfit::Kind);
    }
    // What O_PATH opens the caller need not have been able to read or write.
    let access = facts.flags & (OFlags::RWMODE | OFlags::PATH | OFlags::APPEND);
    let read_only = matches!(role, Role::Kernel | Role::Initrd | Role::Drive(_, DriveKind::ReadOnly));
    let want = match role {
        Role::Console | Role::Log => OFlags::WRONLY | OFlags::APPEND,
        Role::Drive(_, DriveKind::Writable | DriveKind::Disposable) => OFlags::RDWR,
        Role::Sockets | Role::Kernel | Role::Initrd | Role::Drive(_, DriveKind::ReadOnly) => OFlags::RDONLY,
    };
    if access != want {
        return Err(Unfit::Access);
    }
    if facts.uid != owner && !(read_only && facts.uid == 0) {
        return Err(Unfit::Owner(facts.uid));
    }
    match role {
        Role::Sockets => Ok(()),
        _ if read_only && !facts.mode.contains(Mode::ROTH) => Err(Unfit::Closed),
        _ if read_only => Ok(()),
        // Another name could be one that others rely on.
        _ if facts.links != 1 => Err(Unfit::Links(facts.links)),
        _ => Ok(()),
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sockets => f.write_str("the directory for sockets"),
            Self::Console => f.write_str("the console's log"),
            Self::Log => f.write_str("the VMM's log"),
            Self::Kernel => f.write_str("the kernel"),
            Self::Initrd => f.write_str("the initramfs"),
            Self::Drive(n, _) => write!(f, "drive {n}"),
        }
    }
}

impl fmt::Display for BadDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { want, got } => write!(f, "{got} descriptors came with a launch that needs {want}"),
            Self::Look { role, .. } => write!(f, "cannot look at {role}"),
            Self::Unfit { role, why } => match why {
                Unfit::Kind if *role == Role::Sockets => write!(f, "{role} is none"),
                Unfit::Kind => write!(f, "{role} is no regular file"),
                Unfit::Access => write!(f, "{role} is not opened as it must be: {}", access(*role)),
                Unfit::Owner(uid) => {
                    write!(f, "{role} belongs to user {uid}, whom this helper does not serve")
                }
                Unfit::Links(n) => write!(f, "{role} has {n} names; the VM's own has one"),
                Unfit::Closed => write!(f, "{role} can be read by its owner only; it must have mode 0444"),
            },
        }
    }
}

fn access(role: Role) -> &'static str {
    match role {
        Role::Console | Role::Log => "for appending only",
        Role::Drive(_, DriveKind::Writable | DriveKind::Disposable) => "for reading and writing",
        _ => "for reading only",
    }
}

impl std::error::Error for BadDescriptor {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Look { source, .. } => Some(source),
            Self::Count { .. } | Self::Unfit { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
