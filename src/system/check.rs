//! What must be so before an installation changes anything. All of it is looked at, so that a person is told everything at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::host::endpoint::listens;
use crate::host::install::Install;
use crate::host::trusted::Untrusted;
use crate::system::accounts::{self, Account, Home};
use crate::system::layout::Layout;
use crate::system::plan::{Have, is_marked, look, named};
use crate::system::{files, units};

/// What this executable was built for; it runs on nothing else.
const MACHINE: &str = "x86_64";
/// For VMs, a few images and an update, in bytes. Less, and the first VM would fail where nobody expects it.
const ROOM_FOR_DATA: u64 = 1 << 30;
/// The executable that is, the one before it, and one that is on its way.
const COPIES: u64 = 3;

/// Whose the VMs are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Neither `--owner` nor sudo says it.
    Unsaid,
    Unknown(String),
    Known {
        account: Account,
        home: Home,
    },
}

/// Space on the file system that `path` is to be on, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub path: PathBuf,
    pub free: u64,
    pub needed: u64,
}

/// What was looked at.
#[derive(Debug)]
pub struct Facts {
    pub is_root: bool,
    /// Whether it is to be this machine's, and not one below a directory for tests.
    pub is_hosts: bool,
    /// Whether systemd runs this host (sd_booted(3)).
    pub has_systemd: bool,
    pub machine: String,
    pub owner: Owner,
    pub first_person: u32,
    pub installed: Result<Option<Install>, Untrusted>,
    /// What is in the way and was put there by somebody else.
    pub foreign: Vec<PathBuf>,
    /// Whose the VMs and images are that an earlier installation has left.
    pub data_of: Option<u32>,
    /// Where daemons listen that the owner, or root, has started without an installation.
    pub own_daemons: Vec<PathBuf>,
    pub rooms: Vec<Room>,
    /// Why this executable cannot be read.
    pub unreadable: Option<String>,
    /// This executable's.
    pub version: String,
}

/// Something that must be seen to first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub advice: String,
    /// It keeps only those from installing who are not root.
    pub is_about_root: bool,
}

/// Looks at everything.
pub fn gather(layout: &Layout, owner: Option<&str>, version: &str) -> io::Result<Facts> {
    let installed = Install::read(&layout.dirs.install_file());
    let size = std::fs::metadata("/proc/self/exe").map_or(0, |meta| meta.len());
    let foreign = foreign(layout, matches!(installed, Ok(Some(_))))?;
    let owner = match owner {
        None => Owner::Unsaid,
        Some(name) => match accounts::find(name)? {
            None => Owner::Unknown(name.to_owned()),
            Some(account) => Owner::Known { home: accounts::home(&account.home), account },
        },
    };
    let rooms = [(&layout.bin, COPIES * size), (&layout.dirs.state, ROOM_FOR_DATA)];
    Ok(Facts {
        is_root: geteuid().is_root(),
        is_hosts: *layout == Layout::host(),
        has_systemd: Path::new("/run/systemd/system").is_dir(),
        machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
        own_daemons: match &owner {
            Owner::Known { account, .. } => own_daemons(account)?,
            Owner::Unsaid | Owner::Unknown(_) => vec![],
        },
        owner,
        first_person: accounts::first_person(),
        installed,
        foreign,
        data_of: std::fs::symlink_metadata(&layout.dirs.state).ok().map(|meta| meta.uid()),
        rooms: rooms.map(|(path, needed)| room(path, needed)).into_iter().collect::<io::Result<_>>()?,
        unreadable: File::open("/proc/self/exe")
            .and_then(|mut file| file.read_exact(&mut [0; 4]))
            .err()
            .map(|e| e.to_string()),
        version: version.to_owned(),
    })
}

/// The sockets of daemons without an installation ([`crate::host::dirs::Dirs::from_env`]) at which somebody listens.
fn own_daemons(account: &Account) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/net/unix")?;
    let places = [
        PathBuf::from("/run/banger-0"),
        PathBuf::from("/run/user/0/banger"),
        PathBuf::from(format!("/run/user/{}/banger", account.uid)),
        account.home.join(".local/share/banger/run"),
    ];
    Ok(places.map(|place| place.join("bangerd.sock")).into_iter().filter(|s| listens(&table, s)).collect())
}

/// The free space where `path` is, or will be.
fn room(path: &Path, needed: u64) -> io::Result<Room> {
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let fs = rustix::fs::statvfs(there)?;
    Ok(Room { path: path.to_owned(), free: fs.f_bavail.saturating_mul(fs.f_frsize), needed })
}

