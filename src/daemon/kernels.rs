//! The kernels: imported once into kernels/<name>, published whole, one of them the default.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::record::KernelEntry;
use crate::catalog::{self, bundle};
use crate::daemon::fault::{Fault, chain};
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking, catalogs, images, made_of, modules_image, now};
use crate::host::environment::Environment;
use crate::host::files::{create_private_dir, remove_tree_if_present, sync_directory};
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::kernel::import::{self, Imported};
use crate::kernel::record::{KernelRecord, is_kernel_name};
use crate::proto::api::{Code, KernelImport, KernelPull, KernelSource, KernelView, What};
use crate::store::Changes;
use crate::store::record::{Run, Setting};
use crate::vm::lookup::{self, Candidate};
use crate::vm::record::VmRecord;

/// The setting that holds the default kernel's name.
const DEFAULT: &str = "default_kernel";

pub fn list(d: &Daemon) -> Result<Vec<KernelView>, Fault> {
    let default = default_name(d)?;
    let records = d.store.all::<KernelRecord>()?;
    records.into_iter().map(|record| view(d, record, default.as_deref())).collect()
}

pub fn show(d: &Daemon, typed: &str) -> Result<KernelView, Fault> {
    view(d, find(d, typed)?, default_name(d)?.as_deref())
}

fn view(d: &Daemon, record: KernelRecord, default: Option<&str>) -> Result<KernelView, Fault> {
    let disk_bytes = images::disk_bytes(&d.dirs.kernel(&record.name))
        .map_err(|e| Fault::failed(format!("cannot look at kernel {}", record.name), &e))?;
    Ok(KernelView { default: default == Some(record.name.as_str()), disk_bytes, record })
}

/// The kernel that `typed` means.
pub fn find(d: &Daemon, typed: &str) -> Result<KernelRecord, Fault> {
    let mut records = d.store.all::<KernelRecord>()?;
    let names: Vec<[String; 1]> = records.iter().map(|r| [r.name.clone()]).collect();
    let candidates: Vec<Candidate<'_>> =
        records.iter().zip(&names).map(|(r, names)| Candidate { names, id: &r.blake3 }).collect();
    let index = lookup::find("kernel", typed, &candidates)?;
    Ok(records.swap_remove(index))
}

fn default_name(d: &Daemon) -> Result<Option<String>, Fault> {
    Ok(d.store.get::<Setting>(DEFAULT)?.map(|setting| setting.value))
}

/// The default kernel; None: there is no kernel yet.
pub fn default_kernel(d: &Daemon) -> Result<Option<KernelRecord>, Fault> {
    match default_name(d)? {
        Some(name) => Ok(d.store.get::<KernelRecord>(name)?),
        None => Ok(None),
    }
}

/// The kernel that a VM starts with: the one it was made with, where one was asked for, else the default one of today.
pub fn for_start(d: &Daemon, name: Option<&str>) -> Result<KernelRecord, Fault> {
    match name {
        None => default_kernel(d)?.ok_or_else(|| made_of::no_kernel("")),
        Some(name) => d.store.get::<KernelRecord>(name)?.ok_or_else(|| {
            Fault::new(Code::NotFound, format!("its kernel {name} is gone; import it again under that name"))
        }),
    }
}

/// Makes the kernel that `typed` means the default one.
pub async fn set_default(d: &Shared, typed: String) -> Result<KernelView, Fault> {
    blocking(d, move |d| {
        let _ledger = d.ledger();
        let record = find(d, &typed)?;
        d.store.apply(Changes::new().put(&default_setting(&record.name)))?;
        log::info!("kernel {} is the default", record.name);
        d.events.kernel(None, What::KernelDefault, &record.name);
        show(d, &record.name)
    })
    .await
}

fn default_setting(name: &str) -> Setting {
    Setting { name: DEFAULT.to_owned(), value: name.to_owned() }
}

/// Imports a kernel. The same one under the same name is there already; the first one becomes the default.
pub async fn import(d: &Shared, op: &Op, wanted: KernelImport) -> Result<KernelView, Fault> {
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let op = op.clone();
    blocking(d, move |d| {
        let staged = Staged::new(&d.dirs.kernels(), op.id())?;
        let imported = read(&wanted.source, &staged.files, &op)?;
        let name = wanted.name.clone().unwrap_or_else(|| imported.version.clone());
        check_name(&name)?;
        let record = imported.record(&name, now());
        store(d, &op, imported, record, &staged, false)?;
        show(d, &name)
    })
    .await
}

