//! Servers that cut off, stall, send for ever, or send elsewhere.

use std::time::{Duration, Instant};

use banger::host::environment::Environment;
use banger::host::install::Install;
use banger::host::location::Location;
use banger::host::progress::Silent;
use banger::release::manifest::Manifest;
use banger::system::layout::Layout;
use banger::updater::Updater;
use banger::updater::fetch::Patience;
use banger::updater::stage::keys;
use banger::updater::unmanaged::Unmanaged;

use crate::publisher::{Executable, tarball_name};
use crate::rig::{MANIFEST, Rig};
use crate::server::Page;

/// The parts of a release, and what they are called when they cannot be had.
fn parts() -> [(String, &'static str); 4] {
    [
        (MANIFEST.to_owned(), "discover: fetch manifest"),
        ("/v0.2.0/SHA256SUMS".to_owned(), "download: fetch SHA256SUMS"),
        ("/v0.2.0/SHA256SUMS.sig".to_owned(), "download: fetch signature"),
        (format!("/v0.2.0/{}", tarball_name("v0.2.0")), "download: fetch tarball"),
    ]
}

fn each(page: impl Fn(Vec<u8>) -> Page, why: &str) {
    for (path, what) in parts() {
        let rig = Rig::with(&[Executable::new("v0.2.0")]);
        rig.server.page(&path, page(rig.server.body(&path)));
        let said = rig.refused("");
        assert!(said.contains(what) && said.contains(why), "{what} {why}: {said}");
        rig.assert_untouched(what);
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_that_cuts_off_gives_nothing() {
    each(Page::Cut, "cannot read http://127.0.0.1");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_that_never_stops_is_not_listened_to() {
    each(|_| Page::Endless, "is longer than");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_that_redirects_in_circles_or_to_a_file_is_not_followed() {
    let there = Page::To("/elsewhere".to_owned());
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    rig.server.put("/elsewhere", rig.server.body(MANIFEST));
    rig.server.page(MANIFEST, there);
    assert_eq!(rig.updated("--check").out, "update available: v0.1.0 -> v0.2.0\n");
    rig.server.page(MANIFEST, Page::To(MANIFEST.to_owned()));
    assert!(rig.refused("").contains("redirects in circles"));
    rig.server.page(MANIFEST, Page::To("file:///etc/passwd".to_owned()));
    assert!(rig.refused("").contains("it redirects to"));
    rig.assert_untouched("a redirect");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_that_stalls_is_given_up() {
    for (path, what) in &parts()[1..] {
        let rig = Rig::with(&[Executable::new("v0.2.0")]);
        rig.server.page(path, Page::Stall(rig.server.body(path)));
        let layout = Layout::below(&rig.path(""));
        let install = Install::read(&layout.dirs.install_file()).expect("reads").expect("is there");
        let services = Unmanaged { binary: layout.binary() };
        let patience = Patience { stalled: Duration::from_millis(300), ..Patience::default() };
        let updater = Updater {
            layout: &layout,
            install: &install,
            services: &services,
            helper: false,
            progress: &Silent,
            patience,
        };
        let manifest: Location = rig.server.at(MANIFEST).parse().expect("a place");
        let releases = Manifest::parse(&rig.server.body(MANIFEST)).expect("a manifest").releases;
        let keys = keys(Some(&rig.path("key.pem")), "").expect("keys");
        let begun = Instant::now();
        let staged = updater.stage(&Environment::default(), &manifest, &releases[0], &keys);
        let said = staged.map(|staged| staged.version).expect_err("nothing comes").to_string();
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(said.starts_with(what), "{said}");
        rig.assert_untouched(what);
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_that_sends_a_little_for_ever_has_only_so_long() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    let location: Location = rig.server.at("/endless").parse().expect("a place");
    rig.server.page("/endless", Page::Endless);
    let patience = Patience { tarball: Duration::ZERO, ..Patience::default() };
    let client = banger::updater::fetch::client(&Environment::default(), patience);
    let mut file = tempfile::tempfile().expect("a file");
    let got = banger::updater::fetch::tarball(&client, &location, &mut file, patience, &Silent);
    let said = got.expect_err("no end").to_string();
    assert!(said.contains("timed out"), "{said}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_that_never_ends_the_head_of_its_answer_is_given_up() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    rig.server.page(MANIFEST, Page::Drip);
    let location: Location = rig.server.at(MANIFEST).parse().expect("a place");
    let patience = Patience { head: Duration::from_millis(500), ..Patience::default() };
    let begun = Instant::now();
    let got = banger::updater::stage::manifest(&Environment::default(), &location, patience);
    let said = got.expect_err("no answer").to_string();
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(said.starts_with("discover: fetch manifest: cannot read") && said.contains("timeout"), "{said}");
}
