//! The programs that VMs are run with: found by the helper itself, and run only if nobody but root can have made them.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, statat};

use crate::host::cmd::CmdError;
use crate::root::error::chain;
use crate::root::launch::roots_own::{self, NotRoots};
use crate::vmm::firecracker::faults::{Fault, faults};
use crate::vmm::firecracker::version::{self, OLDEST, Version};
use crate::vmm::observe::search_path;

/// Where the configuration says that they are; None: in one of the usual places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    pub firecracker: Option<PathBuf>,
    pub jailer: Option<PathBuf>,
    pub qemu: Option<PathBuf>,
    pub vhost_device_vsock: Option<PathBuf>,
}

/// Why a program is not run.
#[derive(Debug)]
pub enum ProgramError {
    Missing {
        name: &'static str,
    },
    Resolve {
        path: PathBuf,
        source: std::io::Error,
    },
    /// No regular file that can be executed.
    NoProgram {
        path: PathBuf,
    },
    NotRoots(NotRoots),
    Version {
        program: PathBuf,
        source: CmdError,
    },
    Unknown {
        program: PathBuf,
        said: String,
    },
    Old {
        program: PathBuf,
        version: Version,
    },
    Faulty {
        program: PathBuf,
        version: Version,
        fault: Fault,
    },
}

impl Programs {
    /// Firecracker and its jailer, both without a known fault.
    ///
    /// # Errors
    /// [`ProgramError`] for one that is missing, not root's own, or of a version that must not run guests.
    pub fn firecracker(&self) -> Result<(PathBuf, PathBuf), ProgramError> {
        let firecracker = find("firecracker", self.firecracker.as_deref())?;
        let jailer = find("jailer", self.jailer.as_deref())?;
        check_version(&firecracker, version::ask(&firecracker))?;
        // It is the jailer's version that says what the jailer does.
        check_version(&jailer, version::ask_jailer(&jailer))?;
        Ok((firecracker, jailer))
    }

    pub fn qemu(&self) -> Result<PathBuf, ProgramError> {
        find(crate::vmm::observe::QEMU, self.qemu.as_deref())
    }

    pub fn vhost_device_vsock(&self) -> Result<PathBuf, ProgramError> {
        find("vhost-device-vsock", self.vhost_device_vsock.as_deref())
    }

    /// What is wrong with the programs that are there, a sentence each, and why Firecracker cannot be run in a jail (None: it can); for
    /// `status` and `doctor`.
    pub fn notes(&self) -> (Vec<String>, Option<String>) {
        let absent = |e: &ProgramError| matches!(e, ProgramError::Missing { name } if *name != "jailer");
        let (firecracker, qemu) = (self.firecracker().err(), self.qemu().err());
        let no_firecracker = firecracker.as_ref().map(|e| chain(e));
        let wrong = [firecracker, qemu].into_iter().flatten().filter(|e| !absent(e));
        (wrong.map(|e| chain(&e)).collect(), no_firecracker)
    }
}

/// The program's path without symlinks.
fn find(name: &'static str, configured: Option<&Path>) -> Result<PathBuf, ProgramError> {
    let usual = || search_path().iter().map(|place| place.join(name)).find(|path| path.exists());
    let path = configured.map(Path::to_owned).or_else(usual).ok_or(ProgramError::Missing { name })?;
    let path = path.canonicalize().map_err(|source| ProgramError::Resolve { path: path.clone(), source })?;
    let no_program = || ProgramError::NoProgram { path: path.clone() };
    let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else { return Err(no_program()) };
    // What root alone can change does not change between this and the exec.
    let directory = roots_own::directory(directory, None).map_err(ProgramError::NotRoots)?;
    let stat = statat(directory, file, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| no_program())?;
    roots_own::check(&path, &stat).map_err(ProgramError::NotRoots)?;
    let executable = Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR | Mode::XGRP | Mode::XOTH);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !executable {
        return Err(no_program());
    }
    Ok(path)
}

