//! Work trees into directories of the machine that runs the tests, by a host that is made of git, and looked at by git.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use super::{changes, ledger, prepare};
use crate::git::{Format, Mode};
use crate::guest::wire::Wire;
use crate::proto::agent::Answer;
use crate::proto::frame::{Frame, Kind};
use crate::proto::workspace::{
    Changes, Difference, Fate, Held, Kept, Order, Prepare, Record, Repository, Wanted,
};

mod bring;
mod hostile;
mod look;
mod meanwhile;
mod staged;

/// A host's repository, and a place in a guest.
struct Lab {
    dir: tempfile::TempDir,
    format: Format,
}

/// Changes what is sent as the segment of this number.
type Tamper = fn(usize, &mut Vec<u8>);
/// What somebody does to the work tree.
type Act = &'static dyn Fn(&Path);

/// What the host does unlike what it should.
#[derive(Default)]
struct Ways {
    /// A copy of the files alone.
    plain: bool,
    /// HEAD, refs and index stay.
    leave_head: bool,
    keep_before: bool,
    overwrite: bool,
    /// It hangs up before it sends this segment (3, 4, 6, 7, 9), or in the middle of it.
    hang_up: Option<(usize, bool)>,
    tamper: Option<Tamper>,
    /// What the guest does before this segment is sent.
    meanwhile: Option<(usize, Act)>,
    depth: Option<usize>,
}

#[derive(Debug)]
struct Brought {
    held: Held,
    ledger: Vec<Record>,
    sent: Vec<String>,
    ids: Vec<String>,
    kept: Vec<Kept>,
}

impl Lab {
    fn new() -> Self {
        Self::of(Format::Sha1)
    }

    fn of(format: Format) -> Self {
        // In memory: a prepare waits for its whole file system to be on the disk, and with it for everybody else's files.
        let lab = Self { dir: tempfile::tempdir_in("/dev/shm").expect("a directory"), format };
        fs::create_dir(lab.host()).expect("makes a directory");
        git(&lab.host(), &["init", "-q", "-b", "main", "--object-format", format.name()]);
        lab
    }

    fn host(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    fn guest(&self) -> PathBuf {
        self.dir.path().join("guest/root/work")
    }

    fn ledgers(&self) -> PathBuf {
        self.dir.path().join("guest/var")
    }

    fn guest_path(&self) -> String {
        self.guest().to_str().expect("text").to_owned()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(&self.host().join(path), content);
    }

    fn commit(&self, message: &str) -> String {
        git(&self.host(), &["add", "-A"]);
        git(&self.host(), &["commit", "-q", "--allow-empty", "-m", message]);
        line(&self.host(), &["rev-parse", "HEAD"])
    }

    fn bring(&self) -> Brought {
        self.bring_so(&Ways::default()).expect("is brought")
    }

    fn bring_so(&self, ways: &Ways) -> Result<Brought, String> {
        let (wire, agent) = self.prepare();
        let brought = Bringing { lab: self, wire, ways }.all();
        agent.join().expect("no panic");
        brought
    }

    fn prepare(&self) -> (UnixStream, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (path, ledgers) = (self.guest_path(), self.ledgers());
        let agent = std::thread::spawn(move || {
            let mut wire = Wire::new(theirs.into()).expect("a wire");
            drop(prepare::run(&mut wire, &Prepare { path, present: false }, &ledgers));
            drop(wire.finish());
        });
        (ours, agent)
    }

    /// How many commits the guest has that were not brought.
    fn ahead(&self) -> Option<usize> {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let (path, ledgers) = (self.guest_path(), self.ledgers());
        let agent = std::thread::spawn(move || {
            let mut wire = Wire::new(theirs.into()).expect("a wire");
            drop(changes::run(&mut wire, &Changes { path, all: false }, &ledgers));
        });
        let held = held(&mut ours).expect("there is one");
        drop(ours);
        agent.join().expect("no panic");
        held.ahead
    }

    /// What differs in the guest, by path.
    fn differences(&self, all: bool) -> BTreeMap<String, Difference> {
        self.look(all, &[]).0
    }

    /// What differs, and what is at paths: as placed, and now.
    fn look(&self, all: bool, paths: &[&str]) -> (BTreeMap<String, Difference>, BTreeMap<String, Vec<u8>>) {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let (path, ledgers) = (self.guest_path(), self.ledgers());
        let agent = std::thread::spawn(move || {
            let mut wire = Wire::new(theirs.into()).expect("a wire");
            changes::run(&mut wire, &Changes { path, all }, &ledgers).expect("tells");
        });
        held(&mut ours).expect("there is one");
        let told = segment(&mut ours).expect("tells");
        let told = told.split(|b| *b == 0).filter(|record| !record.is_empty()).map(|record| {
            let difference = Difference::parse(record).expect("a difference");
            (difference.path.escape_ascii().to_string(), difference)
        });
        let told = told.collect();
        let mut contents = BTreeMap::new();
        if !paths.is_empty() {
            let mut asked = vec![];
            paths.iter().for_each(|path| asked.extend([path.as_bytes(), &[0]].concat()));
            send(&mut ours, &asked);
            let tar = segment(&mut ours).expect("a tar");
            for entry in tar::Archive::new(&tar[..]).entries().expect("entries") {
                let mut entry = entry.expect("an entry");
                let mut content = vec![];
                entry.read_to_end(&mut content).expect("reads");
                contents.insert(entry.path().expect("a name").display().to_string(), content);
            }
        }
        drop(ours);
        agent.join().expect("no panic");
        (told, contents)
    }

    /// The guest's repository is a good one, and its files are as the host's, which git sees without reading them.
    fn check(&self) {
        let guest = self.guest();
        git(&guest, &["fsck", "--strict", "--full"]);
        let status = |dir: &Path| git(dir, &["-c", "core.quotepath=off", "status", "--porcelain", "-uno"]);
        assert_eq!(text(&status(&guest)), text(&status(&self.host())));
        assert_eq!(listing(&guest), listing(&self.host()));
        let at = |dir: &Path| line(dir, &["rev-parse", "HEAD"]);
        assert_eq!(at(&guest), at(&self.host()));
        let index = |dir: &Path| git(dir, &["ls-files", "-s", "-z"]);
        assert_eq!(index(&guest), index(&self.host()));
    }
}

struct Bringing<'a> {
    lab: &'a Lab,
    wire: UnixStream,
    ways: &'a Ways,
}