/// Pulls the kernel that a catalog calls by this name. What is here already costs nothing but the look into the catalog.
pub async fn pull(d: &Shared, op: &Op, wanted: KernelPull) -> Result<KernelView, Fault> {
    let KernelPull { kernel: name, force, environment } = wanted;
    check_name(&name)?;
    let entry = {
        let (op, name, environment) = (op.clone(), name.clone(), environment.clone());
        blocking(d, move |d| {
            catalogs::kernel(d, &op, &name, &environment)?.ok_or_else(|| catalogs::no_such_kernel(d, &name))
        })
        .await?
    };
    pull_entry(d, op, entry, force, &environment).await?;
    show(d, &name)
}

/// Pulls a kernel that a catalog has; `force`: in place of another one of that name.
pub async fn pull_entry(
    d: &Shared,
    op: &Op,
    entry: KernelEntry,
    force: bool,
    brought: &BTreeMap<String, String>,
) -> Result<KernelRecord, Fault> {
    let environment = Environment::of_process().with_callers(brought);
    let lock = d.images.turn(&format!("kernel {}", entry.about.name));
    let _turn = lock.lock().await;
    let op = op.clone();
    blocking(d, move |d| {
        let KernelEntry { about, bundle: at } = entry;
        let name = about.name.clone();
        let cannot = |e: &dyn std::error::Error| Fault::failed(format!("cannot pull the kernel {name}"), e);
        if op.cancelled() {
            return Err(Fault::new(Code::Failed, "cancelled"));
        }
        match d.store.get::<KernelRecord>(&name)? {
            Some(there) if there.bundle.as_deref() == Some(at.digest.hex()) => {
                op.note(&format!("kernel {name} is up to date"));
                return Ok(there);
            }
            Some(there) if !force => {
                return Err(another(&there, &format!("`banger kernel pull {name} --force` replaces it")));
            }
            Some(_) | None => {}
        }
        let staged = Staged::new(&d.dirs.kernels(), op.id())?;
        op.stage(&format!("pulling kernel {name}"));
        let file = catalog::download(&at, &environment, &staged.files, &op).map_err(|e| cannot(&e))?;
        op.stage(&format!("unpacking kernel {name}"));
        bundle::kernel(file, &about, &staged.bundle, &op).map_err(|e| cannot(&e))?;
        let imported = import::from_directory(&staged.bundle, &staged.files, &op).map_err(|e| cannot(&e))?;
        for (found, wanted) in [(imported.version.as_str(), &about.version), (imported.arch, &about.arch)] {
            if found != wanted {
                let text =
                    format!("cannot pull the kernel {name}: the bundle's kernel is {found}, not {wanted}");
                return Err(Fault::new(Code::Failed, text));
            }
        }
        let record = KernelRecord {
            source: at.location.to_string(),
            bundle: Some(at.digest.hex().to_owned()),
            ..imported.record(&name, now())
        };
        store(d, &op, imported, record, &staged, force)?;
        find(d, &name)
    })
    .await
}

/// There is another kernel of that name; `todo` says what can be done.
fn another(there: &KernelRecord, todo: &str) -> Fault {
    let KernelRecord { name, version, source, .. } = there;
    let text = format!("there is another kernel {name} already ({version}, from {source}); {todo}");
    Fault::new(Code::Conflict, text)
}

/// Places for what is not finished, gone with this.
pub struct Staged {
    /// What is to become the kernel's directory.
    pub files: PathBuf,
    /// For a bundle's files.
    bundle: PathBuf,
    /// For a kernel that is replaced.
    old: PathBuf,
    _undo: Undo,
}

impl Staged {
    /// In the directory for kernels, `root`; `mark` is in their names, and nobody else's.
    pub fn new(root: &Path, mark: &str) -> Result<Self, Fault> {
        create_private_dir(root).map_err(|e| Fault::failed("cannot make the directory for kernels", &e))?;
        let mut undo = Undo::default();
        let mut place = |what: &str| {
            let path = root.join(format!(".staged-{mark}{what}"));
            let doomed = path.clone();
            undo.push(format!("directory {}", path.display()), move || remove_tree_if_present(&doomed));
            path
        };
        let (files, bundle, old) = (place(""), place("-bundle"), place("-old"));
        create_private_dir(&files).map_err(|e| Fault::failed("cannot store the kernel", &e))?;
        Ok(Self { files, bundle, old, _undo: undo })
    }
}

