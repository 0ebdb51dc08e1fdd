//! Publishing what a bundle has brought, all of it or nothing: files are moved to their places, and one transaction records them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::judge::{self, Fate, Judged, Known};
use crate::catalog::medium::{Kernel, Manifest, PROGRAMS};
use crate::daemon::fault::Fault;
use crate::daemon::images::short;
use crate::daemon::kernels::{self, Staged};
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, image_id, now, pulls};
use crate::host::failpoint;
use crate::host::files::{create_private_dir, remove_if_present, sync_directory};
use crate::host::undo::Undo;
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::api::{Code, What};
use crate::store::Changes;

/// Files that are whole, and gone with this where they have not been moved; in the manifest's order, None for what is here already.
#[derive(Default)]
pub struct Unpacked {
    pub programs: Vec<Option<PathBuf>>,
    pub kernels: Vec<Option<Staged>>,
    pub images: Vec<Option<PathBuf>>,
    pub undo: Undo,
}

/// What there is now.
pub fn known(d: &Daemon) -> Result<Known, Fault> {
    let looked = |e: io::Error| Fault::failed("cannot look at what is installed", &e);
    let mut programs = BTreeMap::new();
    for name in PROGRAMS {
        match File::open(d.dirs.programs().join(name)) {
            Ok(file) => drop(programs.insert(name.to_owned(), image_id::of(&file).map_err(looked)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(looked(e)),
        }
    }
    Ok(Known { images: d.store.all()?, kernels: d.store.all()?, programs })
}

/// Moves everything to its place and records it. Judged once more, since it is the first time that nobody else can change anything.
pub fn settle(
    d: &Shared,
    op: &Op,
    manifest: &Manifest,
    unpacked: &Unpacked,
    force: bool,
) -> Result<Judged, Fault> {
    let stored = |e: io::Error| Fault::failed("cannot store what is in the bundle", &e);
    let _ledger = d.ledger();
    let known = known(d)?;
    let judged = judge::judge(manifest, &known, pulls::ARCH, force)?;
    // Dropped last: until then what is in it may have to come back.
    let mut old = Undo::default();
    let mut undo = Undo::default();
    let mut records = vec![];
    for ((kernel, staged), _) in with(&manifest.kernels, &unpacked.kernels, &judged.kernels) {
        kernels::take(d, op, &kernel.name, staged.as_ref().ok_or_else(|| gone(&kernel.name))?, &mut undo)?;
        failpoint::reach("bundle: kernel moved");
        records.push(record(kernel));
    }
    for ((image, staged), _) in with(&manifest.images, &unpacked.images, &judged.images) {
        let staged = staged.as_ref().ok_or_else(|| gone(image.call()))?;
        let place = d.dirs.image_file(&image.content.blake3);
        move_to(staged, place, &mut undo).map_err(stored)?;
    }
    for ((program, staged), fate) in with(&manifest.programs, &unpacked.programs, &judged.programs) {
        let staged = staged.as_ref().ok_or_else(|| gone(&program.name))?;
        create_private_dir(&d.dirs.programs()).map_err(stored)?;
        let place = d.dirs.programs().join(&program.name);
        match fate {
            Fate::New | Fate::Here => move_to(staged, place, &mut undo),
            Fate::Replace => replace(staged, place, &mut old, &mut undo),
        }
        .map_err(stored)?;
    }
    failpoint::reach("bundle: files moved");
    for directory in [d.dirs.kernels(), d.dirs.images(), d.dirs.programs()] {
        match sync_directory(&directory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(stored(e)),
            Ok(()) | Err(_) => {}
        }
    }
    let changes = judge::enter(&manifest.images, known.images, now());
    for image in &changes {
        log::info!("{op} image {}: from a bundle, as {}", short(&image.id), image.names.join(", "));
    }
    let put = changes.iter().fold(Changes::new(), |put, image: &ImageRecord| put.put(image));
    d.store.apply(kernels::enter(d, put, &records)?)?;
    failpoint::reach("bundle: recorded");
    undo.commit();
    for kernel in &records {
        log::info!("{op} kernel {}: from a bundle", kernel.name);
        d.events.kernel(Some(op), What::KernelChanged, &kernel.name);
    }
    for image in &changes {
        d.events.image(Some(op), What::ImageChanged, image);
    }
    Ok(judged)
}

/// The things that are not here yet, their files and their fates.
fn with<'a, T, F>(
    things: &'a [T],
    files: &'a [F],
    fates: &'a [Fate],
) -> impl Iterator<Item = ((&'a T, &'a F), Fate)> {
    things.iter().zip(files).zip(fates.iter().copied()).filter(|(_, fate)| *fate != Fate::Here)
}

fn gone(name: &str) -> Fault {
    Fault::new(
        Code::Conflict,
        format!("{name} was here, and was removed while the bundle was read; install it again"),
    )
}

fn record(kernel: &Kernel) -> KernelRecord {
    KernelRecord {
        name: kernel.name.clone(),
        version: kernel.version.clone(),
        arch: pulls::ARCH.to_owned(),
        blake3: kernel.vmlinux.blake3.clone(),
        source: kernel.source.clone(),
        snapshot: kernel.snapshot,
        modules: kernel.modules.is_some(),
        bundle: kernel.bundle.clone(),
        imported_at: now(),
    }
}

fn move_to(staged: &Path, place: PathBuf, undo: &mut Undo) -> io::Result<()> {
    fs::rename(staged, &place)?;
    undo.push(format!("file {}", place.display()), move || remove_if_present(&place));
    Ok(())
}

/// Moves a file to the place of another, which is kept beside it until `old` is dropped.
fn replace(staged: &Path, place: PathBuf, old: &mut Undo, undo: &mut Undo) -> io::Result<()> {
    let kept = staged.with_extension("old");
    fs::hard_link(&place, &kept)?;
    old.push(format!("file {}", kept.display()), {
        let kept = kept.clone();
        move || remove_if_present(&kept)
    });
    fs::rename(staged, &place)?;
    undo.push(format!("file {}", place.display()), move || fs::rename(kept, place));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_comes_back_unless_all_is_well() {
        let dir = tempfile::tempdir().expect("a directory");
        let (staged, place) = (dir.path().join(".staged-x"), dir.path().join("place"));
        for (well, want) in [(false, "old"), (true, "new")] {
            fs::write(&staged, "new").expect("writes");
            fs::write(&place, "old").expect("writes");
            let mut old = Undo::default();
            let mut undo = Undo::default();
            replace(&staged, place.clone(), &mut old, &mut undo).expect("replaces");
            assert_eq!(fs::read_to_string(&place).expect("reads"), "new");
            if well {
                undo.commit();
            } else {
                drop(undo);
            }
            drop(old);
            assert_eq!(fs::read_to_string(&place).expect("reads"), want);
            assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
        }
    }
}