impl Bringing<'_> {
    fn all(mut self) -> Result<Brought, String> {
        let (lab, host) = (self.lab, self.lab.host());
        let held = held(&mut self.wire)?;
        let first = held.placed.is_none();
        let mut ledger = vec![];
        for record in segment(&mut self.wire)?.split(|b| *b == 0).filter(|record| !record.is_empty()) {
            ledger.push(Record::parse(record).expect("a record"));
        }
        let whole = !self.ways.plain && !self.ways.leave_head;
        let repository = whole.then(|| {
            let mut repository = repository(&host, self.ways.depth);
            repository.keep_before = self.ways.keep_before;
            repository
        });
        let order = Order { repository: repository.clone(), format: lab.format };
        self.put(3, serde_json::to_vec(&order).expect("serializes"))?;

        let mut wanted = wanted(&host, b"");
        let known: HashMap<&[u8], &Record> = ledger.iter().map(|record| (&record.path[..], record)).collect();
        for want in &mut wanted {
            let known = known.get(&want.path[..]);
            want.sent = known.is_none_or(|known| known.mode != want.mode || known.stamp != want.stamp);
        }
        let mut bytes = vec![];
        wanted.iter().for_each(|want| want.write(&mut bytes));
        self.put(4, bytes)?;
        let in_the_way = text(&segment(&mut self.wire)?).replace('\0', " ");
        if !in_the_way.is_empty() && !self.ways.overwrite {
            return Err(format!("in the way: {in_the_way}"));
        }

        match &repository {
            None => self.put(6, vec![])?,
            Some(repository) => {
                self.put(6, git(&host, &["ls-files", "-s", "-z"]))?;
                for (path, _) in &repository.submodules {
                    self.put(6, git(&host.join(path), &["ls-files", "-s", "-z"]))?;
                }
            }
        }
        let mut tar = tar::Builder::new(vec![]);
        let sent: Vec<&Wanted> = wanted.iter().filter(|want| want.sent).collect();
        for want in &sent {
            append(&mut tar, &host, want);
        }
        self.put(7, tar.into_inner().expect("ends"))?;
        let ids: Vec<String> = text(&segment(&mut self.wire)?).lines().map(str::to_owned).collect();

        let mut pack = vec![];
        if let Some(repository) = &repository {
            let mut revisions = format!("{}\n", repository.head);
            repository.tags.iter().for_each(|(_, id)| revisions += &format!("{id}\n"));
            for head in held.placed.iter().flat_map(|placed| &placed.heads) {
                revisions += &format!("^{head}\n");
            }
            for commit in &repository.shallow {
                revisions += &format!("--shallow {commit}\n");
            }
            let mut args = vec!["pack-objects", "--revs", "--stdout", "-q", "--thin", "--delta-base-offset"];
            if !repository.shallow.is_empty() {
                args.push("--shallow");
            }
            pack = git_fed(&host, &args, revisions.as_bytes());
            let placed = ledger.iter().map(|record| record.id.clone());
            let held: HashSet<String> = ids.iter().cloned().chain(placed).collect();
            // What only the index knows, and submodules, all in the same pack.
            let mut objects = String::new();
            let mut alternates = vec![];
            for (path, sub) in &repository.submodules {
                let dir = host.join(path);
                objects += &text(&git(&dir, &["rev-list", "--objects", "--no-object-names", &sub.head]));
                alternates
                    .push(line(&dir, &["rev-parse", "--path-format=absolute", "--git-path", "objects"]));
            }
            for entry in
                text(&git(&host, &["ls-files", "-s"])).lines().filter(|entry| !entry.starts_with("160000"))
            {
                let id = entry.split(' ').nth(1).expect("an id").to_owned();
                if !held.contains(&id) {
                    objects += &(id + "\n");
                }
            }
            if !objects.is_empty() {
                if first && repository.shallow.is_empty() {
                    objects += &text(&git(&host, &["rev-list", "--objects", "--no-object-names", "--all"]));
                } else {
                    objects += &text(&git_fed(
                        &host,
                        &["rev-list", "--objects", "--no-object-names", "--stdin"],
                        revisions
                            .lines()
                            .filter(|l| !l.starts_with("--"))
                            .collect::<Vec<_>>()
                            .join("\n")
                            .as_bytes(),
                    ));
                }
                let alternates = alternates.join(":");
                pack = run(
                    &host,
                    &["pack-objects", "--stdout", "-q", "--delta-base-offset"],
                    objects.as_bytes(),
                    &[("GIT_ALTERNATE_OBJECT_DIRECTORIES", &alternates)],
                );
            }
        }
        self.put(9, pack)?;
        let kept = segment(&mut self.wire)?;
        let kept = if kept.is_empty() { vec![] } else { serde_json::from_slice(&kept).expect("a list") };
        let sent = sent.iter().map(|want| want.path.escape_ascii().to_string()).collect();
        Ok(Brought { held, ledger, sent, ids, kept })
    }

    fn put(&mut self, number: usize, mut bytes: Vec<u8>) -> Result<(), String> {
        if let Some(tamper) = self.ways.tamper {
            tamper(number, &mut bytes);
        }
        if let Some((_, act)) = self.ways.meanwhile.filter(|(at, _)| *at == number) {
            act(&self.lab.guest());
        }
        match self.ways.hang_up {
            Some((at, false)) if at == number => return Err(format!("hung up before {number}")),
            Some((at, true)) if at == number => {
                Frame::new(Kind::Data, &bytes[..bytes.len().min(60_000) / 2])
                    .write(&mut self.wire)
                    .expect("writes");
                return Err(format!("hung up within {number}"));
            }
            _ => send(&mut self.wire, &bytes),
        }
        Ok(())
    }
}

