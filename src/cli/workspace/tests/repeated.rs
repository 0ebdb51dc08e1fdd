//! A second prepare: only what changed is sent, and nothing of the guest's is lost.

use std::os::unix::net::UnixStream;

use super::guest::Guest;
use super::{Host, sentence};
use crate::cli::client::Attention;
use crate::cli::render::Progress;
use crate::cli::workspace::gather::{Gathered, Wish, gather};
use crate::cli::workspace::{Done, Guest as Met, compare_with};
use crate::proto::frame::{Frame, Kind};
use crate::proto::workspace::Held;
use crate::vm::workspace::Workspace;

fn read(guest: &Guest, name: &str) -> Option<String> {
    std::fs::read_to_string(guest.path(name)).ok()
}

#[test]
fn only_what_changed_here_is_sent() {
    let host = Host::new();
    for name in ["b", "c", "d/e"] {
        host.write(name, name);
    }
    host.commit("more");
    let mut guest = Guest::new();
    guest.prepare(&host.gather(), false).expect("brings");
    let packed = guest.packed;
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!((done.sent, done.removed, done.commits, done.bytes, guest.packed), (0, 0, 0, 0, packed));
    // One that is as it was, with another time.
    host.write("b", "b");
    host.write("c", "changed");
    std::fs::remove_file(host.path("d/e")).expect("removes");
    host.write("f", "new");
    host.commit("changes");
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!((done.sent, done.removed, done.commits), (2, 1, 1));
    assert_eq!(guest.git(&["status", "--porcelain"]), "");
    guest.git(&["fsck", "--full", "--strict"]);
    assert!(!guest.path("d/e").exists());
}

#[test]
fn what_changed_on_both_sides_is_refused_by_name_until_it_is_forced() {
    let host = Host::new();
    for name in ["both", "guest", "deleted", "gone"] {
        host.write(name, "0");
    }
    host.commit("more");
    let mut guest = Guest::new();
    guest.prepare(&host.gather(), false).expect("brings");
    for name in ["both", "guest", "gone"] {
        std::fs::write(guest.path(name), "guest's").expect("writes");
    }
    std::fs::remove_file(guest.path("deleted")).expect("removes");
    std::fs::write(guest.path("own"), "guest's").expect("writes");
    std::fs::write(guest.path("way"), "guest's").expect("writes");
    guest.prepare(&host.gather(), false).expect("the guest's changes are no conflict");
    assert_eq!(read(&guest, "both").as_deref(), Some("guest's"));
    assert!(!guest.path("deleted").exists());

    host.write("both", "host's");
    std::fs::remove_file(host.path("gone")).expect("removes");
    let said = sentence(guest.prepare(&host.gather(), false));
    assert_eq!(
        said,
        "changed in the guest and here: both, gone; `banger vm workspace diff` shows the guest's side, --force overwrites it"
    );
    assert_eq!(read(&guest, "both").as_deref(), Some("guest's"));
    host.git(&["checkout", "-q", "gone", "both"]);
    host.write("way", "host's");
    host.git(&["add", "way"]);
    let said = sentence(guest.prepare(&host.gather(), false));
    assert_eq!(
        said,
        "in the way in the guest, and not brought by banger: way; --force overwrites what is there"
    );
    host.write("both", "host's");
    let done = guest.prepare(&host.gather(), true).expect("is forced");
    assert_eq!(done.sent, 2);
    for (name, text) in
        [("both", "host's"), ("way", "host's"), ("guest", "guest's"), ("own", "guest's"), ("gone", "guest's")]
    {
        assert_eq!(read(&guest, name).as_deref(), Some(text), "{name}");
    }
}

