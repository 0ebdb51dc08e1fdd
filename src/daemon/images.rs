//! The images: pulled or imported into one immutable file each, images/<id>.ext4; names come and go.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::daemon::fault::{Fault, chain};
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking, now};
use crate::host::environment::Environment;
use crate::host::files::{create_private_dir, remove_if_present, sync_directory};
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::image::record::ImageRecord;
use crate::image::reference::Reference;
use crate::oci::{self, Blobs, Built, Input, Patience, Settings};
use crate::proto::api::{Code, ImageImport, ImagePull, ImageView};
use crate::store::Changes;
use crate::vm::lookup::{self, Candidate, LookupError};
use crate::vm::record::VmRecord;

/// The blobs that pulls share, and their turns: one pull of a reference, and of a digest, at a time. Whoever comes second finds it
/// done.
pub struct Images {
    pub blobs: Blobs,
    turns: Mutex<HashMap<String, Arc<smol::lock::Mutex<()>>>>,
}

impl Images {
    pub fn new(blobs: PathBuf) -> Self {
        Self { blobs: Blobs::at(blobs), turns: Mutex::default() }
    }

    /// The lock that whoever pulls `what`, a reference or a digest, holds.
    fn turn(&self, what: &str) -> Arc<smol::lock::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are forgotten, so that the map does not grow with every reference ever seen.
        turns.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(turns.entry(what.to_owned()).or_default())
    }
}

pub fn list(d: &Daemon) -> Result<Vec<ImageView>, Fault> {
    let vms = d.store.all::<VmRecord>()?;
    let mut records = d.store.all::<ImageRecord>()?;
    records.sort_by(|a, b| a.names.cmp(&b.names).then(a.id.cmp(&b.id)));
    records.into_iter().map(|record| view(d, record, &vms)).collect()
}

pub fn show(d: &Daemon, typed: &str) -> Result<ImageView, Fault> {
    view(d, find(d, typed)?, &d.store.all::<VmRecord>()?)
}

fn view(d: &Daemon, record: ImageRecord, vms: &[VmRecord]) -> Result<ImageView, Fault> {
    let disk_bytes = disk_bytes(&d.dirs.image_file(&record.id))
        .map_err(|e| Fault::failed(format!("cannot look at image {}", call(&record)), &e))?;
    Ok(ImageView { used_by: users(&record, vms), disk_bytes, record })
}

/// What a file, or the files directly in a directory, take on disk.
pub fn disk_bytes(path: &Path) -> io::Result<u64> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.blocks() * 512);
    }
    std::fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.blocks() * 512)).sum()
}

/// What people call it.
fn call(record: &ImageRecord) -> String {
    record.names.first().cloned().unwrap_or_else(|| record.id[..12.min(record.id.len())].to_owned())
}

fn users(record: &ImageRecord, vms: &[VmRecord]) -> Vec<String> {
    vms.iter().filter(|vm| vm.image == record.id).map(|vm| vm.name.to_string()).collect()
}

/// `vm dev`, or `vms dev, web and 3 more`.
pub fn vm_list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names {
        [one] => format!("vm {one}"),
        many if many.len() <= SHOWN => format!("vms {}", many.join(", ")),
        many => format!("vms {} and {} more", many[..SHOWN].join(", "), many.len() - SHOWN),
    }
}

/// The image that `typed` means: a name as it is, a reference as docker completes it (`debian` is `debian:latest`), an id, or a
/// prefix.
fn find(d: &Daemon, typed: &str) -> Result<ImageRecord, Fault> {
    look_up(d, typed)?.map_err(Fault::from)
}

fn look_up(d: &Daemon, typed: &str) -> Result<Result<ImageRecord, LookupError>, Fault> {
    let mut records = d.store.all::<ImageRecord>()?;
    let candidates: Vec<Candidate<'_>> =
        records.iter().map(|r| Candidate { names: &r.names, id: &r.id }).collect();
    let found = lookup::find("image", typed, &candidates).or_else(|error| {
        let completed = typed.parse::<Reference>().map(|reference| reference.local_name());
        let named = completed.ok().and_then(|name| records.iter().position(|r| r.names.contains(&name)));
        named.ok_or(error)
    });
    Ok(found.map(|index| records.swap_remove(index)))
}

