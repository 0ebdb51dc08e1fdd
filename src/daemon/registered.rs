//! Files that are images and stay their owner's: looked at, read, attached read-only; never written, never removed.
//!
//! The disks of VMs are differences to such a file, so another content under them would be damage that nobody sees at first. The file is
//! therefore known by its content, and recognised by its [`Stamp`] where that is still the same.

use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::daemon::fault::Fault;
use crate::daemon::images::{self, call};
use crate::daemon::names::Names;
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking, image_id, kernels, now, pulls, sparse};
use crate::ext4::probe::{HEAD_BYTES, probe};
use crate::host::dirs::Dirs;
use crate::host::progress::Progress;
use crate::image::config::ImageConfig;
use crate::image::record::{ImageRecord, Stamp};
use crate::proto::api::{Code, ImageRegister};
use crate::store::Changes;

/// Makes an image of a file, which stays where it is and as it is.
pub async fn register(d: &Shared, op: &Op, wanted: ImageRegister) -> Result<ImageRecord, Fault> {
    if let Some(name) = &wanted.name {
        images::check_name(name)?;
    }
    let op = op.clone();
    blocking(d, move |d| {
        let kernel = wanted.kernel.as_deref().map(|typed| kernels::find(d, typed)).transpose()?;
        let kernel = kernel.map(|kernel| kernel.name);
        let fit = open(&wanted.path, &d.dirs)?;
        let names = Names::new(vec![], wanted.name.or_else(|| stem(&fit.path)), wanted.force);
        let id = fit.id(&op)?;
        let _ledger = d.ledger();
        let records = d.store.all::<ImageRecord>()?;
        names.check(&records, |holder| holder.id == id)?;
        let record = match records.iter().find(|record| record.id == id).cloned() {
            // The same content, by way of a pull or an import: its own file is the better one, as nobody changes it.
            Some(known) if known.path.is_none() => {
                op.note(&format!(
                    "banger has this content as image {} already; {} is not needed",
                    call(&known),
                    fit.path
                ));
                ImageRecord { kernel: kernel.or(known.kernel.clone()), ..known }
            }
            Some(known) => ImageRecord {
                kernel: kernel.or(known.kernel.clone()),
                source: fit.path.clone(),
                path: Some(fit.path),
                stamp: Some(fit.stamp),
                ..known
            },
            None => ImageRecord {
                id,
                names: vec![],
                digest: None,
                source: fit.path.clone(),
                arch: pulls::ARCH.to_owned(),
                variant: None,
                bytes: fit.stamp.bytes,
                created_at: now(),
                config: ImageConfig::default(),
                kernel,
                path: Some(fit.path),
                stamp: Some(fit.stamp),
            },
        };
        log::info!("{op} image {}: registered {}", images::short(&record.id), wanted.path);
        images::enter(d, records, record, &names)
    })
    .await
}

/// Copies the file of a registered image. Its VMs go on with the copy from their next start.
pub async fn promote(d: &Shared, op: &Op, typed: String) -> Result<ImageRecord, Fault> {
    let op = op.clone();
    blocking(d, move |d| {
        let record = images::find(d, &typed)?;
        let Some(path) = &record.path else {
            op.note(&format!("image {} is banger's own already", call(&record)));
            return Ok(record);
        };
        let failed = |e: io::Error| Fault::failed(format!("cannot copy {path}"), &e);
        let from = open_registered(&record, path)?;
        let (staged, undo) = pulls::stage(d, &op).map_err(failed)?;
        let to = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&staged);
        let to = to.map_err(failed)?;
        op.stage(&format!("copying {path}"));
        if sparse::copy_hashed(&from, &to, &op).map_err(failed)? != record.id {
            return Err(changed(&record, path));
        }
        to.set_permissions(Permissions::from_mode(0o444)).and_then(|()| to.sync_all()).map_err(failed)?;
        let _ledger = d.ledger();
        let gone = || Fault::new(Code::NotFound, format!("image {} was deleted meanwhile", call(&record)));
        let now = d.store.get::<ImageRecord>(&record.id)?.ok_or_else(gone)?;
        pulls::publish(d, &staged, &now.id).map_err(failed)?;
        let own = ImageRecord { path: None, stamp: None, ..now };
        d.store.apply(Changes::new().put(&own))?;
        log::info!("{op} image {}: promoted from {path}", call(&own));
        undo.commit();
        Ok(own)
    })
    .await
}

/// A file's name without its extension, if an image can have it.
fn stem(path: &str) -> Option<String> {
    let stem = Path::new(path).file_stem()?.to_str()?;
    images::check_name(stem).is_ok().then(|| stem.to_owned())
}

/// A file that can be an image, open for reading.
struct Fit {
    file: File,
    /// Absolute, and without symlinks.
    path: String,
    stamp: Stamp,
}

/// Opens the file that is to be registered, and looks whether guests can have it.
fn open(typed: &str, dirs: &Dirs) -> Result<Fit, Fault> {
    let refuse = |why: &dyn Display| Fault::new(Code::BadRequest, format!("cannot register {typed}: {why}"));
    if !Path::new(typed).is_absolute() {
        return Err(refuse(&"it is no absolute path"));
    }
    let path = std::fs::canonicalize(typed).map_err(|e| refuse(&e))?;
    if is_ours(&path, dirs) {
        return Err(refuse(&"it is among banger's own files, which come and go; copy it elsewhere"));
    }
    // Before it is opened: that may do something to a device.
    if let Some(kind) = special(&std::fs::symlink_metadata(&path).map_err(|e| refuse(&e))?) {
        return Err(refuse(&format!("it is a {kind}; register a file with an ext4 file system")));
    }
    let file = open_file(&path).map_err(|e| refuse(&e))?;
    let stamp = stamp(&file.metadata().map_err(|e| refuse(&e))?);
    let head = head(&file).map_err(|e| refuse(&e))?;
    probe(&head, stamp.bytes).map_err(|e| refuse(&e))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(Fit { file, path, stamp }),
        Err(path) => Err(refuse(&format!("its whole path, {path:?}, is not UTF-8; move it to one that is"))),
    }
}

