//! Any bytes, as the bundle of an image or of a kernel from a catalog: as the packed stream that they are, and, packed, as the tar in one. It is unpacked
//! or refused; nothing is left of what is refused, and nothing that is unpacked leads out.
#![no_main]

mod mended;

use std::fs::{self, File};
use std::path::Path;

use banger::catalog::about::{ImageAbout, KernelAbout, RawAbout};
use banger::catalog::bundle::{Manifest, image, kernel};
use banger::host::progress::Silent;
use mended::mended;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(Manifest::parse(bytes));
    unpacked(bytes);
    unpacked(&zstd::encode_all(mended(bytes).as_slice(), 1).expect("packs"));
});

fn unpacked(bytes: &[u8]) {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let [bundle, out] = ["bundle", "out"].map(|name| place.path().join(name));
    fs::write(&bundle, bytes).expect("writes");
    let open = || File::open(&bundle).expect("opens");
    let about = RawAbout {
        name: "a".to_owned(),
        arch: "amd64".to_owned(),
        distro: Some("b".to_owned()),
        version: Some("1".to_owned()),
        ..RawAbout::default()
    };
    let wanted = ImageAbout::parse(about.clone()).expect("an image");
    let made = image(open(), &wanted, &out, &Silent);
    assert_eq!(out.is_file(), made.is_ok());
    drop(fs::remove_file(&out));
    let wanted = KernelAbout::parse(about).expect("a kernel");
    let made = kernel(open(), &wanted, &out, &Silent);
    assert_eq!(out.is_dir(), made.is_ok());
    if made.is_ok() {
        inside(&out, &out);
    }
    assert_eq!(fs::read_dir(place.path()).expect("reads").count(), 1 + usize::from(made.is_ok()));
}

/// Where symlinks lead to, if anywhere, is below `top`.
fn inside(directory: &Path, top: &Path) {
    for entry in fs::read_dir(directory).expect("reads") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("is there");
        if meta.is_symlink() {
            assert!(
                fs::canonicalize(&path).is_ok_and(|target| target.starts_with(top)) || !path.exists(),
                "{}",
                path.display()
            );
        } else if meta.is_dir() {
            inside(&path, top);
        }
    }
}