/// What is at the places of an installation's files and is none of its files.
fn foreign(layout: &Layout, installed: bool) -> io::Result<Vec<PathBuf>> {
    let mut foreign = vec![];
    for path in files::all(layout) {
        let have = look(&path)?;
        let ours = match &have {
            Have::Nothing => true,
            Have::Other => false,
            Have::Link { target } => layout.links().contains(&path) && target == Path::new("banger"),
            Have::File { content, .. } if path.starts_with(&layout.units) => is_marked(content),
            // Whoever wrote such a file by `banger completion` finds it there again.
            Have::File { content, .. } if path.starts_with(&layout.share) => {
                content.windows(15).any(|window| window == b"banger complete")
            }
            Have::File { .. } => path == layout.dirs.install_file(),
        };
        if !ours {
            foreign.push(path);
        }
    }
    for (path, have) in named(&layout.manual())? {
        // Whoever wrote it by `banger internal man` finds it there again.
        if !matches!(have, Have::File { content, .. } if content.starts_with(files::PAGE_MARK.as_bytes())) {
            foreign.push(path);
        }
    }
    for path in [layout.binary(), layout.previous()] {
        match std::fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(meta) if meta.is_file() && (installed || is_banger(&path, meta.len())?) => {}
            Ok(_) => foreign.push(path),
        }
    }
    Ok(foreign)
}

/// Whether the file is a banger, of whichever version: every one of them can write units, so that it holds their first line.
fn is_banger(path: &Path, len: u64) -> io::Result<bool> {
    const LARGEST: u64 = 1 << 30;
    if len > LARGEST {
        return Ok(false);
    }
    let content = std::fs::read(path)?;
    let mark = units::MARK.as_bytes();
    let mut rest = content.as_slice();
    // The compiler's own search for a byte is fast, and the mark's first byte is rare.
    while let Some(at) = rest.iter().position(|byte| *byte == mark[0]) {
        rest = &rest[at..];
        if rest.starts_with(mark) {
            return Ok(true);
        }
        rest = &rest[1..];
    }
    Ok(false)
}

/// All that must be seen to before banger can be installed.
pub fn judge(facts: &Facts, force: bool) -> Vec<Problem> {
    let problem =
        |what: String, advice: &str| Problem { what, advice: advice.to_owned(), is_about_root: false };
    let mut problems = vec![];
    if !facts.is_root {
        problems.push(Problem {
            is_about_root: true,
            ..problem("this is root's to do".to_owned(), "use `sudo`")
        });
    }
    if !facts.is_hosts {
        problems.push(problem(
            "BANGER_ROOT is set, and an installation is the machine's".to_owned(),
            "unset it, or use banger below it without an installation",
        ));
    }
    if !facts.has_systemd {
        problems.push(problem(
            "systemd does not run this machine".to_owned(),
            "banger works without an installation too: `banger vm run`, as yourself or as root",
        ));
    }
    if facts.machine != MACHINE {
        problems.push(problem(
            format!("this machine is {}, and this executable is for {MACHINE}", facts.machine),
            "take the executable for this machine",
        ));
    }
    problems.extend(judge_owner(facts));
    match &facts.installed {
        Err(e) => problems
            .push(problem(e.to_string(), "find out who changed it, and remove it if nobody misses it")),
        Ok(Some(installed)) if !force && is_newer(&installed.version, &facts.version) => {
            problems.push(problem(
                format!("v{} is installed, and this is v{}, which is older", installed.version, facts.version),
                "`sudo banger update --rollback` returns to the version before; --force installs this one all the same",
            ));
        }
        Ok(_) => {}
    }
    for path in &facts.foreign {
        problems.push(problem(
            format!("{} was not put there by banger", path.display()),
            "move it away, or remove it",
        ));
    }
    if let (Some(uid), Owner::Known { account, .. }) = (facts.data_of, &facts.owner)
        // Root's is one that was made, and not yet given away.
        && uid != account.uid && uid != 0
    {
        problems.push(problem(
            format!(
                "the VMs and images of an earlier installation belong to uid {uid}, not to {}",
                account.name
            ),
            "install for that user, or move /var/lib/banger and /var/cache/banger away",
        ));
    }
    // Once installed, no command would speak to it any more; and two would want the same bridge and the same port for names.
    for socket in &facts.own_daemons {
        problems.push(problem(
            format!("a bangerd without an installation runs, at {}", socket.display()),
            "as whoever started it, stop its VMs (`banger vm stop`), then it: `banger daemon stop`",
        ));
    }
    for Room { path, free, needed } in &facts.rooms {
        if free < needed {
            let mib = |bytes: &u64| bytes.div_ceil(1 << 20);
            problems.push(problem(
                format!("{} has {} MiB free, and {} MiB are needed", path.display(), free >> 20, mib(needed)),
                "make room there",
            ));
        }
    }
    if let Some(why) = &facts.unreadable {
        problems.push(problem(
            format!("this executable cannot be read: {why}"),
            "copy it to a local disk, and run it there",
        ));
    }
    problems
}

