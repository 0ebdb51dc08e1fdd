//! Packs of git's and packs of ours, judged by git.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::entry::head;
use super::*;

struct Repo(tempfile::TempDir);

impl Repo {
    fn new(format: Format) -> Self {
        let repo = Self(tempfile::tempdir_in("/dev/shm").expect("a directory"));
        repo.git(&["init", "-q", "-b", "main", "--object-format", format.name()], b"");
        repo
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let (out, ok) = self.try_git(args, input);
        assert!(ok, "git {args:?}: {}", String::from_utf8_lossy(&out));
        out
    }

    fn try_git(&self, args: &[&str], input: &[u8]) -> (Vec<u8>, bool) {
        let mut child = Command::new("git")
            .args([
                "-c",
                "user.name=A",
                "-c",
                "user.email=a@b",
                "-c",
                "gc.auto=0",
                "-c",
                "maintenance.auto=false",
            ])
            .args(args)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("runs git");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let mut out = vec![];
        child.stdout.take().expect("a pipe").read_to_end(&mut out).expect("reads");
        feeder.join().expect("feeds").ok();
        (out, child.wait().expect("ends").success())
    }

    fn line(&self, args: &[&str]) -> String {
        String::from_utf8(self.git(args, b"")).expect("text").trim().to_owned()
    }

    /// `commits` commits, each changing a line of a long file: deltas on deltas.
    fn fill(&self, commits: usize) {
        let mut lines: Vec<String> = (0..2000).map(|n| format!("line {n} of a file")).collect();
        for n in 0..commits {
            lines[n * 7 % 2000] = format!("changed by commit {n}");
            std::fs::write(self.path().join("file"), lines.join("\n")).expect("writes");
            std::fs::write(self.path().join(format!("other{n}")), format!("{n}")).expect("writes");
            self.git(&["add", "-A"], b"");
            self.git(&["commit", "-q", "-m", &format!("commit {n}")], b"");
        }
    }

    fn pack(&self, args: &[&str], revisions: &str) -> Vec<u8> {
        let args = [&["pack-objects", "--stdout", "-q", "--revs"], args].concat();
        self.git(&args, revisions.as_bytes())
    }
}

fn nowhere(_: &Id) -> io::Result<Option<(Kind, Vec<u8>)>> {
    Ok(None)
}

/// Receives a pack as a guest does. Returns where it is, with its index beside it.
fn receive(pack: &[u8], format: Format, into: &Path, elsewhere: &mut Elsewhere<'_>) -> io::Result<PathBuf> {
    let path = into.join("received.pack");
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let scanned = scan(&mut &pack[..], &mut file, format)?.ok_or_else(|| bad("nothing"))?;
    let (entries, checksum) = resolve(scanned, &file, elsewhere)?;
    write_index(&mut File::create(into.join("received.idx"))?, format, entries, checksum)?;
    Ok(path)
}

fn read_all(dir: &Path, format: Format, ids: &str) -> Vec<(Id, Kind, Vec<u8>)> {
    let file = File::open(dir.join("received.pack")).expect("opens");
    let index = Index::open(File::open(dir.join("received.idx")).expect("opens"), format).expect("an index");
    let pack = Pack { file: &file, format, number: 0 };
    // As good as none: every chain is walked.
    let mut cache = Cache::new(1000);
    ids.lines()
        .map(|id| {
            let id = Id::parse(id.as_bytes()).expect("an id");
            let at = index.offset(&id).expect("looks").expect("is there");
            let (kind, content) = pack.content(at, &mut cache, &|_, base| index.offset(base)).expect("reads");
            (id, kind, content.to_vec())
        })
        .collect()
}

