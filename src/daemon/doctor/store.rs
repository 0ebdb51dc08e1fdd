//! What the daemon keeps: its database, and the files of images and kernels that it speaks of.

use std::io;
use std::path::{Path, PathBuf};

use crate::daemon::fault::chain;
use crate::daemon::{Daemon, images, kernels, made_of, registered};
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::finding::Finding;
use crate::store::StoreError;
use crate::store::migrate::SCHEMA;
use crate::vm::record::VmRecord;

pub fn rows(d: &Daemon) -> Vec<Finding> {
    let read = || {
        Ok::<_, StoreError>((
            d.store.all::<ImageRecord>()?,
            d.store.all::<KernelRecord>()?,
            d.store.all::<VmRecord>()?.len(),
        ))
    };
    let (images, kernels, vms) = match read() {
        Ok(kept) => kept,
        Err(e) => return vec![unreadable(&chain(&e))],
    };
    let mut rows = vec![store(&d.dirs.database(), vms, images.len(), kernels.len())];
    rows.push(image(made_of::default_name(d).unwrap_or(&d.config.default_image), &images, |record| {
        problem(d, record)
    }));
    let default = kernels::default_kernel(d).ok().flatten();
    rows.push(kernel(default.as_ref(), !d.config.catalogs.is_empty(), &kernels, |name| {
        d.dirs.kernel(name).join("vmlinux")
    }));
    rows
}

fn unreadable(why: &str) -> Finding {
    Finding::fail(
        "store",
        why,
        "Stop the daemon, and put a copy of the database back; or move the state directory away to begin with nothing.",
    )
}

fn store(database: &Path, vms: usize, images: usize, kernels: usize) -> Finding {
    match database.try_exists() {
        Ok(true) => {
            Finding::pass("store", format!("schema {SCHEMA}: {vms} VMs, {images} images, {kernels} kernels"))
        }
        // It works until the daemon ends, and then all is gone.
        Ok(false) => Finding::fail(
            "store",
            format!("{} has been removed; only the running daemon still has it", database.display()),
            "Do not stop the daemon before what its VMs hold is safe: `banger vm cp` takes files out of them.",
        ),
        Err(e) => unreadable(&format!("cannot look at {}: {e}", database.display())),
    }
}

/// What is wrong with the file of an image.
fn problem(d: &Daemon, record: &ImageRecord) -> Option<String> {
    match &record.path {
        Some(path) => registered::glance(record, path).0,
        None => file_problem(&d.dirs.image_file(&record.id), Some(record.bytes)),
    }
}

/// None: it is a file, of `bytes` where that is known.
fn file_problem(path: &Path, bytes: Option<u64>) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Some(format!("{} is no file", path.display())),
        Ok(meta) if bytes.is_some_and(|bytes| bytes != meta.len()) => {
            Some(format!("{} does not have its length any more", path.display()))
        }
        Ok(_) => None,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(format!("{} is gone", path.display())),
        Err(e) => Some(format!("cannot look at {}: {e}", path.display())),
    }
}

/// `default`: its name.
fn image(default: &str, images: &[ImageRecord], problem: impl Fn(&ImageRecord) -> Option<String>) -> Finding {
    let subject = "image";
    if let Some((record, why)) = images.iter().find_map(|record| Some((record, problem(record)?))) {
        return Finding::fail(
            subject,
            format!("{} cannot be used: {why}", images::call(record)),
            "Delete the image with `banger image delete`, and pull or import it again.",
        );
    }
    let is_here = images.iter().any(|record| record.names.iter().any(|name| name == default));
    match is_here {
        true => Finding::pass(subject, format!("{default} is here")),
        false => Finding::pass(subject, format!("{default} is not here yet; the first VM pulls it")),
    }
}