fn judge_owner(facts: &Facts) -> Option<Problem> {
    let problem =
        |what: String, advice: &str| Some(Problem { what, advice: advice.to_owned(), is_about_root: false });
    let (account, home) = match &facts.owner {
        Owner::Unsaid => {
            return problem(
                "nothing says whose VMs they are to be".to_owned(),
                "use `sudo`, or name a user: --owner USER",
            );
        }
        Owner::Unknown(name) => {
            return problem(
                format!("there is no user {name:?}"),
                "name a user of this machine: --owner USER",
            );
        }
        Owner::Known { account, home } => (account, *home),
    };
    if let Some(why) = accounts::unfit(account, facts.first_person, home) {
        return problem(format!("{} {why}", account.name), "name a person's account: --owner USER");
    }
    match &facts.installed {
        Ok(Some(installed)) if (&installed.owner, installed.uid) != (&account.name, account.uid) => problem(
            format!("banger is installed here for {} (uid {})", installed.owner, installed.uid),
            "`sudo banger system uninstall` first; it keeps VMs and images, which then are that user's still",
        ),
        _ => None,
    }
}

/// Whether version `a` comes after `b` (semver.org, 11); what is no version comes first.
fn is_newer(a: &str, b: &str) -> bool {
    fn order(text: &str) -> (Vec<u64>, bool) {
        let (numbers, is_release) = match text.split_once('-') {
            Some((numbers, _)) => (numbers, false),
            None => (text, true),
        };
        (numbers.split('.').map(|number| number.parse().unwrap_or(0)).collect(), is_release)
    }
    order(a) > order(b)
}

