//! Transfers that break, stall, or are told to wait (F8), and what is done while they last.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use banger::oci::OciError;

use crate::support::*;

/// Above what `hasty` waits for silence, below what a test is worth.
const PROMPT: Duration = Duration::from_secs(30);

/// A server of `parts` whose answers for the layer are `layer`'s; it hears how many there have been.
fn serving<A: Into<Answer>>(
    parts: &Arc<Parts>,
    layer: impl Fn(&Parts, &Seen, usize) -> A + Send + Sync + 'static,
) -> Server {
    let (parts, asked) = (Arc::clone(parts), AtomicUsize::new(0));
    Server::start(move |seen| -> Answer {
        match parts.is_layer(&seen.path) {
            true => layer(&parts, seen, asked.fetch_add(1, Ordering::SeqCst)).into(),
            false => parts.answer(seen).into(),
        }
    })
}

/// The ranges that were asked of the layer.
fn ranges(server: &Server, parts: &Parts) -> Vec<usize> {
    server.seen().iter().filter(|s| parts.is_layer(&s.path)).map(Seen::from).collect()
}

fn notes(told: &Told) -> Vec<String> {
    told.notes.lock().expect("not poisoned").clone()
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::large(3 << 20)));
    let server = serving(&parts, |parts, seen, asked| match asked {
        0 => cut(V2, parts.layer(), 1_000_000),
        1 => {
            let mut whole = part(parts.layer(), seen.from());
            whole.truncate(whole.len() - 1_000_000);
            whole
        }
        _ => part(parts.layer(), seen.from()),
    });
    let told = Told::default();
    bench.pull_with(&format!("{}/app:1", server.address), &told).expect("pulls");
    let layer = parts.layer().len();
    assert_eq!(ranges(&server, &parts), [0, 1_000_000, layer - 1_000_000]);
    let notes = notes(&told);
    let want = format!("the connection to {} broke; trying again in 1s", server.address);
    assert_eq!(notes, [want.as_str(), want.as_str()]);
    assert_eq!(*told.bytes.lock().expect("not poisoned"), *told.total.lock().expect("not poisoned"));
}

#[test]
fn a_server_without_ranges_begins_anew_and_what_is_known_is_passed_over() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::large(2 << 20)));
    let server = serving(&parts, |parts, _, asked| match asked {
        0 => cut(V2, parts.layer(), 500_000),
        1 => cut(V2, parts.layer(), 300_000),
        2 => cut(V2, parts.layer(), 1_500_000),
        _ => response(200, V2, parts.layer()),
    });
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    assert_eq!(ranges(&server, &parts), [0, 500_000, 500_000, 1_500_000]);
}

#[test]
fn another_part_than_the_one_asked_for_is_refused() {
    let bench = Bench::new();
    let parts = Arc::new(Parts::large(1 << 20));
    let layer = parts.layer().len();
    let wrong = [
        format!("Content-Range: bytes 0-{}/{layer}\r\n", layer - 1),
        format!("Content-Range: bytes 100000-{}/{layer}\r\n", layer - 2),
        format!("Content-Range: bytes 100000-{}/{}\r\n", layer - 1, layer + 1),
        "Content-Range: nonsense\r\n".to_owned(),
        String::new(),
    ];
    for range in wrong {
        let shown = range.clone();
        let server = serving(&parts, move |parts, seen, asked| match asked {
            0 => cut(V2, parts.layer(), 100_000),
            _ => response(206, &range, &parts.layer()[seen.from()..]),
        });
        let error = bench.pull(&format!("{}/app:1", server.address)).expect_err(&shown);
        let text = chain(&error);
        assert!(text.contains("does not behave as a registry: it sends"), "{shown}: {text}");
        assert_eq!(ranges(&server, &parts), [0, 100_000], "it is not asked again");
    }
}

