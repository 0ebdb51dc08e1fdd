//! Bringing a tree again, by one who knows what was brought before, to the agent itself.

use super::agent::Agent;
use super::{Host, listing, sentence};
use crate::cli::client::Attention;
use crate::cli::render::Progress;
use crate::cli::workspace::gather::{Gathered, Wish, gather};
use crate::cli::workspace::{Done, bring, compare_with};
use crate::proto::agent::Request;
use crate::proto::workspace::Prepare;
use crate::vm::workspace::Workspace;

fn again(guest: &Agent, wish: &Wish, known: &Workspace) -> Result<(Done, Workspace), String> {
    let mut gathered = gather(wish).map_err(|e| e.to_string())?;
    let mut progress = Progress::silent();
    let mut attention = Attention::to(&mut progress);
    let told = guest.asked(request(guest), |met| {
        gathered.keep_branch(known, &met.held);
        compare_with(&gathered, met, false, &mut attention)
    });
    let done = guest.asked(request(guest), |met| {
        gathered.keep_branch(known, &met.held);
        bring(&gathered, met, false, &mut attention)
    });
    let told = told.map(|(_, told)| (told.sent, told.removed, told.commits)).map_err(|e| e.to_string());
    let done = done.map_err(|e| e.to_string());
    assert_eq!(
        told,
        done.as_ref().map(|done| (done.sent, done.removed, done.commits)).map_err(String::clone)
    );
    Ok((done?, record(&gathered)))
}

fn request(guest: &Agent) -> Request {
    Request::Prepare(Prepare { path: guest.top().to_str().expect("text").to_owned(), present: true })
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
    let guest = Agent::new();
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
        let (done, known) = again(&guest, &plain, &known).expect("brings");
        assert_eq!((done.sent, done.removed, done.commits), (0, 0, 0), "{moved:?}");
        assert_eq!(guest.git(&["rev-parse", "HEAD"]), first);
        assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## try");
        assert_eq!(known.from.as_ref(), Some(&first));
        host.git(&["checkout", "-q", "-f", "other"]);
    }
    guest.git(&["commit", "-q", "--allow-empty", "-m", "the guest's"]);
    let (done, known) = again(&guest, &plain, &known).expect("brings");
    assert!(done.head_stays);
    guest.git(&["reset", "-q", "--hard", &first]);

    // Also one that is the host's own by name.
    let other = Wish { branch: Some("other".to_owned()), ..host.wish() };
    let (_, known) = again(&guest, &other, &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## other");
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), host.git(&["rev-parse", "HEAD"]));
    assert_eq!(known.from, None);

    let gone = Wish { from: Some("1".repeat(40)), ..host.wish() };
    let said = again(&guest, &gone, &known).expect_err("is gone");
    assert!(said.contains("no longer has the commit 1111") && said.ends_with("--branch brings what is here"));
}

#[test]
fn a_branch_of_the_guests_own_lasts_as_long_as_the_one_here() {
    let host = Host::new();
    let guest = Agent::new();
    let gathered = gather(&Wish { branch: Some("try".to_owned()), ..host.wish() }).expect("is read");
    guest.prepare(&gathered, false).expect("brings");
    let known = record(&gathered);
    host.commit("second");
    let (_, known) = again(&guest, &host.wish(), &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## try");
    let main = Wish { branch: Some("main".to_owned()), ..host.wish() };
    let (_, known) = again(&guest, &main, &known).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## main");
    host.git(&["checkout", "-q", "-b", "other"]);
    again(&guest, &host.wish(), &known).expect("brings");
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
fn whoever_only_asks_hears_what_is_in_the_way_and_changes_nothing() {
    let host = Host::new();
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    guest.write("way", "guest's");
    host.write("way", "host's");
    host.write("b", "b");
    host.commit("second");
    let ask = |force| {
        let mut progress = Progress::silent();
        let mut attention = Attention::to(&mut progress);
        guest.asked(request(&guest), |met| compare_with(&host.gather(), met, force, &mut attention))
    };
    let before = listing(&guest.top());
    assert_eq!(
        sentence(ask(false)),
        "in the way in the guest, and not brought by banger: way; --force overwrites what is there"
    );
    let (_, done) = ask(true).expect("would be forced");
    assert_eq!((done.sent, done.commits), (2, 1));
    assert!(listing(&guest.top()) == before);
    assert_eq!(guest.prepare(&host.gather(), true).expect("is forced").sent, 2);
}
