//! Import: a kernel and its modules from a package, a directory or the running system, made ready for guests.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::host::progress::{Progress, Unit};
use crate::kernel::bzimage::MAX_KERNEL;
use crate::kernel::deb::{self, Control, DebError};
use crate::kernel::error::KernelError;
use crate::kernel::gather::{self, Gather, MAX_LIST};
use crate::kernel::initramfs::modules_archive;
use crate::kernel::modules::{Closure, closure};
use crate::kernel::packed::MAX_MODULE;
use crate::kernel::record::KernelRecord;
use crate::kernel::slim::slim;
use crate::kernel::tree::Tree;
use crate::kernel::vmlinux::Vmlinux;

/// A kernel, whole and checked, not stored yet.
#[derive(Debug)]
pub struct Imported {
    /// `uname -r` of it; safe as a file name.
    pub version: String,
    /// `amd64`, `arm64`.
    pub arch: &'static str,
    /// Where it came from, for people.
    pub source: String,
    /// The ELF kernel: the file `vmlinux`.
    pub vmlinux: Vec<u8>,
    /// The second part of the initramfs: the file `modules.cpio`.
    pub modules_cpio: Vec<u8>,
    /// What is in it.
    pub closure: Closure,
    /// All modules, unpacked, and their tables, for /lib/modules/<version>; None for a kernel without modules.
    pub tree: Option<Tree>,
}

impl Imported {
    /// The record of it under this name.
    pub fn record(&self, name: &str, imported_at: u64) -> KernelRecord {
        KernelRecord {
            name: name.to_owned(),
            version: self.version.clone(),
            arch: self.arch.to_owned(),
            blake3: blake3::hash(&self.vmlinux).to_hex().to_string(),
            source: self.source.clone(),
            snapshot: self.closure.snapshot,
            modules: self.tree.is_some(),
            bundle: None,
            imported_at,
        }
    }

    #[cfg(test)]
    /// Writes the module tree into the empty directory `directory`; nothing if there is none.
    pub fn unpack_modules(&self, directory: &Path) -> io::Result<()> {
        self.tree.as_ref().map_or(Ok(()), |tree| tree.unpack(directory))
    }
}

/// Imports Debian's package `linux-image-*.deb` at `path`. Contents are kept, meanwhile, in a file in the directory `scratch`, as
/// large as all modules unpacked.
pub fn from_deb(path: &Path, scratch: &Path, progress: &dyn Progress) -> Result<Imported, KernelError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().escape_default().to_string();
    progress.stage(&format!("unpacking {file}"));
    let mut gather = Gather::new(scratch)?;
    let mut kernel = None;
    let mut modules_of: Option<String> = None;
    let visit = |path: &str, content: Vec<u8>| match Place::of(path) {
        Some(Place::Kernel) => {
            kernel = Some(content);
            Ok(())
        }
        Some(Place::Config) => {
            gather.config(String::from_utf8_lossy(&content).into_owned());
            Ok(())
        }
        Some(Place::Module { version, path }) => {
            same_modules(&mut modules_of, version)?;
            gather.file(path, &content)
        }
        None => Ok(()),
    };
    let read = deb::read(path, progress, |path| Place::of(path).map(|place| place.limit()), visit);
    let path = || path.to_owned();
    let control = match read {
        Ok(control) => control,
        Err(_) if progress.cancelled() => return Err(KernelError::Cancelled),
        Err(DebError::NotAPackage) => return Err(KernelError::NotAPackage { path: path() }),
        Err(DebError::Open(source)) => return Err(KernelError::Read { path: path(), source }),
        Err(DebError::Damaged(source)) => return Err(KernelError::Damaged { path: path(), source }),
        Err(DebError::Visit(error)) => return Err(error),
    };
    let Some(kernel) = kernel else { return Err(without_kernel(control)) };
    let vmlinux = Vmlinux::open(kernel, &file)?;
    finish(vmlinux, modules_of, gather, file, progress)
}

