//! Images from elsewhere: pulled from a registry, or imported from a file, and made into a root file system.
//!
//! A registry and an archive both give the same things: documents and blobs by digest ([`select::Content`]). From these
//! the image for this machine is chosen ([`select`]); its layers are verified and inflated ([`layer`]), applied to a tree
//! in memory ([`flatten`]), and written out ([`crate::ext4`]).
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
mod hash;
mod inflate;
mod layer;
mod meter;
mod path;
mod region;
pub mod registries;
mod registry;
mod select;
mod tar;

use std::io;
use std::path::{Path, PathBuf};

use crate::ext4::{self, WriteError};
use crate::host::environment::Environment;
use crate::host::files::remove_if_present;
use crate::host::progress::{Progress, Unit};
use crate::image::config::ImageConfig;
use crate::image::digest::{Algorithm, Digest};
use crate::image::platform::runs;
use crate::image::reference::Reference;
pub use archive::Input;
use archive::Opened;
pub use blobs::Blobs;
pub use error::{LayerError, OciError};
use flatten::{Flattening, Whiteouts};
use layer::Layer;
use region::Region;
use registries::Registries;
pub use registry::Patience;
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
    /// `amd64`, `arm64`.
    pub arch: String,
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
                settings.arch.clone()
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
    let found = select::choose(registry, document, &settings.arch)?;
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
            let arch = build_root(&name, &tar, settings, out, progress)?;
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
    let mut flattening = scratch(settings, progress)?;
    layer::apply_all(layers, &mut flattening, progress)?;
    write(flattening, out, progress)
}

/// The same for a tar that is the root file system itself. Returns the architecture that it is for.
fn build_root(
    name: &str,
    tar: &Region,
    settings: &Settings,
    out: &Path,
    progress: &dyn Progress,
) -> Result<String, OciError> {
    progress.stage(&format!("unpacking {name}"));
    let mut flattening = scratch(settings, progress)?;
    let told = layer::Told::new(tar.reader(), |done| progress.advance(done, tar.len(), Unit::Bytes));
    layer::unpack(told, Algorithm::Sha256, &mut flattening, Whiteouts::Keep).map_err(
        |source| match source {
            LayerError::Cancelled => OciError::Cancelled,
            source => OciError::Layer { layer: name.to_owned(), source },
        },
    )?;
    let found = flattening.architecture();
    if let Some(found) = found.filter(|found| !runs(&settings.arch, found)) {
        return Err(OciError::Architecture {
            image: name.to_owned(),
            wanted: format!("linux/{}", settings.arch),
            have: vec![format!("programs for {found}")],
        });
    }
    write(flattening, out, progress)?;
    Ok(settings.arch.clone())
}

fn scratch<'p>(settings: &Settings, progress: &'p dyn Progress) -> Result<Flattening<'p>, OciError> {
    Flattening::new(&settings.scratch, progress)
        .map_err(|e| OciError::io(format!("make a file in {}", settings.scratch.display()), e))
}

fn write(flattening: Flattening<'_>, out: &Path, progress: &dyn Progress) -> Result<(), OciError> {
    let (tree, spool) = flattening.finish();
    progress.stage("writing the root file system");
    ext4::write(&tree, &spool, out, progress).map_err(|e| match e {
        WriteError::Cancelled => OciError::Cancelled,
        other => OciError::Write(other),
    })
}

/// What a reader says when nobody waits for it any more; its caller looks at [`Progress::cancelled`] first.
fn io_cancelled() -> io::Error {
    io::Error::other("cancelled")
}