#[test]
fn a_part_with_other_bytes_is_found_out_at_the_end() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::large(1 << 20)));
    let server = serving(&parts, |parts, seen, asked| match asked {
        0 => cut(V2, parts.layer(), 100_000),
        _ => {
            let mut bent = parts.layer().to_vec();
            bent[200_000] ^= 1;
            part(&bent, seen.from())
        }
    });
    let error = bench.pull(&format!("{}/app:1", server.address)).expect_err("refused");
    assert!(matches!(error, OciError::Damaged { .. }), "{error}");
    assert_eq!(
        fs::read_dir(bench.settings.blobs.directory()).expect("lists").count(),
        1,
        "the configuration"
    );
}

#[test]
fn a_server_that_breaks_every_transfer_is_given_up() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::large(1 << 20)));
    let server = serving(&parts, |parts, seen, _| match seen.from() {
        0 => cut(V2, parts.layer(), 1000),
        from => {
            let mut whole = part(parts.layer(), from);
            whole.truncate(whole.len() - (parts.layer().len() - from) + 10);
            whole
        }
    });
    let error = bench.pull(&format!("{}/app:1", server.address)).expect_err("given up");
    let want =
        format!("cannot fetch layer {}: the connection to {} broke: ", sha256(parts.layer()), server.address);
    assert!(chain(&error).starts_with(&want), "{}", chain(&error));
    assert_eq!(ranges(&server, &parts), [0, 1000, 1010, 1020, 1030]);
}

#[test]
fn too_many_requests_are_made_up_for_by_waiting_as_long_as_it_says() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::small()));
    let in_a_moment = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(2));
    let server = serving(&parts, move |parts, seen, asked| match asked {
        0 => response(429, "Retry-After: 1\r\n", b""),
        1 => response(429, &format!("Retry-After: {in_a_moment}\r\n"), b""),
        _ => parts.answer(seen),
    });
    let (told, begun) = (Told::default(), Instant::now());
    bench.pull_with(&format!("{}/app:1", server.address), &told).expect("pulls");
    assert!((Duration::from_secs(1)..PROMPT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let notes = notes(&told);
    assert_eq!(notes[0], format!("{} wants fewer requests; trying again in 1s", server.address));
}

#[test]
fn a_registry_that_wants_to_be_left_alone_for_long_is_not_waited_for() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::small()));
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"limit reached"}]}"#;
    let server = serving(&parts, move |_, _, _| response(429, "Retry-After: 3600\r\n", body));
    let begun = Instant::now();
    let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
    let want = "wants fewer requests: TOOMANYREQUESTS: limit reached; wait for 1h, or log in";
    assert!(error.ends_with(want), "{error}");
    assert_eq!(ranges(&server, &parts).len(), 1);
    assert!(begun.elapsed() < PROMPT);
}

#[test]
fn trouble_passes_for_manifests_and_blobs_and_mistakes_do_not() {
    let bench = Bench::new();
    let parts = Arc::new(Parts::small());
    for status in [500, 502, 503, 504] {
        let (own, failed) = (Arc::clone(&parts), Mutex::new(std::collections::HashSet::new()));
        let server = Server::start(move |seen| {
            // Each path fails at first.
            match failed.lock().expect("not poisoned").insert(seen.path.clone()) {
                true => response(status, "", b""),
                false => own.answer(seen),
            }
        });
        let told = Told::default();
        bench.pull_with(&format!("{}/app:1", server.address), &told).expect("pulls");
        assert!(notes(&told)[0].contains(&format!("is in trouble (status {status}); trying again in")));
        assert_eq!(server.count("GET", "/manifests/"), 2);
        fs::remove_file(bench.out()).expect("removes");
        fs::remove_dir_all(bench.settings.blobs.directory()).expect("removes");
    }
    for status in [400, 403, 404, 410, 501] {
        let server = serving(&parts, move |_, _, _| response(status, "", b""));
        let error = bench.pull(&format!("{}/app:1", server.address)).expect_err("refused");
        assert_eq!(ranges(&server, &parts).len(), 1, "{status}: {error}");
    }
}

