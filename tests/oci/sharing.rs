//! Pulls at the same time share their work, and nobody suffers for another.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger::oci::{self, Built, OciError, cache};

use crate::support::*;

/// Two images that have a layer in common, and a server that has both, as `one:1` and `two:1`.
struct Family {
    one: Parts,
    two: Parts,
}

impl Family {
    fn new() -> Self {
        let common = files(&[("common", &noise(2 << 20, 1))]);
        let one = Parts::of(&[common.clone(), files(&[("one", b"1")])]);
        let two = Parts::of(&[common, files(&[("two", b"2")])]);
        Self { one, two }
    }

    fn common(&self) -> String {
        sha256(self.one.layer())
    }

    fn answer(&self, seen: &Seen) -> Vec<u8> {
        if seen.path.contains("/one/") { self.one.answer(seen) } else { self.two.answer(seen) }
    }
}

/// A pull beside the bench's own: the same store, but its own files.
fn pull_beside(bench: &Bench, name: &str, reference: &str, told: &Told) -> Result<Built, OciError> {
    let mut settings = bench.settings.clone();
    settings.scratch = bench.path(name);
    fs::create_dir(&settings.scratch).expect("makes a directory");
    let reference = reference.parse().expect("a reference");
    oci::Pull::new(&reference, &settings, told).fetch(&settings.scratch.join("out.ext4"))
}

fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_layer_that_two_images_have_comes_once() {
    let bench = Bench::new();
    let (family, gate) = (Arc::new(Family::new()), Arc::new(Gate::default()));
    let (own, own_gate, common) = (Arc::clone(&family), Arc::clone(&gate), family.common());
    let server = Server::start(move |seen| -> Answer {
        let answer = own.answer(seen);
        match seen.path.ends_with(&common) {
            true => gated(&answer, answer.len() / 2, &own_gate),
            false => answer.into(),
        }
    });
    let (first, second) = (Told::default(), Told::default());
    std::thread::scope(|scope| {
        let one = scope.spawn(|| pull_beside(&bench, "one", &format!("{}/one:1", server.address), &first));
        until("the common layer comes", || server.count("GET", &family.common()) == 1);
        let two = scope.spawn(|| pull_beside(&bench, "two", &format!("{}/two:1", server.address), &second));
        until("the other pull is at its own layer", || {
            server.count("GET", &sha256(&family.two.layers[1])) == 1
        });
        gate.open();
        one.join().expect("no panic").expect("pulls");
        two.join().expect("no panic").expect("pulls");
    });
    assert_eq!(server.count("GET", &family.common()), 1);
    // Both have shown a bar that went to its end.
    for (told, parts) in [(first, &family.one), (second, &family.two)] {
        let total = parts.layers.iter().map(|l| l.len() as u64).sum::<u64>();
        assert_eq!(*told.arrived.lock().expect("not poisoned"), (total, total));
    }
}

#[test]
fn when_the_first_is_cancelled_the_second_goes_on_where_it_was() {
    let bench = Bench::new();
    let (family, common) = (Arc::new(Family::new()), Family::new().common());
    let own = Arc::clone(&family);
    let server = Server::start(move |seen| -> Answer {
        match seen.path.ends_with(&common) && seen.from() == 0 {
            true => stalling(cut(V2, own.one.layer(), 1_000_000)),
            false => own.answer(seen).into(),
        }
    });
    let mut bench = bench;
    bench.settings.patience.stalled = Duration::from_secs(600);
    let (first, second) =
        (Told { cancel_after: Some(Duration::from_secs(1)), ..Told::default() }, Told::default());
    std::thread::scope(|scope| {
        let one = scope.spawn(|| pull_beside(&bench, "one", &format!("{}/one:1", server.address), &first));
        until("the common layer comes", || server.count("GET", &family.common()) == 1);
        let two = scope.spawn(|| pull_beside(&bench, "two", &format!("{}/two:1", server.address), &second));
        let error = one.join().expect("no panic").expect_err("cancelled");
        assert!(matches!(error, OciError::Cancelled), "{error}");
        two.join().expect("no panic").expect("pulls");
    });
    let asked: Vec<usize> =
        server.seen().iter().filter(|s| s.path.ends_with(&family.common())).map(Seen::from).collect();
    assert_eq!(asked, [0, 1_000_000]);
}

#[test]
fn a_registry_that_lies_fails_only_those_who_ask_it() {
    let bench = Bench::new();
    let (family, gate) = (Arc::new(Family::new()), Arc::new(Gate::default()));
    let common = family.common();
    let (own, own_gate, path) = (Arc::clone(&family), Arc::clone(&gate), common.clone());
    let liar = Server::start(move |seen| -> Answer {
        let mut answer = own.answer(seen);
        if !seen.path.ends_with(&path) {
            return answer.into();
        }
        let middle = answer.len() / 2;
        answer[middle - 1000] ^= 1;
        gated(&answer, middle, &own_gate)
    });
    let own = Arc::clone(&family);
    let honest = Server::start(move |seen| own.answer(seen));
    let (first, second) = (Told::default(), Told::default());
    std::thread::scope(|scope| {
        let one = scope.spawn(|| pull_beside(&bench, "one", &format!("{}/one:1", liar.address), &first));
        until("the common layer comes", || liar.count("GET", &common) == 1);
        let two = scope.spawn(|| pull_beside(&bench, "two", &format!("{}/two:1", honest.address), &second));
        until("the other pull has joined", || honest.count("GET", &sha256(&family.two.layers[1])) == 1);
        gate.open();
        let error = one.join().expect("no panic").expect_err("refused");
        assert!(matches!(error, OciError::Damaged { .. }), "{error}");
        two.join().expect("no panic").expect("pulls from its own registry");
    });
    assert_eq!((liar.count("GET", &common), honest.count("GET", &common)), (1, 1));
}

#[test]
fn what_a_pull_uses_is_not_pruned_and_the_rest_is() {
    let bench = Bench::new();
    let (family, gate) = (Arc::new(Family::new()), Arc::new(Gate::default()));
    let (own, own_gate) = (Arc::clone(&family), Arc::clone(&gate));
    let last = sha256(&family.two.layers[1]);
    let server = Server::start(move |seen| -> Answer {
        let answer = own.answer(seen);
        match seen.path.ends_with(&last) {
            true => gated(&answer, answer.len() - 1, &own_gate),
            false => answer.into(),
        }
    });
    bench.pull(&format!("{}/one:1", server.address)).expect("pulls");
    fs::remove_file(bench.out()).expect("removes");
    let told = Told::default();
    std::thread::scope(|scope| {
        let two = scope.spawn(|| pull_beside(&bench, "two", &format!("{}/two:1", server.address), &told));
        until("its last layer comes", || server.count("GET", &sha256(&family.two.layers[1])) == 1);
        let store = &bench.settings.blobs;
        let in_use = |of: &[u8]| {
            let held = cache::list(store).expect("lists");
            let held = held.iter().find(|h| h.digest.to_string() == sha256(of));
            held.expect("is listed").in_use
        };
        assert!(in_use(family.one.layer()) && !in_use(&family.one.layers[1]));
        // The other's configuration and own layer.
        assert_eq!(cache::prune(store, false).expect("prunes").blobs, 3);
        gate.open();
        two.join().expect("no panic").expect("pulls");
    });
    assert_eq!(server.count("GET", &family.common()), 1);
    assert_eq!(cache::prune(&bench.settings.blobs, false).expect("prunes").blobs, 2);
}
