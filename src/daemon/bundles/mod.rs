//! Bundles for machines without a network: what goes into one, and how it is installed.
//!
//! ```text
//!  create   records, files --gather--> manifest --pack--> the descriptor of whoever asked
//!  install  his descriptor --Reader--> manifest --judge--> staged files --verified to the end--> judge, settle
//! ```
//!
//! An install publishes nothing before the last byte has been read and found right, and then all of it in one transaction.

mod gather;
mod judge;
mod settle;
mod streams;

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use self::judge::{Fate, Judged};
use self::settle::Unpacked;
use self::streams::Patient;
use crate::catalog::bundle::BundleError;
use crate::catalog::medium::{Caps, Image, Kernel, Manifest, Program, Reader, pack};
use crate::daemon::fault::{Fault, chain};
use crate::daemon::kernels::Staged;
use crate::daemon::op::Op;
use crate::daemon::{Shared, blocking, programs, pulls};
use crate::ext4::probe::{HEAD_BYTES, probe};
use crate::host::failpoint;
use crate::host::files::{create_private_dir, remove_if_present, sync_directory};
use crate::host::progress::Progress;
use crate::kernel::vmlinux::Vmlinux;
use crate::oci::{FREE_OF_RATIO, Limits};
use crate::proto::api::{BundleCreate, BundleInstall, BundlePart, BundleView, Code, PartKind, PartState};

/// Writes a bundle to `out`.
pub async fn create(
    d: &Shared,
    op: &Op,
    wanted: BundleCreate,
    out: Option<OwnedFd>,
) -> Result<BundleView, Fault> {
    let out =
        out.ok_or_else(|| Fault::new(Code::BadRequest, "there is no descriptor to write a bundle to"))?;
    let op = op.clone();
    blocking(d, move |d| {
        let (manifest, files) = gather::gather(d, &op, &wanted)?;
        op.stage("packing");
        let file = File::from(out);
        let made = pack(&manifest, &files, Patient::new(&file, &op), &op)
            .map_err(|e| Fault::new(Code::Failed, format!("cannot make the bundle: {}", chain(&e))))?;
        // A pipe has nothing to sync.
        match file.sync_all() {
            Err(e) if e.kind() != io::ErrorKind::InvalidInput => {
                return Err(Fault::failed("cannot make the bundle: cannot write it to the disk", &e));
            }
            Ok(()) | Err(_) => {}
        }
        log::info!("{op} bundle {}: {} bytes", made.sha256, made.size);
        Ok(BundleView { sha256: Some(made.sha256), ..view(&manifest, |_, _| PartState::Packed) })
    })
    .await
}

/// Installs the bundle that is read from `from`.
pub async fn install(
    d: &Shared,
    op: &Op,
    wanted: BundleInstall,
    from: Option<OwnedFd>,
) -> Result<BundleView, Fault> {
    let from =
        from.ok_or_else(|| Fault::new(Code::BadRequest, "there is no descriptor to read a bundle from"))?;
    let op = op.clone();
    blocking(d, move |d| {
        op.stage("reading the bundle");
        let file = File::from(from);
        let source = Patient::new(&file, &op);
        let (mut reader, manifest) = Reader::open(source, caps(d.config.image_limits), &op).map_err(bad)?;
        // Said before gigabytes are unpacked; it may have changed until they are.
        let judged = judge::judge(&manifest, &settle::known(d)?, pulls::ARCH, wanted.force)?;
        let unpacked = unpack(d, &op, &mut reader, &manifest, &judged)?;
        reader.finish().map_err(bad)?;
        if op.cancelled() {
            return Err(Fault::new(Code::Failed, "cancelled"));
        }
        failpoint::reach("bundle: unpacked");
        let judged = settle::settle(d, &op, &manifest, &unpacked, wanted.force)?;
        if !manifest.programs.is_empty() && programs::must_be_roots(d) {
            op.note(&for_root(&manifest.programs));
        }
        Ok(view(&manifest, |kind, n| judged.state(kind, n)))
    })
    .await
}

/// Root runs programs of root's alone, and what the daemon has written is the owner's to change, also between a look at it and the copy.
fn for_root(programs: &[Program]) -> String {
    let members: Vec<String> = programs.iter().map(|p| format!("programs/{}", p.name)).collect();
    let members = members.join(" ");
    format!(
        "VMs run in jails here, for which root takes programs of root's own, from the bundle itself: `tar --zstd -xf BUNDLE \
         {members} && sudo install -m 755 {members} /usr/local/bin/`"
    )
}

/// An image may ask of this machine in a bundle what it may in a registry.
fn caps(limits: Limits) -> Caps {
    Caps { part_bytes: limits.layer_bytes, ratio: limits.ratio, free: FREE_OF_RATIO }
}