#[test]
fn commits_of_the_guest_stay_and_both_sides_moving_is_refused() {
    let host = Host::new();
    let mut guest = Guest::new();
    guest.prepare(&host.gather(), false).expect("brings");
    std::fs::write(guest.path("own"), "x").expect("writes");
    guest.git(&["add", "own"]);
    guest.git(&["commit", "-q", "-m", "guest's"]);
    let head = guest.git(&["rev-parse", "HEAD"]);
    host.write("a", "uncommitted");
    let done = guest.prepare(&host.gather(), false).expect("brings files");
    assert_eq!((done.sent, done.head_stays), (1, true));
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), head);
    assert_eq!(guest.git(&["status", "--porcelain"]), " M a");
    host.commit("host's");
    let said = sentence(guest.prepare(&host.gather(), false));
    assert!(said.starts_with("HEAD moved in the guest and here; "), "{said}");
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), head);
    guest.prepare(&host.gather(), true).expect("is forced");
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), host.git(&["rev-parse", "HEAD"]));
    guest.git(&["cat-file", "-e", &head]);
}

#[test]
fn a_repository_that_the_guest_has_deleted_is_made_anew() {
    let host = Host::new();
    let mut guest = Guest::new();
    guest.prepare(&host.gather(), false).expect("brings");
    std::fs::remove_dir_all(guest.path(".git")).expect("removes");
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(done.commits, 1);
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), host.git(&["rev-parse", "HEAD"]));
}

/// Brings `wish` as one who knows what was brought before.
fn again(guest: &mut Guest, wish: &Wish, known: &Workspace) -> Result<(Done, Workspace), String> {
    let mut gathered = gather(wish).map_err(|e| e.to_string())?;
    gathered.keep_branch(known, &guest.held());
    let done = guest.prepare(&gathered, false).map_err(|e| e.to_string())?;
    Ok((done, record(&gathered)))
}

fn record(gathered: &Gathered) -> Workspace {
    gathered.record("/root/repo", 1)
}

#[test]
fn a_branch_from_another_commit_stays_there_until_a_branch_is_asked_for() {
    let host = Host::new();
    let first = host.git(&["rev-parse", "HEAD"]);
    host.write("a", "second\n");
    host.commit("second");
    let mut guest = Guest::new();
    let (branch, from) = (Some("try".to_owned()), Some("HEAD~".to_owned()));
    let gathered = gather(&Wish { branch, from, ..host.wish() }).expect("is read");
    guest.prepare(&gathered, false).expect("brings");
    let known = record(&gathered);
    assert_eq!(known.from.as_ref(), Some(&first));
    let plain = Wish { from: known.from.clone(), ..host.wish() };

    // Whatever becomes of this host: another commit, another branch, that very commit with changes.
    let here = [&["commit", "-q", "--allow-empty", "-m", "third"][..], &["checkout", "-q", "-b", "other"]];
    for moved in [&here[..], &[&["checkout", "-q", "--detach", &first]]] {
        moved.iter().for_each(|args| drop(host.git(args)));
        host.write("a", "not committed\n");
        let (done, known) = again(&mut guest, &plain, &known).expect("brings");
        assert_eq!((done.sent, done.removed, done.commits), (0, 0, 0), "{moved:?}");
        assert_eq!(guest.git(&["rev-parse", "HEAD"]), first);
        assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## try");
        assert_eq!(known.from.as_ref(), Some(&first));
        host.git(&["checkout", "-q", "-f", "other"]);
    }
    guest.git(&["commit", "-q", "--allow-empty", "-m", "the guest's"]);
    let (done, known) = again(&mut guest, &plain, &known).expect("brings");
    assert!(done.head_stays);
    guest.git(&["reset", "-q", "--hard", &first]);

    // Also one that is the host's own by name.
    let other = Wish { branch: Some("other".to_owned()), ..host.wish() };
    let (_, known) = again(&mut guest, &other, &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## other");
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), host.git(&["rev-parse", "HEAD"]));
    assert_eq!(known.from, None);

    let gone = Wish { from: Some("1".repeat(40)), ..host.wish() };
    let said = again(&mut guest, &gone, &known).expect_err("is gone");
    assert!(said.contains("no longer has the commit 1111") && said.ends_with("--branch brings what is here"));
}

