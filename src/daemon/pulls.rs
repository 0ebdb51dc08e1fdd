//! Images on their way in: pulled from a catalog or a registry, or imported from a file. Each is built beside the others and
//! published whole.
//!
//! ```text
//!  pull -> catalogs: an entry of this name? -> bundle     download, unpack  --.
//!                `-> registry                  reference  layers to ext4    --+--> build: hash, sync, publish, name
//!  import ------------------------------------------------ layers to ext4    --'
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::about::ImageAbout;
use crate::catalog::record::{BundleAt, ImageEntry, ImageSource};
use crate::catalog::{self, bundle};
use crate::daemon::fault::{Fault, chain};
use crate::daemon::images::{check_name, enter, short, tag_record};
use crate::daemon::names::Names;
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking, catalogs, image_id, now};
use crate::host::environment::Environment;
use crate::host::files::{create_private_dir, remove_if_present, sync_directory};
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::image::platform::Platform;
use crate::image::record::ImageRecord;
use crate::image::reference::Reference;
use crate::oci::{self, Blobs, Built, Input, Patience, Settings};
use crate::proto::api::{Code, ImageImport, ImagePull};

/// The blobs that pulls share, and their turns: one pull of a thing at a time. Whoever comes second finds it done.
pub struct Images {
    pub blobs: Blobs,
    turns: Mutex<HashMap<String, Arc<smol::lock::Mutex<()>>>>,
}

impl Images {
    pub fn new(blobs: PathBuf) -> Self {
        Self { blobs: Blobs::at(blobs), turns: Mutex::default() }
    }

    /// The lock that whoever pulls `what` holds: a reference, a digest, `kernel NAME`.
    pub fn turn(&self, what: &str) -> Arc<smol::lock::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are forgotten, so that the map does not grow with every reference ever seen.
        turns.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(turns.entry(what.to_owned()).or_default())
    }
}

/// What this machine runs, as images call it.
pub const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// What an image is to get beside its content, and what counts for its pull.
pub struct Wish {
    pub names: Names,
    /// The kernel that it wants.
    pub kernel: Option<String>,
    pub platform: Platform,
    /// The part of its environment that a caller brings along.
    pub environment: BTreeMap<String, String>,
}

impl Wish {
    /// For this machine.
    pub fn plain(names: Names, environment: &BTreeMap<String, String>) -> Self {
        Self { names, kernel: None, platform: Platform::linux(ARCH), environment: environment.clone() }
    }
}

/// Pulls what a name in a catalog, or else a reference, stands for now. What is here already costs one request.
pub async fn pull(d: &Shared, op: &Op, wanted: ImagePull) -> Result<ImageRecord, Fault> {
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let platform = platform(wanted.platform.as_deref())?;
    let reference: Reference = wanted
        .reference
        .parse()
        .map_err(|e| Fault::because(Code::BadRequest, format!("cannot pull {:?}", wanted.reference), &e))?;
    let entry = catalogs::image(d, op, &wanted.reference, &wanted.environment).await?;
    let own = entry.as_ref().map_or_else(|| reference.local_name(), |entry| entry.about.name.clone());
    let names = Names::new(vec![own], wanted.name, wanted.force);
    let wish = Wish { names, kernel: None, platform, environment: wanted.environment };
    match entry {
        Some(entry) => pull_entry(d, op, entry, wish).await,
        None => pull_reference(d, op, reference, wish).await,
    }
}

/// Pulls an image that a catalog has.
pub async fn pull_entry(d: &Shared, op: &Op, entry: ImageEntry, wish: Wish) -> Result<ImageRecord, Fault> {
    let wish = Wish { kernel: entry.about.kernel.clone(), ..wish };
    match entry.source {
        ImageSource::Reference(reference) => pull_reference(d, op, reference, wish).await,
        ImageSource::Bundle(at) => pull_bundle(d, op, entry.about, at, wish).await,
    }
}

