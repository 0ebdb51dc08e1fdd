//! Any text, as what a person, a file, a registry or a kernel's command line says. What is taken is the same when it is written and read again, and
//! what is said of it has no control characters.
#![no_main]

use std::fmt::{Debug, Display};
use std::fs;
use std::str::FromStr;

use banger::catalog::record;
use banger::config::{Places, read};
use banger::host::install::Install;
use banger::host::location::Location;
use banger::host::signature::{Key, verify};
use banger::image::digest::Digest;
use banger::image::manifest::harmless;
use banger::image::platform::Platform;
use banger::network::subnet::Subnet;
use banger::network::suffix::Suffix;
use banger::oci::what_a_registry_says;
use banger::vm::boot::Boot;
use banger::vm::duration;
use banger::vm::id::VmId;
use banger::vm::name::VmName;
use banger::vm::publish::{Publish, Unpublish};
use banger::vm::size::Mib;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(record::parse(bytes, None));
    what_a_registry_says(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for taken in [
        same::<VmName>(text),
        same::<VmId>(text),
        same::<Mib>(text),
        same::<Publish>(text),
        same::<Unpublish>(text),
        same::<Subnet>(text),
        same::<Suffix>(text),
        same::<Platform>(text),
        same::<Digest>(text),
        same::<Location>(text),
    ] {
        if let Err(why) = taken {
            assert!(!why.contains(|c: char| c.is_control()), "{why:?}");
        }
    }
    assert!(!harmless(text).contains(|c: char| c.is_control()));
    drop(duration::parse(text));
    if let Ok(boot) = Boot::parse(text) {
        assert_eq!(Boot::parse(&boot.to_string()), Ok(boot));
    }
    if let Ok(install) = Install::parse(text) {
        assert_eq!(Install::parse(&install.text()), Ok(install));
    }
    if let Ok(keys) = Key::parse_all(text) {
        assert!(verify(&keys, b"", text).is_err());
    }
    configuration(text);
});

/// What cannot be taken is said why.
fn same<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) -> Result<(), String> {
    let value: T = text.parse().map_err(|e: T::Err| e.to_string())?;
    match value.to_string().parse::<T>() {
        Ok(again) => assert_eq!(again, value),
        Err(e) => panic!("{value:?} is written so that it is not read again: {e}"),
    }
    Ok(())
}

/// As one file, and in two parts as those of an installation.
fn configuration(text: &str) {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let [roots, own] = ["roots", "own"].map(|name| place.path().join(name));
    let home = Some("/home/me".into());
    let (before, after) = text.split_once('\0').unwrap_or((text, text));
    fs::write(&roots, before).expect("writes");
    fs::write(&own, after).expect("writes");
    drop(read(&Places { roots: None, own: own.clone(), home: home.clone() }));
    drop(read(&Places { roots: Some(roots), own, home }));
}
