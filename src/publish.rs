//! Making bundles, for those who publish images and kernels: `banger internal make-bundle`. Releases of banger itself are in
//! [`release`].
//!
//! Whoever publishes does so from a build machine, where no VM runs and no daemon should: so this is no request to bangerd. It
//! goes through the same doors as bangerd nevertheless, [`crate::oci::import`] and [`crate::kernel::import`], so that a bundle
//! that cannot be used is not made. The command line calls it, and knows nothing of what is behind it.

pub mod release;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::catalog::about::{BadField, ImageAbout, KernelAbout, RawAbout};
use crate::catalog::bundle::make::{self, Made};
use crate::catalog::bundle::{BZIMAGE, BundleError, Manifest, VMLINUX};
use crate::catalog::record::Written;
use crate::host::environment::Environment;
use crate::host::files::{create_private_dir, remove_tree_if_present, sync_directory};
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::image::platform::{Platform, architecture};
use crate::kernel::error::KernelError;
use crate::kernel::import;
use crate::oci::registries::Registries;
use crate::oci::{self, Blobs, Input, Limits, OciError, Patience, Settings};
use crate::vm::size::Mib;

/// An image to be made into a bundle.
#[derive(Debug)]
pub struct ImageWish {
    /// The tar of its root file system, packed or not; None: the standard input.
    pub rootfs: Option<PathBuf>,
    pub name: String,
    pub distro: String,
    /// None: this machine's.
    pub arch: Option<String>,
    pub kernel: Option<String>,
    pub description: String,
    /// How large its disks are at least.
    pub size: Option<Mib>,
    /// The bundle's file, or a directory for it.
    pub out: PathBuf,
}

/// A kernel to be made into a bundle.
#[derive(Debug)]
pub struct KernelWish {
    /// An ELF vmlinux or a bzImage.
    pub kernel: PathBuf,
    /// A directory as /lib/modules/<version>.
    pub modules: Option<PathBuf>,
    pub name: String,
    /// What its version must be; None: what it says.
    pub version: Option<String>,
    pub description: String,
    /// The bundle's file, or a directory for it.
    pub out: PathBuf,
}

/// A bundle, and what to write into a catalog for it.
#[derive(Debug, Serialize)]
pub struct Published {
    pub bundle: String,
    pub sha256: String,
    pub size: u64,
    /// Ready but for its `url`, which is the bundle's path as long as it has not been put anywhere else.
    pub entry: Entry,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Entry {
    Image(Written<ImageAbout>),
    Kernel(Written<KernelAbout>),
}

/// Why there is no bundle.
#[derive(Debug)]
pub enum PublishError {
    Field(BadField),
    Image(OciError),
    /// The image has no room in the size that was asked for.
    TooSmall {
        asked: Mib,
        needed: Mib,
    },
    Kernel(KernelError),
    Version {
        asked: String,
        found: String,
    },
    Bundle(BundleError),
    Io {
        op: String,
        source: io::Error,
    },
}

/// Makes the bundle of an image. Nothing is left behind on an error.
pub fn image(wish: ImageWish, progress: &dyn Progress) -> Result<Published, PublishError> {
    let arch = wish.arch.unwrap_or_else(|| architecture(std::env::consts::ARCH).to_owned());
    let about = ImageAbout::parse(RawAbout {
        name: wish.name,
        arch: arch.clone(),
        distro: Some(wish.distro),
        kernel: wish.kernel,
        version: None,
        description: wish.description,
    })
    .map_err(PublishError::Field)?;
    let shop = Shop::open(&wish.out)?;
    let input = match wish.rootfs {
        Some(path) => Input::Path(path),
        None => {
            let stdin =
                io::stdin().as_fd().try_clone_to_owned().map_err(failed("take the standard input"))?;
            Input::Stream(stdin.into())
        }
    };
    let rootfs = shop.path("rootfs.ext4");
    let settings = Settings {
        blobs: Blobs::at(shop.path("blobs")),
        scratch: shop.directory.clone(),
        docker_config: None,
        platform: Platform::linux(&arch),
        limits: Limits::default(),
        registries: Registries::default(),
        environment: Environment::default(),
        patience: Patience::default(),
    };
    let built = oci::import(input, &settings, &rootfs, progress).map_err(PublishError::Image)?;
    if let Some(asked) = wish.size {
        enlarge(&rootfs, asked)?;
    }
    progress.stage(&format!("packing {}", about.name));
    let manifest = Manifest::Image { about: about.clone(), config: built.config };
    let stem = format!("{}-{}", about.name, about.arch);
    shop.publish(
        &stem,
        |out| make::image(&rootfs, &manifest, out, progress),
        |made, url| {
            Entry::Image(Written { about, url, sha256: made.digest.hex().to_owned(), size: made.size })
        },
    )
}

/// Makes the bundle of a kernel. Nothing is left behind on an error.
pub fn kernel(wish: KernelWish, progress: &dyn Progress) -> Result<Published, PublishError> {
    let shop = Shop::open(&wish.out)?;
    let kernel = absolute(&wish.kernel)?;
    let modules = wish.modules.as_deref().map(absolute).transpose()?;
    let member = if is_elf(&kernel)? { VMLINUX } else { BZIMAGE };
    // The directory that the bundle will unpack to, as far as the import looks at it.
    let whole = shop.path("whole");
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, whole.join(name))
            .map_err(failed(format!("link {}", target.display())))
    };
    create_private_dir(&whole).map_err(failed(format!("make {}", whole.display())))?;
    link(&kernel, member)?;
    if let Some(modules) = &modules {
        link(modules, "modules")?;
    }
    let imported = import::from_directory(&whole, &shop.directory, progress).map_err(PublishError::Kernel)?;
    if let Some(asked) = wish.version.filter(|asked| *asked != imported.version) {
        return Err(PublishError::Version { asked, found: imported.version });
    }
    let about = KernelAbout::parse(RawAbout {
        name: wish.name,
        arch: imported.arch.to_owned(),
        distro: None,
        kernel: None,
        version: Some(imported.version),
        description: wish.description,
    })
    .map_err(PublishError::Field)?;
    progress.stage(&format!("packing {}", about.name));
    let manifest = Manifest::Kernel { about: about.clone() };
    let stem = format!("{}-{}", about.name, about.arch);
    let make = |out: &File| make::kernel((member, &kernel), modules.as_deref(), &manifest, out, progress);
    shop.publish(&stem, make, |made, url| {
        Entry::Kernel(Written { about, url, sha256: made.digest.hex().to_owned(), size: made.size })
    })
}