#[test]
fn a_pack_of_gits_gets_the_very_index_that_git_gives_it() {
    for (format, args) in [
        (Format::Sha1, &["--delta-base-offset"][..]),
        (Format::Sha1, &[]),
        (Format::Sha256, &["--delta-base-offset"]),
        (Format::Sha1, &["--delta-base-offset", "--depth=200", "--window=50"]),
    ] {
        let (repo, dir) = (Repo::new(format), tempfile::tempdir().expect("a directory"));
        repo.fill(120);
        repo.git(&["tag", "-a", "-m", "a tag", "v1"], b"");
        let pack = repo.pack(args, "main\nv1\n");
        let path = receive(&pack, format, dir.path(), &mut nowhere).expect("receives");
        assert_eq!(std::fs::read(&path).expect("reads"), pack);
        let theirs = dir.path().join("theirs.idx");
        repo.git(
            &[
                "index-pack",
                &format!("--object-format={}", format.name()),
                "-o",
                theirs.to_str().expect("text"),
                path.to_str().expect("text"),
            ],
            b"",
        );
        assert_eq!(
            std::fs::read(dir.path().join("received.idx")).expect("reads"),
            std::fs::read(theirs).expect("reads"),
            "{format:?} {args:?}"
        );
        let ids = repo.line(&["rev-list", "--all", "--objects", "--no-object-names"]);
        for (id, kind, content) in read_all(dir.path(), format, &ids) {
            let mut hasher = Hasher::object(format, kind.name(), content.len() as u64);
            hasher.update(&content);
            assert_eq!(hasher.finish(), id);
        }
    }
}

#[test]
fn a_thin_pack_is_completed_from_the_repository_that_it_goes_to() {
    for args in [&["--thin"][..], &["--thin", "--delta-base-offset"]] {
        let (repo, dir) = (Repo::new(Format::Sha1), tempfile::tempdir().expect("a directory"));
        repo.fill(20);
        let pack = repo.pack(args, "main\n^main~3\n");
        let mut asked = 0;
        let mut elsewhere = |id: &Id| {
            asked += 1;
            let kind = repo.line(&["cat-file", "-t", &id.to_string()]);
            let content = repo.git(&["cat-file", &kind, &id.to_string()], b"");
            Ok(Kind::parse(kind.as_bytes()).map(|kind| (kind, content)))
        };
        let path = receive(&pack, Format::Sha1, dir.path(), &mut elsewhere).expect("receives");
        assert!(asked > 0, "it is thin");
        repo.git(&["verify-pack", path.to_str().expect("text")], b"");
        let error =
            receive(&pack, Format::Sha1, dir.path(), &mut nowhere).expect_err("has no bases").to_string();
        assert!(error.starts_with("the base ") && error.ends_with(" of a delta is missing"), "{error}");
    }
}

#[test]
fn every_cut_and_every_flipped_byte_is_noticed() {
    let (repo, dir) = (Repo::new(Format::Sha1), tempfile::tempdir().expect("a directory"));
    repo.fill(4);
    let pack = repo.pack(&["--delta-base-offset"], "main\n");
    for length in (1..pack.len()).step_by(pack.len() / 150 + 1) {
        receive(&pack[..length], Format::Sha1, dir.path(), &mut nowhere).expect_err("cut off");
    }
    for at in (0..pack.len()).step_by(pack.len() / 150 + 1) {
        let mut flipped = pack.clone();
        flipped[at] ^= 0x20;
        receive(&flipped, Format::Sha1, dir.path(), &mut nowhere).expect_err("damaged");
    }
    let longer = [&pack[..], b"x"].concat();
    let error = receive(&longer, Format::Sha1, dir.path(), &mut nowhere).expect_err("too long");
    assert_eq!(error.to_string(), "something comes after its end");
}

/// A pack of these entries, with a checksum that is right.
fn forged(count: u32, entries: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let mut pack = header(count).to_vec();
    for (head, content) in entries {
        pack.extend(head);
        let mut encoder = ZlibEncoder::new(&mut pack, Compression::best());
        encoder.write_all(content).expect("deflates");
        encoder.finish().expect("deflates");
    }
    let mut hasher = Hasher::new(Format::Sha1);
    hasher.update(&pack);
    pack.extend(hasher.finish().bytes());
    pack
}

fn delta_head(kind: u8, size: usize, base: &[u8]) -> Vec<u8> {
    let mut bytes = head(Kind::Blob, size as u64);
    bytes[0] = bytes[0] & 0x8f | kind << 4;
    bytes.extend(base);
    bytes
}

