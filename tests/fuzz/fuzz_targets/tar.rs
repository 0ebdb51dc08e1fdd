//! Any bytes, as a tar archive: it is read to its end or refused, and no more data comes out of it than it has.
#![no_main]

use std::io::Read;

use banger::oci::tar::{Reader, Stream};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut archive = Reader::new(Stream(bytes));
    let mut all = 0;
    while let Ok(Some(entry)) = archive.next() {
        let mut data = vec![];
        // Only what is there: an entry may claim a terabyte.
        if archive.read_to_end(&mut data).is_ok() {
            let want: u64 = entry.stretches.iter().map(|s| s.len).sum();
            assert_eq!(data.len() as u64, want);
        }
        all += data.len();
    }
    assert!(all <= bytes.len());
});
