//! What becomes of each part of a bundle here: pure, from its manifest and what there is.

use std::collections::BTreeMap;

use crate::catalog::medium::{Image, Kernel, Manifest, Program};
use crate::daemon::fault::Fault;
use crate::daemon::images::short;
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::api::{Code, PartKind, PartState};

/// What there is.
#[derive(Debug, Default)]
pub struct Known {
    pub images: Vec<ImageRecord>,
    pub kernels: Vec<KernelRecord>,
    /// blake3 of programs that came in bundles, by name.
    pub programs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    New,
    /// Something else has its name, and gives it up.
    Replace,
    /// It is here.
    Here,
}

/// The fates of a manifest's parts, in its order.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    pub programs: Vec<Fate>,
    pub kernels: Vec<Fate>,
    pub images: Vec<Fate>,
}

impl Judged {
    /// What is said of part number `n` of a kind, once it is done.
    pub fn state(&self, kind: PartKind, n: usize) -> PartState {
        let fates = match kind {
            PartKind::Image => &self.images,
            PartKind::Kernel => &self.kernels,
            PartKind::Program => &self.programs,
        };
        match fates.get(n) {
            Some(Fate::New) => PartState::Installed,
            Some(Fate::Replace) => PartState::Replaced,
            Some(Fate::Here) | None => PartState::Here,
        }
    }
}

/// Judges a bundle on a machine that is `arch`; `force`: names may move.
///
/// # Errors
/// A sentence that names all that stands in the way.
pub fn judge(manifest: &Manifest, known: &Known, arch: &str, force: bool) -> Result<Judged, Fault> {
    if manifest.arch != arch {
        let text = format!("the bundle is for {} machines, and this one is {arch}", manifest.arch);
        return Err(Fault::new(Code::BadRequest, text));
    }
    let mut taken = vec![];
    let programs = manifest.programs.iter().map(|p| program(p, known, &mut taken)).collect();
    let kernels = manifest.kernels.iter().map(|k| kernel(k, known, &mut taken)).collect();
    let images = manifest.images.iter().map(|i| image(i, known, &mut taken)).collect();
    if !force && !taken.is_empty() {
        let text = format!(
            "the bundle is not installed, since it would take over names: {}; `banger bundle install --force` lets it",
            taken.join("; ")
        );
        return Err(Fault::new(Code::Conflict, text));
    }
    Ok(Judged { programs, kernels, images })
}

fn program(program: &Program, known: &Known, taken: &mut Vec<String>) -> Fate {
    match known.programs.get(&program.name) {
        None => Fate::New,
        Some(blake3) if *blake3 == program.content.blake3 => Fate::Here,
        Some(_) => {
            taken.push(format!("there is another {} from a bundle", program.name));
            Fate::Replace
        }
    }
}

/// A kernel is its vmlinux; modules come from the same build.
fn kernel(kernel: &Kernel, known: &Known, taken: &mut Vec<String>) -> Fate {
    match known.kernels.iter().find(|there| there.name == kernel.name) {
        None => Fate::New,
        Some(there) if there.blake3 == kernel.vmlinux.blake3 => Fate::Here,
        Some(KernelRecord { name, version, source, .. }) => {
            taken.push(format!("there is another kernel {name} ({version}, from {source})"));
            Fate::Replace
        }
    }
}

/// The file of a registered image is somebody else's, and may be gone tomorrow: the bundle's is taken.
fn image(image: &Image, known: &Known, taken: &mut Vec<String>) -> Fate {
    let is_it = |there: &&ImageRecord| there.id == image.content.blake3;
    let others = known.images.iter().filter(|there| !is_it(there));
    let held = |there: &ImageRecord| image.names.iter().find(|name| there.names.contains(name)).cloned();
    let holders: Vec<(String, &ImageRecord)> =
        others.filter_map(|there| held(there).map(|name| (name, there))).collect();
    for (name, there) in &holders {
        taken.push(format!("{name} is image {} (from {})", short(&there.id), there.source));
    }
    match known.images.iter().find(is_it) {
        Some(there) if there.path.is_none() => Fate::Here,
        Some(_) | None if !holders.is_empty() => Fate::Replace,
        Some(_) | None => Fate::New,
    }
}