fn view(manifest: &Manifest, state: impl Fn(PartKind, usize) -> PartState) -> BundleView {
    let part = |kind, (n, (name, bytes)): (usize, (String, u64))| BundlePart {
        kind,
        name,
        bytes,
        state: state(kind, n),
    };
    let image = |i: &Image| (i.call().to_owned(), i.content.size);
    let kernel = |k: &Kernel| (k.name.clone(), k.files().map(|(_, content)| content.size).sum());
    let program = |p: &Program| (format!("{} {}", p.name, p.version), p.content.size);
    let images = manifest.images.iter().map(image).enumerate().map(|it| part(PartKind::Image, it));
    let kernels = manifest.kernels.iter().map(kernel).enumerate().map(|it| part(PartKind::Kernel, it));
    let programs = manifest.programs.iter().map(program).enumerate().map(|it| part(PartKind::Program, it));
    BundleView {
        banger: manifest.banger.version.clone(),
        parts: images.chain(kernels).chain(programs).collect(),
        sha256: None,
    }
}

/// Reads all parts in their order: into files that are gone with the value that is returned, those that are not here yet.
fn unpack<R: io::Read>(
    d: &Shared,
    op: &Op,
    reader: &mut Reader<'_, R>,
    manifest: &Manifest,
    judged: &Judged,
) -> Result<Unpacked, Fault> {
    let mut unpacked = Unpacked::default();
    // The executable is for whoever takes it out by hand.
    reader.part(None).map_err(bad)?;
    for (program, fate) in manifest.programs.iter().zip(&judged.programs) {
        let staged = d.dirs.state.join(format!(".staged-{op}-{}", program.name));
        let staged = unpacked.part(reader, *fate, &staged, 0o755)?;
        unpacked.programs.push(staged.map(|(path, _)| path));
    }
    for (n, (kernel, fate)) in manifest.kernels.iter().zip(&judged.kernels).enumerate() {
        op.stage(&format!("unpacking kernel {}", kernel.name));
        let staged = Staged::new(&d.dirs.kernels(), &format!("{op}-{n}"))?;
        for (name, _) in kernel.files() {
            unpacked.part(reader, *fate, &staged.files.join(name), 0o444)?;
        }
        if *fate != Fate::Here {
            check_kernel(kernel, &staged.files)?;
            sync_directory(&staged.files).map_err(failed)?;
        }
        unpacked.kernels.push((*fate != Fate::Here).then_some(staged));
    }
    create_private_dir(&d.dirs.images()).map_err(failed)?;
    for (n, (image, fate)) in manifest.images.iter().zip(&judged.images).enumerate() {
        op.stage(&format!("unpacking {}", image.call()));
        let staged = d.dirs.images().join(format!(".staged-{op}-{n}"));
        let staged = unpacked.part(reader, *fate, &staged, 0o444)?;
        if let Some((_, file)) = &staged {
            check_image(image, file)?;
        }
        unpacked.images.push(staged.map(|(path, _)| path));
    }
    Ok(unpacked)
}

fn bad(e: BundleError) -> Fault {
    Fault::new(Code::BadRequest, format!("cannot install the bundle: {}", chain(&e)))
}

fn failed(e: io::Error) -> Fault {
    Fault::failed("cannot install the bundle: cannot write to the state directory", &e)
}

/// It is the kernel that the manifest says, and one that guests can boot.
fn check_kernel(kernel: &Kernel, files: &Path) -> Result<(), Fault> {
    let bad = |why: String| {
        Fault::new(Code::BadRequest, format!("cannot install the bundle's kernel {}: {why}", kernel.name))
    };
    let bytes = std::fs::read(files.join("vmlinux")).map_err(failed)?;
    let found = Vmlinux::open(bytes, "vmlinux").map_err(|e| bad(chain(&e)))?;
    for (found, wanted) in [(found.version.as_str(), kernel.version.as_str()), (found.arch, pulls::ARCH)] {
        if found != wanted {
            return Err(bad(format!("it is {found}, not {wanted}")));
        }
    }
    Ok(())
}

/// It is a file system that guests can mount.
fn check_image(image: &Image, file: &File) -> Result<(), Fault> {
    let length = image.content.size.min(HEAD_BYTES as u64) as usize;
    let mut head = vec![0; length];
    file.read_exact_at(&mut head, 0).map_err(failed)?;
    probe(&head, image.content.size).map_err(|e| {
        Fault::new(Code::BadRequest, format!("cannot install the bundle's image {}: {e}", image.call()))
    })
}

impl Unpacked {
    /// Reads the next part into the new file `path`, which goes with this and is on the disk; or nowhere, if it is here already.
    fn part<R: io::Read>(
        &mut self,
        reader: &mut Reader<'_, R>,
        fate: Fate,
        path: &Path,
        mode: u32,
    ) -> Result<Option<(PathBuf, File)>, Fault> {
        if fate == Fate::Here {
            reader.part(None).map_err(bad)?;
            return Ok(None);
        }
        let new = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = new.map_err(failed)?;
        let doomed = path.to_owned();
        self.undo.push(format!("file {}", path.display()), move || remove_if_present(&doomed));
        reader.part(Some(&file)).map_err(bad)?;
        file.set_permissions(Permissions::from_mode(mode)).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Some((path.to_owned(), file)))
    }
}
