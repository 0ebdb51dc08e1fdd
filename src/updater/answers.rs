//! Whether daemon and helper answer, and with which version.
//!
//! An older banger asks a newer one here, or the other way round, so nothing more is understood of an answer than its version.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::causes::chain;
use crate::release::version::Version;
use crate::system::services::Unit;
use crate::updater::Updater;
use crate::updater::error::{At, UpdateError};
use crate::updater::program::{As, Program, last_words};

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than any answer.
const MAX_ANSWER: u64 = 1 << 20;

impl Updater<'_> {
    /// Waits until helper and daemon answer with `version`, or one of them has failed.
    pub(super) fn wait_for(&self, version: &Version) -> Result<(), UpdateError> {
        let deadline = Instant::now() + self.patience.answer;
        loop {
            let Err((unit, why)) = self.answer(version) else { return Ok(()) };
            let failed = self.services.state(unit).is_ok_and(|state| state.active == "failed");
            if failed || Instant::now() >= deadline {
                let words = match self.services.last_words(unit) {
                    words if words.is_empty() => String::new(),
                    words => format!("; its last words were: {words}"),
                };
                let waited =
                    if failed { String::new() } else { format!(" within {:?}", self.patience.answer) };
                return Err(At::Restart.said(format!("{why}{waited}{words}")));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether both answer with `version`; if not, which does not, and a sentence.
    fn answer(&self, version: &Version) -> Result<(), (Unit, String)> {
        if let Some(found) = self.helper_version() {
            found
                .and_then(|found| judge("bangerd-root", &found, version))
                .map_err(|why| (Unit::Helper, why))?;
        }
        let found = self.daemon_version();
        found.and_then(|found| judge("bangerd", &found, version)).map_err(|why| (Unit::Daemon, why))
    }

    /// Asked by the installed executable, which speaks the language of the daemon that was started of it.
    fn daemon_version(&self) -> Result<Version, String> {
        let program = Program::at(&self.layout.binary(), self.install, QUESTION);
        let output = program
            .run(As::Us, "banger", &["daemon", "status", "--json"])
            .map_err(|e| format!("bangerd cannot be asked: {}", chain(&e)))?;
        let silent = || format!("bangerd does not answer: {}", last_words(&output));
        let view: Value = serde_json::from_slice(&output.stdout).map_err(|_| silent())?;
        version_in(&view).ok_or_else(silent)
    }

    /// None: there is no helper as a service.
    fn helper_version(&self) -> Option<Result<Version, String>> {
        self.helper.then(|| {
            let socket = self.layout.dirs.root_socket();
            ask(&socket, r#"{"op":"status"}"#)
                .map_err(|e| format!("bangerd-root does not answer: {e}"))
                .and_then(|answer| {
                    version_in(&answer).ok_or("bangerd-root does not say its version".to_owned())
                })
        })
    }
}

fn judge(who: &str, found: &Version, want: &Version) -> Result<(), String> {
    match found == want {
        true => Ok(()),
        false => Err(format!("{who} answers as {found}, and not as {want}")),
    }
}

fn version_in(answer: &Value) -> Option<Version> {
    answer.get("version")?.as_str()?.parse().ok()
}

/// A line to a socket, and the line that comes back.
fn ask(socket: &Path, line: &str) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(QUESTION))?;
    stream.set_write_timeout(Some(QUESTION))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_helper_says_its_version_among_other_things() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("binds");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("clones")).read_line(&mut line).expect("reads");
            assert_eq!(line, "{\"op\":\"status\"}\n");
            stream.write_all(b"{\"answer\":\"status\",\"version\":\"0.2.0\",\"new\":1}\n").expect("writes");
        });
        let answer = ask(&path, r#"{"op":"status"}"#).expect("an answer");
        assert_eq!(version_in(&answer), "v0.2.0".parse().ok());
        let error = judge("x", &"v0.1.0".parse().expect("a version"), &"v0.2.0".parse().expect("a version"));
        assert_eq!(error, Err("x answers as v0.1.0, and not as v0.2.0".to_owned()));
        ask(&dir.path().join("none"), "").expect_err("nobody");
    }
}
