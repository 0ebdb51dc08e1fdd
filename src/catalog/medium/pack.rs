//! Making a medium: the manifest, then each part as it is read, judged against the manifest on the way.

use std::fs::File;
use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};
use tar::{EntryType, Header};

use super::{MANIFEST, Manifest, Part};
use crate::catalog::bundle::BundleError;
use crate::catalog::passing::{Hashed, Told};
use crate::host::progress::Progress;

/// Of zstd. A medium holds gigabytes, and somebody waits for it: a kernel, banger and two images of 729 MiB take 4.6 s and 95 MiB at 6,
/// 10.8 s and 90 MiB at 9, and 2.1 s and 103 MiB at 3, on one core.
const LEVEL: i32 = 6;
const BUFFER: usize = 256 << 10;

/// A medium that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// In bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// Writes the medium of `manifest` to `out`; `files` are its parts, in its order, each at its beginning.
///
/// # Errors
/// Also when a file is not what the manifest says of it: it was changed meanwhile, or is damaged.
pub fn pack(
    manifest: &Manifest,
    files: &[File],
    out: impl Write,
    progress: &dyn Progress,
) -> Result<Made, BundleError> {
    let parts = manifest.parts();
    let writing = || BundleError::io("write the bundle");
    let bytes = manifest.to_bytes().map_err(|e| BundleError::io("write the manifest")(e.into()))?;
    let hashed = Hashed { out, hash: Context::new(&SHA256), size: 0 };
    let mut encoder = zstd::Encoder::new(hashed, LEVEL).map_err(BundleError::io("begin the bundle"))?;
    encoder.include_checksum(true).map_err(BundleError::io("begin the bundle"))?;
    encoder.write_all(header(MANIFEST, bytes.len() as u64)?.as_bytes()).map_err(writing())?;
    encoder.write_all(&bytes).and_then(|()| pad(&mut encoder, bytes.len() as u64)).map_err(writing())?;
    let mut told = Told { done: 0, total: parts.iter().map(|part| part.content.size).sum(), progress };
    for (part, file) in parts.iter().zip(files) {
        encoder.write_all(header(&part.name, part.content.size)?.as_bytes()).map_err(writing())?;
        copy(file, part, &mut encoder, &mut told)?;
        pad(&mut encoder, part.content.size).map_err(writing())?;
    }
    encoder.write_all(&[0; 1024]).map_err(writing())?;
    let mut hashed = encoder.finish().map_err(writing())?;
    hashed.flush().map_err(writing())?;
    let sha256 = hashed.hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Made { size: hashed.size, sha256 })
}

/// A plain file of nobody's and of no time. What is a program can be run as soon as it is taken out.
fn header(name: &str, size: u64) -> Result<Header, BundleError> {
    let mut header = Header::new_ustar();
    let long =
        |_| BundleError::Member { path: name.to_owned(), why: "has a path that is too long for a bundle" };
    header.set_path(name).map_err(long)?;
    header.set_entry_type(EntryType::Regular);
    let program = name == "banger" || name.starts_with("programs/");
    header.set_mode(if program { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

fn copy(file: &File, part: &Part, to: &mut impl Write, told: &mut Told<'_>) -> Result<(), BundleError> {
    let changed = || BundleError::Member {
        path: part.name.clone(),
        why: "is not what it was: its file changed while it was read, or is damaged",
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    // One byte more, so that a file that has grown is noticed.
    let mut from = file.take(part.content.size.saturating_add(1));
    loop {
        if told.progress.cancelled() {
            return Err(BundleError::Cancelled);
        }
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(BundleError::io(format!("read {}", part.name))(e)),
        };
        hasher.update(&buffer[..n]);
        if hasher.count() > part.content.size {
            return Err(changed());
        }
        to.write_all(&buffer[..n]).map_err(BundleError::io("write the bundle"))?;
        told.add(n);
    }
    let whole = hasher.count() == part.content.size;
    if whole && hasher.finalize().to_hex().as_str() == part.content.blake3 { Ok(()) } else { Err(changed()) }
}

fn pad(to: &mut impl Write, size: u64) -> io::Result<()> {
    let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
    to.write_all(&[0; 512][..padding])
}
