//! The one door to other programs: no shell, a cleared environment, a closed stdin, and errors that name the program.

mod fed;
pub mod git;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

pub use fed::{Run, run_fed};

/// Why a program did not do it.
#[derive(Debug)]
pub enum CmdError {
    /// It is not installed, or cannot be executed.
    Spawn { program: String, source: io::Error },
    /// It ran and failed; `stderr` is its last line.
    Failed { program: String, status: ExitStatus, stderr: String },
    /// It was still running when its time was over.
    TooSlow { program: String, limit: Duration },
    /// It has neither said nor done anything for so long, and was ended; `at` is what it worked on.
    Idle { program: String, at: PathBuf, limit: Duration },
    /// A signal that asked this process to end came while it was waited for; it was ended.
    Interrupted(i32),
}

/// Where system programs are, whatever the user's PATH is.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `program` with `args` to its end and returns its stdout.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>, CmdError> {
    run_with(program, args, &[])
}

/// As [`run`], with `env` added to the program's environment.
pub fn run_with<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    env: &[(&str, &str)],
) -> Result<Vec<u8>, CmdError> {
    let out = prepared(program, args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CmdError::Spawn { program: program.to_owned(), source })?;
    judged(program, out)
}

/// Runs this very executable under the name `name`, which chooses the personality, with the directory that tests work in.
pub fn run_myself(name: &str, args: &[&str]) -> Result<Vec<u8>, CmdError> {
    use std::os::unix::process::CommandExt;
    let mut command = prepared("/proc/self/exe", args);
    command.arg0(name).stdin(Stdio::null());
    if let Some(root) = std::env::var_os("BANGER_ROOT") {
        command.env("BANGER_ROOT", root);
    }
    judged(name, command.output().map_err(|source| CmdError::Spawn { program: name.to_owned(), source })?)
}

/// As [`run`], with `input` on the program's stdin, of whatever length. It must be a program that reads all of it before it says much.
pub fn run_reading<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Result<Vec<u8>, CmdError> {
    let run = || -> io::Result<Output> {
        let mut command = prepared(program, args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
        let out = child.wait_with_output()?;
        match fed {
            // It has failed, and its last words say why.
            Err(e) if out.status.success() => Err(e),
            _ => Ok(out),
        }
    };
    judged(program, run().map_err(|source| CmdError::Spawn { program: program.to_owned(), source })?)
}

/// Turns this process into `program`, found on the user's own PATH, with the user's environment and terminal: a program that the user
/// asked for by name. Returns only where that cannot be done.
pub fn become_program<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> io::Error {
    use std::os::unix::process::CommandExt;
    Command::new(program).args(args).exec()
}

fn prepared<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C");
    command
}

fn judged(program: &str, out: Output) -> Result<Vec<u8>, CmdError> {
    if out.status.success() {
        return Ok(out.stdout);
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    Err(CmdError::Failed {
        program: program.to_owned(),
        status: out.status,
        stderr: stderr.trim().lines().last().unwrap_or_default().to_owned(),
    })
}

impl fmt::Display for CmdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn { program, .. } => write!(f, "cannot run {program}"),
            Self::Failed { program, status, stderr } if stderr.is_empty() => {
                write!(f, "{program} failed, {status}")
            }
            Self::Failed { program, stderr, .. } => write!(f, "{program} failed: {stderr}"),
            Self::TooSlow { program, limit } => write!(f, "{program} did not end within {limit:?}"),
            Self::Idle { program, at, limit } => write!(
                f,
                "{program} did nothing for {limit:?} in {0} and was ended: something that it reads there does not answer, such as a named \
                 pipe in the place of a file; `find {0} -type p` lists those, for you to remove",
                at.display()
            ),
            Self::Interrupted(_) => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for CmdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spawn { source, .. } => Some(source),
            Self::Failed { .. } | Self::TooSlow { .. } | Self::Idle { .. } | Self::Interrupted(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_a_clean_environment_and_no_input() {
        let out =
            run("sh", ["-c", "cat; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort"]).expect("runs");
        assert_eq!(String::from_utf8_lossy(&out), "PATH\n");
    }

    #[test]
    fn what_it_is_given_to_read_has_no_limit() {
        let input = vec![b'x'; 1 << 20];
        let out = run_reading("sh", ["-c", "wc -c"], &input).expect("runs");
        assert_eq!(String::from_utf8_lossy(&out).trim(), "1048576");
        let error = run_reading("sh", ["-c", "exec <&-; echo deaf >&2; exit 1"], &input).expect_err("fails");
        assert_eq!(error.to_string(), "sh failed: deaf");
    }

    #[test]
    fn a_failure_names_the_program_and_its_last_words() {
        let error = run("sh", ["-c", "echo first >&2; echo no such thing >&2; exit 3"]).expect_err("fails");
        assert_eq!(error.to_string(), "sh failed: no such thing");
        let error = run("no-such-program", [""; 0]).expect_err("fails");
        assert_eq!(error.to_string(), "cannot run no-such-program");
    }
}