/// Imports the running system's kernel `release` (`uname -r`) from /boot and /lib/modules below `root`.
pub fn from_host(
    root: &Path,
    release: &str,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Imported, KernelError> {
    progress.stage(&format!("reading the running kernel {release}"));
    let modules = host_modules(root, release);
    let file = host_kernel(root, release).ok_or_else(|| KernelError::NoKernel {
        place: format!("/boot/vmlinuz-{release} or /lib/modules/{release}/vmlinuz"),
        todo: "is this a container? Import a package with --deb instead",
    })?;
    let vmlinux = open(&file)?;
    let mut gather = Gather::new(scratch)?;
    if let Some(text) = read_optional(&root.join("boot").join(format!("config-{release}")))? {
        gather.config(text);
    }
    let found = modules.into_iter().find(|dir| dir.is_dir());
    if let Some(directory) = &found {
        gather_directory(directory, &mut gather, progress)?;
    }
    finish(vmlinux, found.map(|_| release.to_owned()), gather, "host".to_owned(), progress)
}

fn host_modules(root: &Path, release: &str) -> [PathBuf; 2] {
    [root.join("lib/modules").join(release), root.join("usr/lib/modules").join(release)]
}

/// The file of the running kernel, if it is where distributions put it.
fn host_kernel(root: &Path, release: &str) -> Option<PathBuf> {
    let beside = host_modules(root, release).map(|dir| dir.join("vmlinuz"));
    let boot = root.join("boot").join(format!("vmlinuz-{release}"));
    std::iter::once(boot).chain(beside).find(|path| path.exists())
}

/// Whether [`from_host`] finds what it needs: a kernel that this user may read, and its modules.
pub fn host_is_readable(root: &Path, release: &str) -> bool {
    let kernel = host_kernel(root, release).is_some_and(|path| fs::File::open(path).is_ok());
    kernel && host_modules(root, release).iter().any(|dir| dir.is_dir())
}

/// `uname -r` of the running system, for [`from_host`].
pub fn running_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Imports a directory with `vmlinux`, `bzImage` or `vmlinuz`, with `modules` (a tree, as below /lib/modules/<version>) or
/// `lib/modules/<version>`, and with the kernel's configuration as `config`; the last two where they are there.
pub fn from_directory(
    directory: &Path,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Imported, KernelError> {
    progress.stage(&format!("reading {}", directory.display()));
    fs::read_dir(directory).map_err(|source| KernelError::Read { path: directory.to_owned(), source })?;
    let file = ["vmlinux", "bzImage", "vmlinuz"].iter().map(|name| directory.join(name)).find(|p| p.exists());
    let file = file.ok_or_else(|| KernelError::NoKernel {
        place: directory.display().to_string(),
        todo: "it must have a file called vmlinux, bzImage or vmlinuz",
    })?;
    let vmlinux = open(&file)?;
    let mut gather = Gather::new(scratch)?;
    for name in ["config", ".config"] {
        if let Some(text) = read_optional(&directory.join(name))? {
            gather.config(text);
            break;
        }
    }
    let mut modules_of = None;
    if let Some((tree, version)) = modules_in(directory, &vmlinux.version)? {
        gather_directory(&tree, &mut gather, progress)?;
        modules_of = version;
    }
    finish(vmlinux, modules_of, gather, directory.display().to_string(), progress)
}

/// The module tree that a directory offers for the kernel `version`, and the version that it is for, where that is said.
fn modules_in(directory: &Path, version: &str) -> Result<Option<(PathBuf, Option<String>)>, KernelError> {
    for parent in ["lib/modules", "usr/lib/modules", "modules"].map(|name| directory.join(name)) {
        if parent.join(version).is_dir() {
            return Ok(Some((parent.join(version), Some(version.to_owned()))));
        }
        if !parent.is_dir() {
            continue;
        }
        if parent.ends_with("lib/modules") {
            // Another kernel's: taken, so that the error can say whose.
            let mut others = list(&parent)?.into_iter().filter(|path| path.is_dir());
            if let Some(other) = others.next() {
                let name = other.file_name().map(|n| n.to_string_lossy().into_owned());
                return Ok(Some((other, name)));
            }
        } else {
            return Ok(Some((parent, None)));
        }
    }
    Ok(None)
}

fn finish(
    vmlinux: Vmlinux,
    modules_of: Option<String>,
    mut gather: Gather,
    source: String,
    progress: &dyn Progress,
) -> Result<Imported, KernelError> {
    let version = vmlinux.version.clone();
    if let Some(modules) = modules_of.filter(|modules| *modules != version) {
        let modules = modules.escape_default().to_string();
        return Err(KernelError::OtherModules { kernel: version, modules });
    }
    progress.stage(&format!("preparing kernel {version} with {} modules", gather.modules()));
    if let Some(config) = vmlinux.config() {
        gather.config(config);
    }
    let (tree, catalog) = gather.finish(&version)?;
    let closure = closure(&catalog)
        .map_err(|source| KernelError::MissingModule { version: version.clone(), source })?;
    let mut early = vec![];
    for module in &closure.modules {
        let content = match &tree {
            Some(tree) => tree.read(&module.path).map_err(KernelError::Scratch)?.unwrap_or_default(),
            None => vec![],
        };
        let bad = |e: crate::kernel::elf::BadElf| KernelError::Module {
            path: module.path.clone(),
            source: e.into(),
        };
        early.push((module, slim(&content).map_err(bad)?));
    }
    let modules_cpio = modules_archive(&early);
    if progress.cancelled() {
        return Err(KernelError::Cancelled);
    }
    if !closure.snapshot {
        progress.note(&format!(
            "kernel {version} has no device-mapper snapshots (dm-mod, dm-snapshot, dm-zero): each VM gets a copy of its image"
        ));
    }
    Ok(Imported { version, arch: vmlinux.arch, source, vmlinux: vmlinux.elf, modules_cpio, closure, tree })
}

/// What a file of a package is to us.
enum Place<'a> {
    Kernel,
    Config,
    Module { version: &'a str, path: &'a str },
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if path.starts_with("boot/vmlinuz-") {
            return Some(Self::Kernel);
        }
        if path.starts_with("boot/config-") {
            return Some(Self::Config);
        }
        let path = path.strip_prefix("usr/").unwrap_or(path);
        let (version, path) = path.strip_prefix("lib/modules/")?.split_once('/')?;
        gather::wanted(path).then_some(Self::Module { version, path })
    }

    /// The largest that such a file may be, in bytes.
    fn limit(&self) -> usize {
        match self {
            Self::Kernel => MAX_KERNEL as usize,
            Self::Config => MAX_LIST,
            Self::Module { .. } => MAX_MODULE,
        }
    }
}

