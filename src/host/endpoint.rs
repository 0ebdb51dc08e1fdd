//! A personality's own unix socket: a private directory, a lock that says who may replace the socket, and a mode.
//!
//! The lock file beside it, not the socket, says whether one runs already: a socket stays behind when its process is killed.

use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid, geteuid};

use crate::host::files;

/// How long one that was told to stop may take to end.
const ENDING: Duration = Duration::from_secs(3);

/// Why there is no socket.
#[derive(Debug)]
pub enum SocketError {
    /// Another one holds the lock.
    Running {
        name: &'static str,
        socket: PathBuf,
    },
    /// The directory or the socket belongs to someone else.
    Foreign {
        path: PathBuf,
        uid: u32,
    },
    /// Something is where the directory or the socket should be.
    InTheWay {
        path: PathBuf,
        want: &'static str,
    },
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Makes the listening socket, of mode 0600, `owner`'s or else this process's. The caller holds the lock.
pub fn bind(socket: &Path, owner: Option<(Uid, Gid)>) -> Result<UnixListener, SocketError> {
    remove_stale(socket, owner.map_or(geteuid(), |(uid, _)| uid))?;
    let io = |what| move |source| SocketError::Io { what, path: socket.to_owned(), source };
    let listener = UnixListener::bind(socket).map_err(io("bind"))?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(io("set the mode of"))?;
    if let Some((uid, gid)) = owner {
        let chown = std::os::unix::fs::lchown(socket, Some(uid.as_raw()), Some(gid.as_raw()));
        chown.map_err(io("set the owner of"))?;
    }
    Ok(listener)
}

/// Takes the lock at `path` for `name`, whose socket is `socket`, and waits a little for a holder that `may_end`, as one that was told
/// to stop does.
pub fn lock(
    path: &Path,
    name: &'static str,
    socket: &Path,
    may_end: impl Fn() -> bool,
) -> Result<File, SocketError> {
    let until = Instant::now() + ENDING;
    loop {
        let taken = files::try_lock(path).map_err(|source| SocketError::Io {
            what: "lock",
            path: path.to_owned(),
            source,
        })?;
        if let Some(lock) = taken {
            return Ok(lock);
        }
        if !may_end() || Instant::now() > until {
            return Err(SocketError::Running { name, socket: socket.to_owned() });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a socket bound to `path` accepts connections, by `table`, which is /proc/net/unix: a connection would be taken for its
/// client's (proc(5); linux/net.h, __SO_ACCEPTCON).
pub fn listens(table: &str, path: &Path) -> bool {
    const ACCEPTS: &str = "00010000";
    let path = path.to_string_lossy();
    table.lines().any(|line| {
        line.split_ascii_whitespace().nth(3) == Some(ACCEPTS)
            && line.strip_suffix(&*path).is_some_and(|rest| rest.ends_with(' '))
    })
}

/// Makes `dir`, or checks that it is a directory of ours to which nobody else has more rights than `mode` gives.
pub fn own_directory(dir: &Path, mode: u32) -> Result<(), SocketError> {
    let io = |what| move |source| SocketError::Io { what, path: dir.to_owned(), source };
    files::create_private_dir(dir).map_err(io("create"))?;
    let meta = std::fs::symlink_metadata(dir).map_err(io("look at"))?;
    match () {
        () if !meta.is_dir() => Err(SocketError::InTheWay { path: dir.to_owned(), want: "directory" }),
        () if meta.uid() != geteuid().as_raw() => {
            Err(SocketError::Foreign { path: dir.to_owned(), uid: meta.uid() })
        }
        () if meta.mode() & 0o077 != mode & 0o077 => {
            std::fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(io("set the mode of"))
        }
        () => Ok(()),
    }
}

/// Removes a socket of ours, or of `owner`, to whom we have given it.
fn remove_stale(socket: &Path, owner: Uid) -> Result<(), SocketError> {
    let io = |what| move |source| SocketError::Io { what, path: socket.to_owned(), source };
    let meta = match std::fs::symlink_metadata(socket) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io("look at"))?,
    };
    match () {
        () if meta.uid() != geteuid().as_raw() && meta.uid() != owner.as_raw() => {
            Err(SocketError::Foreign { path: socket.to_owned(), uid: meta.uid() })
        }
        () if !meta.file_type().is_socket() => {
            Err(SocketError::InTheWay { path: socket.to_owned(), want: "socket" })
        }
        () => std::fs::remove_file(socket).map_err(io("remove the stale socket")),
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { name, socket } => {
                write!(f, "another {name} is running already, at {}", socket.display())
            }
            Self::Foreign { path, uid } => write!(
                f,
                "{} belongs to the user with uid {uid}, not to you; remove it, or set BANGER_ROOT or XDG_RUNTIME_DIR to a directory of yours",
                path.display()
            ),
            Self::InTheWay { path, want } => write!(f, "{} is no {want}; remove it", path.display()),
            Self::Io { what, path, .. } => write!(f, "cannot {what} {}", path.display()),
        }
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Running { .. } | Self::Foreign { .. } | Self::InTheWay { .. } => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}
