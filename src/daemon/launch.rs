//! Launching a program in two phases, so that no crash of the daemon can lose a process (FAULTS F1).
//!
//! bangerd starts itself with `--launch`, a pipe as stdin. That child makes a session of its own and waits. bangerd stores
//! the child's pid and start time, and only then writes one line to the pipe: what to run. The child becomes that program,
//! with the same pid and start time. If bangerd dies before the line is whole, the child reads the end of the pipe and goes;
//! if it dies afterwards, the store knows the process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use crate::host::cmd::PATH;
use crate::host::process;
use crate::vm::state::Process;
use crate::vmm::Launch;

/// The argument that makes bangerd such a child.
pub const FLAG: &str = "--launch";
/// The longest line: as much as Linux takes as arguments (execve(2), "Limits on size of arguments").
const MAX_LINE: u64 = 2 << 20;

#[derive(Serialize, Deserialize)]
struct Order {
    argv: Vec<String>,
    log: PathBuf,
}

/// A process that exists and waits to become a program. Dropping it ends it.
#[derive(Debug)]
#[must_use]
pub struct Shim {
    child: Child,
    process: Process,
}

impl Shim {
    /// Starts one, from the executable that this process runs.
    pub fn spawn() -> io::Result<Self> {
        // Even if the file was replaced by an update: the link leads to the file that runs (proc(5)).
        Self::spawn_from(Path::new("/proc/self/exe"))
    }

    fn spawn_from(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg0("bangerd")
            .arg(FLAG)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        match process::observe(child.id()) {
            Ok(Some(process)) => Ok(Self { child, process }),
            observed => {
                drop(child.stdin.take());
                child.wait()?;
                observed?;
                Err(io::Error::other("the launcher ended at once"))
            }
        }
    }

    pub fn process(&self) -> Process {
        self.process
    }

    /// Lets it become the program. It is no longer this value's to end.
    pub fn release(mut self, launch: &Launch) -> io::Result<()> {
        let order = Order { argv: launch.argv.clone(), log: launch.log.clone() };
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        match self.child.stdin.take() {
            Some(mut stdin) => stdin.write_all(&line),
            None => Err(io::Error::other("it was released before")),
        }
        // Drop waits only for a child that still has its pipe.
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Some(stdin) = self.child.stdin.take() {
            drop(stdin);
            if let Err(e) = self.child.wait() {
                log::error!("cannot reap launcher {}: {e}", self.process.pid);
            }
        }
    }
}

/// What `bangerd --launch` does. Returns only if it does not become a program.
pub fn become_ordered() -> ExitCode {
    if let Err(e) = rustix::process::setsid() {
        eprintln!("bangerd: cannot make a session: {e}");
        return ExitCode::FAILURE;
    }
    let Ok(Some(order)) = read_order(io::stdin()) else { return ExitCode::FAILURE };
    let error = become_program(&order);
    // The log is where people look; if even that cannot be written, stderr is the daemon's log.
    let program = order.argv.first().map_or("", String::as_str);
    let text = format!("bangerd: cannot run {program}: {error}\n");
    if open_log(&order.log).and_then(|mut log| log.write_all(text.as_bytes())).is_err() {
        eprint!("{text}");
    }
    ExitCode::from(127)
}

/// None: the pipe ended before the line was whole.
fn read_order(input: impl Read) -> io::Result<Option<Order>> {
    let mut line = Vec::new();
    BufReader::new(input.take(MAX_LINE)).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        _ => Ok(None),
    }
}

fn become_program(order: &Order) -> io::Error {
    let [program, args @ ..] = &order.argv[..] else { return io::Error::other("there is no program") };
    let (out, err) = match open_log(&order.log).and_then(|log| Ok((log.try_clone()?, log))) {
        Ok(both) => both,
        Err(e) => return e,
    };
    Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .exec()
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_is_an_order() {
        let whole = br#"{"argv":["/bin/true"],"log":"/l"}"#;
        assert!(read_order(&whole[..]).expect("reads").is_none());
        assert!(read_order(&b""[..]).expect("reads").is_none());
        let order = read_order(&[whole, &b"\n"[..]].concat()[..]).expect("reads").expect("an order");
        assert_eq!((order.argv, order.log), (vec!["/bin/true".to_owned()], PathBuf::from("/l")));
        assert!(read_order(&b"nonsense\n"[..]).is_err());
    }
}
