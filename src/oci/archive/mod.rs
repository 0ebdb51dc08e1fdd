//! Images in files: an OCI image layout (a directory, or its tar), what `docker save` writes, and the tar of a plain root
//! file system. Which one it is, is read from the content.

mod docker;
mod layout;
mod shelf;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::host::progress::{Progress, Unit};
use crate::image::config::ImageConfig;
use crate::image::digest::Digest;
use crate::oci::error::OciError;
use crate::oci::gzip::Crcs;
use crate::oci::inflate::{Packing, inflate, packing};
use crate::oci::layer::Layer;
use crate::oci::region::Region;
use crate::oci::spool::{Spool, nameless};
use crate::oci::{Settings, io_cancelled};
use shelf::Shelf;

/// What is imported.
#[derive(Debug)]
pub enum Input {
    Path(PathBuf),
    /// Standard input, or whatever else was handed over open; it may be a pipe.
    Stream(File),
}

/// What an archive holds.
#[derive(Debug)]
pub enum Opened {
    Image(Image),
    /// A root file system, as a tar that may be packed.
    Root(Region),
}

#[derive(Debug)]
pub struct Image {
    pub names: Vec<String>,
    pub digest: Option<Digest>,
    pub arch: String,
    pub config: ImageConfig,
    pub layers: Vec<Layer>,
}

/// The most that an archive may unpack to, in bytes.
const MAX_ARCHIVE: u64 = 64 << 30;

impl Input {
    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Stream(_) => "the standard input".to_owned(),
        }
    }
}

/// Finds out what `input` is and opens it.
pub fn open(input: Input, settings: &Settings, progress: &dyn Progress) -> Result<Opened, OciError> {
    let name = input.name();
    let cannot_read = |e| OciError::io(format!("read {name}"), e);
    let file = match input {
        Input::Path(path) => {
            let file = File::open(&path).map_err(cannot_read)?;
            if file.metadata().map_err(cannot_read)?.is_dir() {
                let shelf = Shelf::directory(path);
                if !layout::is(&shelf)? {
                    let why = "it is a directory, but no OCI layout; for a root file system, give its tar: \
                               tar -C DIR -c . | banger image import -";
                    return Err(no_image(&name, why));
                }
                return layout::open(&name, shelf, None, &settings.platform).map(Opened::Image);
            }
            file
        }
        Input::Stream(file) => file,
    };
    let region = seekable(file, settings, progress).map_err(|e| cancelled_or(progress, &name, e))?;
    if region.len() == 0 {
        return Err(no_image(&name, "it is empty"));
    }
    let plain = unpacked(&name, region, settings, progress)?;
    let scanned = Shelf::tar(plain.clone(), progress).map_err(|e| match e {
        shelf::ScanError::Cancelled => OciError::Cancelled,
        shelf::ScanError::Tar(e) => not_a_tar(&name, e),
    })?;
    let Some(shelf) = scanned else { return Ok(Opened::Root(plain)) };
    let saved = docker::manifest(&shelf)?;
    if layout::is(&shelf)? {
        return layout::open(&name, shelf, saved.as_deref(), &settings.platform).map(Opened::Image);
    }
    match saved {
        Some(saved) => docker::open(&name, &shelf, saved, &settings.platform).map(Opened::Image),
        None => Ok(Opened::Root(plain)),
    }
}

/// The input as a file that can be read from anywhere; a pipe is written to one without a name.
fn seekable(mut file: File, settings: &Settings, progress: &dyn Progress) -> io::Result<Region> {
    if file.metadata()?.is_file() {
        let region = Region::whole(file.try_clone()?)?;
        let at = file.stream_position()?;
        return region
            .part(at, region.len().saturating_sub(at))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
    }
    progress.stage("reading the image");
    let mut copy = nameless(&settings.scratch)?;
    let mut source = Counted { reader: file, done: 0, progress };
    io::copy(&mut source, &mut copy)?;
    copy.seek(SeekFrom::Start(0))?;
    Region::whole(copy)
}

/// The tar in `region`: itself, or what it unpacks to, in a file without a name.
fn unpacked(
    name: &str,
    region: Region,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Region, OciError> {
    let mut head = [0; 8];
    let n = region.reader().read(&mut head).map_err(|e| OciError::io(format!("read {name}"), e))?;
    let kind = packing(&head[..n]);
    if kind == Packing::None {
        return Ok(region);
    }
    let words = match kind {
        Packing::Gzip => "gzip",
        Packing::Zstd => "zstd",
        Packing::Xz => "xz",
        Packing::Bzip2 => return Err(no_image(name, "it is packed with bzip2; use gzip, zstd or xz")),
        Packing::None => "",
    };
    progress.stage(&format!("unpacking {name}"));
    let broken = |e: io::Error| {
        if progress.cancelled() {
            return OciError::Cancelled;
        }
        let why = crate::image::manifest::harmless(&e.to_string());
        no_image(name, &format!("its {words} data is damaged or cut off ({why})"))
    };
    let reader = BufReader::with_capacity(256 << 10, Counted { reader: region.reader(), done: 0, progress });
    let mut inflated = inflate(reader, Crcs::Check).map_err(broken)?;
    let disk = |e| OciError::io(format!("unpack {name}"), e);
    let mut spool = Spool::new(&settings.scratch).map_err(disk)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = match inflated.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(e)),
        };
        spool.append(&buffer[..n]).map_err(disk)?;
        if spool.end() > MAX_ARCHIVE {
            return Err(no_image(name, "it unpacks to more than 64 GiB"));
        }
    }
    spool.into_file().and_then(Region::whole).map_err(disk)
}

fn not_a_tar(name: &str, error: shelf::NotTar) -> OciError {
    match error {
        shelf::NotTar::AtAll => {
            no_image(name, "it is neither a tar archive nor a directory with an OCI layout")
        }
        shelf::NotTar::Damaged(why) => no_image(name, &why),
        shelf::NotTar::Read(e) => OciError::io(format!("read {name}"), e),
    }
}

fn no_image(name: &str, why: &str) -> OciError {
    OciError::NoImage { source_name: name.to_owned(), why: why.to_owned() }
}

fn cancelled_or(progress: &dyn Progress, name: &str, error: io::Error) -> OciError {
    if progress.cancelled() { OciError::Cancelled } else { OciError::io(format!("read {name}"), error) }
}

/// A source that tells how much was read, and ends when nobody waits.
struct Counted<'a, R> {
    reader: R,
    done: u64,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.cancelled() {
            return Err(io_cancelled());
        }
        let n = self.reader.read(buffer)?;
        self.done += n as u64;
        if self.done > MAX_ARCHIVE {
            return Err(io::Error::other("it is larger than 64 GiB"));
        }
        self.progress.advance(self.done, 0, Unit::Bytes);
        Ok(n)
    }
}
