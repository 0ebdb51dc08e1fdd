//! Firecracker and its jailer as programs: where they are, which they are, and those that came in a bundle.
//!
//! Those lie below the state directory and are the owner's. VMs that the daemon starts itself run them where the host has no Firecracker of its
//! own. Root never does: it runs what is root's alone (root/launch/programs.rs), so that whoever runs VMs in jails copies them to where
//! root looks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::daemon::fault::{Fault, chain};
use crate::daemon::network::{self, Way};
use crate::host::cmd::CmdError;
use crate::proto::api::Code;
use crate::vmm::firecracker::faults::faults;
use crate::vmm::firecracker::version::{self, OLDEST, Version};
use crate::vmm::observe;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where Firecracker is that is not simply found: where the configuration says, or else, for VMs outside of jails on a host that has
/// none, where a bundle has brought it.
pub fn firecracker(d: &Daemon, jailed: bool) -> Option<PathBuf> {
    let bundled = Some(d.dirs.programs().join("firecracker")).filter(|path| path.exists());
    choose(d.config.firecracker.clone(), jailed, || observe::installed("firecracker").is_some(), bundled)
}

fn choose(
    configured: Option<PathBuf>,
    jailed: bool,
    installed: impl FnOnce() -> bool,
    bundled: Option<PathBuf>,
) -> Option<PathBuf> {
    configured.or_else(|| bundled.filter(|_| !jailed && !installed()))
}

/// Whether VMs run in jails here, and root has no Firecracker for them.
pub fn must_be_roots(d: &Daemon) -> bool {
    let jailed = matches!(network::way(d), Way::Bridge(_)) && d.config.jailer;
    jailed && d.root.status().map_or(true, |status| status.no_firecracker.is_some())
}

/// A program that goes into a bundle.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// `firecracker`, `jailer`.
    pub name: &'static str,
    pub path: PathBuf,
    pub version: String,
}

/// Firecracker at `path`, or in the directory `path`, and the jailer beside it, if there is one. Both are asked who they are. The second
/// value: what is wrong with them, though they can be taken along.
pub fn at(path: &Path) -> Result<(Vec<Found>, Vec<String>), Fault> {
    let path = if path.is_dir() { path.join("firecracker") } else { path.to_owned() };
    let firecracker = asked("firecracker", &path, version::ask_within(&path, PATIENCE))?;
    if firecracker < OLDEST {
        let text = format!("{} is Firecracker {firecracker}; banger needs {OLDEST} or later", path.display());
        return Err(Fault::new(Code::BadRequest, text));
    }
    let found = |name, path: &Path, version: Version| Found {
        name,
        path: path.to_owned(),
        version: version.to_string(),
    };
    let mut notes: Vec<String> =
        faults(firecracker).iter().map(|fault| format!("Firecracker {firecracker}: {fault}")).collect();
    let mut programs = vec![found("firecracker", &path, firecracker)];
    match beside(&path).filter(|jailer| jailer.exists()) {
        None => notes.push(format!("there is no jailer beside {}; VMs in jails need one", path.display())),
        Some(place) => {
            let jailer = asked("jailer", &place, version::ask_jailer_within(&place, PATIENCE))?;
            if jailer != firecracker {
                let text = format!(
                    "{} is of version {jailer}, and Firecracker of {firecracker}; take both from one release",
                    place.display()
                );
                return Err(Fault::new(Code::BadRequest, text));
            }
            programs.push(found("jailer", &place, jailer));
        }
    }
    Ok((programs, notes))
}

/// Where the jailer of this Firecracker is: releases call them firecracker-v1.15.0-x86_64 and jailer-v1.15.0-x86_64.
fn beside(firecracker: &Path) -> Option<PathBuf> {
    let rest = firecracker.file_name()?.to_str()?.strip_prefix("firecracker")?;
    Some(firecracker.with_file_name(format!("jailer{rest}")))
}

fn asked(name: &str, path: &Path, said: Result<Result<Version, String>, CmdError>) -> Result<Version, Fault> {
    let bad = |why: String| Fault::new(Code::BadRequest, format!("cannot take {name} along: {why}"));
    match said {
        Ok(Ok(version)) => Ok(version),
        Ok(Err(said)) => {
            Err(bad(format!("`{} --version` says {said:?}, which names no version of it", path.display())))
        }
        Err(e) => Err(bad(chain(&e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files::write_atomic;

    fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        write_atomic(&path, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755).expect("writes");
        path
    }

    #[test]
    fn firecracker_is_taken_with_the_jailer_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let says = |name: &str, text: &str| program(dir.path(), name, &format!("echo '{text}'"));
        let names = |path: &Path| {
            at(path).map(|(found, notes)| (found.iter().map(|f| f.name).collect::<Vec<_>>(), notes))
        };
        let error = at(dir.path()).expect_err("nothing there").message;
        assert!(error.starts_with("cannot take firecracker along: cannot run "), "{error}");
        says("firecracker", "Firecracker v1.15.0");
        let (found, notes) = names(dir.path()).expect("found");
        assert_eq!(found, ["firecracker"]);
        assert!(notes[0].starts_with("there is no jailer beside"), "{notes:?}");
        says("jailer", "Jailer v1.15.0");
        assert_eq!(names(dir.path()).expect("found"), (vec!["firecracker", "jailer"], vec![]));
        assert_eq!(names(&dir.path().join("firecracker")).expect("found").0.len(), 2);
        // As a release has them.
        let release = says("firecracker-v1.14.0-x86_64", "Firecracker v1.14.0");
        says("jailer-v1.14.0-x86_64", "Jailer v1.14.0");
        let (found, notes) = names(&release).expect("found");
        assert_eq!(found.len(), 2);
        assert!(notes[0].contains("CVE-2026-1386"), "{notes:?}");
        for (name, said, why) in [
            ("firecracker", "Firecracker v1.4.0", "banger needs 1.5.0 or later"),
            ("firecracker", "hello", "says \"hello\", which names no version of it"),
            ("firecracker", "Firecracker v1.16.1", "of version 1.15.0, and Firecracker of 1.16.1"),
        ] {
            says(name, said);
            let error = at(dir.path()).expect_err(said).message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn one_from_a_bundle_is_the_last_choice_and_never_roots() {
        let (configured, bundled) = (|| Some(PathBuf::from("/opt/fc")), || Some(PathBuf::from("/state/fc")));
        let table = [
            (configured(), false, false, bundled(), configured()),
            (configured(), true, true, bundled(), configured()),
            (None, false, false, bundled(), bundled()),
            (None, false, true, bundled(), None),
            (None, true, false, bundled(), None),
            (None, false, false, None, None),
        ];
        for (configured, jailed, installed, bundled, want) in table {
            assert_eq!(choose(configured, jailed, || installed, bundled), want, "{jailed} {installed}");
        }
    }

    #[test]
    fn a_program_that_does_not_answer_is_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = program(dir.path(), "firecracker", "sleep 600");
        let said = version::ask_within(&path, Duration::from_millis(100));
        let error = asked("firecracker", &path, said).expect_err("too slow").message;
        assert!(error.contains("did not end within"), "{error}");
    }
}