#[test]
fn a_hostile_pack_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let blob = |content: &'static [u8]| (head(Kind::Blob, content.len() as u64), content);
    let (a, b) = ([0xaa; 20], [0xbb; 20]);
    let same = &[1, 1, 0x90, 1][..];
    let zeros = vec![0; 1 << 20];
    for (want, pack) in [
        ("it is no pack", b"PACK\0\0\0\x09\0\0\0\0".to_vec()),
        ("it is no pack", b"PAC".to_vec()),
        // It takes the checksum for an object.
        ("an object of the unknown kind 5", forged(u32::MAX, &[blob(b"x")])),
        ("its checksum is wrong", forged(0, &[blob(b"")])),
        ("an object is longer than it says", forged(1, &[(head(Kind::Blob, 3), b"long")])),
        ("an object is longer than it says", forged(1, &[(head(Kind::Blob, 9), &zeros)])),
        ("an object is shorter than it says", forged(1, &[(head(Kind::Blob, 1 << 60), b"short")])),
        ("a delta is too long", forged(1, &[(delta_head(7, 1 << 40, &a), b"x")])),
        ("a delta's base is no object", forged(2, &[blob(b"x"), (delta_head(6, 4, &[1]), same)])),
        ("a delta's base is no object", forged(1, &[(delta_head(6, 4, &[0]), same)])),
        ("a delta's base is no object", forged(1, &[(delta_head(6, 4, &[0x7f]), same)])),
        (
            "the base aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa of a delta is missing",
            forged(2, &[(delta_head(7, 4, &a), same), (delta_head(7, 4, &b), same)]),
        ),
        ("an object of the unknown kind 5", forged(1, &[(vec![0x50], b"")])),
    ] {
        let error = receive(&pack, Format::Sha1, dir.path(), &mut nowhere).expect_err("refused").to_string();
        assert_eq!(error, want);
    }
}

#[test]
fn a_delta_bomb_is_refused_before_it_goes_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let blob = vec![0; 1 << 20];
    let first = (head(Kind::Blob, blob.len() as u64), &blob[..]);
    // From 1 MiB, says that 2^62 come out, and copies for as long as there is anything to read.
    let mut delta = vec![0x80, 0x80, 0x40, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    delta.extend([0xf0, 0xff, 0xff, 0x0f].repeat(1000));
    let distance = forged(1, std::slice::from_ref(&first)).len() - 12 - 20;
    let base = [0x80 | ((distance >> 7) as u8 - 1), distance as u8 & 0x7f];
    let pack = forged(2, &[first, (delta_head(6, delta.len(), &base), &delta)]);
    let error = receive(&pack, Format::Sha1, dir.path(), &mut nowhere).expect_err("refused").to_string();
    assert_eq!(error, "a delta makes 4611686018427387904 bytes; 536870912 are allowed");
}

#[test]
fn a_chain_of_deltas_without_end_is_refused_and_a_long_one_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let chain = |length: usize| {
        let mut entries = vec![(head(Kind::Blob, 1), &b"x"[..])];
        let mut before = forged(1, &entries).len() - 32;
        // Each repeats its base, and adds a byte: as many objects as there are deltas.
        let deltas: Vec<Vec<u8>> = (1..=length)
            .map(|n| {
                let number = |n: usize| [n as u8 | 0x80, (n >> 7) as u8];
                [&number(n)[..], &number(n + 1), &[0xb0, n as u8, (n >> 8) as u8, 1, b'y']].concat()
            })
            .collect();
        for delta in &deltas {
            let entry = (delta_head(6, delta.len(), &[before as u8]), &delta[..]);
            before = forged(1, std::slice::from_ref(&entry)).len() - 32;
            entries.push(entry);
        }
        forged(length as u32 + 1, &entries)
    };
    receive(&chain(4000), Format::Sha1, dir.path(), &mut nowhere).expect("receives");
    Repo::new(Format::Sha1)
        .git(&["verify-pack", dir.path().join("received.pack").to_str().expect("text")], b"");
    let last = |length: usize| {
        let pack = chain(length);
        let mut scanned =
            scan(&mut &pack[..], &mut io::sink(), Format::Sha1).expect("scans").expect("objects");
        let at = scanned.objects.pop().expect("the last").offset;
        std::fs::write(dir.path().join("plain"), &pack).expect("writes");
        let file = File::open(dir.path().join("plain")).expect("opens");
        let content =
            Pack { file: &file, format: Format::Sha1, number: 0 }
                .content(at, &mut Cache::new(0), &|_, _| Ok(None));
        content.map(|(_, content)| content.len()).map_err(|e| e.to_string())
    };
    assert_eq!(last(4000), Ok(4001));
    assert_eq!(last(4200), Err("a chain of deltas is too long".to_owned()));
}

