//! The installation's files: whether they are there, root's own, and what this version wants them to be. Without an installation
//! there are no rows.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::build;
use crate::cli::render;
use crate::host::endpoint;
use crate::host::install::Install;
use crate::proto::finding::{Finding, Fix};
use crate::system::accounts::{self, Account};
use crate::system::files::{self, Directory, File, Shared, What, Whose};
use crate::system::layout::Layout;
use crate::system::plan::{self, Have};

const AGAIN: &str = "`sudo banger system install` writes them again.";
/// Who must be the owner of what root runs and reads.
const ROOT: u32 = 0;

/// What is at a path, as far as its rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    kind: Kind,
    uid: u32,
    mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Socket,
    Other,
}

/// `install`: install.toml, read.
pub fn rows(layout: &Layout, install: &Install, shared: &Shared) -> Vec<Finding> {
    let mine = std::fs::metadata("/proc/self/exe").and_then(|mine| {
        let installed = std::fs::metadata(layout.binary())?;
        Ok((mine.dev(), mine.ino()) == (installed.dev(), installed.ino()))
    });
    let account = accounts::find(&install.owner).ok().flatten();
    let mut rows = vec![
        installation(layout, install, mine.unwrap_or(false), account.as_ref()),
        executable(&layout.binary(), look(&layout.binary())),
    ];
    rows.extend(written(layout, files::wanted(layout, &install.owner, shared)));
    rows.push(directories(layout, install));
    rows.push(sockets(layout, install));
    rows.extend(update(&layout.journal()));
    rows
}

/// `is_mine`: this process runs the installed executable. `account`: the owner's, as this host knows it.
fn installation(layout: &Layout, install: &Install, is_mine: bool, account: Option<&Account>) -> Finding {
    let subject = "installation";
    let Install { owner, version, commit, .. } = install;
    if account.is_none_or(|account| account.uid != install.uid) {
        let now = account
            .map_or("is no user of this host".to_owned(), |account| format!("has uid {} now", account.uid));
        return Finding::fail(
            subject,
            format!("it was made for {owner}, uid {}, who {now}", install.uid),
            "`sudo banger system install --owner USER` gives it to another; what VMs hold stays with the uid that it has.",
        );
    }
    if !is_mine {
        return Finding::warn(
            subject,
            format!(
                "of {owner}, version {version}; this banger, version {}, is not the installed one",
                build::VERSION
            ),
            format!("{} is. `sudo ./banger system install` makes this one it.", layout.binary().display()),
        );
    }
    match version == build::VERSION && commit == build::COMMIT {
        true => Finding::pass(subject, format!("of {owner}, version {version}")),
        false => Finding::warn(
            subject,
            format!(
                "install.toml says version {version} ({commit}), and this is {} ({})",
                build::VERSION,
                build::COMMIT
            ),
            "`sudo banger system install` writes it again.",
        ),
    }
}

fn executable(path: &Path, rights: io::Result<Option<Rights>>) -> Finding {
    let subject = "executable";
    let place = path.display();
    let replace = "Whoever could change it could become root: put a banger that you trust there with `sudo ./banger system install`.";
    match rights {
        Err(e) => Finding::fail(subject, format!("cannot look at {place}: {e}"), "Look as root."),
        Ok(None) => Finding::fail(
            subject,
            format!("{place} is gone"),
            "`sudo ./banger system install`, by any banger, puts it back.",
        ),
        Ok(Some(Rights { kind: Kind::File, uid: ROOT, mode })) if mode & 0o022 == 0 => match mode & 0o555 {
            0o555 => Finding::pass(subject, format!("{place}, root's own")),
            _ => Finding::fail(
                subject,
                format!("not everybody can run {place}"),
                format!("`sudo chmod 755 {place}`."),
            ),
        },
        Ok(Some(Rights { kind: Kind::File, uid: ROOT, .. })) => {
            Finding::fail(subject, format!("others than root can write to {place}"), replace)
        }
        Ok(Some(Rights { kind: Kind::File, uid, .. })) => {
            Finding::fail(subject, format!("{place} is uid {uid}'s, not root's"), replace)
        }
        Ok(Some(_)) => Finding::fail(subject, format!("{place} is no file"), replace),
    }
}

/// Units, symlinks, completions and manual pages: a row for each that is not as it is wanted, or one for all.
fn written(layout: &Layout, want: Vec<File>) -> Vec<Finding> {
    let count = want.len();
    let mut rows: Vec<Finding> =
        want.iter().filter_map(|file| one_written(layout, file, plan::look(&file.path))).collect();
    match plan::marked(layout) {
        Ok(there) => rows.extend(
            there.iter().filter(|path| !want.iter().any(|file| file.path == **path)).map(|path| {
                Finding::warn(
                    kind(layout, path),
                    format!("{} is another version's", path.display()),
                    "`sudo banger system install` removes it.",
                )
            }),
        ),
        Err(e) => rows.push(Finding::fail(
            "units",
            format!("cannot look at {} and {}: {e}", layout.units.display(), layout.manual().display()),
            AGAIN,
        )),
    }
    if rows.is_empty() {
        rows.push(Finding::pass(
            "files",
            format!("{count} units, links, completions and manual pages, as this version wants them"),
        ));
    }
    rows
}

