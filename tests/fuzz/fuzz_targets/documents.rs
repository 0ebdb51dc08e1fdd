//! Any bytes, as what a registry or an archive says: references, manifests, indexes, configurations.
#![no_main]

use banger::image::manifest::{Configuration, parse};
use banger::image::reference::Reference;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(parse(bytes, None));
    drop(Configuration::parse(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        // What it is called is the same thing again.
        let again: Reference = reference.to_string().parse().expect("a reference");
        assert_eq!(again.to_string(), reference.to_string());
    }
});