#[test]
fn blobs_that_came_as_files_are_a_pack_that_git_reads() {
    for format in [Format::Sha1, Format::Sha256] {
        let repo = Repo::new(format);
        let dir = repo.path().join(".git/objects/pack");
        let path = dir.join("pack-1.pack");
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("creates");
        let mut builder = Builder::new(file, format).expect("begins");
        let big: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let mut ids = vec![];
        for content in [&b"one"[..], b"", &big, b"one", b"two"] {
            let mut also = vec![];
            // What is cut off leaves nothing behind.
            let cut = builder.blob(100_000_000, &mut &big[..], &mut io::sink()).expect_err("is cut off");
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
            let id = builder.blob(content.len() as u64, &mut &content[..], &mut also).expect("adds");
            assert_eq!(also, content);
            ids.push((id, content));
        }
        let (_, entries, checksum) = builder.finish().expect("ends");
        assert_eq!(entries.len(), 4);
        write_index(&mut File::create(dir.join("pack-1.idx")).expect("creates"), format, entries, checksum)
            .expect("writes");
        repo.git(&["verify-pack", path.to_str().expect("text")], b"");
        repo.git(&["fsck", "--strict", "--full"], b"");
        for (id, content) in ids {
            assert_eq!(repo.git(&["cat-file", "blob", &id.to_string()], b""), content);
        }
    }
}

#[test]
fn offsets_beyond_two_gibibytes_are_found_by_git_and_by_us() {
    let id = |n: u8| Id::from_bytes(&[n; 20]).expect("an id");
    let offsets = [12, (1 << 31) - 1, 1 << 31, 1 << 40];
    let entries = (1..).zip(offsets).map(|(n, offset)| Entry { offset, crc: 7, id: id(n * 60) }).collect();
    let mut bytes = vec![];
    write_index(&mut bytes, Format::Sha1, entries, id(9)).expect("writes");
    let repo = Repo::new(Format::Sha1);
    let shown = String::from_utf8(repo.git(&["show-index"], &bytes)).expect("text");
    let theirs: Vec<&str> = shown.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(theirs, offsets.map(|offset| offset.to_string()));
    let path = repo.path().join("idx");
    std::fs::write(&path, bytes).expect("writes");
    let index = Index::open(File::open(&path).expect("opens"), Format::Sha1).expect("an index");
    for (n, offset) in (1..).zip(offsets) {
        assert_eq!(index.offset(&id(n * 60)).expect("looks"), Some(offset));
    }
    assert_eq!(index.offset(&id(61)).expect("looks"), None);
    assert_eq!(index.offset(&id(0)).expect("looks"), None);
}

/// A pack and its index, as git makes them of `ids`.
fn source(repo: &Repo, args: &[&str], ids: &str, into: &Path, format: Format) -> Source {
    let pack = repo.git(&[&["pack-objects", "--stdout", "-q"], args].concat(), ids.as_bytes());
    std::fs::create_dir_all(into).expect("makes a directory");
    let path = receive(&pack, format, into, &mut nowhere).expect("receives");
    let index = Index::open(File::open(into.join("received.idx")).expect("opens"), format).expect("an index");
    Source::new(File::open(path).expect("opens"), &index, format).expect("a pack")
}

fn merge_to(path: &Path, sources: &[Source], format: Format) -> io::Result<usize> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let (entries, checksum) = merge(sources, &file, format)?;
    let count = entries.len();
    write_index(&mut File::create(path.with_extension("idx"))?, format, entries, checksum)?;
    Ok(count)
}