#[test]
fn a_branch_of_the_guests_own_lasts_as_long_as_the_one_here() {
    let host = Host::new();
    let mut guest = Guest::new();
    let gathered = gather(&Wish { branch: Some("try".to_owned()), ..host.wish() }).expect("is read");
    guest.prepare(&gathered, false).expect("brings");
    let known = record(&gathered);
    host.commit("second");
    let (_, known) = again(&mut guest, &host.wish(), &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## try");
    let main = Wish { branch: Some("main".to_owned()), ..host.wish() };
    let (_, known) = again(&mut guest, &main, &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## main");
    host.git(&["checkout", "-q", "-b", "other"]);
    again(&mut guest, &host.wish(), &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## other");
}

#[test]
fn a_tree_that_was_moved_here_is_known_by_its_commit() {
    let host = Host::new();
    let known = record(&host.gather());
    let other = Host::new();
    assert!(host.gather().is_of(&known) && !other.gather().is_of(&known));
    other.git(&[
        "pull",
        "-q",
        "--rebase=false",
        "--allow-unrelated-histories",
        "--no-edit",
        host.top().to_str().expect("text"),
    ]);
    assert!(!other.gather().has_moved_from(&known), "it is still there");
    let moved = host.dir.path().join("moved");
    std::fs::rename(host.top(), &moved).expect("moves");
    let gathered = gather(&Wish { path: moved, ..host.wish() }).expect("is read");
    assert!(!gathered.is_of(&known) && gathered.has_moved_from(&known));
    assert!(!Host::new().gather().has_moved_from(&Workspace { head: Some("1".repeat(40)), ..known.clone() }));
    assert!(!gathered.has_moved_from(&Workspace { head: None, ..known }));
}

#[test]
fn a_directory_in_a_repository_brings_all_of_it_and_says_so() {
    let host = Host::new();
    host.write("sub/b", "b");
    host.commit("more");
    let gathered = gather(&Wish { path: host.path("sub"), ..host.wish() }).expect("is read");
    let top = host.top().canonicalize().expect("is there");
    let note = format!("{} is in {}, which is brought whole", top.join("sub").display(), top.display());
    assert_eq!(gathered.notes, [note]);
    assert_eq!(host.gather().notes, [""; 0]);
}

#[test]
fn names_that_the_guest_would_not_take_stay_here() {
    let host = Host::new();
    let head = host.git(&["rev-parse", "HEAD"]);
    let long = format!("refs/tags/{}", "long/".repeat(250));
    for name in ["refs/tags/-x", "refs/tags/good", "refs/heads/-b", &(long + "x")] {
        host.git(&["update-ref", name, &head]);
    }
    host.git(&["symbolic-ref", "HEAD", "refs/heads/-b"]);
    let mut guest = Guest::new();
    let gathered = host.gather();
    assert_eq!(gathered.repository.as_ref().expect("a repository").branch, None);
    guest.prepare(&gathered, false).expect("brings");
    assert_eq!(guest.git(&["tag"]), "good");
    assert_eq!(guest.git(&["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
}

/// A guest that has nothing on record, and finds `path` in the way.
fn obstructed(path: &'static [u8]) -> Met {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    std::thread::spawn(move || -> std::io::Result<()> {
        Frame::new(Kind::Eof, []).write(&mut far)?;
        // The order, and the wanted tree.
        let mut ended = 0;
        while ended < 2 {
            ended += usize::from(Frame::read(&mut far)?.is_some_and(|frame| frame.kind == Kind::Eof));
        }
        Frame::new(Kind::Data, [path, b"\0"].concat()).write(&mut far)?;
        Frame::new(Kind::Eof, []).write(&mut far)
    });
    Met { held: Held::default(), connection: near.into() }
}

#[test]
fn what_is_in_the_way_is_told_by_whoever_only_asks() {
    let host = Host::new();
    let mut progress = Progress::silent();
    let told = compare_with(&host.gather(), obstructed(b"a"), false, &mut Attention::to(&mut progress));
    assert_eq!(
        sentence(told),
        "in the way in the guest, and not brought by banger: a; --force overwrites what is there"
    );
}