fn repository(dir: &Path, depth: Option<usize>) -> Repository {
    let branch =
        run_maybe(dir, &["symbolic-ref", "--short", "-q", "HEAD"]).map(|out| text(&out).trim().to_owned());
    let tags = text(&git(dir, &["for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/tags"]));
    let shallow =
        depth.map(|depth| line(dir, &["rev-parse", &format!("HEAD~{}", depth - 1)])).into_iter().collect();
    let submodules = text(&git(dir, &["ls-files", "-s"]));
    let submodules = submodules.lines().filter(|line| line.starts_with("160000")).map(|line| {
        let path = line.split('\t').nth(1).expect("a path").to_owned();
        let sub = repository(&dir.join(&path), None);
        (path, sub)
    });
    Repository {
        head: line(dir, &["rev-parse", "HEAD"]),
        branch,
        tags: tags
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(id, name)| (name.to_owned(), id.to_owned()))
            .collect(),
        shallow,
        origin: Some("https://example.com/x.git".to_owned()),
        user_name: Some("A \"quoted\" name".to_owned()),
        user_email: Some("a@b".to_owned()),
        exclude: "*.log\n".to_owned(),
        submodules: submodules.collect(),
        keep_before: false,
    }
}

/// All files of a tree; the stamp is of size and change time, as a host's is.
fn wanted(top: &Path, below: &[u8]) -> Vec<Wanted> {
    let mut found = vec![];
    let dir = top.join(std::ffi::OsStr::from_bytes(below));
    let mut entries: Vec<_> =
        fs::read_dir(&dir).expect("lists").map(|entry| entry.expect("an entry")).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if name == ".git" {
            continue;
        }
        let path =
            if below.is_empty() { name.as_bytes().to_vec() } else { [below, b"/", name.as_bytes()].concat() };
        let meta = entry.metadata().expect("stats");
        let mode = match () {
            () if meta.is_symlink() => Mode::Symlink,
            () if meta.is_dir() => {
                let within = wanted(top, &path);
                if !within.is_empty() {
                    found.extend(within);
                    continue;
                }
                Mode::Directory
            }
            () if meta.mode() & 0o100 != 0 => Mode::Executable,
            () => Mode::File,
        };
        let stamp = u128::from(meta.ino()) << 64
            | u128::from(meta.ctime_nsec().unsigned_abs()) << 32
            | u128::from(meta.ctime().unsigned_abs() as u32);
        found.push(Wanted { mode, stamp: if mode == Mode::Directory { 0 } else { stamp }, sent: true, path });
    }
    found
}

