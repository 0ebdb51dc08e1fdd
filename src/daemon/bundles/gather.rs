//! What goes into a bundle: the things that were named, their files, opened, and what is said of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::catalog::medium::{Content, Image, Kernel, Manifest, Own, Program};
use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::programs::{self, Found};
use crate::daemon::{Daemon, image_id, images, kernels, pulls};
use crate::host::progress::Progress;
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::api::{BundleCreate, Code};

/// The executable of this process, also after an update has replaced it (proc(5)).
const MYSELF: &str = "/proc/self/exe";

/// The manifest, and the files of its parts in its order. The same things give the same manifest, in whatever order they were named.
pub fn gather(d: &Daemon, op: &Op, wanted: &BundleCreate) -> Result<(Manifest, Vec<File>), Fault> {
    let images: BTreeMap<String, ImageRecord> = wanted
        .images
        .iter()
        .map(|typed| images::find(d, typed).map(|i| (i.id.clone(), i)))
        .collect::<Result<_, _>>()?;
    let kernels: BTreeMap<String, KernelRecord> = wanted
        .kernels
        .iter()
        .map(|typed| kernels::find(d, typed).map(|k| (k.name.clone(), k)))
        .collect::<Result<_, _>>()?;
    let (programs, notes) = match &wanted.firecracker {
        Some(path) if !Path::new(path).is_absolute() => {
            return Err(Fault::new(Code::BadRequest, format!("{path:?} is no absolute path")));
        }
        Some(path) => programs::at(Path::new(path))?,
        None => (vec![], vec![]),
    };
    if images.is_empty() && kernels.is_empty() && programs.is_empty() {
        let text = "there is nothing to put into the bundle; name an image, a kernel or Firecracker";
        return Err(Fault::new(Code::BadRequest, text));
    }
    notes.iter().for_each(|note| op.note(note));
    for image in images.values() {
        if let Some(kernel) = image.kernel.as_ref().filter(|kernel| !kernels.contains_key(*kernel)) {
            op.note(&format!(
                "the image {} wants the kernel {kernel}, which is not among those for the bundle; `--kernel {kernel}` adds it",
                images::call(image)
            ));
        }
    }
    op.stage("reading what goes into the bundle");
    let mut files = vec![];
    let (content, file) = open(Path::new(MYSELF))?;
    files.push(file);
    let banger =
        Own { version: crate::build::VERSION.to_owned(), commit: crate::build::COMMIT.to_owned(), content };
    let mut manifest =
        Manifest { arch: pulls::ARCH.to_owned(), banger, programs: vec![], kernels: vec![], images: vec![] };
    for Found { name, path, version } in programs {
        let (content, file) = open(&path)?;
        files.push(file);
        manifest.programs.push(Program { name: name.to_owned(), version, content });
    }
    for kernel in kernels.into_values() {
        manifest.kernels.push(self::kernel(d, kernel, &mut files)?);
    }
    for image in images.into_values() {
        manifest.images.push(self::image(d, op, image, &mut files)?);
    }
    Ok((manifest, files))
}

fn kernel(d: &Daemon, record: KernelRecord, files: &mut Vec<File>) -> Result<Kernel, Fault> {
    if record.arch != pulls::ARCH {
        let text = format!(
            "the kernel {} is for {}, and bundles are for machines like this",
            record.name, record.arch
        );
        return Err(Fault::new(Code::BadRequest, text));
    }
    let mut file = |name: &str| {
        let (content, file) = open(&d.dirs.kernel(&record.name).join(name))?;
        files.push(file);
        Ok::<Content, Fault>(content)
    };
    let vmlinux = file("vmlinux")?;
    if vmlinux.blake3 != record.blake3 {
        let text =
            format!("the kernel {} is damaged: its vmlinux is not the one that was imported", record.name);
        return Err(Fault::new(Code::Failed, text));
    }
    Ok(Kernel {
        vmlinux,
        modules_cpio: file("modules.cpio")?,
        modules: if record.modules { Some(file("modules.ext4")?) } else { None },
        name: record.name,
        version: record.version,
        source: record.source,
        snapshot: record.snapshot,
        bundle: record.bundle,
    })
}

/// The id of an image is its content's blake3, so that the file need not be read to be described; packing it judges it.
fn image(d: &Daemon, op: &Op, record: ImageRecord, files: &mut Vec<File>) -> Result<Image, Fault> {
    let path = images::file(d, op, &record.id)?;
    let cannot = |e: io::Error| Fault::failed(format!("cannot read {}", path.display()), &e);
    let file = File::open(&path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    files.push(file);
    Ok(Image {
        content: Content { size, blake3: record.id },
        names: record.names,
        digest: record.digest,
        source: record.source,
        arch: record.arch,
        variant: record.variant,
        config: record.config,
        kernel: record.kernel,
    })
}

/// Opens a file and describes its content.
fn open(path: &Path) -> Result<(Content, File), Fault> {
    let cannot = |e: io::Error| Fault::failed(format!("cannot read {}", path.display()), &e);
    let file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    let blake3 = image_id::of(&file).map_err(cannot)?;
    // Hashing has moved where it is read from.
    io::Seek::seek(&mut &file, io::SeekFrom::Start(0)).map_err(cannot)?;
    Ok((Content { size, blake3 }, file))
}
