//! Which Firecracker it is.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::host::cmd::{self, CmdError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// The first that leaves the terminal alone when it has none, and whose API is the one described in firecracker.yaml.
pub const OLDEST: Version = Version { major: 1, minor: 5, patch: 0 };

/// Runs `program --version`. The inner error is what it said instead of a version.
pub fn ask(program: &Path) -> Result<Result<Version, String>, CmdError> {
    ask_for("Firecracker", program)
}

/// As [`ask`], of a jailer.
pub fn ask_jailer(program: &Path) -> Result<Result<Version, String>, CmdError> {
    ask_for("Jailer", program)
}

/// As [`ask`], of a program that may be none: it is given up after `limit`.
pub fn ask_within(program: &Path, limit: Duration) -> Result<Result<Version, String>, CmdError> {
    ask_for_within("Firecracker", program, limit)
}

/// As [`ask_within`], of a jailer.
pub fn ask_jailer_within(program: &Path, limit: Duration) -> Result<Result<Version, String>, CmdError> {
    ask_for_within("Jailer", program, limit)
}

fn ask_for(name: &str, program: &Path) -> Result<Result<Version, String>, CmdError> {
    Ok(judge(name, &cmd::run(&program.to_string_lossy(), ["--version"])?))
}

fn ask_for_within(name: &str, program: &Path, limit: Duration) -> Result<Result<Version, String>, CmdError> {
    let out = cmd::run_fed(program, &["--version"], &[("PATH", cmd::PATH), ("LC_ALL", "C")], b"", limit)?;
    if out.status.success() {
        return Ok(judge(name, &out.stdout));
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    Err(CmdError::Failed {
        program: program.display().to_string(),
        status: out.status,
        stderr: stderr.trim().lines().last().unwrap_or_default().to_owned(),
    })
}

fn judge(name: &str, out: &[u8]) -> Result<Version, String> {
    let said = String::from_utf8_lossy(out);
    let first: String = said.lines().next().unwrap_or_default().chars().take(80).collect();
    parse(&first, name).ok_or(first)
}

/// Reads `Firecracker v1.7.0`, `Firecracker` being `name`, also with something behind the number, as in `v1.8.0-dev`.
pub fn parse(line: &str, name: &str) -> Option<Version> {
    let number = line.strip_prefix(name)?.strip_prefix(" v")?;
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let mut parts = number[..end].split('.').map(str::parse);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Some(Version { major, minor, patch }),
        _ => None,
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_program_says() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        assert_eq!(parse("Firecracker v1.7.0", "Firecracker"), version(1, 7, 0));
        assert_eq!(parse("Firecracker v1.13.1-dev", "Firecracker"), version(1, 13, 1));
        assert_eq!(parse("Firecracker v1.17.0-dev-12-gabc", "Firecracker"), version(1, 17, 0));
        assert_eq!(parse("Jailer v1.15.2", "Jailer"), version(1, 15, 2));
        assert_eq!(parse("Jailer v1.15.2", "Firecracker"), None);
        for bad in ["", "Firecracker", "Firecracker v", "Firecracker v1.7", "v1.7.0", "Firecracker v1.7.0.1"]
        {
            assert_eq!(parse(bad, "Firecracker"), None, "{bad}");
        }
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let table = [("1.4.9", false), ("1.5.0", true), ("1.15.2", true), ("0.25.0", false), ("2.0.0", true)];
        for (text, fit) in table {
            let version = parse(&format!("Firecracker v{text}"), "Firecracker").expect("a version");
            assert_eq!(version >= OLDEST, fit, "{text}");
        }
    }
}
