//! Reading a medium: from a stream of whatever kind, once, part by part in the manifest's order. Whoever reads decides for each part whether
//! it is written or only judged; judged it is always, and the end of the stream too.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use super::manifest::MAX_MANIFEST;
use super::{MANIFEST, Manifest, Part};
use crate::catalog::bundle::BundleError;
use crate::catalog::bundle::members::{Kind, Members, read_error};
use crate::host::progress::{Progress, Unit};

/// What is looked at as one when holes are left.
const BLOCK: usize = 4096;
const BUFFER: usize = 64 * BLOCK;

/// What a medium may ask of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// The longest part, in bytes, holes included.
    pub part_bytes: u64,
    /// How many times its size in the stream it may be, zeros not counted, beyond a start that is free.
    pub ratio: u64,
    /// That start, in bytes.
    pub free: u64,
}

/// A medium that is being read.
pub struct Reader<'a, R: Read> {
    members: Members<zstd::Decoder<'static, BufReader<Counted<R>>>>,
    parts: VecDeque<Part>,
    caps: Caps,
    /// Bytes that are no zeros, so far.
    unpacked: u64,
    done: u64,
    total: u64,
    progress: &'a dyn Progress,
}

impl<'a, R: Read> Reader<'a, R> {
    /// Reads the manifest, and nothing behind it.
    ///
    /// # Errors
    /// [`BundleError`], also for a part that is longer than `caps` allow.
    pub fn open(source: R, caps: Caps, progress: &'a dyn Progress) -> Result<(Self, Manifest), BundleError> {
        let source = BufReader::new(Counted { source, count: 0 });
        let decoder = zstd::Decoder::with_buffer(source).map_err(BundleError::Read)?.single_frame();
        let mut members = Members::new(decoder);
        let size = match members.next()? {
            Some(member) if member.path == MANIFEST => match member.kind {
                Kind::File(size) if size <= MAX_MANIFEST => size,
                Kind::File(_) => return Err(BundleError::TooMuch("a manifest of more than 1 MiB")),
                Kind::Directory | Kind::Symlink(_) => return Err(no_file(MANIFEST.to_owned())),
            },
            Some(_) | None => return Err(BundleError::Missing("manifest.json at its beginning")),
        };
        let mut bytes = vec![];
        (&mut members).take(size).read_to_end(&mut bytes).map_err(read_error)?;
        let manifest = Manifest::parse(&bytes)?;
        let parts = VecDeque::from(manifest.parts());
        if let Some(part) = parts.iter().find(|part| part.content.size > caps.part_bytes) {
            let why = "is larger than image_limits.layer_size in config.toml allows";
            return Err(BundleError::Member { path: part.name.clone(), why });
        }
        let total = parts.iter().map(|part| part.content.size).sum();
        Ok((Self { members, parts, caps, unpacked: 0, done: 0, total, progress }, manifest))
    }

    /// Reads the next part: into the empty file `to`, with holes for zeros, or nowhere.
    ///
    /// # Errors
    /// [`BundleError`], also if it is not, to the last byte, the part that the manifest says.
    pub fn part(&mut self, to: Option<&File>) -> Result<(), BundleError> {
        let Some(part) = self.parts.pop_front() else { return Err(BundleError::Trailing) };
        let bad = |why| BundleError::Member { path: part.name.clone(), why };
        match self.members.next()? {
            None => return Err(BundleError::Truncated),
            Some(member) if member.path != part.name => return Err(stranger(member.path)),
            Some(member) => match member.kind {
                Kind::File(size) if size == part.content.size => {}
                Kind::File(_) => return Err(bad("has another size than the manifest says")),
                Kind::Directory | Kind::Symlink(_) => return Err(no_file(member.path)),
            },
        }
        let op = || format!("unpack {}", part.name);
        if let Some(file) = to {
            file.set_len(part.content.size).map_err(BundleError::io(op()))?;
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        while hasher.count() < part.content.size {
            let at = hasher.count();
            let piece = self.piece(&mut buffer, part.content.size - at)?;
            hasher.update(&buffer[..piece]);
            for (number, block) in buffer[..piece].chunks(BLOCK).enumerate() {
                if block.iter().all(|byte| *byte == 0) {
                    continue;
                }
                self.count(block.len())?;
                if let Some(file) = to {
                    file.write_all_at(block, at + (number * BLOCK) as u64).map_err(BundleError::io(op()))?;
                }
            }
        }
        if hasher.finalize().to_hex().as_str() == part.content.blake3 {
            return Ok(());
        }
        Err(bad("is damaged: its content is not what the manifest says"))
    }

    /// Makes sure that nothing follows the last part: neither in the tar, nor behind it.
    pub fn finish(mut self) -> Result<(), BundleError> {
        if !self.parts.is_empty() {
            return Err(BundleError::Truncated);
        }
        if let Some(member) = self.members.next()? {
            return Err(stranger(member.path));
        }
        let mut source = self.members.into_source().finish();
        match source.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(BundleError::Trailing),
            Err(e) => Err(BundleError::Read(e)),
        }
    }

    /// Fills the buffer, or as much of it as is `left`; returns how much that is.
    fn piece(&mut self, buffer: &mut [u8], left: u64) -> Result<usize, BundleError> {
        if self.progress.cancelled() {
            return Err(BundleError::Cancelled);
        }
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.members.read_exact(&mut buffer[..wanted]).map_err(read_error)?;
        self.done += wanted as u64;
        self.progress.advance(self.done, self.total, Unit::Bytes);
        Ok(wanted)
    }

    fn count(&mut self, bytes: usize) -> Result<(), BundleError> {
        self.unpacked += bytes as u64;
        let packed = self.members.source().get_ref().get_ref().count;
        if self.unpacked > packed.saturating_mul(self.caps.ratio).saturating_add(self.caps.free) {
            return Err(BundleError::TooMuch(
                "far more in it than a file of its size can honestly have; image_limits.ratio in config.toml is the limit",
            ));
        }
        Ok(())
    }
}

fn stranger(path: String) -> BundleError {
    BundleError::Member { path, why: "is not the one that its manifest has there" }
}

fn no_file(path: String) -> BundleError {
    BundleError::Member { path, why: "is no file" }
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}
