//! Layers on their way into the image. Each is hashed, inflated, hashed again and walked as a tar in one pass: a worker reads,
//! hashes and inflates; the thread that applies the layers, one after another, hashes what comes of it and reads the tar.
//! Workers run ahead of it, since inflating is most of the work and layers do not depend on one another.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::host::progress::{Progress, Unit};
use crate::image::digest::{Algorithm, Digest};
use crate::image::manifest::MAX_BLOB;
use crate::oci::blob::Blob;
use crate::oci::error::{LayerError, OciError};
use crate::oci::flatten::{Flattening, Whiteouts};
use crate::oci::gzip::Crcs;
use crate::oci::hash::{Hashed, Hasher, Hashing};
use crate::oci::inflate::inflate;
use crate::oci::io_cancelled;
use crate::oci::limits::Limits;
use crate::oci::pipe::{CHUNK, Receiver, SendError, Sender, pipe};
use crate::oci::region::Region;
use crate::oci::tar::{Reader, Stream, TarError};

/// More workers than this only wait for the thread that applies what they inflate.
const MAX_WORKERS: usize = 4;

/// One layer, and what must be true of it.
#[derive(Debug, Clone)]
pub struct Layer {
    pub bytes: Blob,
    /// Of the bytes as they are; None where only the diff ID is known.
    pub digest: Option<Digest>,
    /// Of the tar that they unpack to; None: it is what comes out.
    pub diff_id: Option<Digest>,
    /// What people call it.
    pub name: String,
    pub whiteouts: Whiteouts,
}

impl Layer {
    /// One of an image's layers.
    pub fn new(bytes: Blob, digest: Option<Digest>, diff_id: Digest) -> Self {
        let name = format!("layer {}", digest.as_ref().unwrap_or(&diff_id));
        Self { bytes, digest, diff_id: Some(diff_id), name, whiteouts: Whiteouts::Apply }
    }

    /// A tar that is the root file system itself.
    pub fn root(bytes: Region, name: &str) -> Self {
        Self {
            bytes: Blob::Here(bytes),
            digest: None,
            diff_id: None,
            name: name.to_owned(),
            whiteouts: Whiteouts::Keep,
        }
    }

    fn failed(&self, source: LayerError) -> OciError {
        match source {
            LayerError::Cancelled => OciError::Cancelled,
            source => OciError::Layer { layer: self.name.clone(), source },
        }
    }
}

/// How a worker's part ended.
type Inflated = Result<(), OciError>;
type Job<'l> = (&'l Layer, Sender<Inflated>);

/// Applies layers, oldest first, and returns the digests of what they unpacked to. What waits for its turn is kept in `scratch`.
pub fn apply_all<'p>(
    layers: &[Layer],
    flattening: &mut Flattening<'p>,
    scratch: &Path,
    limits: &Limits,
    progress: &'p dyn Progress,
) -> Result<Vec<Digest>, OciError> {
    let count =
        Count { done: AtomicU64::new(0), total: layers.iter().map(|l| l.bytes.len()).sum(), progress };
    let (jobs, outputs): (Vec<Job<'_>>, Vec<_>) = layers
        .iter()
        .map(|layer| {
            let (sender, receiver) = pipe(scratch.to_owned(), progress);
            ((layer, sender), receiver)
        })
        .unzip();
    let workers = layers.len().min(thread::available_parallelism().map_or(1, usize::from)).min(MAX_WORKERS);
    let jobs = Jobs(Mutex::new(jobs.into_iter()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((layer, sender)) = jobs.next() {
                    let outcome = work(layer, &sender, limits, &count);
                    sender.finish(outcome);
                }
            });
        }
        // An error drops what is left of the outputs, which ends the workers, and so does what they wait for.
        let applied = layers.iter().zip(outputs).map(|(layer, output)| apply(layer, output, flattening));
        let applied: Result<Vec<Digest>, OciError> = applied.collect();
        // Whatever an interrupted read was taken for.
        let applied = applied.map_err(|e| if progress.cancelled() { OciError::Cancelled } else { e });
        if applied.is_err() {
            layers.iter().for_each(|layer| layer.bytes.give_up());
        }
        applied
    })
}

/// What is still to be done.
struct Jobs<'l>(Mutex<std::vec::IntoIter<Job<'l>>>);