/// Makes the file longer than its file system, which a guest grows to its disk at each boot.
fn enlarge(rootfs: &Path, asked: Mib) -> Result<(), PublishError> {
    let op = || failed(format!("size {}", rootfs.display()));
    let file = File::options().write(true).open(rootfs).map_err(op())?;
    let needed = file.metadata().map_err(op())?.len();
    if needed > asked.bytes() {
        return Err(PublishError::TooSmall { asked, needed: Mib::holding(needed) });
    }
    file.set_len(asked.bytes()).map_err(op())
}

fn is_elf(path: &Path) -> Result<bool, PublishError> {
    let mut magic = vec![];
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.map_err(failed(format!("read {}", path.display())))?;
    Ok(magic == b"\x7fELF")
}

fn absolute(path: &Path) -> Result<PathBuf, PublishError> {
    std::path::absolute(path).map_err(failed(format!("find {}", path.display())))
}

fn failed(op: impl Into<String>) -> impl FnOnce(io::Error) -> PublishError {
    let op = op.into();
    move |source| PublishError::Io { op, source }
}

/// Where a bundle is made: a directory beside its place, gone afterwards.
struct Shop {
    directory: PathBuf,
    /// Where the bundle goes, and under which name; None: one that says what is in it.
    place: PathBuf,
    name: Option<PathBuf>,
    _undo: Undo,
}

impl Shop {
    fn open(out: &Path) -> Result<Self, PublishError> {
        let out = absolute(out)?;
        let (place, name) = match (out.is_dir(), out.parent(), out.file_name()) {
            (false, Some(parent), Some(name)) => (parent.to_owned(), Some(PathBuf::from(name))),
            _ => (out.clone(), None),
        };
        let directory = place.join(format!(".staged-{}-bundle", std::process::id()));
        std::fs::create_dir(&directory).map_err(failed(format!("make {}", directory.display())))?;
        let mut undo = Undo::default();
        let doomed = directory.clone();
        undo.push(format!("directory {}", directory.display()), move || remove_tree_if_present(&doomed));
        Ok(Self { directory, place, name, _undo: undo })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Lets `make` write the bundle, and puts it, whole, where it belongs.
    fn publish(
        self,
        stem: &str,
        make: impl FnOnce(&File) -> Result<Made, BundleError>,
        entry: impl FnOnce(&Made, String) -> Entry,
    ) -> Result<Published, PublishError> {
        let staged = self.path("bundle");
        let file = File::create_new(&staged).map_err(failed(format!("make {}", staged.display())))?;
        let made = make(&file).map_err(PublishError::Bundle)?;
        let sha256 = made.digest.hex().to_owned();
        // A part of the digest in the name: what has been published once is never another thing under the same URL.
        let name = self.name.clone().unwrap_or_else(|| format!("{stem}-{}.tar.zst", &sha256[..12]).into());
        let path = self.place.join(name);
        let stored = file.sync_all().and_then(|()| std::fs::rename(&staged, &path));
        stored
            .and_then(|()| sync_directory(&self.place))
            .map_err(failed(format!("store {}", path.display())))?;
        let bundle = path.display().to_string();
        Ok(Published { entry: entry(&made, bundle.clone()), bundle, sha256, size: made.size })
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(_) => f.write_str("no bundle can be called that"),
            Self::Image(_) => f.write_str("cannot make an image of that"),
            Self::TooSmall { asked, needed } => {
                write!(f, "--size {asked} is too little: the root file system takes {needed}")
            }
            Self::Kernel(_) => f.write_str("cannot make a kernel of that"),
            Self::Version { asked, found } => write!(f, "the kernel is {found}, not {asked}"),
            Self::Bundle(_) => f.write_str("cannot make the bundle"),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
        }
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Field(source) => Some(source),
            Self::Image(source) => Some(source),
            Self::Kernel(source) => Some(source),
            Self::Bundle(source) => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::TooSmall { .. } | Self::Version { .. } => None,
        }
    }
}
