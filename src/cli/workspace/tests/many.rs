//! A hundred thousand files, there and back, between the two sides as they are. tests/e2e/odd.rs has fewer of them, and a guest.

use super::agent::Agent;
use super::{Host, git_fed, listing_but};

const COUNT: usize = 100_000;

fn name(number: usize) -> String {
    format!("d{:03}/s{:02}/f{number}", number / 1000, number / 50 % 20)
}

#[test]
fn a_hundred_thousand_files_come_and_go_back() {
    let host = Host::new();
    for number in 0..COUNT {
        host.write(&name(number), &format!("file {number}\n"));
    }
    host.commit("many");
    let guest = Agent::new();
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(done.sent, COUNT + 1);
    assert_eq!(guest.git(&["status", "--porcelain"]), "");

    std::fs::remove_dir_all(guest.path("d007")).expect("removes");
    std::fs::rename(guest.path("d008"), guest.path("moved")).expect("renames");
    for number in 9000..10_000 {
        guest.write(&name(number), "changed\n");
    }
    guest.write("new", "new\n");
    git_fed(&host.top(), &["apply", "--index"], &guest.patch(&host));
    assert_eq!(contents(&guest.top()), contents(&host.top()));
    host.commit("the guest's");
    let done = guest.prepare(&host.gather(), false).expect("both are the same");
    assert_eq!((done.sent, done.removed, done.commits), (0, 0, 1));
    assert_eq!(guest.git(&["status", "--porcelain"]), "");
    assert_eq!(guest.patch(&host), "");
}

/// Paths, kinds, modes and contents, of all that is not git's.
fn contents(top: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let all = listing_but(top, |path| path == top.join(".git"));
    let without_times = all.into_iter().filter_map(|(path, what)| {
        let path = path.strip_prefix(top).ok()?.to_owned();
        let (mode, rest) = what.split_once(' ')?;
        Some((path, format!("{mode}{}", rest.rsplit_once(')')?.1)))
    });
    without_times.collect()
}