/// `from_catalogs`: the configuration has catalogs, which may have one.
fn kernel(
    default: Option<&KernelRecord>,
    from_catalogs: bool,
    kernels: &[KernelRecord],
    vmlinux: impl Fn(&str) -> PathBuf,
) -> Finding {
    let subject = "kernel";
    let lost = kernels.iter().find_map(|kernel| Some((kernel, file_problem(&vmlinux(&kernel.name), None)?)));
    match (default, lost) {
        (_, Some((kernel, why))) => Finding::fail(
            subject,
            format!("{} cannot be used: {why}", kernel.name),
            "Remove it with `banger kernel rm`, and import or pull it again.",
        ),
        (None, None) if from_catalogs => Finding::warn(
            subject,
            "none yet",
            "The first VM pulls one where a catalog has one; `banger kernel list --available` shows them.",
        ),
        (None, None) => Finding::fail(subject, "none yet, and VMs do not start without one", {
            let text = made_of::no_kernel("").message;
            format!("{}.", text.split_once("; ").map_or(text.as_str(), |(_, ways)| ways))
        }),
        (Some(kernel), None) if !kernel.snapshot => Finding::warn(
            subject,
            format!("{} has no dm-snapshot, so that each VM gets a copy of its image", kernel.name),
            "Import a distribution's kernel, such as the one of `banger kernel import --host`.",
        ),
        (Some(kernel), None) => Finding::pass(subject, format!("{} is the default", kernel.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::ImageConfig;

    fn record(name: &str) -> ImageRecord {
        ImageRecord {
            id: "ab".repeat(32),
            names: vec![name.to_owned()],
            digest: None,
            source: "-".to_owned(),
            arch: "amd64".to_owned(),
            variant: None,
            bytes: 3,
            created_at: 1,
            config: ImageConfig::default(),
            kernel: None,
            path: None,
            stamp: None,
        }
    }

    fn of_kernel(name: &str, snapshot: bool) -> KernelRecord {
        KernelRecord {
            name: name.to_owned(),
            version: name.to_owned(),
            arch: "amd64".to_owned(),
            blake3: String::new(),
            source: "host".to_owned(),
            snapshot,
            modules: true,
            bundle: None,
            imported_at: 1,
        }
    }

    #[test]
    fn an_image_whose_file_is_gone_fails_and_one_to_be_pulled_does_not() {
        let whole = |_: &ImageRecord| None;
        assert_eq!(image("debian", &[record("debian")], whole).line(), "Pass image: debian is here");
        assert_eq!(
            image("debian", &[record("other")], whole).line(),
            "Pass image: debian is not here yet; the first VM pulls it"
        );
        let gone = image("debian", &[record("other")], |_| Some("/x is gone".to_owned())).line();
        assert!(gone.starts_with("Fail image: other cannot be used: /x is gone => "), "{gone}");
    }

    #[test]
    fn a_file_is_judged_without_reading_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        assert!(file_problem(&path, None).expect("a problem").ends_with(" is gone"));
        std::fs::write(&path, "abc").expect("writes");
        assert_eq!(file_problem(&path, Some(3)), None);
        assert!(
            file_problem(&path, Some(4)).expect("a problem").ends_with("does not have its length any more")
        );
        assert!(file_problem(dir.path(), None).expect("a problem").ends_with(" is no file"));
    }

    #[test]
    fn without_a_kernel_no_vm_starts() {
        let dir = tempfile::tempdir().expect("a directory");
        let vmlinux = |name: &str| dir.path().join(name);
        std::fs::write(vmlinux("6.1"), "").expect("writes");
        let (good, copying, lost) =
            (of_kernel("6.1", true), of_kernel("6.1", false), of_kernel("5.10", true));
        let row = |default: Option<&KernelRecord>, catalogs, all: &[KernelRecord]| {
            kernel(default, catalogs, all, vmlinux).line()
        };
        assert_eq!(row(Some(&good), false, std::slice::from_ref(&good)), "Pass kernel: 6.1 is the default");
        assert!(
            row(None, false, &[]).starts_with(
                "Fail kernel: none yet, and VMs do not start without one => `banger kernel import"
            )
        );
        assert!(row(None, true, &[]).starts_with("Warn kernel: none yet => "));
        assert!(row(Some(&copying), false, &[]).starts_with("Warn kernel: 6.1 has no dm-snapshot"));
        assert!(
            row(Some(&good), false, &[good.clone(), lost]).starts_with("Fail kernel: 5.10 cannot be used: ")
        );
    }

    #[test]
    fn a_database_that_was_removed_under_the_daemon_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("d");
        assert!(store(&path, 1, 2, 3).line().starts_with("Fail store: "));
        std::fs::write(&path, "x").expect("writes");
        assert_eq!(
            store(&path, 1, 2, 3).line(),
            format!("Pass store: schema {SCHEMA}: 1 VMs, 2 images, 3 kernels")
        );
        assert!(unreadable("it is so").line().starts_with("Fail store: it is so => Stop the daemon"));
    }
}
