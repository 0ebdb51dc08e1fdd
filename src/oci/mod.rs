//! Images from elsewhere: pulled from a registry, or imported from a file, and made into a root file system.
//!
//! A registry and an archive both give the same things: documents and blobs by digest ([`select::Content`]). From these
//! the image for the platform is chosen ([`select`]); its layers are verified and inflated side by side ([`layer`]), and applied one
//! after another ([`flatten`]): names and attributes to a tree in memory, contents straight to the image file
//! ([`crate::ext4`]), which is a file system when all are there.
//!
//! ```text
//!  blob (a file, or on its way) -- hash -- inflate --> pipe --> hash -- tar -- flatten --> ext4: tree, image --> finish
//!      a few workers, ahead of their turn              |        one thread, in the layers' order
//!                                                      `-- spool, where its turn has not come
//! ```
//!
//! Everything that comes in is hostile: it is capped in length and number, it is what its digest says or is refused, and
//! nothing in it becomes a path on this host.

mod archive;
mod arrival;
mod blob;
mod blobs;
pub mod cache;
mod error;
mod fate;
mod flatten;
mod gzip;
mod hash;
mod inflate;
mod layer;
mod limits;
mod meter;
mod path;
mod pipe;
mod region;
pub mod registries;
mod registry;
mod select;
mod spool;
#[cfg(not(fuzzing))]
mod tar;
#[cfg(fuzzing)]
pub mod tar;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::ext4::{self, Seed, WriteError};
use crate::host::environment::Environment;
use crate::host::files::remove_if_present;
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::image::config::ImageConfig;
use crate::image::digest::Digest;
use crate::image::platform::{Platform, runs};
use crate::image::reference::Reference;
pub use archive::Input;
use archive::Opened;
pub use blobs::Blobs;
pub use error::{LayerError, OciError};
use flatten::Flattening;
use layer::Layer;
pub use limits::{FREE_OF_RATIO, Limits};
use region::Region;
use registries::Registries;
pub use registry::Patience;
#[cfg(fuzzing)]
pub use registry::what_a_registry_says;
use registry::{Doubt, Registry};
use select::Found;

/// Where things are, what this machine is, and what its user says of the network.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The blob store; pulls with clones of the same one share what is on its way.
    pub blobs: Blobs,
    /// Where files may be made that nobody sees; on the file system of the images.
    pub scratch: PathBuf,
    /// Docker's config.json, for logins.
    pub docker_config: Option<PathBuf>,
    /// What the image is to be for.
    pub platform: Platform,
    pub limits: Limits,
    pub registries: Registries,
    pub environment: Environment,
    pub patience: Patience,
}

/// What was made, besides the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What it is called where it comes from, as it is kept here; an archive may name nothing.
    pub names: Vec<String>,
    /// Of the manifest or index that the reference stands for.
    pub digest: Option<Digest>,
    /// The full reference, the file's path, or `-`.
    pub source: String,
    pub arch: String,
    pub config: ImageConfig,
}

/// A pull, in two steps: what a reference stands for may be here already.
pub struct Pull<'a> {
    reference: &'a Reference,
    settings: &'a Settings,
    progress: &'a dyn Progress,
    registry: Registry<'a>,
}

impl<'a> Pull<'a> {
    pub fn new(reference: &'a Reference, settings: &'a Settings, progress: &'a dyn Progress) -> Self {
        let registry = Registry::new(reference, settings, progress, true);
        Self { reference, settings, progress, registry }
    }

    /// The digest that the reference stands for now.
    pub fn resolve(&mut self) -> Result<Digest, OciError> {
        self.registry.attended(|registry| registry.resolve())
    }

    /// Fetches the image and writes its root file system as ext4 to the new file `out`. On an error there is no such file; blobs
    /// that came whole stay in the store, so that the next try does not fetch them again.
    pub fn fetch(mut self, out: &Path) -> Result<Built, OciError> {
        let Self { reference, settings, progress, .. } = self;
        progress.stage(&format!("pulling {}", reference.familiar()));
        let (digest, found) = match self.registry.attended(|registry| attempt(registry, settings, out)) {
            Err(OciError::Damaged { what, digest, why }) => {
                let doubt = self.registry.doubts(&digest);
                // A blob that was whole when it was stored, and is not now: the disk's doing, or somebody's. Or a mirror's.
                let whence = match doubt {
                    Some(Doubt::Cache) => "in the cache",
                    Some(Doubt::Mirror) => "at a mirror",
                    None => return Err(OciError::Damaged { what, digest, why }),
                };
                progress.note(&format!("the {what} {digest} is damaged {whence}; fetching it again"));
                self.registry.forget_reused()?;
                let mut again = Registry::new(reference, settings, progress, doubt == Some(Doubt::Cache));
                again.attended(|registry| attempt(registry, settings, out))?
            }
            other => other?,
        };
        let platform = found.configuration.platform();
        Ok(Built {
            names: vec![reference.local_name()],
            digest: Some(digest),
            source: reference.to_string(),
            arch: if platform.architecture.is_empty() {
                settings.platform.architecture.clone()
            } else {
                platform.architecture
            },
            config: found.configuration.process(),
        })
    }
}