/// The image that a new VM asks for, and what it was called; pulled where it is not here. Without a wish: the default one.
///
/// `environment` is what its caller brings along for a pull.
pub async fn wanted(
    d: &Shared,
    op: &Op,
    typed: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<(ImageRecord, String), Fault> {
    let name = typed.unwrap_or(&d.config.default_image);
    let unknown = match look_up(d, name)? {
        Ok(record) => return Ok((record, name.to_owned())),
        Err(LookupError::Unknown { .. }) => {
            LookupError::Unknown { noun: "image", typed: name.to_owned(), near: None }
        }
        Err(ambiguous) => return Err(ambiguous.into()),
    };
    let Ok(reference) = name.parse::<Reference>() else { return Err(unknown.into()) };
    let pulled =
        pull(d, op, ImagePull { reference: name.to_owned(), name: None, environment: environment.clone() })
            .await;
    match pulled {
        Ok(record) => Ok((record, reference.local_name())),
        Err(fault) if typed.is_none() => Err(Fault {
            message: format!(
                "there is no image {name} here yet, and it could not be pulled ({}); get one with `banger image pull REF` or \
                 `banger image import PATH`, and name it with --image",
                fault.message
            ),
            ..fault
        }),
        Err(fault) => Err(fault.within(format!("there is no image {name:?} here"))),
    }
}

/// `brought` is the part of its environment that a caller brings along.
fn settings(d: &Daemon, brought: &BTreeMap<String, String>) -> Settings {
    let environment = Environment::of_process().with_callers(brought);
    let home = environment.get("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let docker = environment.get("DOCKER_CONFIG").map(PathBuf::from).or(home);
    Settings {
        blobs: d.images.blobs.clone(),
        scratch: d.dirs.images(),
        docker_config: docker.map(|dir| dir.join("config.json")),
        arch: ARCH.to_owned(),
        registries: d.config.registries.clone(),
        environment,
        patience: Patience::default(),
    }
}

/// What this machine runs, as images call it.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Pulls what `reference` stands for now. What is here already costs one request.
pub async fn pull(d: &Shared, op: &Op, wanted: ImagePull) -> Result<ImageRecord, Fault> {
    let reference: Reference = wanted
        .reference
        .parse()
        .map_err(|e| Fault::because(Code::BadRequest, format!("cannot pull {:?}", wanted.reference), &e))?;
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let turn = d.images.turn(&reference.to_string());
    let waiting = format!("waiting for another pull of {}", reference.local_name());
    let _turn = match turn.try_lock() {
        Some(turn) => turn,
        None => {
            op.stage(&waiting);
            turn.lock().await
        }
    };
    let op = op.clone();
    blocking(d, move |d| {
        let names: Vec<String> = std::iter::once(reference.local_name()).chain(wanted.name).collect();
        let cannot =
            |e: oci::OciError| Fault::new(Code::Failed, format!("cannot pull {reference}: {}", chain(&e)));
        let unless_cancelled = || match op.cancelled() {
            true => Err(Fault::new(Code::Failed, "cancelled")),
            false => Ok(()),
        };
        unless_cancelled()?;
        op.stage(&format!("looking up {}", reference.local_name()));
        let settings = settings(d, &wanted.environment);
        let mut pull = oci::Pull::new(&reference, &settings, &op);
        let digest = pull.resolve().map_err(cannot)?.to_string();
        // The same image may be on its way under another name.
        let turn = d.images.turn(&digest);
        let _turn = turn.try_lock().unwrap_or_else(|| {
            op.stage(&waiting);
            turn.lock_blocking()
        });
        unless_cancelled()?;
        let there = d.store.all::<ImageRecord>()?.into_iter().find(|i| i.digest.as_ref() == Some(&digest));
        if let Some(there) = there {
            op.note(&format!("{} is up to date", reference.local_name()));
            return tag_record(d, &there.id, &names);
        }
        build(d, &op, names, |out| pull.fetch(out).map_err(cannot))
    })
    .await
}

/// Imports an image from a path, or from the descriptor that came with the request.
pub async fn import(
    d: &Shared,
    op: &Op,
    wanted: ImageImport,
    stream: Option<OwnedFd>,
) -> Result<ImageRecord, Fault> {
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let (input, what) = match (wanted.path, stream) {
        (Some(path), _) if !Path::new(&path).is_absolute() => {
            return Err(Fault::new(Code::BadRequest, format!("{path:?} is no absolute path")));
        }
        (Some(path), _) => (Input::Path(PathBuf::from(&path)), path),
        (None, Some(fd)) => (Input::Stream(File::from(fd)), "the stream".to_owned()),
        (None, None) => {
            return Err(Fault::new(Code::BadRequest, "there is neither a path nor a stream to import from"));
        }
    };
    let op = op.clone();
    blocking(d, move |d| {
        let settings = settings(d, &BTreeMap::new());
        build(d, &op, wanted.name.into_iter().collect(), |out| {
            oci::import(input, &settings, out, &op)
                .map_err(|e| Fault::new(Code::BadRequest, format!("cannot import {what}: {}", chain(&e))))
        })
    })
    .await
}

/// Lets `make` write a new image file and publishes it: nothing half-made remains, whatever happens.
fn build(
    d: &Daemon,
    op: &Op,
    names: Vec<String>,
    make: impl FnOnce(&Path) -> Result<Built, Fault>,
) -> Result<ImageRecord, Fault> {
    let failed = |e: io::Error| Fault::failed("cannot store the image", &e);
    create_private_dir(&d.dirs.images()).map_err(failed)?;
    let mut undo = Undo::default();
    let staged = d.dirs.images().join(format!(".staged-{op}"));
    undo.push(format!("file {}", staged.display()), {
        let staged = staged.clone();
        move || remove_if_present(&staged)
    });
    let built = make(&staged)?;
    if op.cancelled() {
        return Err(Fault::new(Code::Failed, "cancelled"));
    }
    op.stage("storing the image");
    let file = File::open(&staged).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let id = digest(&file).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o444)).and_then(|()| file.sync_all()).map_err(failed)?;
    let names = if names.is_empty() { built.names.clone() } else { names };
    let record = ImageRecord {
        id: id.clone(),
        names: vec![],
        digest: built.digest.map(|digest| digest.to_string()),
        source: built.source,
        arch: built.arch,
        bytes,
        created_at: now(),
        config: built.config,
    };
    {
        let _ledger = d.ledger();
        let known = d.store.get::<ImageRecord>(&id)?;
        // The same bytes may come with another configuration; the newer one counts, as with a tag that was moved.
        let record = ImageRecord { names: known.map(|k| k.names).unwrap_or_default(), ..record };
        let place = d.dirs.image_file(&id);
        std::fs::rename(&staged, &place).map_err(failed)?;
        sync_directory(&d.dirs.images()).map_err(failed)?;
        d.store.apply(Changes::new().put(&record))?;
        log::info!("{op} image {}: {} bytes from {}", &id[..12], bytes, record.source);
    }
    undo.commit();
    tag_record(d, &id, &names)
}