impl<'l> Jobs<'l> {
    fn next(&self) -> Option<Job<'l>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Reads, hashes and inflates a layer.
fn work(layer: &Layer, sender: &Sender<Inflated>, limits: &Limits, count: &Count<'_>) -> Inflated {
    // A blob that is fetched meanwhile is hashed as it comes.
    let digest = layer.digest.as_ref().filter(|_| !layer.bytes.is_verified_by_its_reader());
    let reader = Counted { reader: layer.bytes.reader(), count };
    let mut raw = Hashed::new(reader, digest.map(Digest::algorithm), MAX_BLOB);
    let crcs = if layer.diff_id.is_some() { Crcs::Pass } else { Crcs::Check };
    let inflated = inflate(BufReader::with_capacity(CHUNK, &mut raw), crcs);
    let sent = send(inflated, layer.bytes.len(), sender, limits);
    if matches!(sent, Err(LayerError::Cancelled)) {
        return Err(OciError::Cancelled);
    }
    // What follows the last frame counts for the digest; and after an error the digest says whether the layer was damaged
    // on its way or made like that.
    io::copy(&mut raw, &mut io::sink()).map_err(|e| unread(layer, e))?;
    if let (Some(digest), Some(hasher)) = (digest, raw.into_hasher()) {
        hasher.check(digest).map_err(|found| OciError::wrong_digest("layer", digest, &found))?;
    }
    sent.map_err(|e| layer.failed(e))
}

/// Why a layer's bytes could not be read: an arriving blob knows better than the disk.
fn unread(layer: &Layer, error: io::Error) -> OciError {
    error.downcast::<OciError>().unwrap_or_else(|e| OciError::io(format!("read {}", layer.name), e))
}

/// Inflates to the end.
fn send(
    inflated: io::Result<impl Read>,
    packed: u64,
    sender: &Sender<Inflated>,
    limits: &Limits,
) -> Result<(), LayerError> {
    let read = |e| LayerError::Tar(TarError::Read(e));
    let mut inflated = inflated.map_err(read)?;
    let mut bytes = 0;
    loop {
        let mut chunk = sender.chunk();
        chunk.fill(&mut inflated).map_err(read)?;
        if chunk.bytes().is_empty() {
            return Ok(());
        }
        bytes += chunk.bytes().len() as u64;
        limits.check_layer(packed, bytes).map_err(LayerError::TooMuch)?;
        match sender.send(chunk) {
            Ok(()) => {}
            Err(SendError::Gone) => return Err(LayerError::Cancelled),
            Err(SendError::Disk(e)) => return Err(LayerError::Disk(e)),
        }
    }
}

/// Applies what a worker sends; returns the digest of it.
fn apply(
    layer: &Layer,
    output: Receiver<'_, Inflated>,
    flattening: &mut Flattening<'_>,
) -> Result<Digest, OciError> {
    output.begin();
    let algorithm = layer.diff_id.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let mut tar = Reader::new(Stream(Hashing::new(output, algorithm)));
    let applied = flattening.apply(&mut tar, layer.whiteouts);
    if matches!(applied, Err(LayerError::Cancelled)) {
        return Err(OciError::Cancelled);
    }
    // Behind the archive's end there is padding, which belongs to the diff ID; and whether the layer is damaged is known at its end.
    let mut rest = tar.into_source().0;
    let drained = drain(&mut rest);
    let (output, hasher) = rest.into_parts();
    match output.outcome() {
        Some(outcome) => outcome?,
        None if drained.is_err() => {}
        None => return Err(OciError::Cancelled),
    }
    let read = |e| LayerError::Tar(TarError::Read(e));
    applied.and(drained.map_err(read)).map_err(|e| layer.failed(e))?;
    diff_id(layer, hasher)
}

fn drain(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        match reader.fill_buf()?.len() {
            0 => return Ok(()),
            n => reader.consume(n),
        }
    }
}

/// The digest of what the layer unpacked to, which must be the one that the image's configuration says.
fn diff_id(layer: &Layer, hasher: Hasher) -> Result<Digest, OciError> {
    let found = hasher.finish();
    match &layer.diff_id {
        Some(want) if *want != found => Err(OciError::DiffId {
            layer: layer.name.clone(),
            want: want.to_string(),
            found: found.to_string(),
        }),
        _ => Ok(found),
    }
}

/// How far all workers are together.
struct Count<'a> {
    done: AtomicU64,
    total: u64,
    progress: &'a dyn Progress,
}

/// A reader that counts what is read, and ends when nobody waits.
struct Counted<'a, R> {
    reader: R,
    count: &'a Count<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.count;
        if count.progress.cancelled() {
            return Err(io_cancelled());
        }
        let n = self.reader.read(buffer)?;
        let done = count.done.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        count.progress.advance(done, count.total, Unit::Bytes);
        Ok(n)
    }
}
