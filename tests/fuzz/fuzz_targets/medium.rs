//! Any bytes, as a bundle for a machine without a network: as the packed stream that they are, and, packed, as the tar in one. It is
//! read to its end or refused; what is written is what the manifest says, and no more than may be.
#![no_main]

mod mended;

use banger::catalog::medium::{Caps, Manifest, Reader};
use banger::host::progress::Silent;
use mended::mended;

const CAPS: Caps = Caps { part_bytes: 1 << 20, ratio: 100, free: 1 << 20 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // The fuzzer cannot compress, nor count a checksum.
    let tar = mended(bytes);
    read(&zstd::encode_all(tar.as_slice(), 1).expect("packs"));
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = manifest.to_bytes().expect("writes");
        assert_eq!(Manifest::parse(&again).expect("reads"), manifest);
        for part in manifest.parts() {
            assert!(
                !part.name.starts_with('/')
                    && !part.name.split('/').any(|name| matches!(name, "" | "." | "..")),
                "{part:?}"
            );
        }
    }
});

fn read(bytes: &[u8]) {
    let Ok((mut reader, manifest)) = Reader::open(bytes, CAPS, &Silent) else { return };
    for part in manifest.parts() {
        assert!(part.content.size <= CAPS.part_bytes);
        let file = tempfile::tempfile().expect("a file");
        if reader.part(Some(&file)).is_err() {
            return;
        }
        let mut content = vec![];
        std::io::Seek::rewind(&mut &file).expect("rewinds");
        std::io::Read::read_to_end(&mut &file, &mut content).expect("reads");
        assert_eq!(content.len() as u64, part.content.size);
        assert_eq!(blake3::hash(&content).to_hex().as_str(), part.content.blake3);
    }
    drop(reader.finish());
}
