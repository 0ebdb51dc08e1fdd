//! A second prepare: only what changed is sent, and nothing of the guest's is lost.

use super::guest::Guest;
use super::{Host, sentence};

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
