//! What can be seen without asking anybody: the machine, its clock, and the programs that whoever calls has.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access};
use rustix::system::uname;

use crate::build;
use crate::cli::moment;
use crate::cli::ssh::configuration;
use crate::host::cmd;
use crate::host::dirs::Dirs;
use crate::proto::finding::Finding;

/// The first with all that is asked of it: pidfds that do not block (pidfd_open(2), PIDFD_NONBLOCK).
const OLDEST_LINUX: (u32, u32) = (5, 10);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// No build is used for so long.
const FOR_EVER: Duration = Duration::from_secs(50 * 365 * 24 * 60 * 60);

pub fn rows() -> Vec<Finding> {
    let name = uname();
    let text = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    let written =
        Dirs::from_env().map(|dirs| dirs.database()).into_iter().chain([PathBuf::from("/proc/self/exe")]);
    let newest =
        written.filter_map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok()).max();
    let mut rows = vec![
        architecture(std::env::consts::ARCH, &text(name.machine()), &text(name.release())),
        clock(SystemTime::now(), built(build::BUILT), newest),
    ];
    rows.push(configuration::row());
    rows.extend(
        PROGRAMS.iter().map(|(name, use_, package)| program(name, use_, package, find(name).as_deref())),
    );
    rows
}

/// Name, what it is needed for, and the package that has it.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("ssh", "to go into VMs by their names with `ssh`", "openssh-client"),
    ("git", "to have a git tree in a VM with `banger vm run ./repo`", "git"),
];

/// `own`: what this executable is made for.
fn architecture(own: &str, machine: &str, release: &str) -> Finding {
    let subject = "architecture";
    let found = format!("{machine}, Linux {release}");
    if own != machine {
        return Finding::fail(
            subject,
            format!("{found}, and this banger is made for {own}"),
            "VMs are of the machine's own kind: install the banger that is made for it.",
        );
    }
    let (major, minor) = OLDEST_LINUX;
    match linux(release) {
        Some(version) if version < OLDEST_LINUX => Finding::fail(
            subject,
            format!("{found}, which is too old"),
            format!("banger needs Linux {major}.{minor} or later."),
        ),
        Some(_) => Finding::pass(subject, found),
        None => Finding::warn(
            subject,
            format!("{found}, which is no version"),
            format!("banger needs Linux {major}.{minor} or later."),
        ),
    }
}

/// `6.1.0-13-amd64`: 6 and 1.
fn linux(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `newest`: when the youngest of banger's files was written.
fn clock(now: SystemTime, built: Option<SystemTime>, newest: Option<SystemTime>) -> Finding {
    let subject = "clock";
    let advice = "Set it, and have it kept: `timedatectl set-ntp true`.";
    let day = |time: SystemTime| {
        let days = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / DAY.as_secs());
        let (year, month, day) = moment::civil(days);
        format!("{year:04}-{month:02}-{day:02}")
    };
    let today = day(now);
    match built {
        Some(built) if now + DAY < built => Finding::fail(
            subject,
            format!("it says {today}, and this banger was built on {}", day(built)),
            format!("Certificates are not valid then, so that nothing can be pulled or updated. {advice}"),
        ),
        Some(built) if now > built + FOR_EVER => Finding::fail(
            subject,
            format!("it says {today}"),
            format!("Certificates have ended by then. {advice}"),
        ),
        _ => match newest.and_then(|newest| newest.duration_since(now).ok()) {
            Some(ahead) if ahead > DAY => Finding::warn(
                subject,
                format!(
                    "it says {today}, and files of banger's were written {} days later",
                    ahead.as_secs() / DAY.as_secs()
                ),
                advice,
            ),
            Some(_) | None => Finding::pass(subject, today),
        },
    }
}

/// `2026-11-23T15:00:00Z`, to the day.
fn built(text: &str) -> Option<SystemTime> {
    Some(UNIX_EPOCH + DAY * u32::try_from(moment::days(text)?).ok()?)
}

fn program(name: &str, use_: &str, package: &str, at: Option<&Path>) -> Finding {
    match at {
        Some(path) => Finding::pass(name, path.display().to_string()),
        None => Finding::warn(name, "not installed", format!("`apt install {package}` installs it, {use_}.")),
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&own).chain(std::env::split_paths(cmd::PATH));
    places.map(|place| place.join(name)).find(|path| path.is_file() && access(path, Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_must_be_the_one_that_banger_is_made_for_and_its_linux_not_too_old() {
        assert_eq!(
            architecture("x86_64", "x86_64", "6.1.0-13-amd64").line(),
            "Pass architecture: x86_64, Linux 6.1.0-13-amd64"
        );
        assert!(
            architecture("x86_64", "aarch64", "6.1.0")
                .line()
                .starts_with("Fail architecture: aarch64, Linux 6.1.0, and this")
        );
        for old in ["5.9.16", "4.19.0", "3.10"] {
            assert!(architecture("x86_64", "x86_64", old).line().contains("which is too old"), "{old}");
        }
        assert!(architecture("x86_64", "x86_64", "5.10.0-0.deb12").line().starts_with("Pass"));
        assert!(architecture("x86_64", "x86_64", "rolling").line().starts_with("Warn"));
    }

    #[test]
    fn a_clock_is_held_against_what_was_done_before() {
        let at = |text: &str| built(text).expect("a day");
        let build = Some(at("2026-11-23T15:00:00Z"));
        let row = |now: &str, newest: Option<SystemTime>| clock(at(now), build, newest).line();
        assert_eq!(row("2026-11-24", None), "Pass clock: 2026-11-24");
        assert_eq!(
            row("2026-11-23", Some(at("2026-11-23"))),
            "Pass clock: 2026-11-23",
            "built today, in another time zone"
        );
        assert!(
            row("1970-01-02", None)
                .starts_with("Fail clock: it says 1970-01-02, and this banger was built on 2026-11-23 => ")
        );
        assert!(row("2100-01-01", None).starts_with("Fail clock: it says 2100-01-01 => "));
        let ahead = row("2027-01-01", Some(at("2027-01-04")));
        assert!(
            ahead.starts_with(
                "Warn clock: it says 2027-01-01, and files of banger's were written 3 days later"
            ),
            "{ahead}"
        );
        assert!(clock(at("2027-01-01"), None, None).line().starts_with("Pass"), "a build that says no time");
    }

    #[test]
    fn this_very_build_says_when_it_was_made() {
        assert_eq!(built("1970-01-02T15:00:00Z"), Some(UNIX_EPOCH + DAY));
        assert_eq!(built("unknown"), None);
        assert!(built(build::BUILT).is_some());
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        assert_eq!(
            program("git", "to x", "git", Some(Path::new("/usr/bin/git"))).line(),
            "Pass git: /usr/bin/git"
        );
        assert_eq!(
            program("ssh", "to go in", "openssh-client", None).line(),
            "Warn ssh: not installed => `apt install openssh-client` installs it, to go in."
        );
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program"), None);
    }
}
