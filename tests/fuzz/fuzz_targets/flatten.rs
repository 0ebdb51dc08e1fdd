//! Layers of every order and kind of member: they are applied or refused, and what is applied is a file system in which e2fsck finds
//! no fault.
#![no_main]

mod members;

use std::process::Command;

use banger::host::progress::Silent;
use banger::oci::{Limits, flatten_for_fuzzing};
use members::{Member, archive};

libfuzzer_sys::fuzz_target!(|layers: Vec<Vec<Member>>| {
    let tars: Vec<Vec<u8>> = layers.iter().map(|members| archive(members)).collect();
    let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
    let out = file.reopen().expect("opens");
    if flatten_for_fuzzing(&tars, out, Limits::default(), &Silent).is_err() {
        return;
    }
    let check = Command::new("/sbin/e2fsck").arg("-fn").arg(file.path()).output().expect("runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
});