impl Fit {
    /// The id of its content, if nobody wrote to the file while it was read.
    fn id(&self, op: &Op) -> Result<String, Fault> {
        let cannot = |e: io::Error| Fault::failed(format!("cannot read {}", self.path), &e);
        op.stage(&format!("reading {}", self.path));
        let id = image_id::of(&self.file).map_err(cannot)?;
        if stamp(&self.file.metadata().map_err(cannot)?) == self.stamp {
            return Ok(id);
        }
        Err(Fault::new(
            Code::Conflict,
            format!(
                "{} changed while it was read; wait until nothing writes to it, then try again",
                self.path
            ),
        ))
    }
}

/// The file of the registered image `record`, which is at `path`, if it is still what was registered.
///
/// The VMM opens it by its path: who replaces it between this look and that has no more rights than who replaces it later.
///
/// # Errors
/// A sentence that says what became of it, and what to do.
pub fn confirm(d: &Daemon, op: &Op, record: &ImageRecord, path: &str) -> Result<PathBuf, Fault> {
    let cannot = |e: io::Error| Fault::failed(format!("cannot read {path}"), &e);
    let file = open_registered(record, path)?;
    let seen = stamp(&file.metadata().map_err(cannot)?);
    if record.stamp == Some(seen) {
        return Ok(path.into());
    }
    // It was moved and put back, copied, or touched: all that counts is its content.
    if seen.bytes == record.bytes {
        op.stage(&format!("reading {path}, which looks changed"));
        let same = image_id::of(&file).map_err(cannot)? == record.id;
        if same && stamp(&file.metadata().map_err(cannot)?) == seen {
            remember(d, record, seen)?;
            return Ok(path.into());
        }
    }
    Err(changed(record, path))
}

/// The file of a registered image, if there is one at its place.
fn open_registered(record: &ImageRecord, path: &str) -> Result<File, Fault> {
    let cannot = |e: io::Error| Fault::failed(format!("cannot open {path}"), &e);
    match open_file(Path::new(path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Fault::new(
            Code::Conflict,
            format!(
                "{path}, the file of image {}, is gone; put it back, or register a copy of it with `banger image register FILE`",
                call(record)
            ),
        )),
        Ok(file) if !file.metadata().map_err(cannot)?.is_file() => Err(changed(record, path)),
        other => other.map_err(cannot),
    }
}

fn changed(record: &ImageRecord, path: &str) -> Fault {
    let name = record.names.first().map(|name| format!(" --name {name} --force")).unwrap_or_default();
    Fault::new(
        Code::Conflict,
        format!(
            "{path}, the file of image {}, has changed since it was registered, and the VMs of that image need it as it was; put it \
             back, or register it again with `banger image register {path}{name}` and make new VMs",
            call(record)
        ),
    )
}

/// The next look will be a short one.
fn remember(d: &Daemon, record: &ImageRecord, stamp: Stamp) -> Result<(), Fault> {
    let _ledger = d.ledger();
    match d.store.get::<ImageRecord>(&record.id)? {
        Some(now) if now.path == record.path => {
            Ok(d.store.apply(Changes::new().put(&ImageRecord { stamp: Some(stamp), ..now }))?)
        }
        // Promoted or forgotten meanwhile.
        Some(_) | None => Ok(()),
    }
}

/// What is wrong with the file of a registered image, as far as that can be seen without reading it; and what it takes on disk.
pub fn glance(record: &ImageRecord, path: &str) -> (Option<String>, u64) {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if record.stamp == Some(stamp(&meta)) => (None, meta.blocks() * 512),
        Ok(meta) => (Some("its file looks changed since it was registered".to_owned()), meta.blocks() * 512),
        Err(e) if e.kind() == io::ErrorKind::NotFound => (Some("its file is gone".to_owned()), 0),
        Err(e) => (Some(format!("its file cannot be looked at: {e}")), 0),
    }
}

/// Never waits, as it would for a fifo's writer, and follows no symlink that has taken the file's place.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut length = 0;
    while length < HEAD_BYTES {
        match file.read_at(&mut head[length..], length as u64)? {
            0 => break,
            n => length += n,
        }
    }
    head.truncate(length);
    Ok(head)
}

fn stamp(meta: &Metadata) -> Stamp {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Stamp {
        inode: meta.ino(),
        bytes: meta.len(),
        modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
        changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
    }
}

/// What it is, if it is no regular file.
fn special(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    let kinds = [(kind.is_dir(), "directory"), (kind.is_fifo(), "named pipe"), (kind.is_socket(), "socket")];
    let of_kind = kinds.into_iter().find_map(|(is, name)| is.then_some(name));
    (!kind.is_file()).then(|| of_kind.unwrap_or("device"))
}

/// `path` has no symlinks in it; banger's own directories may be reached through some.
fn is_ours(path: &Path, dirs: &Dirs) -> bool {
    dirs.all().into_iter().any(|dir| path.starts_with(std::fs::canonicalize(dir).as_deref().unwrap_or(dir)))
}