#[test]
fn packs_that_share_objects_become_one_that_git_finds_sound() {
    for (format, offset) in
        [(Format::Sha1, "--delta-base-offset"), (Format::Sha1, "-q"), (Format::Sha256, "--delta-base-offset")]
    {
        let (repo, dir) = (Repo::new(format), tempfile::tempdir_in("/dev/shm").expect("a directory"));
        repo.fill(60);
        let all = repo.line(&["rev-list", "--all", "--objects", "--no-object-names"]);
        let ids: Vec<&str> = all.lines().collect();
        // What is whole in one is a delta in another.
        let backwards: Vec<&str> = ids.iter().rev().copied().collect();
        let packs = [&ids[..120], &backwards[..120], &ids[60..], &ids[..1], &[]];
        let sources: Vec<Source> = packs
            .iter()
            .enumerate()
            .map(|(n, ids)| {
                let args = [offset, if n % 2 == 0 { "--window=10" } else { "--window=50" }];
                source(
                    &repo,
                    &args,
                    &ids.iter().map(|id| format!("{id}\n")).collect::<String>(),
                    &dir.path().join(n.to_string()),
                    format,
                )
            })
            .collect();
        let path = dir.path().join("received.pack");
        let count = merge_to(&path, &sources, format).expect("merges");
        assert_eq!(count, ids.len());
        repo.git(&["verify-pack", path.to_str().expect("text")], b"");
        let theirs = dir.path().join("theirs.idx");
        let args =
            ["index-pack", "--strict", "-o", theirs.to_str().expect("text"), path.to_str().expect("text")];
        repo.git(&args, b"");
        let read = |name: &str| std::fs::read(dir.path().join(name)).expect("reads");
        assert!(read("received.idx") == read("theirs.idx"));
        for (id, kind, content) in read_all(dir.path(), format, &all) {
            let mut hasher = Hasher::object(format, kind.name(), content.len() as u64);
            hasher.update(&content);
            assert_eq!(hasher.finish(), id);
        }
        // Merged again, it is the same.
        let whole = std::fs::metadata(&path).expect("stats").len();
        let index = Index::open(File::open(dir.path().join("received.idx")).expect("opens"), format);
        let again = Source::new(File::open(&path).expect("opens"), &index.expect("an index"), format);
        let twice = dir.path().join("twice.pack");
        merge_to(&twice, &[again.expect("a pack")], format).expect("merges");
        assert_eq!(std::fs::metadata(&twice).expect("stats").len(), whole);
    }
}

#[test]
fn a_pack_that_is_damaged_is_not_merged() {
    let (repo, dir) = (Repo::new(Format::Sha1), tempfile::tempdir_in("/dev/shm").expect("a directory"));
    repo.fill(4);
    let ids = repo.line(&["rev-list", "--all", "--objects", "--no-object-names"]) + "\n";
    let good = source(&repo, &["--delta-base-offset"], &ids, dir.path(), Format::Sha1);
    let path = dir.path().join("merged.pack");
    merge_to(&path, &[good], Format::Sha1).expect("merges");
    let pack = std::fs::read(dir.path().join("received.pack")).expect("reads");
    let open = || {
        Index::open(File::open(dir.path().join("received.idx")).expect("opens"), Format::Sha1)
            .expect("an index")
    };
    for at in (HEADER as usize..pack.len() - 20).step_by(pack.len() / 150 + 1) {
        let mut flipped = pack.clone();
        flipped[at] ^= 0x20;
        std::fs::write(dir.path().join("flipped.pack"), flipped).expect("writes");
        let file = File::open(dir.path().join("flipped.pack")).expect("opens");
        let source = Source::new(file, &open(), Format::Sha1).expect("a pack");
        merge_to(&path, &[source], Format::Sha1).expect_err("damaged");
    }
    let cut = File::options().write(true).open(dir.path().join("received.idx")).expect("opens");
    cut.set_len(1200).expect("cuts");
    assert!(open().entries().is_err());
}
