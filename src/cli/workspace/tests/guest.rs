//! A guest as the protocol has it, made of git and tar: slow, and nobody's code but theirs.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{git, try_git};
use crate::cli::client::Attention;
use crate::cli::render::Progress;
use crate::cli::workspace::error::WorkspaceError;
use crate::cli::workspace::gather::Gathered;
use crate::cli::workspace::{Done, Guest as Met, blob, bring};
use crate::git::{Format, Mode};
use crate::proto::frame::{Frame, Kind, MAX_PAYLOAD};
use crate::proto::workspace::{Fate, Held, Order, Placed, Record, Repository, Wanted};

pub struct Guest {
    dir: tempfile::TempDir,
    ledger: BTreeMap<Vec<u8>, Record>,
    placed: Option<Placed>,
    format: Format,
    /// Bytes of the packs that have come.
    pub packed: usize,
}

/// Why the conversation ended early: the host has hung up.
struct Gone;

impl Guest {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            ledger: BTreeMap::new(),
            placed: None,
            format: Format::Sha1,
            packed: 0,
        }
    }

    pub fn top(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top().join(name)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.top(), args)
    }

    pub fn prepare(&mut self, gathered: &Gathered, force: bool) -> Result<Done, WorkspaceError> {
        std::fs::create_dir_all(self.top()).expect("makes");
        let held = self.held();
        let (near, far) = UnixStream::pair().expect("a pair");
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| self.serve(far));
            let mut progress = Progress::silent();
            let met = Met { held, connection: near.into() };
            let done = bring(gathered, met, force, &mut Attention::to(&mut progress));
            let served = serving.join().expect("no panic").is_ok();
            assert_eq!(served, done.is_ok(), "{done:?}");
            done
        })
    }

    fn held(&self) -> Held {
        let head = try_git(&self.top(), &["rev-parse", "--verify", "-q", "HEAD"]);
        let branch = try_git(&self.top(), &["symbolic-ref", "-q", "--short", "HEAD"]);
        let has = self.path(".git").exists();
        let some = |(ok, out, _): (bool, String, String)| (ok && has).then_some(out);
        let mut placed = self.placed.clone();
        if let Some(placed) = &mut placed {
            placed.boundary = shallow(&self.top());
        }
        Held { placed, head: some(head), branch: some(branch), ..Held::default() }
    }

    fn serve(&mut self, mut far: UnixStream) -> Result<(), Gone> {
        let mut ledger = vec![];
        for record in self.ledger.values() {
            Record { fate: self.fate(record), ..record.clone() }.write(&mut ledger);
        }
        say(&mut far, &ledger)?;
        let order: Order = serde_json::from_slice(&hear(&mut far)?).expect("an order");
        self.format = order.format;
        let wanted = hear(&mut far)?;
        let wanted: Vec<Wanted> = wanted
            .split(|b| *b == 0)
            .filter(|record| !record.is_empty())
            .map(|record| Wanted::parse(record).expect("a record"))
            .collect();
        let in_the_way: Vec<u8> = wanted
            .iter()
            .filter(|wanted| wanted.sent && !self.ledger.contains_key(&wanted.path))
            .filter(|wanted| std::fs::symlink_metadata(self.at(&wanted.path)).is_ok())
            .flat_map(|wanted| [&wanted.path[..], b"\0"].concat())
            .collect();
        say(&mut far, &in_the_way)?;
        let count = order.repository.as_ref().map_or(1, |repository| 1 + below(repository));
        let indices: Vec<Vec<u8>> = (0..count).map(|_| hear(&mut far)).collect::<Result<_, _>>()?;
        let tar = hear(&mut far)?;

        let want: HashSet<&[u8]> = wanted.iter().map(|wanted| &wanted.path[..]).collect();
        for path in self.ledger.keys().filter(|path| !want.contains(&path[..])) {
            std::fs::remove_file(self.at(path)).ok();
        }
        feed(Command::new("tar").args(["-x", "-U", "--no-same-owner", "-C"]).arg(self.top()), &tar);
        if let Some(repository) = &order.repository {
            init(&self.top(), self.format, None);
            for (path, _) in all_below(repository) {
                init(&self.top().join(&path), self.format, Some(&self.path(".git/objects")));
            }
        }
        let mut made = String::new();
        let mut ledger = BTreeMap::new();
        for wanted in &wanted {
            let old = self.ledger.get(&wanted.path);
            let id = match (wanted.sent, old) {
                (false, old) => old.expect("it is there already").id.clone(),
                (true, _) => self.make(wanted, order.repository.is_some()),
            };
            if wanted.sent && !id.is_empty() {
                made.push_str(&format!("{id}\n"));
            }
            let record = Record {
                mode: wanted.mode,
                id,
                stamp: wanted.stamp,
                fate: Fate::Unchanged,
                now: None,
                path: wanted.path.clone(),
            };
            ledger.insert(wanted.path.clone(), record);
        }
        self.ledger = ledger;
        say(&mut far, made.as_bytes())?;
        let pack = hear(&mut far)?;
        self.packed += pack.len();
        if !pack.is_empty() {
            feed(Command::new("git").arg("-C").arg(self.top()).args(["index-pack", "--stdin"]), &pack);
        }
        match &order.repository {
            Some(repository) => self.placed = Some(self.settle(repository, &indices)),
            None => self.placed = Some(self.placed.take().unwrap_or_default()),
        }
        Frame::new(Kind::Eof, []).write(&mut far).map_err(|_| Gone)
    }

    /// Sets refs and indices of a repository and its submodules.
    fn settle(&self, repository: &Repository, indices: &[Vec<u8>]) -> Placed {
        let all = [vec![(String::new(), repository)], all_below(repository)].concat();
        for ((path, repository), index) in all.iter().zip(indices) {
            let top = self.top().join(path);
            let shallow: String = repository.shallow.iter().map(|id| format!("{id}\n")).collect();
            std::fs::write(top.join(".git/shallow"), &shallow).expect("writes");
            if shallow.is_empty() {
                std::fs::remove_file(top.join(".git/shallow")).expect("removes");
            }
            match &repository.branch {
                Some(branch) => {
                    git(&top, &["update-ref", &format!("refs/heads/{branch}"), &repository.head]);
                    git(&top, &["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]);
                }
                None => drop(git(&top, &["update-ref", "--no-deref", "HEAD", &repository.head])),
            }
            for (name, id) in &repository.tags {
                git(&top, &["update-ref", &format!("refs/tags/{name}"), id]);
            }
            std::fs::remove_file(top.join(".git/index")).ok();
            let (plain, flagged) = without_flags(index);
            feed(
                Command::new("git").arg("-C").arg(&top).args(["update-index", "-z", "--index-info"]),
                &plain,
            );
            try_git(&top, &["update-index", "-q", "--refresh"]);
            for (flags, path) in flagged {
                for (flag, option) in [('a', "--assume-unchanged"), ('s', "--skip-worktree")] {
                    if flags.contains(flag) {
                        git(&top, &["update-index", option, &path]);
                    }
                }
                if flags.contains('n') {
                    git(&top, &["update-index", "--force-remove", &path]);
                    git(&top, &["add", "-N", &path]);
                }
            }
        }
        self.remembered(repository, self.placed.as_ref(), &self.top())
    }

    fn remembered(&self, repository: &Repository, before: Option<&Placed>, top: &Path) -> Placed {
        let mut heads = before.map(|placed| placed.heads.clone()).unwrap_or_default();
        heads.push(repository.head.clone());
        let submodules = repository.submodules.iter().map(|(path, sub)| {
            let before = before.and_then(|placed| placed.submodules.iter().find(|(known, _)| known == path));
            (path.clone(), self.remembered(sub, before.map(|(_, placed)| placed), &top.join(path)))
        });
        Placed {
            head: Some(repository.head.clone()),
            branch: repository.branch.clone(),
            heads,
            shallow: !repository.shallow.is_empty(),
            boundary: shallow(top),
            submodules: submodules.collect(),
        }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.top().join(std::ffi::OsStr::from_bytes(path))
    }

    fn make(&self, wanted: &Wanted, repository: bool) -> String {
        let content = match wanted.mode {
            Mode::Directory | Mode::Gitlink => return String::new(),
            Mode::Symlink => {
                std::fs::read_link(self.at(&wanted.path)).expect("a link").as_os_str().as_bytes().to_vec()
            }
            Mode::File | Mode::Executable => std::fs::read(self.at(&wanted.path)).expect("a file"),
        };
        if repository {
            feed(
                Command::new("git").arg("-C").arg(self.top()).args(["hash-object", "-w", "--stdin"]),
                &content,
            );
        }
        blob::id(self.format, content.len() as u64, &mut &content[..]).expect("reads")
    }

    fn fate(&self, record: &Record) -> Fate {
        let path = self.at(&record.path);
        let Ok(meta) = std::fs::symlink_metadata(&path) else { return Fate::Deleted };
        let (mode, content) = match meta.file_type() {
            kind if kind.is_symlink() => {
                (Mode::Symlink, std::fs::read_link(&path).expect("reads").as_os_str().as_bytes().to_vec())
            }
            kind if kind.is_dir() => return Fate::Unchanged,
            _ if meta.mode() & 0o100 != 0 => (Mode::Executable, std::fs::read(&path).expect("reads")),
            _ => (Mode::File, std::fs::read(&path).expect("reads")),
        };
        let id = blob::id(self.format, content.len() as u64, &mut &content[..]).expect("reads");
        if mode == record.mode && id == record.id { Fate::Unchanged } else { Fate::Changed }
    }
}

/// An index as git takes it, and the flags of paths that have some.
fn without_flags(index: &[u8]) -> (Vec<u8>, Vec<(String, String)>) {
    let (mut plain, mut flagged) = (vec![], vec![]);
    for line in index.split(|b| *b == 0).filter(|line| !line.is_empty()) {
        let tab = line.iter().position(|b| *b == b'\t').expect("a path");
        let words: Vec<&[u8]> = line[..tab].split(|b| *b == b' ').collect();
        plain.extend([&words[..3].join(&b' '), &line[tab..], b"\0"].concat());
        if let Some(flags) = words.get(3) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            flagged.push((text(flags), text(&line[tab + 1..])));
        }
    }
    (plain, flagged)
}