#[test]
fn a_transfer_that_stands_still_is_ended_and_tried_once_more() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::large(1 << 20)));
    let server = serving(&parts, |parts, seen, asked| match asked {
        0 => stalling(cut(V2, parts.layer(), 400_000)),
        _ => part(parts.layer(), seen.from()).into(),
    });
    let told = Told::default();
    bench.pull_with(&format!("{}/app:1", server.address), &told).expect("pulls");
    assert_eq!(ranges(&server, &parts), [0, 400_000]);
    assert!(notes(&told)[0].contains("does not answer (the transfer timed out); trying again"));

    let bench = Bench::new();
    let begun = Instant::now();
    let silent = serving(&parts, |parts, _, _| stalling(cut(V2, parts.layer(), 100)));
    let error = chain(&bench.pull(&format!("{}/app:1", silent.address)).expect_err("ends"));
    let want = format!(
        "cannot fetch layer {}: {} does not answer (the transfer timed out)",
        sha256(parts.layer()),
        silent.address
    );
    assert_eq!(error, want);
    assert_eq!(ranges(&silent, &parts).len(), 2);
    assert!(begun.elapsed() < PROMPT);
}

#[test]
fn a_resumed_transfer_asks_the_registry_for_a_fresh_place() {
    let (bench, parts) = (Bench::new(), Arc::new(Parts::large(1 << 20)));
    let own = Arc::clone(&parts);
    let cdn = Server::start(move |seen| match seen.path.as_str() {
        "/signed/0" if seen.from() == 0 => cut("", own.layer(), 200_000),
        "/signed/1" => part(own.layer(), seen.from()),
        // A signature is good for one use.
        _ => response(403, "", b"expired"),
    });
    let elsewhere = cdn.address.clone();
    let server = serving(&parts, move |_, _, asked| {
        response(307, &format!("Location: http://{elsewhere}/signed/{asked}\r\n"), b"")
    });
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    let seen: Vec<_> = cdn.seen().into_iter().map(|s| (s.path.clone(), s.from())).collect();
    assert_eq!(seen, [("/signed/0".to_owned(), 0), ("/signed/1".to_owned(), 200_000)]);
}

#[test]
fn layers_come_at_the_same_time_in_their_order() {
    let bench = Bench::new();
    let tars: Vec<_> = (0..7).map(|n| files(&[("a", &noise(100_000, n + 1))])).collect();
    let parts = Arc::new(Parts::of(&tars));
    let (own, gate, begun) = (Arc::clone(&parts), Arc::new(Gate::default()), Mutex::new(vec![]));
    let server = Server::start(move |seen| -> Answer {
        let Some(n) = own.layers.iter().position(|l| seen.path.ends_with(&sha256(l))) else {
            return own.answer(seen).into();
        };
        let mut begun = begun.lock().expect("not poisoned");
        begun.push(n);
        if begun.len() == 4 {
            let mut sorted = begun.clone();
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3]);
            gate.open();
        }
        // Nothing ends before four have begun.
        gated(&own.answer(seen), 1000, &gate)
    });
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
    assert_eq!(server.count("GET", "/blobs/"), 8);
}

#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let bench = Bench::new();
    let parts = Arc::new(Parts::of(&[files(&[("a", &noise(4 << 20, 1))]), files(&[("b", b"b")])]));
    let gate = Arc::new(Gate::default());
    let server = serving(&parts, {
        let gate = Arc::clone(&gate);
        move |parts, seen, _| {
            let answer = parts.answer(seen);
            gated(&answer, answer.len() - 1000, &gate)
        }
    });
    let scratch = text(&bench.settings.scratch).to_owned();
    std::thread::scope(|scope| {
        let unpacked = scope.spawn(|| {
            let begun = Instant::now();
            while taken_below(&scratch) < 2 << 20 {
                assert!(begun.elapsed() < PROMPT, "nothing is unpacked");
                std::thread::sleep(Duration::from_millis(5));
            }
            gate.open();
        });
        bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
        unpacked.join().expect("no panic");
    });
}