fn append(tar: &mut tar::Builder<Vec<u8>>, top: &Path, want: &Wanted) {
    let path = Path::new(std::ffi::OsStr::from_bytes(&want.path));
    let meta = fs::symlink_metadata(top.join(path)).expect("stats");
    let mut header = tar::Header::new_gnu();
    header.set_mtime(meta.mtime().unsigned_abs());
    header.set_mode(meta.mode() & 0o777);
    header.set_size(0);
    match want.mode {
        Mode::Symlink => {
            let target = fs::read_link(top.join(path)).expect("reads");
            crate::proto::symlink::append_symlink(tar, header, path, target.as_os_str().as_bytes())
                .expect("appends");
        }
        Mode::Directory | Mode::Gitlink => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, path, std::io::empty()).expect("appends");
        }
        Mode::File | Mode::Executable => {
            header.set_size(meta.len());
            tar.append_data(&mut header, path, fs::File::open(top.join(path)).expect("opens"))
                .expect("appends");
        }
    }
}

fn held(wire: &mut UnixStream) -> Result<Held, String> {
    let frame = Frame::read(wire).expect("reads").expect("an answer");
    match serde_json::from_slice(&frame.payload).expect("an answer") {
        Answer::Held(held) => Ok(*held),
        Answer::Refused(refusal) => Err(refusal.message),
        other => panic!("{other:?}"),
    }
}

fn segment(wire: &mut UnixStream) -> Result<Vec<u8>, String> {
    let mut bytes = vec![];
    loop {
        let frame = Frame::read(wire).expect("reads").expect("a segment");
        match frame.kind {
            Kind::Data => bytes.extend(frame.payload),
            Kind::Eof => return Ok(bytes),
            Kind::Failed => return Err(text(&frame.payload)),
            kind => panic!("{kind:?}"),
        }
    }
}

fn send(wire: &mut UnixStream, bytes: &[u8]) {
    // The guest may have given up, which it says.
    let frames = bytes.chunks(65_536).map(|piece| Frame::new(Kind::Data, piece));
    for frame in frames.chain([Frame::new(Kind::Eof, [])]) {
        if frame.write(wire).is_err() {
            return;
        }
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("makes directories");
    fs::write(path, content).expect("writes");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What GNU find sees of files and links: names, types, whether executable, sizes, whole seconds, link targets.
fn listing(directory: &Path) -> String {
    let out = Command::new("find")
        .args([
            ".",
            "-name",
            ".git",
            "-prune",
            "-o",
            "-mindepth",
            "1",
            "-not",
            "-type",
            "d",
            "-printf",
            "%P %y %s %Ts %l %m\\0",
        ])
        .current_dir(directory)
        .output()
        .expect("runs find");
    let text = String::from_utf8_lossy(&out.stdout).replace(" 664\0", " 644\0").replace(" 775\0", " 755\0");
    let mut lines: Vec<&str> = text.split('\0').collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn git(dir: &Path, args: &[&str]) -> Vec<u8> {
    git_fed(dir, args, b"")
}

fn line(dir: &Path, args: &[&str]) -> String {
    text(&git(dir, args)).trim().to_owned()
}

fn git_fed(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    run(dir, args, input, &[])
}

fn run_maybe(dir: &Path, args: &[&str]) -> Option<Vec<u8>> {
    let out = Command::new("git").args(args).current_dir(dir).output().expect("runs git");
    out.status.success().then_some(out.stdout)
}

fn run(dir: &Path, args: &[&str], input: &[u8], env: &[(&str, &str)]) -> Vec<u8> {
    let mut stdin = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut stdin, input).expect("writes");
    std::io::Seek::rewind(&mut stdin).expect("rewinds");
    let settings = ["user.name=A", "user.email=a@b", "maintenance.auto=false", "protocol.file.allow=always"];
    let out = Command::new("git")
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .args(args)
        .current_dir(dir)
        .envs(env.iter().copied())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::from(stdin))
        .output()
        .expect("runs git");
    assert!(out.status.success(), "git {args:?} in {}: {}", dir.display(), text(&out.stderr));
    out.stdout
}