/// What a row about a file of text is about.
fn kind(layout: &Layout, path: &Path) -> &'static str {
    match () {
        () if path.starts_with(layout.manual()) => "manual",
        () if path.starts_with(&layout.share) => "completions",
        () => "units",
    }
}

/// None: it is as it is wanted.
fn one_written(layout: &Layout, file: &File, have: io::Result<Have>) -> Option<Finding> {
    let place = file.path.display();
    let needed = !file.path.starts_with(&layout.share);
    let subject = match &file.what {
        What::Link { .. } => "links",
        What::Text { .. } => kind(layout, &file.path),
    };
    let fail = |found: String| Some(Finding::fail(subject, found, AGAIN));
    let warn = |found: String| Some(Finding::warn(subject, found, AGAIN));
    match (&file.what, have) {
        (_, Err(e)) => fail(format!("cannot look at {place}: {e}")),
        (_, Ok(Have::Nothing)) if needed => fail(format!("{place} is missing")),
        (_, Ok(Have::Nothing)) => warn(format!("{place} is missing")),
        (What::Link { target }, Ok(Have::Link { target: there })) if *target == there => None,
        (What::Link { target }, Ok(_)) => fail(format!("{place} is no symlink to {}", target.display())),
        (What::Text { .. }, Ok(Have::File { uid, mode, .. })) if uid != ROOT || mode & 0o022 != 0 => {
            fail(format!("others than root can write to {place}"))
        }
        (What::Text { content, .. }, Ok(Have::File { content: there, .. })) if *content == there => None,
        (What::Text { .. }, Ok(Have::File { .. })) => {
            warn(format!("{place} is not as this version wants it"))
        }
        (What::Text { .. }, Ok(_)) if needed => fail(format!("{place} is no file")),
        (What::Text { .. }, Ok(_)) => warn(format!("{place} is no file")),
    }
}

/// The directories of the installation that are nobody else's, those of /run included: path, whose, and the modes that will do.
pub fn own_directories(layout: &Layout) -> Vec<(Directory, Vec<u32>)> {
    let shared = |directory: &Directory| directory.is_shared(layout);
    let mut all: Vec<_> = files::directories(layout)
        .into_iter()
        .filter(|directory| !shared(directory))
        .map(|directory| {
            let mode = directory.mode;
            (directory, vec![mode])
        })
        .collect();
    let run = |path: &Path, whose, mode| Directory {
        path: path.to_owned(),
        whose,
        mode,
        fate: files::Fate::Goes,
        purpose: "holds sockets",
    };
    all.push((run(&layout.dirs.runtime, Whose::Owner, 0o700), vec![0o700]));
    // systemd makes it so that others may look into it, and the helper so that they may not.
    all.push((run(&layout.dirs.root_runtime, Whose::Root, 0o755), vec![0o755, 0o711]));
    all
}

fn directories(layout: &Layout, install: &Install) -> Finding {
    let all = own_directories(layout);
    let ill = all.iter().find_map(|(directory, modes)| directory_problem(install, directory, modes));
    match ill {
        None => Finding::pass("directories", format!("{} with their owners and modes", all.len())),
        Some(found) => Finding::fail(
            "directories",
            found,
            "`sudo banger doctor --fix` gives them back their owners and modes.",
        )
        .mended_by(Fix::Directories),
    }
}

/// What is wrong with a directory; `modes` are those that will do.
pub fn directory_problem(install: &Install, directory: &Directory, modes: &[u32]) -> Option<String> {
    let uid = match directory.whose {
        Whose::Root => ROOT,
        Whose::Owner => install.uid,
    };
    judge_directory(&directory.path, uid, modes, look(&directory.path))
}

fn judge_directory(
    path: &Path,
    uid: u32,
    modes: &[u32],
    rights: io::Result<Option<Rights>>,
) -> Option<String> {
    let place = path.display();
    match rights {
        Err(e) => Some(format!("cannot look at {place}: {e}")),
        Ok(None) => Some(format!("{place} is missing")),
        Ok(Some(has)) if has.kind != Kind::Directory => Some(format!("{place} is no directory")),
        Ok(Some(has)) if has.uid != uid => {
            Some(format!("{place} is uid {}'s, and should be uid {uid}'s", has.uid))
        }
        // The setgid bit is handed down by a directory above, and says nothing of who may do what.
        Ok(Some(has)) if !modes.contains(&(has.mode & 0o777)) => Some(format!(
            "{place} has mode {:o}, and should have {:o}",
            has.mode & 0o777,
            modes.first().unwrap_or(&0)
        )),
        Ok(Some(_)) => None,
    }
}