fn check_version(
    program: &Path,
    said: Result<Result<Version, String>, CmdError>,
) -> Result<(), ProgramError> {
    let program = program.to_owned();
    match said {
        Err(source) => Err(ProgramError::Version { program, source }),
        Ok(Err(said)) => Err(ProgramError::Unknown { program, said }),
        Ok(Ok(version)) if version < OLDEST => Err(ProgramError::Old { program, version }),
        Ok(Ok(version)) => match faults(version).first() {
            Some(fault) => Err(ProgramError::Faulty { program, version, fault: *fault }),
            None => Ok(()),
        },
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name } => {
                write!(
                    f,
                    "{name} is not installed where root looks for it: on root's PATH, in /usr/local/bin, /usr/bin and /usr/libexec, \
                     and where config.toml says"
                )
            }
            Self::Resolve { path, .. } => write!(f, "cannot find {}", path.display()),
            Self::NoProgram { path } => write!(f, "{} is no program that everybody may run", path.display()),
            Self::NotRoots(_) => f.write_str("root runs only what is root's own"),
            Self::Version { program, .. } => write!(f, "cannot ask {} for its version", program.display()),
            Self::Unknown { program, said } => {
                write!(f, "`{} --version` says {said:?}, which names no version", program.display())
            }
            Self::Old { program, version } => {
                write!(f, "{} is version {version}; banger needs {OLDEST} or later", program.display())
            }
            Self::Faulty { program, version, fault } => {
                write!(f, "{} is version {version}: {fault}", program.display())
            }
        }
    }
}

impl std::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. } => Some(source),
            Self::NotRoots(e) => Some(e),
            Self::Version { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_must_not_run_guests_are_refused_with_the_reason() {
        let judged = |text: &str| {
            let version = version::parse(text, "Firecracker").ok_or_else(|| text.to_owned());
            check_version(Path::new("/bin/fc"), Ok(version)).map_err(|e| e.to_string())
        };
        for (text, want) in [
            (
                "Firecracker v1.13.1",
                "/bin/fc is version 1.13.1: its jailer can be made to overwrite files as root (CVE-2026-1386)",
            ),
            (
                "Firecracker v1.14.0",
                "/bin/fc is version 1.14.0: its jailer can be made to overwrite files as root (CVE-2026-1386)",
            ),
            ("Firecracker v1.16.0", "/bin/fc is version 1.16.0: guests lose their vsock"),
            ("Firecracker v1.4.0", "/bin/fc is version 1.4.0; banger needs 1.5.0 or later"),
            ("hello", "`/bin/fc --version` says \"hello\""),
        ] {
            let error = judged(text).expect_err(text);
            assert!(error.starts_with(want), "{error}");
        }
        for text in
            ["Firecracker v1.13.2", "Firecracker v1.14.1", "Firecracker v1.15.0", "Firecracker v1.17.0-dev"]
        {
            assert_eq!(judged(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_or_none_is_refused() {
        let refused = |path: &str| find("firecracker", Some(Path::new(path))).expect_err(path).to_string();
        assert_eq!(refused("/usr/bin/no-such-program"), "cannot find /usr/bin/no-such-program");
        assert_eq!(refused("/usr/bin"), "/usr/bin is no program that everybody may run");
        assert_eq!(refused("/etc/passwd"), "/etc/passwd is no program that everybody may run");
        assert_eq!(refused("/dev/null"), "root runs only what is root's own");
        let missing = find("no-such-program", None).expect_err("missing").to_string();
        assert!(
            missing.starts_with("no-such-program is not installed where root looks for it: "),
            "{missing}"
        );
    }

    #[test]
    fn a_program_is_found_behind_symlinks() {
        let found = find("env", Some(Path::new("/proc/self/root/usr/bin/env"))).expect("is there");
        assert_eq!(found, Path::new("/usr/bin/env").canonicalize().expect("is there"));
    }
}