/// What the files below a directory take that this process has open, with or without a name, in bytes.
fn taken_below(directory: &str) -> u64 {
    let open = fs::read_dir("/proc/self/fd").expect("lists").flatten();
    let below =
        open.filter(|e| fs::read_link(e.path()).is_ok_and(|to| to.to_string_lossy().starts_with(directory)));
    below.filter_map(|e| fs::metadata(e.path()).ok()).map(|meta| meta.blocks() * 512).sum()
}

#[test]
fn one_layer_that_does_not_come_ends_the_others_at_once() {
    let bench = Bench::new();
    let parts = Arc::new(Parts::of(&[files(&[("a", &noise(1 << 20, 1))]), files(&[("b", b"b")])]));
    let (first, second) = (sha256(&parts.layers[0]), sha256(&parts.layers[1]));
    let own = Arc::clone(&parts);
    let server = Server::start(move |seen| -> Answer {
        match () {
            // It would go on for as long as somebody listens.
            () if seen.path.ends_with(&first) => stalling(cut(V2, &own.layers[0], 1000)),
            () if seen.path.ends_with(&second) => response(403, V2, b"no").into(),
            () => own.answer(seen).into(),
        }
    });
    let mut bench = bench;
    bench.settings.patience.stalled = Duration::from_secs(600);
    let begun = Instant::now();
    let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
    assert!(error.starts_with(&format!("cannot fetch layer {}: ", sha256(&parts.layers[1]))), "{error}");
    assert!(error.contains("does not give"), "{error}");
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
}

#[test]
fn a_layer_that_cannot_be_unpacked_ends_the_others_at_once() {
    let bench = Bench::new();
    let parts = Arc::new(Parts::of(&[vec![7; 3000], files(&[("b", &noise(1 << 20, 1))])]));
    let (second, own) = (sha256(&parts.layers[1]), Arc::clone(&parts));
    let server = Server::start(move |seen| -> Answer {
        match seen.path.ends_with(&second) {
            true => stalling(cut(V2, &own.layers[1], 1000)),
            false => own.answer(seen).into(),
        }
    });
    let mut bench = bench;
    bench.settings.patience.stalled = Duration::from_secs(600);
    let begun = Instant::now();
    let error = chain(&bench.pull(&format!("{}/app:1", server.address)).expect_err("refused"));
    assert!(error.starts_with(&format!("cannot unpack layer {}", sha256(&parts.layers[0]))), "{error}");
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
}

#[test]
fn a_pull_that_nobody_waits_for_ends_at_once_wherever_it_is() {
    let parts = Arc::new(Parts::large(1 << 20));
    for stuck_at in ["/manifests/", &sha256(&parts.config), &sha256(parts.layer())] {
        let mut bench = Bench::new();
        bench.settings.patience.stalled = Duration::from_secs(600);
        let (own, place) = (Arc::clone(&parts), stuck_at.to_owned());
        let server = Server::start(move |seen| -> Answer {
            let mut answer = own.answer(seen);
            if !seen.path.contains(&place) {
                return answer.into();
            }
            answer.truncate(answer.len() - 10);
            stalling(answer)
        });
        let told = Told { cancel_after: Some(Duration::from_millis(300)), ..Told::default() };
        let begun = Instant::now();
        let error = bench.pull_with(&format!("{}/app:1", server.address), &told).expect_err("cancelled");
        assert!(matches!(error, OciError::Cancelled), "{stuck_at}: {error}");
        assert!(begun.elapsed() < PROMPT, "{stuck_at}: {:?}", begun.elapsed());
    }
    // While it waits for its next try.
    let mut bench = Bench::new();
    bench.settings.patience.longest = Duration::from_secs(600);
    let server = serving(&parts, |_, _, _| response(503, "Retry-After: 500\r\n", b""));
    let told = Told { cancel_after: Some(Duration::from_millis(300)), ..Told::default() };
    let begun = Instant::now();
    let error = bench.pull_with(&format!("{}/app:1", server.address), &told).expect_err("cancelled");
    assert!(matches!(error, OciError::Cancelled) && begun.elapsed() < PROMPT, "{error}");
}

