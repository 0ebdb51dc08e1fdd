//! Transfers without a network: the leader is the test.

use std::thread;
use std::time::Instant;

use super::*;
use crate::oci::blobs::Claim;
use crate::oci::fate::Failure;
use crate::oci::hash::sha256;

const PATIENCE: Duration = Duration::from_secs(600);

struct Bench {
    dir: tempfile::TempDir,
    store: Blobs,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Blobs::at(dir.path().to_owned());
        Self { dir, store }
    }

    fn claim(&self, content: &[u8]) -> (Arc<Transfer>, bool) {
        let digest = sha256(content).expect("a digest");
        match self.store.claim(&digest, content.len() as u64).expect("claims") {
            Claim::Coming { transfer, joined } => (transfer, joined),
            Claim::Here(region) => panic!("{region:?} is here"),
        }
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).expect("lists");
        names.map(|e| e.expect("lists").file_name().into_string().expect("UTF-8")).collect()
    }
}

fn lead<'t>(transfer: &'t Transfer, fate: &Fate) -> Lead<'t> {
    match transfer.take_part(fate, &mut |_| ()).expect("takes part") {
        Turn::Lead(lead) => lead,
        _ => panic!("somebody leads, or nobody has to"),
    }
}

fn reason(error: io::Error) -> OciError {
    error.downcast().expect("it holds the reason")
}

#[test]
fn readers_see_what_has_come_and_the_end_when_it_is_verified() {
    let bench = Bench::new();
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let (transfer, joined) = bench.claim(&content);
    assert!(!joined);
    let fate = Arc::new(Fate::default());
    let arrival = Arrival::new(Arc::clone(&transfer), Arc::clone(&fate));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = arrival.reader();
                scope.spawn(move || {
                    let mut got = vec![];
                    reader.read_to_end(&mut got).map(|_| got)
                })
            })
            .collect();
        let mut lead = lead(&transfer, &fate);
        for piece in content.chunks(70_000) {
            lead.append(piece).expect("appends");
        }
        assert!(readers.iter().all(|r| !r.is_finished()), "all has come, and is not verified yet");
        lead.append(b"more").expect_err("it would be too long");
        assert_eq!(lead.finish().expect("finishes").len(), content.len() as u64);
        for reader in readers {
            assert!(reader.join().expect("no panic").expect("reads") == content);
        }
    });
    assert_eq!(bench.files(), [sha256(&content).expect("a digest").hex()]);
    drop((arrival, transfer));
    assert_eq!(bench.files().len(), 1, "what is in its place stays");
}

#[test]
fn a_blob_that_is_not_what_its_digest_says_is_nobodys() {
    let bench = Bench::new();
    let (transfer, _) = bench.claim(b"content");
    let fate = Arc::new(Fate::default());
    let mut reader = Arrival::new(Arc::clone(&transfer), Arc::clone(&fate)).reader();
    let mut lead = lead(&transfer, &fate);
    lead.append(b"contenT").expect("appends");
    assert!(matches!(lead.finish(), Err(FinishError::Damaged(_))));
    let error = reason(reader.read_to_end(&mut vec![]).expect_err("damaged"));
    assert!(matches!(error, OciError::Damaged { .. }), "{error}");
    let again = transfer.take_part(&fate, &mut |_| ()).expect("takes part");
    assert!(matches!(again, Turn::Damaged(_)), "whoever waited hears it too");
    let (fresh, joined) = bench.claim(b"content");
    assert!(!joined && !Arc::ptr_eq(&fresh, &transfer), "whoever comes later begins anew");
    drop(again);
    drop((reader, transfer, fresh));
    assert!(bench.files().is_empty());
}

#[test]
fn when_the_leader_gives_up_another_goes_on_where_it_was() {
    let bench = Bench::new();
    let (transfer, _) = bench.claim(b"content");
    let (joining, joined) = bench.claim(b"content");
    assert!(joined && Arc::ptr_eq(&joining, &transfer));
    let (first, second) = (Fate::default(), Arc::new(Fate::default()));
    let mut reader = Arrival::new(joining, Arc::clone(&second)).reader();
    let mut leading = lead(&transfer, &first);
    leading.append(b"con").expect("appends");
    thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut told = vec![];
            let mut leading = match transfer.take_part(&second, &mut |n| told.push(n)).expect("takes part") {
                Turn::Lead(lead) => lead,
                _ => panic!("it has to lead"),
            };
            assert_eq!(leading.written(), 3);
            assert_eq!(told.last(), Some(&3));
            leading.append(b"tent").expect("appends");
            leading.finish().expect("finishes");
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!follower.is_finished(), "one leads at a time");
        drop(leading);
        follower.join().expect("no panic");
    });
    let mut got = vec![];
    reader.read_to_end(&mut got).expect("reads");
    assert_eq!(got, b"content");
}

#[test]
fn whoever_waits_ends_with_its_own_pull_and_hears_why() {
    let bench = Bench::new();
    let (transfer, _) = bench.claim(b"content");
    let other = Fate::default();
    let mut leading = lead(&transfer, &other);
    leading.append(b"con").expect("appends");
    let source = OciError::TimedOut { host: "h".to_owned(), during: "the transfer" };
    let failure = Failure::of("layer", &sha256(b"x").expect("a digest"), source);
    for (failure, want) in [(failure, "cannot fetch layer sha256:"), (Failure::Cancelled, "cancelled")] {
        let fate = Arc::new(Fate::default());
        let mut reader = Arrival::new(Arc::clone(&transfer), Arc::clone(&fate)).reader();
        let begun = Instant::now();
        thread::scope(|scope| {
            let reading = scope.spawn(|| reader.read_to_end(&mut vec![]).expect_err("it ends"));
            let following = scope.spawn(|| transfer.take_part(&fate, &mut |_| ()).expect("takes part"));
            thread::sleep(Duration::from_millis(20));
            fate.fail(failure);
            let error = reason(reading.join().expect("no panic"));
            assert!(error.to_string().starts_with(want), "{error}");
            assert!(matches!(following.join().expect("no panic"), Turn::Over));
        });
        assert!(begun.elapsed() < PATIENCE);
    }
    leading.append(b"tent").expect("the others do not mind");
    leading.finish().expect("finishes");
}

#[test]
fn what_nobody_wants_any_more_leaves_nothing() {
    let bench = Bench::new();
    let (transfer, _) = bench.claim(b"content");
    let fate = Fate::default();
    let mut leading = lead(&transfer, &fate);
    leading.append(b"con").expect("appends");
    assert_eq!(bench.files().len(), 1);
    drop(leading);
    assert_eq!(bench.files().len(), 1, "somebody might still go on");
    drop(transfer);
    assert!(bench.files().is_empty());
}

#[test]
fn an_empty_blob_arrives_too() {
    let bench = Bench::new();
    let (transfer, _) = bench.claim(b"");
    let fate = Arc::new(Fate::default());
    let mut reader = Arrival::new(Arc::clone(&transfer), Arc::clone(&fate)).reader();
    lead(&transfer, &fate).finish().expect("finishes");
    assert_eq!(reader.read_to_end(&mut vec![]).expect("reads"), 0);
}