fn shallow(top: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(top.join(".git/shallow")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn init(top: &Path, format: Format, alternates: Option<&Path>) {
    if top.join(".git").exists() {
        return;
    }
    std::fs::create_dir_all(top).expect("makes");
    let format = if format == Format::Sha256 { "sha256" } else { "sha1" };
    git(top, &["init", "-q", &format!("--object-format={format}")]);
    if let Some(alternates) = alternates {
        let text = format!("{}\n", alternates.display());
        std::fs::write(top.join(".git/objects/info/alternates"), text).expect("writes");
    }
}

fn below(repository: &Repository) -> usize {
    all_below(repository).len()
}

fn all_below(repository: &Repository) -> Vec<(String, &Repository)> {
    let mut all = vec![];
    for (path, sub) in &repository.submodules {
        all.push((path.clone(), sub));
        all.extend(all_below(sub).into_iter().map(|(below, sub)| (format!("{path}/{below}"), sub)));
    }
    all
}

fn feed(command: &mut Command, input: &[u8]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("writes");
    assert!(child.wait().expect("ends").success(), "{command:?}");
}

fn say(far: &mut UnixStream, bytes: &[u8]) -> Result<(), Gone> {
    for piece in bytes.chunks(MAX_PAYLOAD) {
        Frame::new(Kind::Data, piece).write(far).map_err(|_| Gone)?;
    }
    Frame::new(Kind::Eof, []).write(far).map_err(|_| Gone)
}

fn hear(far: &mut UnixStream) -> Result<Vec<u8>, Gone> {
    let mut whole = vec![];
    while let Some(frame) = Frame::read(far).map_err(|_| Gone)? {
        match frame.kind {
            Kind::Data => whole.extend(frame.payload),
            Kind::Eof => return Ok(whole),
            kind => panic!("{kind:?}"),
        }
    }
    Err(Gone)
}