/// Pulls what a registry has for `reference` now.
pub async fn pull_reference(
    d: &Shared,
    op: &Op,
    reference: Reference,
    wish: Wish,
) -> Result<ImageRecord, Fault> {
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
        let cannot =
            |e: oci::OciError| Fault::new(Code::Failed, format!("cannot pull {reference}: {}", chain(&e)));
        let unless_cancelled = || match op.cancelled() {
            true => Err(Fault::new(Code::Failed, "cancelled")),
            false => Ok(()),
        };
        unless_cancelled()?;
        op.stage(&format!("looking up {}", reference.local_name()));
        let settings = settings(d, wish.platform.clone(), &wish.environment);
        let mut pull = oci::Pull::new(&reference, &settings, &op);
        let digest = pull.resolve().map_err(cannot)?.to_string();
        // The same image may be on its way under another name.
        let turn = d.images.turn(&format!("{digest} {}", wish.platform));
        let _turn = turn.try_lock().unwrap_or_else(|| {
            op.stage(&waiting);
            turn.lock_blocking()
        });
        unless_cancelled()?;
        if let Some(there) = with_digest(d, &digest, &wish.platform)? {
            op.note(&format!("{} is up to date", wish.names.first()));
            return tag_record(d, &there.id, &wish.names, wish.kernel);
        }
        // Refused before the download: what has the name now is another manifest's.
        wish.names.check(&d.store.all::<ImageRecord>()?, |_| false)?;
        build(d, &op, wish, |out| pull.fetch(out).map_err(cannot))
    })
    .await
}

/// Pulls an image's bundle. Nothing is asked of anybody if it is here already.
async fn pull_bundle(
    d: &Shared,
    op: &Op,
    about: ImageAbout,
    at: BundleAt,
    wish: Wish,
) -> Result<ImageRecord, Fault> {
    if about.arch != wish.platform.architecture {
        let text =
            format!("the image {} of the catalog is for {}, not {}", about.name, about.arch, wish.platform);
        return Err(Fault::new(Code::BadRequest, text));
    }
    let turn = d.images.turn(&at.digest.to_string());
    let _turn = turn.lock().await;
    let op = op.clone();
    blocking(d, move |d| {
        let cannot =
            |e: &dyn std::error::Error| Fault::failed(format!("cannot pull the image {}", about.name), e);
        if op.cancelled() {
            return Err(Fault::new(Code::Failed, "cancelled"));
        }
        if let Some(there) = with_digest(d, &at.digest.to_string(), &wish.platform)? {
            op.note(&format!("{} is up to date", wish.names.first()));
            return tag_record(d, &there.id, &wish.names, wish.kernel);
        }
        wish.names.check(&d.store.all::<ImageRecord>()?, |_| false)?;
        let environment = Environment::of_process().with_callers(&wish.environment);
        build(d, &op, wish, |out| {
            op.stage(&format!("pulling {}", about.name));
            let file = catalog::download(&at, &environment, &d.dirs.images(), &op).map_err(|e| cannot(&e))?;
            op.stage(&format!("unpacking {}", about.name));
            let config = bundle::image(file, &about, out, &op).map_err(|e| cannot(&e))?;
            Ok(Built {
                names: vec![],
                digest: Some(at.digest.clone()),
                source: at.location.to_string(),
                arch: about.arch.clone(),
                config,
            })
        })
    })
    .await
}

/// The image of this manifest or bundle, if it is here.
fn with_digest(d: &Daemon, digest: &str, platform: &Platform) -> Result<Option<ImageRecord>, Fault> {
    let is_it = |image: &ImageRecord| {
        image.digest.as_deref() == Some(digest)
            && image.arch == platform.architecture
            && image.variant == platform.variant
    };
    Ok(d.store.all::<ImageRecord>()?.into_iter().find(is_it))
}

