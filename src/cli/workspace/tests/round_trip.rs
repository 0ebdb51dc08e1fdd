//! There and back again, between the two sides as they are.

use super::agent::Agent;
use super::{Host, git_fed};

fn apply(host: &Host, patch: &str, args: &[&str]) {
    git_fed(&host.top(), &[&["apply"], args].concat(), patch);
}

#[test]
fn what_was_done_in_the_guest_comes_back_as_a_patch() {
    let host = Host::new();
    host.write("gone", "0\n");
    host.commit("more");
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(guest.read("a").as_deref(), Some("first\n"));
    guest.git(&["rm", "-q", "gone"]);
    guest.write("a", "second\n");
    guest.write("new", "1\n");
    apply(&host, &guest.patch(&host), &["--index"]);
    assert_eq!(host.git(&["status", "--porcelain"]), "M  a\nD  gone\nA  new");
    assert_eq!(std::fs::read_to_string(host.path("a")).expect("reads"), "second\n");
}
