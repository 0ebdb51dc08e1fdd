//! The executables of an update, run for what they say of themselves and of this host.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::geteuid;

use crate::host::cmd::{self, CmdError, PATH};
use crate::host::install::Install;

/// An executable of banger's.
pub struct Program<'a> {
    pub path: PathBuf,
    pub install: &'a Install,
    pub limit: Duration,
}

/// Who it runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// This process's user.
    Us,
    /// Whose state it looks at: what it makes there must not be root's.
    Owner,
}

impl<'a> Program<'a> {
    /// The file that is open as `file`, which must stay so: its path may lead through directories that the owner cannot enter.
    pub fn open(file: &File, install: &'a Install, limit: Duration) -> std::io::Result<Self> {
        // A script's interpreter opens it once more, after the exec that closes what is to be closed.
        fcntl_setfd(file.as_fd(), FdFlags::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Self { path, install, limit })
    }

    pub fn at(path: &Path, install: &'a Install, limit: Duration) -> Self {
        Self { path: path.to_owned(), install, limit }
    }

    /// Runs it under the name `called`. However it ends is the caller's to judge.
    pub fn run(&self, who: As, called: &str, args: &[&str]) -> Result<Output, CmdError> {
        let home = match who {
            As::Us => std::env::var("HOME").unwrap_or_else(|_| "/".to_owned()),
            As::Owner => self.install.home.display().to_string(),
        };
        let root = std::env::var_os("BANGER_ROOT").map(OsString::into_string).and_then(Result::ok);
        let mut env = vec![("PATH", PATH), ("LC_ALL", "C"), ("HOME", home.as_str())];
        env.extend(root.as_deref().map(|root| ("BANGER_ROOT", root)));
        let user = match who {
            // Only root can become somebody else.
            As::Owner if geteuid().is_root() && self.install.uid != 0 => {
                Some((self.install.owner_uid(), self.install.owner_gid()))
            }
            As::Owner | As::Us => None,
        };
        cmd::Run { program: &self.path, called: Some(called), user, env: &env, limit: self.limit }
            .fed(args, b"")
    }
}

/// The last line that a program said, on stderr or else on stdout.
pub fn last_words(output: &Output) -> String {
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.trim().lines().last().unwrap_or_default().chars().take(300).collect::<String>()
    };
    match last(&output.stderr) {
        words if words.is_empty() => last(&output.stdout),
        words => words,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_open_file_is_run_under_another_name_with_a_clean_environment() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("p");
        std::fs::write(
            &path,
            "#!/bin/sh\necho \"$@\"; env | grep -c BANGER_FAILPOINT; echo oops >&2; exit 3\n",
        )
        .expect("writes");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("sets the mode");
        let install = Install::parse("owner = 'me'\nuid = 0\ngid = 0\nhome = '/'").expect("an owner");
        let file = File::open(&path).expect("opens");
        let program = Program::open(&file, &install, Duration::from_secs(60)).expect("a program");
        let output = program.run(As::Us, "bangerd", &["--x", "y"]).expect("runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "--x y\n0\n");
        assert_eq!((output.status.code(), last_words(&output).as_str()), (Some(3), "oops"));
    }
}
