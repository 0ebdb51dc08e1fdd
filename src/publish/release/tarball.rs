//! The tarball of a release: one file, `banger`. The same program gives the same bytes, at any time and by anybody.

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
    let pack = || -> io::Result<Made> {
        let size = program.metadata()?.len();
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_path("banger")?;
        header.set_size(size);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_cksum();
        let hashed = Hashed { file: File::create_new(path)?, hash: Context::new(&SHA256), bytes: 0 };
        // Its header has neither a time nor a name.
        let mut builder = Builder::new(GzEncoder::new(hashed, Compression::best()));
        builder.append(&header, &program)?;
        let hashed = builder.into_inner()?.finish()?;
        hashed.file.sync_all()?;
        let sha256 = hashed.hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Made { sha256, bytes: hashed.bytes })
    };
    pack().map_err(failed(format!("pack {}", binary.display())))
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
}
