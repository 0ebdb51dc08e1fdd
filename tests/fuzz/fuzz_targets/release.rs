//! Any bytes, as what an update reads: a manifest, SHA256SUMS, a tarball, a journal.
#![no_main]

use std::io::Write;

use banger::release::choice::{Choice, Here, Wish, choose};
use banger::release::journal::Journal;
use banger::release::manifest::Manifest;
use banger::release::sums::Sums;
use banger::release::version::Version;
use banger::updater::tarball::unpack;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The longest executable here, in bytes.
const LIMIT: u64 = 1 << 16;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let current: Version = "v0.1.0".parse().expect("a version");
        let here = Here { current: current.clone(), newest_seen: None, now: 1, refuse_expired: true };
        if let Ok(Choice::Take(release, _)) = choose(&manifest, &here, &Wish::default()) {
            // Without being asked to, it goes only forward.
            assert!(release.version > current);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Sums::parse(text));
        if let Ok(version) = text.parse::<Version>() {
            assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        }
    }
    drop(Journal::parse(bytes));
    unpacked(bytes);
    // What a fuzzer cannot do by itself is a checksum of what it has inflated.
    let mut gz = GzEncoder::new(vec![], Compression::none());
    gz.write_all(bytes).expect("compresses");
    unpacked(&gz.finish().expect("ends"));
});

fn unpacked(gz: &[u8]) {
    let mut out = vec![];
    if let Ok(length) = unpack(gz, &mut out, LIMIT) {
        assert!(length == out.len() as u64 && (1..=LIMIT).contains(&length));
    }
    assert!(out.len() as u64 <= LIMIT);
}
