//! Plain copies: what their files were is in the directory that they came from, or nowhere.

use super::*;
use crate::cli::workspace::blob;
use crate::git::Format;

/// A plain directory with `tree` in it, of which nobody else knows.
struct Plain(TempDir);

impl Plain {
    fn with(tree: &Tree) -> Self {
        let plain = Self(tempfile::tempdir().expect("a directory"));
        fs::create_dir(plain.top()).expect("creates");
        write(&plain.top(), tree);
        plain
    }

    fn top(&self) -> PathBuf {
        self.0.path().join("dir")
    }

    fn origin(&self) -> Origin {
        Origin {
            found: None,
            top: self.top(),
            cache: self.0.path().join("cache"),
            patience: Patience::default(),
        }
    }

    fn export(&self, guest: Guest) -> Result<(Vec<u8>, Vec<String>), WorkspaceError> {
        let mut progress = Progress::silent();
        let patch = Patch::make(&self.origin(), guest, None, &mut Attention::to(&mut progress))?;
        let mut out = vec![];
        match patch.write(How::Patch, &mut out) {
            Ok(()) => Ok((out, patch.notes.clone())),
            Err(Unwritten::Not(e)) => Err(e),
            Err(Unwritten::To(e)) => panic!("memory takes all: {e}"),
        }
    }

    fn apply(&self, patch: &[u8]) {
        Git::from(&self.top()).read_fed(&["apply", "--whitespace=nowarn"], patch).expect("applies");
    }

    fn refused(&self, guest: Guest) -> String {
        let error = self.export(guest).expect_err("is refused").to_string();
        assert_eq!(fs::read_dir(self.origin().cache).expect("lists").count(), 0);
        error
    }
}

fn id_of(content: &[u8]) -> String {
    blob::id(Format::Sha1, content.len() as u64, &mut &content[..]).expect("hashes")
}

/// A guest that tells the truth, and has of what was placed only the names.
fn copy(before: &Tree, after: &Tree) -> Guest {
    let paths: std::collections::BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    let mut records = vec![];
    for path in paths.into_iter().filter(|path| before.get(*path) != after.get(*path)) {
        let old = before.get(path).map(|(mode, content)| (*mode, id_of(content)));
        let new = after.get(path).map(|(mode, content)| (*mode, content.len() as u64));
        Difference { old, new, differs: true, path: path.clone() }.write(&mut records);
    }
    let after = after.clone();
    guest(records, move |paths, to| {
        let mut tar = tar::Builder::new(to);
        for (number, path) in paths.iter().enumerate() {
            if let Some((_, content)) = after.get(path) {
                append(&mut tar, &format!("new/{number}"), content)?;
            }
        }
        tar.finish()
    })
}

#[test]
fn a_patch_of_odd_changes_makes_a_plain_directory_the_guests() {
    let (before, after) = odd();
    let plain = Plain::with(&before);
    let (patch, notes) = plain.export(copy(&before, &after)).expect("is made");
    assert_eq!(notes, [""; 0]);
    assert!(read(&plain.top()) == before, "the directory was written to");
    plain.apply(&patch);
    assert!(read(&plain.top()) == after);
    // Again, with one file changed there since.
    let mut later = after.clone();
    later.insert(b"same".to_vec(), (F, b"not any more\n".to_vec()));
    let (patch, notes) = plain.export(copy(&before, &later)).expect("is made");
    assert!(notes[0].ends_with("as they are in the guest, and left out"), "{notes:?}");
    plain.apply(&patch);
    assert!(read(&plain.top()) == later);
    assert_eq!(plain.export(copy(&before, &later)).expect("is made").0, b"");
}