fn sockets(layout: &Layout, install: &Install) -> Finding {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for path in [layout.dirs.socket(), layout.dirs.root_socket()] {
        match look(&path) {
            // Neither is of any use to others, so that they need not look.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Finding::pass("sockets", format!("only {} and root may look at them", install.owner));
            }
            rights => {
                if let Some(row) = socket(&path, install.uid, rights, endpoint::listens(&table, &path)) {
                    return row;
                }
            }
        }
    }
    Finding::pass("sockets", "both listen, and are the owner's alone")
}

/// None: it is well.
fn socket(path: &Path, uid: u32, rights: io::Result<Option<Rights>>, listens: bool) -> Option<Finding> {
    let (subject, place) = ("sockets", path.display());
    let restart = "`sudo banger system restart` makes it anew.";
    Some(match rights {
        Err(e) => Finding::fail(subject, format!("cannot look at {place}: {e}"), restart),
        Ok(None) => Finding::fail(subject, format!("{place} is not there, so that nobody listens"), restart)
            .mended_by(Fix::Services),
        Ok(Some(has)) if has.kind != Kind::Socket => {
            Finding::fail(subject, format!("{place} is no socket"), format!("Remove it. {restart}"))
        }
        Ok(Some(_)) if !listens => {
            Finding::fail(subject, format!("nobody listens at {place}"), restart).mended_by(Fix::Sockets)
        }
        Ok(Some(has)) if has.uid != uid || has.mode & 0o077 != 0 => Finding::fail(
            subject,
            format!(
                "{place} is uid {}'s with mode {:o}, and should be uid {uid}'s with mode 600",
                has.uid,
                has.mode & 0o777
            ),
            restart,
        ),
        Ok(Some(_)) => return None,
    })
}

/// What an update that was cut off has left.
fn update(journal: &Path) -> Option<Finding> {
    journal.try_exists().unwrap_or(false).then(|| {
        Finding::warn(
            "update",
            "one is under way, or was cut off",
            "`sudo banger update` finishes or undoes it.",
        )
    })
}

fn look(path: &Path) -> io::Result<Option<Rights>> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let kind = match meta.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_socket() => Kind::Socket,
        _ => Kind::Other,
    };
    Ok(Some(Rights { kind, uid: meta.uid(), mode: meta.mode() & 0o7777 }))
}