fn digest(mut file: &File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Gives the image further names; names that stood for another image move.
pub async fn tag(d: &Shared, typed: String, name: String) -> Result<ImageRecord, Fault> {
    check_name(&name)?;
    blocking(d, move |d| tag_record(d, &find(d, &typed)?.id, &[name])).await
}

fn tag_record(d: &Daemon, id: &str, names: &[String]) -> Result<ImageRecord, Fault> {
    let _ledger = d.ledger();
    let mut records = d.store.all::<ImageRecord>()?;
    let mut changes = Changes::new();
    for record in &mut records {
        let before = record.names.clone();
        if record.id == id {
            record.names.extend(names.iter().filter(|n| !before.contains(n)).cloned());
        } else {
            record.names.retain(|n| !names.contains(n));
        }
        if record.names != before {
            changes = changes.put(record);
        }
    }
    let gone = || Fault::new(Code::NotFound, "the image was deleted meanwhile");
    let tagged = records.into_iter().find(|record| record.id == id).ok_or_else(gone)?;
    d.store.apply(changes)?;
    Ok(tagged)
}

/// Removes a name; with the last one, or by its id, the image, which no VM may need.
pub async fn delete(d: &Shared, op: &Op, typed: String) -> Result<(), Fault> {
    let op = op.clone();
    blocking(d, move |d| {
        let _ledger = d.ledger();
        let mut record = find(d, &typed)?;
        let by_id = record.id.starts_with(&typed) && !record.names.contains(&typed);
        let completed = typed.parse::<Reference>().map(|r| r.local_name()).unwrap_or_default();
        let name = if record.names.contains(&typed) { typed } else { completed };
        if !by_id && record.names.len() > 1 {
            record.names.retain(|n| *n != name);
            d.store.apply(Changes::new().put(&record))?;
            log::info!("{op} image {}: no longer called {name}", call(&record));
            return Ok(());
        }
        let users = users(&record, &d.store.all::<VmRecord>()?);
        if !users.is_empty() {
            return Err(Fault::new(
                Code::Conflict,
                format!("image {} is needed by {}; delete them first", call(&record), vm_list(&users)),
            ));
        }
        // The record goes first: a file without one is removed at the next start.
        d.store.apply(Changes::new().remove::<ImageRecord>(&record.id))?;
        log::info!("{op} image {}: deleted", call(&record));
        remove_if_present(&d.dirs.image_file(&record.id))
            .map_err(|e| Fault::failed(format!("cannot remove the file of image {}", call(&record)), &e))
    })
    .await
}

/// An image's name is anything that could be a reference: a lower-case name, `base`, `base:v2`, `registry/base`.
fn check_name(name: &str) -> Result<(), Fault> {
    match name.parse::<Reference>() {
        Ok(_) => Ok(()),
        Err(e) => Err(Fault::because(Code::BadRequest, format!("{name:?} cannot name an image"), &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vms_that_need_something_are_named_up_to_a_point() {
        let names = |n: usize| (0..n).map(|i| format!("v{i}")).collect::<Vec<_>>();
        assert_eq!(vm_list(&names(1)), "vm v0");
        assert_eq!(vm_list(&names(2)), "vms v0, v1");
        assert_eq!(vm_list(&names(8)), "vms v0, v1, v2, v3, v4 and 3 more");
    }

    #[test]
    fn locks_of_finished_pulls_are_forgotten() {
        let images = Images::new(PathBuf::from("/none"));
        let held = images.turn("a");
        assert!(Arc::ptr_eq(&held, &images.turn("a")));
        drop(images.turn("b"));
        drop(images.turn("a"));
        assert_eq!(images.turns.lock().expect("not poisoned").len(), 1);
    }
}
