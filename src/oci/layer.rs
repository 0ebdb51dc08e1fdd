//! A layer on its way into the tree: its bytes are hashed, inflated, hashed again, and walked as a tar, in one pass.

use std::io::{self, BufReader, Read};

use crate::host::progress::{Progress, Unit};
use crate::image::digest::{Algorithm, Digest};
use crate::image::manifest::MAX_BLOB;
use crate::oci::blob::Blob;
use crate::oci::error::{LayerError, OciError};
use crate::oci::flatten::{Flattening, Whiteouts};
use crate::oci::hash::{Hashed, Hasher};
use crate::oci::inflate::inflate;
use crate::oci::tar::{MAX_FILE, Reader, Stream, TarError};

/// The most that a layer may unpack to, in bytes.
const MAX_LAYER: u64 = MAX_FILE;

/// One layer, and what must be true of it.
#[derive(Debug, Clone)]
pub struct Layer {
    pub bytes: Blob,
    /// Of the bytes as they are; None where only the diff ID is known.
    pub digest: Option<Digest>,
    /// Of the tar that they unpack to.
    pub diff_id: Digest,
}

impl Layer {
    fn name(&self) -> String {
        format!("layer {}", self.digest.as_ref().unwrap_or(&self.diff_id))
    }
}

/// Applies layers, oldest first.
pub fn apply_all(
    layers: &[Layer],
    flattening: &mut Flattening<'_>,
    progress: &dyn Progress,
) -> Result<(), OciError> {
    let total = layers.iter().map(|l| l.bytes.len()).sum();
    let mut before = 0;
    for layer in layers {
        let applied = apply(layer, flattening, &|done| progress.advance(before + done, total, Unit::Bytes));
        if applied.is_err() {
            // The others need not come any more.
            layers.iter().for_each(|layer| layer.bytes.give_up());
            return applied;
        }
        before += layer.bytes.len();
    }
    Ok(())
}

fn apply(layer: &Layer, flattening: &mut Flattening<'_>, tell: &dyn Fn(u64)) -> Result<(), OciError> {
    let algorithm = layer.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let mut raw = Hashed::new(Told::new(layer.bytes.reader(), tell), algorithm, MAX_BLOB);
    let applied = unpack(&mut raw, layer.diff_id.algorithm(), flattening, Whiteouts::Apply);
    if matches!(applied, Err(LayerError::Cancelled)) {
        return Err(OciError::Cancelled);
    }
    // What follows the last frame counts for the digest; and after an error the digest says whether the layer was damaged
    // on its way or made like that.
    io::copy(&mut raw, &mut io::sink()).map_err(|e| unread(layer, e))?;
    if let Some(digest) = layer.digest.as_ref().filter(|_| !layer.bytes.is_verified_by_its_reader()) {
        raw.into_hasher().check(digest).map_err(|found| OciError::wrong_digest("layer", digest, &found))?;
    }
    let unpacked = applied.map_err(|source| OciError::Layer { layer: layer.name(), source })?;
    unpacked.check(&layer.diff_id).map_err(|found| OciError::DiffId {
        layer: layer.name(),
        want: layer.diff_id.to_string(),
        found,
    })
}

/// Why a layer's bytes could not be read: an arriving blob knows better than the disk.
fn unread(layer: &Layer, error: io::Error) -> OciError {
    error.downcast::<OciError>().unwrap_or_else(|e| OciError::io(format!("read {}", layer.name()), e))
}

/// Inflates and applies a tar stream; returns the hash of what it inflated to.
pub fn unpack(
    raw: impl Read,
    algorithm: Algorithm,
    flattening: &mut Flattening<'_>,
    whiteouts: Whiteouts,
) -> Result<Hasher, LayerError> {
    let read = |e| LayerError::Tar(TarError::Read(e));
    let inflated = inflate(BufReader::with_capacity(256 << 10, raw)).map_err(read)?;
    // The tar reader asks for 512 bytes at a time.
    let hashed = BufReader::with_capacity(64 << 10, Hashed::new(inflated, algorithm, MAX_LAYER));
    let mut tar = Reader::new(Stream(hashed));
    flattening.apply(&mut tar, whiteouts)?;
    // Behind the archive's end there is padding, which belongs to the diff ID.
    let mut rest = tar.into_source().0;
    io::copy(&mut rest, &mut io::sink()).map_err(read)?;
    Ok(rest.into_inner().into_hasher())
}

/// A reader that tells how much was read.
pub struct Told<R, F> {
    reader: R,
    done: u64,
    tell: F,
}

impl<R: Read, F: Fn(u64)> Told<R, F> {
    pub fn new(reader: R, tell: F) -> Self {
        Self { reader, done: 0, tell }
    }
}

impl<R: Read, F: Fn(u64)> Read for Told<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.done += n as u64;
        (self.tell)(self.done);
        Ok(n)
    }
}