/// Whether the file at `path` is what `mine` holds, and root's, and executable for all and writable for root alone.
pub fn is_same(path: &Path, mine: &mut File, root: (u32, u32)) -> io::Result<bool> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let fits = meta.is_file() && meta.mode() & 0o7777 == 0o755 && (meta.uid(), meta.gid()) == root;
    if !fits || meta.len() != mine.metadata()?.len() {
        return Ok(false);
    }
    let mut content = vec![];
    mine.read_to_end(&mut content)?;
    Ok(std::fs::read(path)? == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        let account = Account { name: "me".to_owned(), uid: 1000, gid: 100, home: "/home/me".into() };
        Facts {
            is_root: true,
            is_hosts: true,
            has_systemd: true,
            machine: MACHINE.to_owned(),
            owner: Owner::Known { account, home: Home::Of(1000) },
            first_person: 1000,
            installed: Ok(None),
            foreign: vec![],
            data_of: None,
            own_daemons: vec![],
            rooms: vec![Room { path: "/var".into(), free: 2 << 30, needed: 1 << 30 }],
            unreadable: None,
            version: "0.2.0".to_owned(),
        }
    }

    fn installed(owner: &str, uid: u32, version: &str) -> Result<Option<Install>, Untrusted> {
        let text = format!("owner = '{owner}'\nuid = {uid}\ngid = 1\nhome = '/h'\nversion = '{version}'");
        Ok(Some(Install::parse(&text).expect("an installation")))
    }

    fn said(facts: &Facts, force: bool) -> Vec<String> {
        judge(facts, force).into_iter().map(|p| format!("{}: {}", p.what, p.advice)).collect()
    }

    #[test]
    fn a_machine_that_has_everything_is_not_complained_about() {
        assert_eq!(said(&good(), false), Vec::<String>::new());
        assert_eq!(
            said(&Facts { installed: installed("me", 1000, "0.2.0"), ..good() }, false),
            Vec::<String>::new()
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_what_to_do() {
        let facts = Facts {
            is_root: false,
            is_hosts: false,
            has_systemd: false,
            machine: "aarch64".to_owned(),
            owner: Owner::Unsaid,
            foreign: vec!["/usr/local/bin/banger".into()],
            own_daemons: vec!["/run/user/1000/banger/bangerd.sock".into()],
            rooms: vec![Room { path: "/var".into(), free: 5 << 20, needed: 1 << 30 }],
            unreadable: Some("no".to_owned()),
            ..good()
        };
        assert_eq!(
            said(&facts, true),
            [
                "this is root's to do: use `sudo`",
                "BANGER_ROOT is set, and an installation is the machine's: unset it, or use banger below it without an installation",
                "systemd does not run this machine: banger works without an installation too: `banger vm run`, as yourself or as root",
                "this machine is aarch64, and this executable is for x86_64: take the executable for this machine",
                "nothing says whose VMs they are to be: use `sudo`, or name a user: --owner USER",
                "/usr/local/bin/banger was not put there by banger: move it away, or remove it",
                "a bangerd without an installation runs, at /run/user/1000/banger/bangerd.sock: as whoever started it, stop its VMs \
                 (`banger vm stop`), then it: `banger daemon stop`",
                "/var has 5 MiB free, and 1024 MiB are needed: make room there",
                "this executable cannot be read: no: copy it to a local disk, and run it there",
            ]
        );
    }

    #[test]
    fn an_installation_keeps_its_owner_and_does_not_get_older_by_accident() {
        let of =
            |owner: &str, uid, version: &str| Facts { installed: installed(owner, uid, version), ..good() };
        assert!(
            said(&of("you", 1001, "0.2.0"), true)[0]
                .starts_with("banger is installed here for you (uid 1001)")
        );
        assert!(
            said(&of("me", 1001, "0.2.0"), true)[0].starts_with("banger is installed here for me (uid 1001)")
        );
        assert!(
            said(&of("me", 1000, "0.10.0"), false)[0].starts_with("v0.10.0 is installed, and this is v0.2.0")
        );
        assert_eq!(said(&of("me", 1000, "0.10.0"), true), Vec::<String>::new());
        assert_eq!(said(&of("me", 1000, ""), false), Vec::<String>::new());
        let left = said(&Facts { data_of: Some(1001), ..good() }, true);
        assert!(
            left[0]
                .starts_with("the VMs and images of an earlier installation belong to uid 1001, not to me")
        );
        assert_eq!(said(&Facts { data_of: Some(1000), ..good() }, true), Vec::<String>::new());
    }

    #[test]
    fn versions_are_compared_as_numbers_and_a_release_comes_after_what_led_to_it() {
        for (a, b) in [("0.10.0", "0.9.9"), ("1.0.0", "1.0.0-rc.1"), ("1.0.1", "1.0.0"), ("0.0.1", "")] {
            assert!(is_newer(a, b), "{a} {b}");
            assert!(!is_newer(b, a), "{b} {a}");
        }
        assert!(!is_newer("1.0.0", "1.0.0"));
    }

    #[test]
    fn what_others_have_put_there_is_found_and_what_is_bangers_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        assert_eq!(foreign(&layout, false).expect("looks"), Vec::<PathBuf>::new());
        for directory in
            [&layout.bin, &layout.units, &layout.manual(), &layout.share.join("zsh/site-functions")]
        {
            std::fs::create_dir_all(directory).expect("makes");
        }
        let unit = layout.units.join("bangerd.service");
        let zsh = layout.share.join("zsh/site-functions/_banger");
        let bangerd = layout.bin.join("bangerd");
        let page = layout.manual().join("banger.1");
        std::fs::write(&page, ".TH BANGER 1").expect("writes");
        std::fs::write(&unit, format!("{}\n[Unit]", units::MARK)).expect("writes");
        std::fs::write(&zsh, "x $(command banger complete --)").expect("writes");
        std::os::unix::fs::symlink("banger", &bangerd).expect("links");
        std::fs::write(layout.binary(), format!("\x7fELF # # {} #", units::MARK)).expect("writes");
        assert_eq!(foreign(&layout, false).expect("looks"), Vec::<PathBuf>::new());
        std::fs::write(&unit, "[Unit]").expect("writes");
        std::fs::write(&zsh, "x").expect("writes");
        std::fs::write(&page, ".TH BANG 1").expect("writes");
        std::fs::remove_file(&bangerd).expect("removes");
        std::os::unix::fs::symlink("/opt/bangerd", &bangerd).expect("links");
        std::fs::write(layout.binary(), "#!/bin/sh\n").expect("writes");
        assert_eq!(foreign(&layout, false).expect("looks"), [bangerd, unit, zsh, page, layout.binary()]);
    }
}