fn attempt(
    registry: &mut Registry<'_>,
    settings: &Settings,
    out: &Path,
) -> Result<(Digest, Found), OciError> {
    let (digest, document) = registry.top()?;
    let found = select::choose(registry, document, &settings.platform)?;
    let layers = select::layers(&found, |descriptor| registry.open(descriptor))?;
    let made = registry.fetch_while(&unpacking(&layers), |progress| build(&layers, settings, out, progress));
    if let Err(e) = made {
        // All may have been unpacked by the time that the last layer could not be stored.
        remove_if_present(out).map_err(|e| OciError::io(format!("remove {}", out.display()), e))?;
        return Err(e);
    }
    Ok((digest, found))
}

/// Imports an archive, a layout or a root file system, and writes it as ext4 to the new file `out`. On an error there is no
/// such file, and nothing else.
pub fn import(
    input: Input,
    settings: &Settings,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Built, OciError> {
    let name = input.name();
    let source = match &input {
        Input::Path(path) => path.display().to_string(),
        Input::Stream(_) => "-".to_owned(),
    };
    progress.stage(&format!("reading {name}"));
    match archive::open(input, settings, progress)? {
        Opened::Image(image) => {
            progress.stage(&unpacking(&image.layers));
            build(&image.layers, settings, out, progress)?;
            let archive::Image { names, digest, arch, config, .. } = image;
            Ok(Built { names, digest, source, arch, config })
        }
        Opened::Root(tar) => {
            let arch = build_root(&name, tar, settings, out, progress)?;
            Ok(Built { names: vec![], digest: None, source, arch, config: ImageConfig::default() })
        }
    }
}

fn unpacking(layers: &[Layer]) -> String {
    match layers.len() {
        1 => "unpacking 1 layer".to_owned(),
        n => format!("unpacking {n} layers"),
    }
}

fn build(layers: &[Layer], settings: &Settings, out: &Path, progress: &dyn Progress) -> Result<(), OciError> {
    write_image(layers, settings, out, progress, |_| Ok(()))
}

/// The same for a tar that is the root file system itself. Returns the architecture that it is for.
fn build_root(
    name: &str,
    tar: Region,
    settings: &Settings,
    out: &Path,
    progress: &dyn Progress,
) -> Result<String, OciError> {
    progress.stage(&format!("unpacking {name}"));
    write_image(&[Layer::root(tar, name)], settings, out, progress, |flattening| {
        match flattening.architecture().filter(|found| !runs(&settings.platform.architecture, found)) {
            None => Ok(()),
            Some(found) => Err(OciError::Architecture {
                image: name.to_owned(),
                wanted: settings.platform.to_string(),
                have: vec![format!("programs for {found}")],
            }),
        }
    })?;
    Ok(settings.platform.architecture.clone())
}

/// Applies the layers to the new file `out` and makes it a file system, if `judge` says so.
fn write_image<'p>(
    layers: &[Layer],
    settings: &Settings,
    out: &Path,
    progress: &'p dyn Progress,
    judge: impl FnOnce(&mut Flattening<'p>) -> Result<(), OciError>,
) -> Result<(), OciError> {
    let cannot_make = |e| OciError::io(format!("make the file {}", out.display()), e);
    let mut undo = Undo::default();
    let file = File::options().read(true).write(true).create_new(true).open(out).map_err(cannot_make)?;
    let doomed = out.to_owned();
    undo.push(format!("file {}", out.display()), move || remove_if_present(&doomed));
    let mut flattening = Flattening::new(file, settings.limits, progress);
    let ids = layer::apply_all(layers, &mut flattening, &settings.scratch, &settings.limits, progress)?;
    judge(&mut flattening)?;
    progress.stage("writing the root file system");
    let (tree, image) = flattening.finish();
    ext4::finish(image, tree, seed(&ids), 0, &|| progress.cancelled()).map_err(|e| match e {
        WriteError::Cancelled => OciError::Cancelled,
        other => OciError::Write(other),
    })?;
    undo.commit();
    Ok(())
}

/// The same layers give the same image, however they are packed.
fn seed(diff_ids: &[Digest]) -> Seed {
    let mut hasher = blake3::Hasher::new_derive_key("banger 2026 root file system of layers");
    for id in diff_ids {
        hasher.update(id.to_string().as_bytes()).update(b"\n");
    }
    Seed(*hasher.finalize().as_bytes())
}

/// For tests/fuzz: applies tars as they are and makes `file` a file system.
#[cfg(fuzzing)]
pub fn flatten_for_fuzzing(
    tars: &[Vec<u8>],
    file: File,
    limits: Limits,
    progress: &dyn Progress,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut flattening = Flattening::new(file, limits, progress);
    for bytes in tars {
        let mut reader = tar::Reader::new(tar::Stream(bytes.as_slice()));
        flattening.apply(&mut reader, flatten::Whiteouts::Apply)?;
    }
    let (tree, image) = flattening.finish();
    ext4::finish(image, tree, seed(&[]), 0, &|| false)?;
    Ok(())
}

/// What a reader says when nobody waits for it any more; its caller looks at [`Progress::cancelled`] first.
fn io_cancelled() -> io::Error {
    io::Error::other("cancelled")
}