/// Imports an image from a path, or from the descriptor that came with the request.
pub async fn import(
    d: &Shared,
    op: &Op,
    wanted: ImageImport,
    stream: Option<OwnedFd>,
) -> Result<ImageRecord, Fault> {
    let platform = platform(wanted.platform.as_deref())?;
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
        let settings = settings(d, platform.clone(), &BTreeMap::new());
        let names = Names::new(vec![], wanted.name, wanted.force);
        let wish = Wish { platform, ..Wish::plain(names, &BTreeMap::new()) };
        build(d, &op, wish, |out| {
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
    wish: Wish,
    make: impl FnOnce(&Path) -> Result<Built, Fault>,
) -> Result<ImageRecord, Fault> {
    let failed = |e: io::Error| Fault::failed("cannot store the image", &e);
    let (staged, undo) = stage(d, op).map_err(failed)?;
    let built = make(&staged)?;
    if op.cancelled() {
        return Err(Fault::new(Code::Failed, "cancelled"));
    }
    op.stage("storing the image");
    let file = File::open(&staged).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
    let id = hash_and_sync(&file).map_err(failed)?;
    let names = wish.names.or(built.names);
    let _ledger = d.ledger();
    let records = d.store.all::<ImageRecord>()?;
    names.check(&records, |holder| holder.id == id)?;
    let known = records.iter().find(|record| record.id == id);
    // The same bytes may come with another configuration; the newer one counts, as with a tag that was moved.
    let record = ImageRecord {
        id,
        names: known.map(|k| k.names.clone()).unwrap_or_default(),
        digest: built.digest.map(|digest| digest.to_string()),
        source: built.source,
        arch: built.arch,
        variant: wish.platform.variant,
        bytes,
        created_at: now(),
        config: built.config,
        kernel: wish.kernel.or(known.and_then(|k| k.kernel.clone())),
        path: None,
        stamp: None,
    };
    let place = d.dirs.image_file(&record.id);
    // Who was first with this content has made its file; that of a registered image stays where it is, and is not needed any more.
    let there = known.is_some_and(|k| k.path.is_none()) && place.try_exists().map_err(failed)?;
    if !there {
        publish(d, &staged, &record.id).map_err(failed)?;
    }
    log::info!("{op} image {}: {bytes} bytes from {}", short(&record.id), record.source);
    // With its file moved away, or not needed, there is nothing left but what may be removed.
    drop(undo);
    enter(d, records, record, &names)
}

/// Returns the id of an image while it is written to the disk: the one waits for the processor, the other for the disk.
fn hash_and_sync(file: &File) -> io::Result<String> {
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_all());
        let id = image_id::of(file);
        sync.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs it has panicked")))?;
        id
    })
}

/// Where a file may be made that becomes an image's, and what removes it if it does not.
pub fn stage(d: &Daemon, op: &Op) -> io::Result<(PathBuf, Undo)> {
    create_private_dir(&d.dirs.images())?;
    let mut undo = Undo::default();
    let staged = d.dirs.images().join(format!(".staged-{op}"));
    undo.push(format!("file {}", staged.display()), {
        let staged = staged.clone();
        move || remove_if_present(&staged)
    });
    Ok((staged, undo))
}

/// Moves a finished file to its place.
pub fn publish(d: &Daemon, staged: &Path, id: &str) -> io::Result<()> {
    std::fs::rename(staged, d.dirs.image_file(id))?;
    sync_directory(&d.dirs.images())
}

/// `brought` is the part of its environment that a caller brings along.
fn settings(d: &Daemon, platform: Platform, brought: &BTreeMap<String, String>) -> Settings {
    let environment = Environment::of_process().with_callers(brought);
    let home = environment.get("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let docker = environment.get("DOCKER_CONFIG").map(PathBuf::from).or(home);
    Settings {
        blobs: d.images.blobs.clone(),
        scratch: d.dirs.images(),
        docker_config: docker.map(|dir| dir.join("config.json")),
        platform,
        limits: d.config.image_limits,
        registries: d.config.registries.clone(),
        environment,
        patience: Patience::default(),
    }
}

/// The platform that was asked for, or this machine's.
fn platform(asked: Option<&str>) -> Result<Platform, Fault> {
    match asked {
        None => Ok(Platform::linux(ARCH)),
        Some(text) => text.parse().map_err(|e| Fault::because(Code::BadRequest, "bad --platform", &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