/// install.toml cannot be believed.
pub fn untrusted(e: &dyn std::error::Error) -> Finding {
    Finding::fail(
        "installation",
        render::chain(e),
        "Its services do not start with it: make it root's own again, or `sudo ./banger system install`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: Shared =
        Shared { bash: "b", zsh: "z", fish: "f", pages: || vec![("banger".to_owned(), String::new())] };

    fn rights(kind: Kind, uid: u32, mode: u32) -> io::Result<Option<Rights>> {
        Ok(Some(Rights { kind, uid, mode }))
    }

    fn install(version: &str) -> Install {
        let text = format!(
            "owner = 'me'\nuid = 1000\ngid = 100\nhome = '/home/me'\nversion = '{version}'\ncommit = '{}'\n",
            build::COMMIT
        );
        Install::parse(&text).expect("an owner")
    }

    #[test]
    fn what_root_runs_must_be_roots_alone() {
        let row = |rights| executable(Path::new("/b"), rights).line();
        assert_eq!(row(rights(Kind::File, 0, 0o755)), "Pass executable: /b, root's own");
        assert!(
            row(rights(Kind::File, 0, 0o775))
                .starts_with("Fail executable: others than root can write to /b")
        );
        assert!(
            row(rights(Kind::File, 1000, 0o755)).starts_with("Fail executable: /b is uid 1000's, not root's")
        );
        assert!(row(rights(Kind::File, 0, 0o700)).starts_with("Fail executable: not everybody can run /b"));
        assert!(
            row(rights(Kind::Other, 0, 0o777)).starts_with("Fail executable: /b is no file"),
            "a symlink"
        );
        assert!(row(Ok(None)).starts_with("Fail executable: /b is gone"));
    }

    #[test]
    fn versions_that_differ_are_named() {
        let layout = Layout::host();
        let account = |uid| Account { name: "me".to_owned(), uid, gid: 100, home: "/home/me".into() };
        let row = |version, mine| installation(&layout, &install(version), mine, Some(&account(1000))).line();
        let of =
            |account: Option<Account>| installation(&layout, &install("1"), true, account.as_ref()).line();
        assert!(
            of(None)
                .starts_with("Fail installation: it was made for me, uid 1000, who is no user of this host")
        );
        assert!(
            of(Some(account(7)))
                .starts_with("Fail installation: it was made for me, uid 1000, who has uid 7 now")
        );
        assert_eq!(
            row(build::VERSION, true),
            format!("Pass installation: of me, version {}", build::VERSION)
        );
        assert!(row("0.0.1", true).starts_with("Warn installation: install.toml says version 0.0.1 ("));
        assert!(row("0.0.1", false).contains("is not the installed one => /usr/local/bin/banger is."));
    }

    #[test]
    fn a_unit_that_is_missing_or_others_can_write_fails_and_one_that_was_changed_warns() {
        let layout = Layout::host();
        let all = files::wanted(&layout, "me", &SHARED);
        let unit = all.iter().find(|file| file.path.ends_with("bangerd.service")).expect("a unit");
        let completion = all.iter().find(|file| file.path.ends_with("banger.fish")).expect("completions");
        let link = all.iter().find(|file| file.path.ends_with("bangerd")).expect("a link");
        let row = |file: &File, have| one_written(&layout, file, Ok(have)).map(|row| row.line());
        let What::Text { content, .. } = &unit.what else { panic!("a unit is text") };
        let there = |content: &[u8], mode, uid| Have::File { content: content.to_vec(), mode, uid, gid: 0 };
        assert_eq!(row(unit, there(content, 0o644, 0)), None);
        let starts = |row: Option<String>, with: &str| {
            let row = row.expect("a row");
            assert!(row.starts_with(with), "{row}");
        };
        starts(
            row(unit, there(b"x", 0o644, 0)),
            "Warn units: /etc/systemd/system/bangerd.service is not as this version wants it",
        );
        starts(row(unit, there(content, 0o664, 0)), "Fail units: others than root can write");
        starts(row(unit, there(content, 0o644, 1000)), "Fail units: others than root can write");
        starts(row(unit, Have::Nothing), "Fail units: /etc/systemd/system/bangerd.service is missing");
        starts(row(completion, Have::Nothing), "Warn completions: ");
        let page = all.iter().find(|file| file.path.ends_with("banger.1")).expect("a page");
        starts(row(page, Have::Nothing), "Warn manual: /usr/local/share/man/man1/banger.1 is missing");
        starts(
            row(link, there(b"x", 0o755, 0)),
            "Fail links: /usr/local/bin/bangerd is no symlink to banger",
        );
        assert_eq!(row(link, Have::Link { target: "banger".into() }), None);
    }

    #[test]
    fn directories_and_sockets_are_judged_by_owner_and_mode() {
        let of_directory = |rights| judge_directory(Path::new("/d"), 1000, &[0o755, 0o711], rights);
        assert_eq!(of_directory(rights(Kind::Directory, 1000, 0o2711)), None);
        assert_eq!(
            of_directory(rights(Kind::Directory, 0, 0o755)).as_deref(),
            Some("/d is uid 0's, and should be uid 1000's")
        );
        assert_eq!(
            of_directory(rights(Kind::Directory, 1000, 0o777)).as_deref(),
            Some("/d has mode 777, and should have 755")
        );
        assert_eq!(of_directory(rights(Kind::Other, 1000, 0o777)).as_deref(), Some("/d is no directory"));
        assert_eq!(of_directory(Ok(None)).as_deref(), Some("/d is missing"));
        let of_socket =
            |rights, listens| socket(Path::new("/s"), 1000, rights, listens).map(|row| row.line());
        assert_eq!(of_socket(rights(Kind::Socket, 1000, 0o600), true), None);
        let stale = of_socket(rights(Kind::Socket, 1000, 0o600), false).expect("a row");
        assert!(
            stale.starts_with("Fail sockets: nobody listens at /s") && stale.ends_with("[Sockets]"),
            "{stale}"
        );
        let wide = of_socket(rights(Kind::Socket, 1000, 0o666), true).expect("a row");
        assert!(wide.starts_with("Fail sockets: /s is uid 1000's with mode 666"), "{wide}");
        assert!(of_socket(Ok(None), false).expect("a row").ends_with("[Services]"));
    }

    #[test]
    fn an_installation_in_a_directory_is_looked_at_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        let rows = rows(&layout, &install("0.0.1"), &SHARED);
        let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
        assert_eq!(subjects[..2], ["installation", "executable"]);
        for subject in ["links", "units", "completions", "directories", "sockets"] {
            assert!(subjects.contains(&subject), "{subject}: {subjects:?}");
        }
        assert!(!subjects.contains(&"update"));
        std::fs::create_dir(&layout.keep).expect("makes");
        std::fs::write(layout.journal(), "{}").expect("writes");
        assert!(update(&layout.journal()).expect("a row").line().starts_with("Warn update: "));
    }
}
