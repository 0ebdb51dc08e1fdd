//! `banger internal`: for those who publish images, kernels and banger itself, and for units. Not in the help that users see.

mod release;

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use crate::cli::error::Error;
use crate::cli::help::man::Man;
use crate::cli::shown::Shown;
use crate::cli::ssh::proxy::SshProxy;
use crate::cli::{recovery, render};
use crate::publish::{self, ImageWish, KernelWish};
use crate::vm::size::Mib;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Make what catalogs point to, and what installations update to.
#[argh(
    subcommand,
    name = "internal",
    help_triggers("-h", "--help", "help"),
    example = "banger internal make-bundle --help"
)]
pub struct Internal {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    MakeBundle(MakeBundle),
    Release(release::Release),
    FinishUpdate(FinishUpdate),
    SshProxy(SshProxy),
    Man(Man),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Finish or undo an update that was cut off, before services are started. What banger-recover.service runs at boot.
#[argh(
    subcommand,
    name = "finish-update",
    help_triggers("-h", "--help", "help"),
    example = "banger internal finish-update"
)]
struct FinishUpdate {}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Make a bundle of an image or a kernel, and print what to write into a catalog for it. The same input gives the same bundle.
#[argh(
    subcommand,
    name = "make-bundle",
    help_triggers("-h", "--help", "help"),
    example = "mmdebstrap --variant=minbase bookworm - | banger internal make-bundle --rootfs-tar - --name mine --distro debian --out .\n\
               banger internal make-bundle --kernel vmlinux --modules lib/modules/6.12.30 --name mine-6.12 --out mine.tar.zst",
    note = "Fields of what is printed: bundle (its path), sha256, size, entry (for the catalog; put the bundle's URL into it)."
)]
struct MakeBundle {
    /// for an image: the tar of its root file system; - reads it from stdin
    #[argh(option, arg_name = "file")]
    rootfs_tar: Option<String>,
    /// for a kernel: an ELF vmlinux or a bzImage
    #[argh(option, arg_name = "file")]
    kernel: Option<PathBuf>,
    /// the kernel's modules: a directory as /lib/modules/<version>
    #[argh(option, arg_name = "dir")]
    modules: Option<PathBuf>,
    /// its name in the catalog
    #[argh(option, arg_name = "name")]
    name: String,
    /// what the image is made of, such as debian
    #[argh(option, arg_name = "distro")]
    distro: Option<String>,
    /// the image's architecture; this machine's if not given
    #[argh(option, arg_name = "arch")]
    arch: Option<String>,
    /// the name of the kernel that the image wants
    #[argh(option, arg_name = "kernel")]
    kernel_ref: Option<String>,
    /// what the kernel's version must be
    #[argh(option, arg_name = "version")]
    version: Option<String>,
    /// a line about it
    #[argh(option, arg_name = "text", default = "String::new()")]
    description: String,
    /// how large disks of the image are at least, such as 4G
    #[argh(option, arg_name = "size")]
    size: Option<Mib>,
    /// the bundle's file, or a directory for it
    #[argh(option, arg_name = "path")]
    out: PathBuf,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

/// What it is to be made of.
#[derive(Debug)]
enum Wish {
    Image(ImageWish),
    Kernel(KernelWish),
}

impl Internal {
    pub fn run(self) -> Result<(), Error> {
        match self.verb {
            Verb::MakeBundle(make) => make.run(),
            Verb::Release(release) => release.run(),
            Verb::FinishUpdate(FinishUpdate {}) => recovery::at_boot(),
            Verb::SshProxy(proxy) => proxy.run(),
            Verb::Man(man) => man.run(),
        }
    }
}

impl MakeBundle {
    fn run(self) -> Result<(), Error> {
        let shown = Shown::new(self.quiet)?;
        let made = match self.wish()? {
            Wish::Image(wish) => publish::image(wish, &shown),
            Wish::Kernel(wish) => publish::kernel(wish, &shown),
        };
        shown.progress().clear();
        render::json(&made.map_err(Error::Publish)?)
    }

    fn wish(self) -> Result<Wish, Error> {
        let refuse = |text: &str| Err(Error::Refused(text.to_owned()));
        match (self.rootfs_tar, self.kernel) {
            (Some(tar), None) => {
                if self.modules.is_some() || self.version.is_some() {
                    return refuse("--modules and --version are a kernel's; leave them out for an image");
                }
                let Some(distro) = self.distro else {
                    return refuse(
                        "an image needs --distro; it says what the image is made of, such as debian",
                    );
                };
                Ok(Wish::Image(ImageWish {
                    rootfs: (tar != "-").then(|| tar.into()),
                    name: self.name,
                    distro,
                    arch: self.arch,
                    kernel: self.kernel_ref,
                    description: self.description,
                    size: self.size,
                    out: self.out,
                }))
            }
            (None, Some(kernel)) => {
                if self.distro.is_some()
                    || self.kernel_ref.is_some()
                    || self.size.is_some()
                    || self.arch.is_some()
                {
                    return refuse(
                        "--distro, --arch, --kernel-ref and --size are an image's; leave them out for a kernel",
                    );
                }
                Ok(Wish::Kernel(KernelWish {
                    kernel,
                    modules: self.modules,
                    name: self.name,
                    version: self.version,
                    description: self.description,
                    out: self.out,
                }))
            }
            (Some(_), Some(_)) | (None, None) => {
                refuse("say what the bundle is made of with one of --rootfs-tar FILE and --kernel FILE")
            }
        }
    }
}
