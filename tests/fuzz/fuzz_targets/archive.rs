//! Any bytes, as an image that somebody hands over: a tar of a root file system, of a layout, or of what `docker save` writes; as it is, and with
//! the checksum that it ought to have in each block that could be a header. It is imported or refused, and nothing is left of what is refused.
#![no_main]

mod mended;

use std::fs::{self, File};
use std::io::Write;

use banger::host::environment::Environment;
use banger::host::progress::Silent;
use banger::image::platform::Platform;
use banger::oci::registries::Registries;
use banger::oci::{Blobs, Input, Limits, Patience, Settings, import};
use mended::mended;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    imported(bytes);
    imported(&mended(bytes));
});

fn imported(bytes: &[u8]) {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let [scratch, archive, out] = ["scratch", "archive", "out"].map(|name| place.path().join(name));
    fs::create_dir(&scratch).expect("creates");
    File::create(&archive).and_then(|mut file| file.write_all(bytes)).expect("writes");
    let settings = Settings {
        blobs: Blobs::at(place.path().join("blobs")),
        scratch: scratch.clone(),
        docker_config: None,
        platform: Platform::linux("amd64"),
        limits: Limits { layer_bytes: 1 << 24, ..Limits::default() },
        registries: Registries::default(),
        environment: Environment::default(),
        patience: Patience::default(),
    };
    let made = import(Input::Path(archive), &settings, &out, &Silent);
    assert_eq!(out.exists(), made.is_ok());
    assert_eq!(fs::read_dir(&scratch).expect("reads").count(), 0);
}