/// Makes a kernel's files of what was imported, and publishes them.
fn store(
    d: &Shared,
    op: &Op,
    imported: Imported,
    record: KernelRecord,
    staged: &Staged,
    force: bool,
) -> Result<(), Fault> {
    write_files(&imported, &staged.files, op)?;
    drop(imported);
    if op.cancelled() {
        return Err(Fault::new(Code::Failed, "cancelled"));
    }
    publish(d, op, record, staged, force)
}

fn read(source: &KernelSource, scratch: &Path, op: &Op) -> Result<Imported, Fault> {
    let (what, imported) = match source {
        KernelSource::Deb(path) => (path.clone(), import::from_deb(&PathBuf::from(path), scratch, op)),
        KernelSource::From(path) => (path.clone(), import::from_directory(&PathBuf::from(path), scratch, op)),
        KernelSource::Host => {
            let release = import::running_release();
            (
                format!("the running kernel {release}"),
                import::from_host(Path::new("/"), &release, scratch, op),
            )
        }
    };
    imported.map_err(|e| Fault::new(Code::BadRequest, format!("cannot import {what}: {}", chain(&e))))
}

/// Writes what guests need of the kernel into `directory`.
fn write_files(imported: &Imported, directory: &Path, op: &Op) -> Result<(), Fault> {
    let failed = |e: io::Error| Fault::failed("cannot store the kernel", &e);
    crate::host::files::write_atomic(&directory.join("vmlinux"), &imported.vmlinux, 0o444).map_err(failed)?;
    crate::host::files::write_atomic(&directory.join("modules.cpio"), &imported.modules_cpio, 0o444)
        .map_err(failed)?;
    let Some(modules) = &imported.tree else { return Ok(()) };
    op.stage("packing the kernel's modules");
    let image = modules_image::pack(modules, &directory.join("modules.ext4"))
        .map_err(|e| Fault::failed("cannot pack the kernel's modules", &e))?;
    image.set_permissions(Permissions::from_mode(0o444)).and_then(|()| image.sync_all()).map_err(failed)
}

/// Moves the finished directory to its place and records it.
fn publish(d: &Shared, op: &Op, record: KernelRecord, staged: &Staged, force: bool) -> Result<(), Fault> {
    let _ledger = d.ledger();
    let mut undo = Undo::default();
    match d.store.get::<KernelRecord>(&record.name)? {
        Some(there) if !force && there.blake3 == record.blake3 => {
            op.note(&format!("kernel {} is there already", record.name));
            return Ok(());
        }
        Some(there) if !force => {
            let todo = format!(
                "remove it with `banger kernel rm {}`, or import this one under another --name",
                there.name
            );
            return Err(another(&there, &todo));
        }
        Some(_) | None => take(d, op, &record.name, staged, &mut undo)?,
    }
    sync_directory(&d.dirs.kernels()).map_err(|e| Fault::failed("cannot store the kernel", &e))?;
    d.store.apply(enter(d, Changes::new(), std::slice::from_ref(&record))?)?;
    undo.commit();
    log::info!("{op} kernel {}: imported from {}", record.name, record.source);
    d.events.kernel(Some(op), What::KernelChanged, &record.name);
    Ok(())
}

/// Moves the finished directory to the place of the kernel `name`; another one there gives way. The ledger is held, and nothing is
/// recorded yet: until `undo` is committed, all can be as it was.
pub fn take(d: &Shared, op: &Op, name: &str, staged: &Staged, undo: &mut Undo) -> Result<(), Fault> {
    if let Some(there) = d.store.get::<KernelRecord>(name)? {
        log::info!("{op} kernel {}: {} from {} gives way", there.name, there.version, there.source);
        // The record goes first: no crash leaves one that says of these files what is true of others.
        d.store.apply(Changes::new().remove::<KernelRecord>(&there.name))?;
        undo.push(format!("record of kernel {}", there.name), {
            let d = Arc::clone(d);
            move || d.store.apply(Changes::new().put(&there)).map_err(io::Error::other)
        });
    }
    take_place(&d.dirs.kernel(name), staged, undo).map_err(|e| Fault::failed("cannot store the kernel", &e))
}

/// Adds records of kernels to `changes`. The first is the default one where there is none, as after a crash while that was replaced.
pub fn enter(d: &Daemon, changes: Changes, records: &[KernelRecord]) -> Result<Changes, Fault> {
    let changes = records.iter().fold(changes, Changes::put);
    let among = |name: &String| records.iter().any(|record| record.name == *name);
    if default_name(d)?.as_ref().is_some_and(among) || default_kernel(d)?.is_some() {
        return Ok(changes);
    }
    Ok(match records.first() {
        Some(first) => changes.put(&default_setting(&first.name)),
        None => changes,
    })
}