#[test]
fn what_was_changed_on_both_sides_gives_no_patch_and_is_named() {
    let before = tree(&[(b"a", F, b"1\n"), (b"b", F, b"1\n"), (b"c", L, b"a"), (b"d", F, b"1\n")]);
    let after = tree(&[(b"a", F, b"2\n"), (b"b", F, b"2\n"), (b"c", L, b"b"), (b"n", F, b"new\n")]);
    let plain = Plain::with(&before);
    let top = plain.top();
    for change in ["edited", "removed", "linked", "a directory", "a pipe"] {
        fs::remove_file(top.join("a")).expect("removes");
        match change {
            "edited" => fs::write(top.join("a"), "1\n+\n").expect("writes"),
            "linked" => symlink("d", top.join("a")).expect("links"),
            "a directory" => fs::create_dir(top.join("a")).expect("makes"),
            "a pipe" => rustix::fs::mknodat(
                rustix::fs::CWD,
                top.join("a"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .expect("makes"),
            _ => {}
        }
        let error = plain.refused(copy(&before, &after));
        let want = format!("a was changed or removed in {} as well since it was brought", top.display());
        assert!(error.starts_with(&want), "{change}: {error}");
        if change == "a directory" {
            fs::remove_dir(top.join("a")).expect("removes");
        } else if change != "removed" {
            fs::remove_file(top.join("a")).expect("removes");
        }
        fs::write(top.join("a"), "1\n").expect("writes");
    }
    // What the guest has left alone may be as it likes.
    fs::write(top.join("same"), "mine\n").expect("writes");
    plain.export(copy(&before, &after)).expect("is made");
    fs::remove_dir_all(&top).expect("removes");
    let error = plain.refused(copy(&before, &after));
    assert!(error.starts_with("a, b, c were changed or removed in "), "{error}");
    assert!(
        error.contains("since they were brought, so no patch fits; put them back as they were, or"),
        "{error}"
    );
}

#[test]
fn a_guest_cannot_have_anything_read_that_is_not_in_the_directory() {
    let plain = Plain::with(&tree(&[(b"f", F, b"1\n")]));
    let outside = plain.0.path().join("outside");
    fs::create_dir(&outside).expect("creates");
    fs::write(outside.join("secret"), "secret\n").expect("writes");
    symlink(&outside, plain.top().join("dir")).expect("links");
    symlink(outside.join("secret"), plain.top().join("link")).expect("links");
    // The guest knows what is in it, and says that it was placed.
    let old = format!("100644 {} 100644 2 D", id_of(b"secret\n"));
    let now = |paths: &[Vec<u8>], to: &mut dyn Write| {
        let mut tar = tar::Builder::new(to);
        (0..paths.len()).try_for_each(|n| append(&mut tar, &format!("new/{n}"), b"2\n"))?;
        tar.finish()
    };
    for path in [&b"dir/secret"[..], b"link"] {
        let error = plain.refused(guest(record(path, &old), now));
        assert!(error.contains(" was changed or removed in "), "{error}");
    }
    for path in [&b"../outside/secret"[..], b"f/../../outside/secret", b"/etc/passwd", b".git/config"] {
        let error = plain.refused(guest(record(path, &old), nothing));
        assert!(error.contains("is not accepted: the path"), "{error}");
    }
    // Its own word for what was placed does not count.
    let told = guest(record(b"f", &format!("100644 {} 100644 2 D", id_of(b"lie"))), |_, to| {
        let mut tar = tar::Builder::new(to);
        append(&mut tar, "old/0", b"lie")?;
        append(&mut tar, "new/0", b"2\n")?;
        tar.finish()
    });
    let error = plain.refused(told);
    assert!(error.starts_with("f was changed or removed in "), "{error}");
}

#[test]
fn whoever_applies_a_patch_within_a_repository_is_told_how() {
    let plain = Plain::with(&tree(&[(b"sub/f", F, b"1\n")]));
    let sub = plain.top().join("sub");
    assert_eq!(hint(&sub), None);
    Git::from(&plain.top()).read(&["init", "-q", "."]).expect("makes a repository");
    assert_eq!(hint(&plain.top()), None);
    let hint = hint(&sub).expect("is told");
    assert!(hint.contains("it takes `git apply --directory=sub`"), "{hint}");
    let (before, after) = (tree(&[(b"f", F, b"1\n")]), tree(&[(b"f", F, b"2\n")]));
    let origin = Origin { top: sub.clone(), ..plain.origin() };
    let mut progress = Progress::silent();
    let patch = Patch::make(&origin, copy(&before, &after), None, &mut Attention::to(&mut progress));
    let mut out = vec![];
    patch.expect("is made").write(How::Patch, &mut out).expect("writes");
    Git::from(&plain.top()).read_fed(&["apply", "--directory=sub"], &out).expect("applies");
    assert!(read(&sub) == after);
}
