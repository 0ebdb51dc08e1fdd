//! Why a kernel could not be imported: what was wrong, and what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::kernel::bzimage::BadImage;
use crate::kernel::elf::BadElf;
use crate::kernel::modules::MissingModule;

#[derive(Debug)]
pub enum KernelError {
    Read {
        path: PathBuf,
        source: io::Error,
    },
    /// The module tree could not be kept on its way.
    Scratch(io::Error),
    /// Not a `.deb` at all.
    NotAPackage {
        path: PathBuf,
    },
    /// A package that is cut short or damaged.
    Damaged {
        path: PathBuf,
        source: io::Error,
    },
    /// A package that only depends on others.
    MetaPackage {
        package: String,
        real: Option<String>,
    },
    /// A package of debug symbols.
    DebugPackage {
        package: String,
    },
    /// A package of something else.
    OtherPackage {
        package: String,
    },
    /// The directory, or the running system, has no kernel where one should be.
    NoKernel {
        place: String,
        todo: &'static str,
    },
    /// The modules are another kernel's.
    OtherModules {
        kernel: String,
        modules: String,
    },
    Image {
        file: String,
        source: BadImage,
    },
    Elf {
        file: String,
        source: BadElf,
    },
    /// QEMU's microvm starts an ELF kernel by its PVH entry only (QEMU: hw/i386/x86-common.c).
    NoPvh {
        file: String,
    },
    /// It does not say `Linux version ...` anywhere.
    NoVersion {
        file: String,
    },
    Module {
        path: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing says which drivers are built in.
    UnknownDrivers {
        version: String,
    },
    MissingModule {
        version: String,
        source: MissingModule,
    },
    Cancelled,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "cannot read {}; read it as root, or import a package with --deb", path.display())
            }
            Self::Read { path, .. } => write!(f, "cannot read {}", path.display()),
            Self::Scratch(_) => f.write_str("cannot keep the kernel's modules"),
            Self::NotAPackage { path } => write!(
                f,
                "{} is no Debian package; get one with `apt-get download linux-image-cloud-amd64` or from \
                 packages.debian.org, or import a directory with --from",
                path.display()
            ),
            Self::Damaged { path, .. } => {
                write!(f, "{} is cut short or damaged; download it again", path.display())
            }
            Self::MetaPackage { package, real: Some(real) } => write!(
                f,
                "{package} holds no kernel, it only depends on one; import that: `apt-get download {real}`"
            ),
            Self::MetaPackage { package, real: None } => write!(
                f,
                "{package} holds no kernel, it only depends on others; import the linux-image package with a version in \
                 its name"
            ),
            Self::DebugPackage { package } => {
                let real = package.trim_end_matches("-dbg");
                write!(f, "{package} holds debug symbols, not a kernel to boot; import {real}")
            }
            Self::OtherPackage { package } => {
                write!(f, "{package} holds no kernel; import a package called linux-image-*-cloud-amd64")
            }
            Self::NoKernel { place, todo } => write!(f, "there is no kernel in {place}; {todo}"),
            Self::OtherModules { kernel, modules } => {
                write!(
                    f,
                    "the kernel is {kernel}, but the modules are for {modules}; give those of the kernel"
                )
            }
            Self::Image { file, .. } => write!(f, "cannot take the kernel out of {file}"),
            Self::Elf { file, .. } => write!(f, "cannot use the kernel in {file}"),
            Self::NoPvh { file } => write!(
                f,
                "the kernel in {file} has no PVH entry (ELF note Xen 18), which QEMU's microvm needs; use one with \
                 CONFIG_PVH=y, such as Debian's"
            ),
            Self::NoVersion { file } => {
                write!(f, "the kernel in {file} does not say which Linux version it is")
            }
            Self::Module { path, .. } => write!(f, "cannot use the module {path}"),
            Self::UnknownDrivers { version } => write!(
                f,
                "nothing says which drivers are built into {version}; put its modules (with modules.builtin) or its \
                 configuration (as `config`) beside it, and use --from"
            ),
            Self::MissingModule { version, .. } => write!(f, "kernel {version} cannot run guests"),
            Self::Cancelled => f.write_str("the import was cancelled"),
        }
    }
}

impl Error for KernelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Scratch(source) | Self::Damaged { source, .. } => Some(source),
            Self::Image { source, .. } => Some(source),
            Self::Elf { source, .. } => Some(source),
            Self::Module { source, .. } => Some(&**source),
            Self::MissingModule { source, .. } => Some(source),
            Self::NotAPackage { .. }
            | Self::MetaPackage { .. }
            | Self::DebugPackage { .. }
            | Self::OtherPackage { .. }
            | Self::NoKernel { .. }
            | Self::OtherModules { .. }
            | Self::NoPvh { .. }
            | Self::NoVersion { .. }
            | Self::UnknownDrivers { .. }
            | Self::Cancelled => None,
        }
    }
}
