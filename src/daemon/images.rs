//! The images: one immutable file each, images/<id>.ext4, which [`pulls`](super::pulls) brings, or registered where it is
//! ([`registered`]); names come and go.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::daemon::fault::Fault;
use crate::daemon::names::Names;
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking, registered};
use crate::host::files::remove_if_present;
use crate::image::record::ImageRecord;
use crate::image::reference::Reference;
use crate::proto::api::{Code, ImageView, What};
use crate::store::Changes;
use crate::vm::lookup::{self, Candidate, LookupError};
use crate::vm::record::VmRecord;

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
    let (problem, disk_bytes) = match &record.path {
        Some(path) => registered::glance(&record, path),
        None => {
            let bytes = disk_bytes(&d.dirs.image_file(&record.id));
            (None, bytes.map_err(|e| Fault::failed(format!("cannot look at image {}", call(&record)), &e))?)
        }
    };
    Ok(ImageView { used_by: users(&record, vms), disk_bytes, problem, record })
}

/// The file that VMs of the image `id` have as their base: banger's own, or the registered one if it is still what was registered.
pub fn file(d: &Daemon, op: &Op, id: &str) -> Result<PathBuf, Fault> {
    let record = d.store.get::<ImageRecord>(id)?;
    let record =
        record.ok_or_else(|| Fault::new(Code::NotFound, format!("its image {} is gone", short(id))))?;
    match &record.path {
        Some(path) => registered::confirm(d, op, &record, path),
        None => Ok(d.dirs.image_file(id)),
    }
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
pub fn call(record: &ImageRecord) -> String {
    record.names.first().cloned().unwrap_or_else(|| short(&record.id).to_owned())
}

pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
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
pub fn find(d: &Daemon, typed: &str) -> Result<ImageRecord, Fault> {
    look_up(d, typed)?.map_err(Fault::from)
}

pub fn look_up(d: &Daemon, typed: &str) -> Result<Result<ImageRecord, LookupError>, Fault> {
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

/// Stores the image, new or changed, with its names. The ledger has been held since `records` were read.
pub fn enter(
    d: &Daemon,
    records: Vec<ImageRecord>,
    mut record: ImageRecord,
    names: &Names,
) -> Result<ImageRecord, Fault> {
    let losers = names.give(&mut record, records);
    d.store.apply(losers.iter().fold(Changes::new().put(&record), Changes::put))?;
    for image in losers.iter().chain([&record]) {
        d.events.image(None, What::ImageChanged, image);
    }
    Ok(record)
}

/// Gives the image further names; names that stood for another image move.
pub async fn tag(d: &Shared, typed: String, name: String) -> Result<ImageRecord, Fault> {
    check_name(&name)?;
    blocking(d, move |d| tag_record(d, &find(d, &typed)?.id, &Names::new(vec![name], None, false), None))
        .await
}

/// Gives the image these names, and the kernel that it wants, where that is known.
pub fn tag_record(d: &Daemon, id: &str, names: &Names, kernel: Option<String>) -> Result<ImageRecord, Fault> {
    let _ledger = d.ledger();
    let records = d.store.all::<ImageRecord>()?;
    names.check(&records, |holder| holder.id == id)?;
    let gone = || Fault::new(Code::NotFound, "the image was deleted meanwhile");
    let record = records.iter().find(|record| record.id == id).cloned().ok_or_else(gone)?;
    let record = ImageRecord { kernel: kernel.or(record.kernel.clone()), ..record };
    enter(d, records, record, names)
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
            d.events.image(Some(&op), What::ImageChanged, &record);
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
        d.events.image(Some(&op), What::ImageDeleted, &record);
        if record.path.is_some() {
            // The file is not ours.
            return Ok(());
        }
        remove_if_present(&d.dirs.image_file(&record.id))
            .map_err(|e| Fault::failed(format!("cannot remove the file of image {}", call(&record)), &e))
    })
    .await
}

/// An image's name is anything that could be a reference: a lower-case name, `base`, `base:v2`, `registry/base`.
pub fn check_name(name: &str) -> Result<(), Fault> {
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
}