/// Moves the finished files to `place`. What is there already is moved away: the kernel that is replaced, whose files VMs that run
/// have open, or what a crash has left.
fn take_place(place: &Path, staged: &Staged, undo: &mut Undo) -> io::Result<()> {
    match std::fs::rename(place, &staged.old) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(()) => undo.push(format!("directory {}", place.display()), {
            let (old, place) = (staged.old.clone(), place.to_owned());
            move || std::fs::rename(old, place)
        }),
    }
    std::fs::rename(&staged.files, place)?;
    undo.push(format!("directory {}", place.display()), {
        let place = place.to_owned();
        move || remove_tree_if_present(&place)
    });
    Ok(())
}

/// Removes a kernel that no VM needs. Of those that remain, the one imported last becomes the default, if this was it.
pub async fn remove(d: &Shared, op: &Op, typed: String) -> Result<(), Fault> {
    let op = op.clone();
    blocking(d, move |d| {
        let _ledger = d.ledger();
        let record = find(d, &typed)?;
        let users = users(d, &record.name)?;
        if !users.is_empty() {
            return Err(Fault::new(
                Code::Conflict,
                format!(
                    "kernel {} is needed by {}; delete or stop them first",
                    record.name,
                    images::vm_list(&users)
                ),
            ));
        }
        let mut changes = Changes::new().remove::<KernelRecord>(&record.name);
        if default_name(d)?.as_deref() == Some(record.name.as_str()) {
            let rest = d.store.all::<KernelRecord>()?.into_iter().filter(|k| k.name != record.name);
            changes = match rest.max_by_key(|k| k.imported_at) {
                Some(next) => {
                    op.note(&format!("kernel {} is the default now", next.name));
                    changes.put(&default_setting(&next.name))
                }
                None => changes.remove::<Setting>(DEFAULT),
            };
        }
        // The record goes first: files without one are removed at the next start.
        d.store.apply(changes)?;
        log::info!("{op} kernel {}: removed", record.name);
        d.events.kernel(Some(&op), What::KernelDeleted, &record.name);
        remove_tree_if_present(&d.dirs.kernel(&record.name))
            .map_err(|e| Fault::failed(format!("cannot remove the files of kernel {}", record.name), &e))
    })
    .await
}

/// Names of the VMs that were made with this kernel, or run it.
fn users(d: &Daemon, name: &str) -> Result<Vec<String>, Fault> {
    let runs = d.store.all::<Run>()?;
    let runs_it = |vm: &VmRecord| runs.iter().any(|run| run.vm == vm.id && run.kernel == name);
    let vms = d.store.all::<VmRecord>()?;
    let uses = |vm: &&VmRecord| vm.kernel.as_deref() == Some(name) || runs_it(vm);
    Ok(vms.iter().filter(uses).map(|vm| vm.name.to_string()).collect())
}

fn check_name(name: &str) -> Result<(), Fault> {
    if is_kernel_name(name) {
        return Ok(());
    }
    Err(Fault::new(
        Code::BadRequest,
        format!(
            "{name:?} cannot name a kernel; use up to 100 letters, digits and . _ + ~ -, beginning with a letter or digit"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_take_a_place_give_it_back_after_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("k");
        let what = |path: &Path| std::fs::read_to_string(path.join("vmlinux")).ok();
        for before in [None, Some("old".to_owned())] {
            let staged = Staged::new(dir.path(), Op::own().id()).expect("stages");
            std::fs::write(staged.files.join("vmlinux"), "new").expect("writes");
            if let Some(text) = &before {
                std::fs::create_dir(&place).expect("makes a directory");
                std::fs::write(place.join("vmlinux"), text).expect("writes");
            }
            let mut undo = Undo::default();
            take_place(&place, &staged, &mut undo).expect("takes it");
            assert_eq!(what(&place).as_deref(), Some("new"));
            drop(undo);
            assert_eq!(what(&place), before);
            // There are no new files any more, and the old ones are back nevertheless.
            let mut undo = Undo::default();
            take_place(&place, &staged, &mut undo).expect_err("nothing to move");
            drop(undo);
            assert_eq!(what(&place), before);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1, "nothing is staged any more");
    }
}
