//! Prepare after prepare, and the repository stays a small one.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

use super::*;

fn packs(lab: &Lab) -> PathBuf {
    lab.guest().join(".git/objects/pack")
}

/// The paths of a repository's packs that are ours, without extensions.
fn ours(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(packs(lab)).expect("lists").map(|entry| entry.expect("an entry").path());
    let keeps = entries.filter(|path| path.extension().is_some_and(|extension| extension == "keep"));
    let ours = keeps.filter(|keep| fs::read(keep).expect("reads") == b"banger: placed by the host\n");
    ours.map(|keep| keep.with_extension("")).collect()
}

/// A long file of which one line is changed: deltas are made of it.
fn change(lab: &Lab, n: usize) {
    let mut lines: Vec<String> = (0..2000).map(|line| format!("line {line} of a file")).collect();
    lines[n * 7 % 2000] = format!("changed the {n}th time");
    lab.write("file", lines.join("\n"));
    lab.write(&format!("dir/{n}"), format!("{n}\n"));
}

/// Somebody's git that runs all the while, and is asked for objects now and then.
struct Batch {
    child: std::process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Batch {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new("git");
        command.args(["cat-file", "--batch-check"]).current_dir(dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs git");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn has(&mut self, id: &str) -> bool {
        writeln!(self.stdin, "{id}").expect("asks");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("answers");
        !line.ends_with(" missing\n") && line.starts_with(id)
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().expect("ends").success());
    }
}

#[test]
fn after_many_prepares_there_are_few_packs_and_all_that_was_brought_is_readable() {
    for format in [Format::Sha1, Format::Sha256] {
        let lab = Lab::of(format);
        lab.write(
            "big",
            (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>(),
        );
        change(&lab, 0);
        lab.commit("first");
        let mut ids: Vec<String> = lab.bring().ids;
        let size = |path: &PathBuf| fs::metadata(path.with_extension("pack")).expect("stats").len();
        let large = ours(&lab).into_iter().max_by_key(size).expect("one").with_extension("pack");
        let mut batch = Batch::start(&lab.guest());
        let mut most = 0;
        for n in 1..=60 {
            change(&lab, n);
            if n % 3 > 0 {
                ids.push(lab.commit("next"));
            }
            ids.extend(lab.bring().ids);
            most = most.max(ours(&lab).len());
            assert!(most <= 20, "{:?}", ours(&lab));
            if n % 10 == 0 {
                assert!(ids.iter().all(|id| batch.has(id)), "{n}");
            }
            let guest = lab.guest();
            match n {
                14 => drop(git(&guest, &["gc", "-q", "--prune=now"])),
                24 => drop(git(&guest, &["multi-pack-index", "write"])),
                44 => drop(git(&guest, &["repack", "-adq"])),
                _ => {}
            }
        }
        assert!(most > 15, "there was nothing to merge");
        lab.check();
        assert!(ids.iter().all(|id| batch.has(id)));
        batch.end();
        let mut later = Batch::start(&lab.guest());
        assert!(ids.iter().all(|id| later.has(id)));
        later.end();
        assert_eq!(line(&lab.guest(), &["rev-list", "--count", "HEAD"]), "41");
        let left =
            fs::read_dir(packs(&lab)).expect("lists").map(|entry| entry.expect("an entry").file_name());
        let left: Vec<String> = left.map(|name| name.to_string_lossy().into_owned()).collect();
        assert!(!left.iter().any(|name| name.starts_with("tmp_")), "{left:?}");
        assert!(large.exists(), "a large pack was copied, with nothing gained");
    }
}

#[test]
fn a_merge_that_was_broken_off_is_made_good_by_the_next_prepare() {
    let lab = Lab::new();
    lab.write("file", "0");
    lab.commit("first");
    lab.bring();
    let (mut before, mut n) = (vec![], 0);
    let fill = |n: &mut usize| {
        let mut last = vec![];
        loop {
            let now = ours(&lab);
            if now.len() < last.len() {
                return last;
            }
            last = now;
            *n += 1;
            change(&lab, *n);
            lab.commit("next");
            // What is there before the merge, in case that this is the one.
            for path in &last {
                for from in ["pack", "idx", "keep"].map(|extension| path.with_extension(extension)) {
                    let to = lab.dir.path().join("before").join(from.file_name().expect("a name"));
                    if from.exists() {
                        write(&to, fs::read(from).expect("reads"));
                    }
                }
            }
            lab.bring();
        }
    };
    before.extend(fill(&mut n));
    assert!(before.len() > 15);
    // The power went before any of them was removed, or in the middle of it.
    let gone: Vec<&PathBuf> = before.iter().filter(|path| !path.with_extension("idx").exists()).collect();
    assert!(gone.len() > 5, "{gone:?}");
    for (number, path) in gone.iter().enumerate() {
        let extensions = if number % 2 == 0 { &["pack", "idx", "keep"][..] } else { &["pack", "keep"] };
        for extension in extensions {
            let to = path.with_extension(extension);
            fs::copy(lab.dir.path().join("before").join(to.file_name().expect("a name")), to)
                .expect("copies");
        }
    }
    // One that somebody else keeps is theirs, whatever is missing.
    write(&packs(&lab).join("pack-theirs.keep"), "");
    write(&packs(&lab).join("pack-theirs.pack"), "theirs");
    for _ in 0..15 {
        n += 1;
        change(&lab, n);
        lab.commit("next");
        lab.bring();
        assert!(ours(&lab).len() <= 20, "{:?}", ours(&lab));
    }
    for path in gone.iter().skip(1).step_by(2) {
        assert!(!path.with_extension("pack").exists() && !path.with_extension("keep").exists(), "{path:?}");
    }
    assert!(packs(&lab).join("pack-theirs.pack").exists());
    lab.check();
}