#[test]
fn a_layer_that_an_image_has_twice_comes_once() {
    let bench = Bench::new();
    let tar = files(&[("a", &noise(300_000, 1))]);
    let parts = Parts::of(&[tar.clone(), files(&[("b", b"b")]), tar]);
    let total = (parts.layers[0].len() + parts.layers[1].len()) as u64;
    let server = Server::start(move |seen| parts.answer(seen));
    let told = Told::default();
    bench.pull_with(&format!("{}/app:1", server.address), &told).expect("pulls");
    assert_eq!(server.count("GET", "/blobs/"), 3, "a configuration and two layers");
    assert_eq!(*told.arrived.lock().expect("not poisoned"), (total, total));
}

#[test]
fn a_layer_that_is_listed_with_two_sizes_is_refused() {
    let bench = Bench::new();
    let tar = files(&[("a", &noise(300_000, 1))]);
    let mut parts = Parts::of(&[tar.clone(), tar]);
    let manifest = String::from_utf8(parts.manifest).expect("UTF-8");
    let size = format!(r#""size":{}"#, parts.layers[0].len());
    let (first, last) = manifest.rsplit_once(&size).expect("it is listed twice");
    parts.manifest = format!(r#"{first}"size":{}{last}"#, parts.layers[0].len() + 1).into_bytes();
    let server = Server::start(move |seen| parts.answer(seen));
    let error = bench.pull(&format!("{}/app:1", server.address)).expect_err("refused");
    assert!(matches!(error, OciError::Damaged { .. }), "{error}");
}

#[test]
fn a_layer_that_cannot_be_stored_leaves_no_image_though_it_was_unpacked() {
    let bench = Bench::new();
    let (parts, gate) = (Arc::new(Parts::large(300_000)), Arc::new(Gate::default()));
    let server = serving(&parts, {
        let gate = Arc::clone(&gate);
        move |parts, seen, _| gated(&parts.answer(seen), 1000, &gate)
    });
    let hex = sha256(parts.layer()).replace("sha256:", "");
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| bench.pull(&format!("{}/app:1", server.address)));
        let begun = Instant::now();
        while ranges(&server, &parts).is_empty() {
            assert!(begun.elapsed() < PROMPT, "the layer does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Something is in its place that cannot be replaced.
        fs::create_dir_all(bench.settings.blobs.directory().join(hex).join("x")).expect("makes directories");
        gate.open();
        let error = chain(&pulling.join().expect("no panic").expect_err("it cannot be stored"));
        assert!(
            error.starts_with("cannot fetch layer sha256:") && error.contains("cannot store layer"),
            "{error}"
        );
    });
}

#[test]
fn a_registry_on_an_ipv6_address_is_a_registry() {
    let bench = Bench::new();
    let parts = Parts::small();
    let server = Server::at("[::1]:0", move |seen| parts.answer(seen));
    assert!(server.address.starts_with("[::1]:"));
    bench.pull(&format!("{}/app:1", server.address)).expect("pulls");
}

#[test]
fn an_image_that_is_here_already_costs_one_request() {
    let bench = Bench::new();
    let parts = Parts::small();
    let digest = sha256(&parts.manifest);
    let server = Server::start(move |seen| parts.answer(seen));
    let found = bench.resolve(&format!("{}/app:1", server.address)).expect("resolves");
    assert_eq!(found.to_string(), digest);
    let seen: Vec<_> = server.seen().into_iter().map(|s| (s.method, s.path)).collect();
    assert_eq!(seen, [("HEAD".to_owned(), "/v2/app/manifests/1".to_owned())]);
}