/// The records of images after a bundle has brought `arriving`: those that are new or changed. `now` in seconds since 1970.
pub fn enter(arriving: &[Image], mut records: Vec<ImageRecord>, now: u64) -> Vec<ImageRecord> {
    let before = records.clone();
    for image in arriving {
        for record in &mut records {
            record.names.retain(|name| !image.names.contains(name) || record.id == image.content.blake3);
        }
        match records.iter_mut().find(|record| record.id == image.content.blake3) {
            // What it is called here stays, and so does how it is started.
            Some(record) => {
                let new: Vec<String> =
                    image.names.iter().filter(|name| !record.names.contains(name)).cloned().collect();
                record.names.extend(new);
                record.kernel = record.kernel.take().or_else(|| image.kernel.clone());
                if record.path.take().is_some() {
                    record.source = image.source.clone();
                    record.stamp = None;
                }
            }
            None => records.push(ImageRecord {
                id: image.content.blake3.clone(),
                names: image.names.clone(),
                digest: image.digest.clone(),
                source: image.source.clone(),
                arch: image.arch.clone(),
                variant: image.variant.clone(),
                bytes: image.content.size,
                created_at: now,
                config: image.config.clone(),
                kernel: image.kernel.clone(),
                path: None,
                stamp: None,
            }),
        }
    }
    records.into_iter().filter(|record| !before.contains(record)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::medium::{Content, Own};
    use crate::image::config::ImageConfig;
    use crate::image::record::Stamp;

    fn content(blake3: &str) -> Content {
        Content { size: 1, blake3: blake3.to_owned() }
    }

    fn bundled(id: &str, names: &[&str]) -> Image {
        Image {
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            digest: None,
            source: "registry".to_owned(),
            arch: "amd64".to_owned(),
            variant: None,
            config: ImageConfig { user: "app".to_owned(), ..ImageConfig::default() },
            kernel: Some("k".to_owned()),
            content: content(id),
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            arch: "amd64".to_owned(),
            banger: Own { version: "0.1.0".to_owned(), commit: String::new(), content: content("me") },
            programs: vec![Program {
                name: "firecracker".to_owned(),
                version: "1.15.0".to_owned(),
                content: content("fc"),
            }],
            kernels: vec![Kernel {
                name: "k".to_owned(),
                version: "6.1".to_owned(),
                source: "deb".to_owned(),
                snapshot: true,
                bundle: None,
                vmlinux: content("elf"),
                modules_cpio: content("cpio"),
                modules: None,
            }],
            images: vec![bundled("aaaa", &["debian", "base"])],
        }
    }

    fn here(id: &str, names: &[&str]) -> ImageRecord {
        let image = enter(&[bundled(id, names)], vec![], 7).remove(0);
        ImageRecord { config: ImageConfig::default(), kernel: None, source: "here".to_owned(), ..image }
    }

    fn registered(id: &str, names: &[&str]) -> ImageRecord {
        let stamp = Stamp { inode: 1, bytes: 1, modified_ns: 1, changed_ns: 1 };
        ImageRecord { path: Some("/x".to_owned()), stamp: Some(stamp), ..here(id, names) }
    }

    fn kernel(blake3: &str) -> KernelRecord {
        KernelRecord {
            name: "k".to_owned(),
            version: "6.0".to_owned(),
            arch: "amd64".to_owned(),
            blake3: blake3.to_owned(),
            source: "host".to_owned(),
            snapshot: true,
            modules: false,
            bundle: None,
            imported_at: 1,
        }
    }

    #[test]
    fn every_part_has_its_fate_and_no_name_is_taken_over_without_force() {
        use Fate::{Here, New, Replace};
        let programs = |blake3: &str| BTreeMap::from([("firecracker".to_owned(), blake3.to_owned())]);
        let images = |images: Vec<ImageRecord>| Known { images, ..Known::default() };
        let kernels = |blake3| Known { kernels: vec![kernel(blake3)], ..Known::default() };
        // What there is, the fates of program, kernel and image, and what stands in the way without force.
        let table = [
            (Known::default(), [New, New, New], ""),
            (Known { programs: programs("fc"), ..Known::default() }, [Here, New, New], ""),
            (
                Known { programs: programs("old"), ..Known::default() },
                [Replace, New, New],
                "another firecracker from a bundle",
            ),
            (kernels("elf"), [New, Here, New], ""),
            (kernels("other"), [New, Replace, New], "another kernel k (6.0, from host)"),
            (images(vec![here("aaaa", &[])]), [New, New, Here], ""),
            (images(vec![here("aaaa", &["debian", "base"])]), [New, New, Here], ""),
            (images(vec![registered("aaaa", &["debian"])]), [New, New, New], ""),
            (images(vec![here("bbbb", &["other"])]), [New, New, New], ""),
            (images(vec![here("bbbb", &["base"])]), [New, New, Replace], "base is image bbbb (from here)"),
            (
                images(vec![here("aaaa", &["debian"]), here("bbbb", &["base"])]),
                [New, New, Here],
                "base is image bbbb",
            ),
        ];
        for (known, [program, kernel, image], why) in table {
            let want = Judged { programs: vec![program], kernels: vec![kernel], images: vec![image] };
            assert_eq!(judge(&manifest(), &known, "amd64", true), Ok(want), "{known:?}");
            match judge(&manifest(), &known, "amd64", false) {
                Ok(_) => assert_eq!(why, "", "{known:?}"),
                Err(fault) => {
                    assert!(!why.is_empty() && fault.message.contains(why), "{fault:?}");
                    assert!(fault.message.ends_with("`banger bundle install --force` lets it"), "{fault:?}");
                }
            }
        }
        let other = judge(&manifest(), &Known::default(), "arm64", true).expect_err("another machine");
        assert_eq!(other.message, "the bundle is for amd64 machines, and this one is arm64");
        let all = Known {
            images: vec![here("bbbb", &["base"])],
            kernels: vec![kernel("other")],
            programs: programs("old"),
        };
        let fault = judge(&manifest(), &all, "amd64", false).expect_err("three names");
        assert_eq!(fault.message.matches("; ").count(), 3, "{fault:?}");
    }

    #[test]
    fn records_after_an_install_have_each_name_once() {
        let arriving = [bundled("aaaa", &["debian", "base"]), bundled("cccc", &["x"])];
        let changed = enter(&arriving, vec![], 9);
        assert_eq!(changed.len(), 2);
        assert_eq!((changed[0].created_at, changed[0].config.user.as_str()), (9, "app"));
        // Once more, and nothing changes.
        assert_eq!(enter(&arriving, changed, 10), []);
        // Names move from others, and what is here already keeps what it is called and how it is started.
        let before = vec![here("aaaa", &["mine"]), here("bbbb", &["base", "y"]), here("dddd", &["z"])];
        let changed = enter(&arriving, before, 9);
        let names: Vec<(&str, Vec<&str>)> =
            changed.iter().map(|i| (i.id.as_str(), i.names.iter().map(String::as_str).collect())).collect();
        assert_eq!(
            names,
            [("aaaa", vec!["mine", "debian", "base"]), ("bbbb", vec!["y"]), ("cccc", vec!["x"])]
        );
        assert_eq!((changed[0].kernel.as_deref(), &changed[0].config), (Some("k"), &ImageConfig::default()));
        // A registered one becomes banger's own.
        let changed = enter(&arriving[..1], vec![registered("aaaa", &["debian"])], 9);
        assert_eq!((&changed[0].path, changed[0].stamp), (&None, None));
    }
}
