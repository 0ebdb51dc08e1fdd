//! The kernels: imported once into kernels/<name>, published whole, one of them the default.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::daemon::fault::{Fault, chain};
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking, images, modules_image, now};
use crate::host::files::{create_private_dir, remove_tree_if_present, sync_directory};
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::image::record::ImageRecord;
use crate::kernel::import::{self, Imported};
use crate::kernel::record::KernelRecord;
use crate::proto::api::{Code, KernelImport, KernelSource, KernelView};
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

fn find(d: &Daemon, typed: &str) -> Result<KernelRecord, Fault> {
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

/// The kernel that a new VM asks for, or the default one.
pub fn wanted(d: &Daemon, typed: Option<&str>) -> Result<KernelRecord, Fault> {
    match typed {
        Some(typed) => find(d, typed),
        None => {
            let record = match default_name(d)? {
                Some(name) => d.store.get::<KernelRecord>(name)?,
                None => None,
            };
            record.ok_or_else(|| {
                Fault::new(
                    Code::NotFound,
                    "there is no kernel yet; import one with `banger kernel import --host` (the running one) or \
                     `banger kernel import --deb FILE` (a Debian package linux-image-*.deb)",
                )
            })
        }
    }
}

/// The kernel that an image wishes for its VMs, if it is there.
pub fn of_image(d: &Daemon, image: &ImageRecord) -> Result<Option<KernelRecord>, Fault> {
    Ok(image.kernel.as_ref().map(|name| d.store.get::<KernelRecord>(name)).transpose()?.flatten())
}

/// The kernel that a VM starts with: the one it was made with, where one was asked for, else the default one of today.
pub fn for_start(d: &Daemon, name: Option<&str>) -> Result<KernelRecord, Fault> {
    match name {
        None => wanted(d, None),
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
        let root = d.dirs.state.join("kernels");
        create_private_dir(&root).map_err(|e| Fault::failed("cannot make the directory for kernels", &e))?;
        let mut undo = Undo::default();
        let staged = root.join(format!(".staged-{op}"));
        let failed = |e: io::Error| Fault::failed("cannot store the kernel", &e);
        create_private_dir(&staged).map_err(failed)?;
        undo.push(format!("directory {}", staged.display()), {
            let staged = staged.clone();
            move || remove_tree_if_present(&staged)
        });
        let imported = read(&wanted.source, &staged, &op)?;
        let name = wanted.name.clone().unwrap_or_else(|| imported.version.clone());
        check_name(&name)?;
        let record = imported.record(&name, now());
        write_files(&imported, &staged, &op)?;
        drop(imported);
        if op.cancelled() {
            return Err(Fault::new(Code::Failed, "cancelled"));
        }
        publish(d, &op, record, &staged)?;
        // Moved away by now, or no longer wanted: what is left of it is removed either way.
        drop(undo);
        show(d, &name)
    })
    .await
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
fn publish(d: &Daemon, op: &Op, record: KernelRecord, staged: &Path) -> Result<(), Fault> {
    let failed = |e: io::Error| Fault::failed("cannot store the kernel", &e);
    let _ledger = d.ledger();
    if let Some(there) = d.store.get::<KernelRecord>(&record.name)? {
        if there.blake3 == record.blake3 {
            op.note(&format!("kernel {} is there already", record.name));
            return Ok(());
        }
        return Err(Fault::new(
            Code::Conflict,
            format!(
                "there is another kernel {} already; remove it with `banger kernel rm {}`, or import this one under another --name",
                record.name, record.name
            ),
        ));
    }
    let place = d.dirs.kernel(&record.name);
    // Without a record it is what a crash has left.
    remove_tree_if_present(&place).map_err(failed)?;
    let mut undo = Undo::default();
    std::fs::rename(staged, &place).map_err(failed)?;
    undo.push(format!("directory {}", place.display()), {
        let place = place.clone();
        move || remove_tree_if_present(&place)
    });
    sync_directory(place.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    let first = default_name(d)?.is_none();
    let mut changes = Changes::new().put(&record);
    if first {
        changes = changes.put(&default_setting(&record.name));
    }
    d.store.apply(changes)?;
    undo.commit();
    log::info!("{op} kernel {}: imported from {}", record.name, record.source);
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

/// A kernel's name is a directory's: letters, digits and `. _ + ~ -`, not beginning with a dot or a dash.
fn check_name(name: &str) -> Result<(), Fault> {
    let ok = (1..=100).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+~-".contains(&b));
    if ok {
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
    fn a_kernels_name_cannot_leave_its_directory() {
        for good in ["6.1.0-56-cloud-amd64", "mine", "6.12~rc1+x_y"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "-x", "a b", &"x".repeat(101)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
