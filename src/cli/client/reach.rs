//! Finding the daemon, and starting it where nothing listens.
//!
//! The daemon is this same executable under the name bangerd, in a session of its own, so that neither the terminal's
//! signals nor its end reach it, with none of our descriptors: a lock that a script holds on descriptor 9 would be held
//! for as long as the daemon lives (F4).
//!
//! This module may use `unsafe` for what the standard library has no safe word for: code between fork and exec.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::process::setsid;

use super::ClientError;
use super::place::{Log, Place};
use crate::config::{self, ConfigError};
use crate::host::descriptors;
use crate::host::dirs::Dirs;
use crate::host::files::create_private_dir;
use crate::host::process;
use crate::proto::api::BAD_CONFIG;

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after our daemon has ended another one, started by another banger at the same time, may take to listen.
const RIVAL: Duration = Duration::from_secs(1);
/// How long a daemon that has closed its socket may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// Connects to the daemon; None if nothing listens.
///
/// # Errors
/// [`ClientError::Foreign`] if the socket, its directory, or whoever listens belongs to someone else than it should.
fn connect(place: &Place) -> Result<Option<UnixStream>, ClientError> {
    let socket = place.dirs.socket();
    for path in [&place.dirs.runtime, &socket] {
        match owner(path) {
            Ok(Some(uid)) if uid != place.uid.as_raw() => {
                return Err(ClientError::Foreign { path: path.clone(), uid });
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(source) => return Err(ClientError::Connection { what: "look for bangerd's socket", source }),
        }
    }
    let stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(source) => return Err(ClientError::Connection { what: "connect to bangerd", source }),
    };
    // Between the look and the connect the path may have changed; the peer's credentials cannot lie.
    let peer = socket_peercred(&stream).map_err(|e| ClientError::Connection {
        what: "ask who listens on bangerd's socket",
        source: e.into(),
    })?;
    if peer.uid != place.uid {
        return Err(ClientError::Foreign { path: socket, uid: peer.uid.as_raw() });
    }
    Ok(Some(stream))
}

/// The owner of what is at `path`, not following a symlink there; None if there is nothing.
fn owner(path: &Path) -> io::Result<Option<u32>> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta.uid())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A connection to the daemon.
pub struct Reached {
    pub stream: UnixStream,
    /// None: it ran already.
    started: Option<Started>,
}

/// A daemon that we have started.
struct Started {
    /// Our child's, so that it is nobody else's before we end.
    pid: u32,
    /// How long its log was before.
    said_before: u64,
}

impl Reached {
    /// Whether we have started it.
    pub fn is_new(&self) -> bool {
        self.started.is_some()
    }

    /// Why a daemon hung up: one that was started just now has ended, and its log says why.
    pub fn why_hung_up(&self, place: &Place) -> ClientError {
        match self.started {
            Some(Started { pid, said_before }) => {
                // It says why after it has closed its socket, and ends after that.
                let deadline = Instant::now() + ENDING;
                while process::observe(pid).is_ok_and(|seen| seen.is_some()) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
                ended(&place.dirs, said_before)
            }
            None => ClientError::HungUp { log: place.log() },
        }
    }
}

/// Why an installation's daemon does not run, as far as it can be seen from here.
pub fn down(place: &Place) -> ClientError {
    match config::read(&place.config) {
        Err(e @ ConfigError::Invalid(_)) => ClientError::Misconfigured(e.to_string()),
        // Whoever else reads it may not be allowed to.
        Err(ConfigError::Read(..)) | Ok(_) => ClientError::Down,
    }
}

/// Connects to a daemon that runs; None if none does.
pub fn reach(place: &Place) -> Result<Option<Reached>, ClientError> {
    Ok(connect(place)?.map(|stream| Reached { stream, started: None }))
}

/// Connects to the daemon, and starts it first if nothing listens.
///
/// # Errors
/// [`ClientError::Down`] where that is systemd's to do: two daemons would work with one database.
pub fn reach_or_start(place: &Place) -> Result<Reached, ClientError> {
    if let Some(reached) = reach(place)? {
        return Ok(reached);
    }
    if place.installed {
        return Err(down(place));
    }
    let dirs = &place.dirs;
    let start = |what: &str| {
        let what = what.to_owned();
        move |source| ClientError::Start { what, source }
    };
    create_private_dir(&dirs.state).map_err(start(&format!("create {}", dirs.state.display())))?;
    let path = dirs.daemon_log();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(start(&format!("open {}", path.display())))?;
    // What an earlier daemon said does not explain why this one ended.
    let said_before = log.metadata().map_or(0, |meta| meta.len());
    let mut child = spawn(log).map_err(start("run this executable as bangerd"))?;
    let stream = wait_until_it_answers(place, &mut child, said_before)?;
    Ok(Reached { stream, started: Some(Started { pid: child.id(), said_before }) })
}

fn spawn(log: File) -> io::Result<Child> {
    descriptors::keep_from_children()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bangerd").current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: between fork and exec only async-signal-safe functions may be called (signal-safety(7)); setsid(2) is
    // one, made here by a raw system call that neither allocates nor takes locks, and turning its errno into an
    // io::Error allocates nothing either.
    unsafe {
        command.pre_exec(|| setsid().map(drop).map_err(io::Error::from));
    }
    command.spawn()
}

fn wait_until_it_answers(
    place: &Place,
    child: &mut Child,
    said_before: u64,
) -> Result<UnixStream, ClientError> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    let mut ended_already = false;
    loop {
        if let Some(stream) = connect(place)? {
            return Ok(stream);
        }
        if !ended_already && let Ok(Some(status)) = child.try_wait() {
            if status.code() == Some(BAD_CONFIG.into()) {
                return Err(misconfigured(&place.dirs, said_before));
            }
            // Another banger may have started one at the same time, and that one holds the lock.
            ended_already = true;
            deadline = deadline.min(Instant::now() + RIVAL);
        }
        if Instant::now() >= deadline {
            return Err(match ended_already {
                true => ended(&place.dirs, said_before),
                false => ClientError::Silent { log: place.log() },
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Why a daemon that was started here has ended.
fn ended(dirs: &Dirs, said_before: u64) -> ClientError {
    let log = dirs.daemon_log();
    ClientError::Ended { last: last_line(&log, said_before), log: Log::File(log) }
}

/// Why a daemon that was started here does not like its configuration.
fn misconfigured(dirs: &Dirs, said_before: u64) -> ClientError {
    let last = last_line(&dirs.daemon_log(), said_before);
    let why = last.strip_prefix("bangerd: cannot start: ").unwrap_or(&last);
    ClientError::Misconfigured(why.to_owned())
}

/// The last line that was written to `log` behind its first `skip` bytes; empty if there is none.
fn last_line(log: &Path, skip: u64) -> String {
    let tail = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(skip.max(len.saturating_sub(4096))))?;
        let mut bytes = vec![];
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().lines().last().unwrap_or_default().to_owned())
    };
    tail().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_daemon_said_explains_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        std::fs::write(&log, "old\n").expect("writes");
        assert_eq!(last_line(&log, 4), "");
        std::fs::write(&log, "old\nfirst\nsecond\n").expect("writes");
        assert_eq!(last_line(&log, 4), "second");
        assert_eq!(last_line(&dir.path().join("none"), 0), "");
    }
}
