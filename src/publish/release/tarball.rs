//! The tarballs of a release: one file, `banger`; and its manual pages. The same content gives the same bytes, at any time and by anybody.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use tar::{Builder, EntryType, Header};

use super::{ReleaseError, failed};

/// 1980-01-01. Of 0 some programs say that it is implausible.
const TIME: u64 = 315_532_800;

/// A tarball that was made.
pub struct Made {
    /// In hexadecimal digits.
    pub sha256: String,
    pub bytes: u64,
}

/// Writes the tarball of `binary` to the new file `path`.
pub fn make(binary: &Path, path: &Path) -> Result<Made, ReleaseError> {
    let program = File::open(binary).map_err(failed(format!("read {}", binary.display())))?;
    let made = pack(path, |tar| {
        let header = header("banger", 0o755, program.metadata()?.len())?;
        tar.append(&header, &program)
    });
    made.map_err(failed(format!("pack {}", binary.display())))
}

/// Writes the manual `pages`, names and texts, as they lie below /usr/local/share/man, to the new file `path`.
pub fn make_manual(pages: &[(String, String)], path: &Path) -> Result<Made, ReleaseError> {
    let made = pack(path, |tar| {
        for (name, text) in pages {
            let header = header(&format!("man1/{name}.1"), 0o644, text.len() as u64)?;
            tar.append(&header, text.as_bytes())?;
        }
        Ok(())
    });
    made.map_err(failed(format!("write {}", path.display())))
}

type Packing = Builder<GzEncoder<Hashed>>;

fn pack(path: &Path, fill: impl FnOnce(&mut Packing) -> io::Result<()>) -> io::Result<Made> {
    let hashed = Hashed { file: File::create_new(path)?, hash: Context::new(&SHA256), bytes: 0 };
    // Its header has neither a time nor a name.
    let mut tar = Builder::new(GzEncoder::new(hashed, Compression::best()));
    fill(&mut tar)?;
    let hashed = tar.into_inner()?.finish()?;
    hashed.file.sync_all()?;
    let sha256 = hashed.hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Made { sha256, bytes: hashed.bytes })
}

fn header(name: &str, mode: u32, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_cksum();
    Ok(header)
}

/// A file, and the digest of what was written to it.
struct Hashed {
    file: File,
    hash: Context,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_program_gives_the_same_bytes_with_one_file_in_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("some-name");
        let bytes: Vec<u8> = (0..70_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&program, &bytes).expect("writes");
        let first = make(&program, &dir.path().join("1")).expect("packs");
        std::fs::File::options()
            .write(true)
            .open(&program)
            .expect("opens")
            .set_modified(std::time::UNIX_EPOCH)
            .expect("sets");
        let second = make(&program, &dir.path().join("2")).expect("packs");
        assert_eq!(first.sha256, second.sha256);
        let packed = std::fs::read(dir.path().join("1")).expect("reads");
        assert_eq!(
            (packed.len() as u64, &packed),
            (first.bytes, &std::fs::read(dir.path().join("2")).expect("reads"))
        );
        let digest = ring::digest::digest(&SHA256, &packed);
        assert_eq!(first.sha256, digest.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>());
        // RFC 1952: flags, then four bytes of time.
        assert_eq!(packed[3..8], [0; 5]);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut entries = archive.entries().expect("a tar");
        let mut entry = entries.next().expect("an entry").expect("good");
        let header = entry.header();
        assert_eq!(header.entry_type(), EntryType::Regular);
        assert_eq!(header.path_bytes().as_ref(), b"banger");
        let numbers = [header.mode(), header.uid().map(|n| n as u32), header.gid().map(|n| n as u32)];
        assert_eq!(numbers.map(|n| n.expect("a number")), [0o755, 0, 0]);
        let mut content = vec![];
        entry.read_to_end(&mut content).expect("reads");
        assert!(content == bytes);
        assert!(entries.next().is_none());
    }

    #[test]
    fn manual_pages_lie_where_man_looks_for_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let pages = [("banger", "one"), ("banger-vm", "two")].map(|(n, t)| (n.to_owned(), t.to_owned()));
        make_manual(&pages, &dir.path().join("m")).expect("packs");
        let out = crate::host::cmd::run(
            "tar",
            ["-xzOf", dir.path().join("m").to_str().expect("UTF-8"), "man1/banger-vm.1"],
        );
        assert_eq!(out.expect("unpacks"), b"two");
    }
}