fn same_modules(modules_of: &mut Option<String>, version: &str) -> Result<(), KernelError> {
    match modules_of {
        None => *modules_of = Some(version.to_owned()),
        Some(known) if known != version => {
            let modules = version.escape_default().to_string();
            return Err(KernelError::OtherModules { kernel: known.clone(), modules });
        }
        Some(_) => {}
    }
    Ok(())
}

fn without_kernel(Control { package, kernel }: Control) -> KernelError {
    if package.ends_with("-dbg") || package.ends_with("-dbgsym") {
        KernelError::DebugPackage { package }
    } else if package.starts_with("linux-image-") {
        KernelError::MetaPackage { package, real: kernel }
    } else {
        KernelError::OtherPackage { package }
    }
}

fn open(file: &Path) -> Result<Vmlinux, KernelError> {
    Vmlinux::open(read(file, MAX_KERNEL as usize)?, &file.display().to_string())
}

/// Gathers the files below `directory`, without following symlinks.
fn gather_directory(
    directory: &Path,
    gather: &mut Gather,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    let mut pending = vec![directory.to_owned()];
    while let Some(place) = pending.pop() {
        for path in list(&place)? {
            if progress.cancelled() {
                return Err(KernelError::Cancelled);
            }
            let kind = fs::symlink_metadata(&path)
                .map_err(|source| KernelError::Read { path: path.clone(), source })?;
            if kind.is_dir() {
                pending.push(path);
                continue;
            }
            let relative = path.strip_prefix(directory).ok().and_then(Path::to_str);
            if let Some(relative) = relative.filter(|relative| kind.is_file() && gather::wanted(relative)) {
                gather.file(relative, &read(&path, MAX_MODULE)?)?;
                progress.advance(gather.modules() as u64, 0, Unit::Items);
            }
        }
    }
    Ok(())
}

/// What is in a directory, sorted.
fn list(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let failed = |source| KernelError::Read { path: directory.to_owned(), source };
    let entries = fs::read_dir(directory).map_err(failed)?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn read_optional(path: &Path) -> Result<Option<String>, KernelError> {
    match path.is_file() {
        true => read(path, MAX_LIST).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())),
        false => Ok(None),
    }
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, KernelError> {
    let failed = |source| KernelError::Read { path: path.to_owned(), source };
    let mut bytes = vec![];
    fs::File::open(path).and_then(|f| f.take(limit as u64 + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() > limit { Err(failed(io::ErrorKind::FileTooLarge.into())) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests;
