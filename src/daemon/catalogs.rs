//! What the catalogs say here: what a name of theirs stands for on this machine, and what they offer.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::about::is_image_name;
use crate::catalog::record::{Catalog, ImageEntry, ImageSource, KernelEntry};
use crate::catalog::{self, CatalogError, Settings, Turn};
use crate::daemon::fault::{Fault, chain};
use crate::daemon::op::Op;
use crate::daemon::pulls::ARCH;
use crate::daemon::{Daemon, Shared, blocking};
use crate::host::environment::Environment;
use crate::host::progress::{Progress, Silent};
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::api::{Code, ImageCatalog, ImageOffer, KernelCatalog, KernelOffer, OfferState};
use crate::vm::lookup::nearest;

/// `brought` is the part of its environment that a caller brings along; None: nobody is to be asked.
fn settings(d: &Daemon, brought: Option<&BTreeMap<String, String>>) -> Settings {
    let environment = Environment::of_process();
    Settings {
        urls: d.config.catalogs.clone(),
        keys: d.config.catalog_keys.clone(),
        cache: d.dirs.catalogs(),
        offline: brought.is_none(),
        environment: match brought {
            Some(brought) => environment.with_callers(brought),
            None => environment,
        },
    }
}

/// The image that a catalog calls `name`; None: no catalog does, and it may be a reference.
pub async fn image(
    d: &Shared,
    op: &Op,
    name: &str,
    brought: &BTreeMap<String, String>,
) -> Result<Option<ImageEntry>, Fault> {
    if !is_image_name(name) {
        return Ok(None);
    }
    let (op, name, brought) = (op.clone(), name.to_owned(), brought.clone());
    blocking(d, move |d| {
        tell(d, &op, &name);
        let pick = |catalog: Catalog| some(catalog.images.into_iter().filter(|i| i.about.name == name));
        let found = catalog::first(&settings(d, Some(&brought)), &op, pick);
        let found = found.map_err(|e| {
            let mut fault = cannot_look_up(&name, &e);
            // Its whole reference is no name of a catalog.
            fault.message +=
                &format!("; `docker.io/library/{name}` is the registry's image, whatever the catalogs say");
            fault
        });
        let Some((entries, origin)) = found? else { return Ok(None) };
        let arches = arches(entries.iter().map(|i| &i.about.arch));
        let mine = entries.into_iter().find(|i| i.about.arch == ARCH);
        mine.map(Some).ok_or_else(|| other_arch("image", &name, &origin, &arches))
    })
    .await
}

/// The kernel that a catalog calls `name`; None: no catalog does.
pub fn kernel(
    d: &Daemon,
    op: &Op,
    name: &str,
    brought: &BTreeMap<String, String>,
) -> Result<Option<KernelEntry>, Fault> {
    tell(d, op, name);
    let pick = |catalog: Catalog| some(catalog.kernels.into_iter().filter(|k| k.about.name == name));
    let found = catalog::first(&settings(d, Some(brought)), op, pick);
    let Some((entries, origin)) = found.map_err(|e| cannot_look_up(name, &e))? else { return Ok(None) };
    let arches = arches(entries.iter().map(|k| &k.about.arch));
    let mine = entries.into_iter().find(|k| k.about.arch == ARCH);
    mine.map(Some).ok_or_else(|| other_arch("kernel", name, &origin, &arches))
}

/// The first kernel for this machine that there is in a catalog.
pub fn any_kernel(
    d: &Daemon,
    op: &Op,
    brought: &BTreeMap<String, String>,
) -> Result<Option<KernelEntry>, CatalogError> {
    let pick = |catalog: Catalog| catalog.kernels.into_iter().find(|k| k.about.arch == ARCH);
    Ok(catalog::first(&settings(d, Some(brought)), op, pick)?.map(|(entry, _)| entry))
}

/// No catalog has a kernel of this name.
pub fn no_such_kernel(d: &Daemon, name: &str) -> Fault {
    let catalogs =
        catalog::each(&settings(d, None), &Silent).filter_map(|turn| turn.catalog.ok()).collect::<Vec<_>>();
    let kernels = catalogs.iter().flat_map(|c| &c.kernels).filter(|k| k.about.arch == ARCH);
    let hint = match nearest(name, kernels.map(|k| k.about.name.as_str())) {
        Some(near) => format!("did you mean {near}?"),
        None => "`banger kernel list --available` shows what there is".to_owned(),
    };
    Fault::new(Code::NotFound, format!("there is no kernel {name:?} in the catalogs; {hint}"))
}

/// The one in banger takes no time.
fn tell(d: &Daemon, op: &Op, name: &str) {
    if !d.config.catalogs.is_empty() {
        op.stage(&format!("looking up {name} in the catalogs"));
    }
}

fn some<T>(found: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let found: Vec<T> = found.collect();
    (!found.is_empty()).then_some(found)
}

fn arches<'a>(all: impl Iterator<Item = &'a String>) -> String {
    all.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn cannot_look_up(name: &str, e: &CatalogError) -> Fault {
    match e {
        CatalogError::Cancelled => Fault::new(Code::Failed, "cancelled"),
        e => Fault::failed(format!("cannot look up {name} in the catalogs"), e),
    }
}

fn other_arch(noun: &str, name: &str, origin: &catalog::Origin, have: &str) -> Fault {
    let text = format!("the {noun} {name} of the catalog {origin} is for {have}, and this machine is {ARCH}");
    Fault::new(Code::NotFound, text)
}

/// The images that the catalogs offer for this machine. A catalog that cannot be had is told of, and the others count.
pub async fn images(d: &Shared, op: &Op, wanted: ImageCatalog) -> Result<Vec<ImageOffer>, Fault> {
    let op = op.clone();
    let brought = (!wanted.offline).then_some(wanted.environment);
    blocking(d, move |d| {
        let records = d.store.all::<ImageRecord>()?;
        let mut offers = vec![];
        collect(d, &op, brought.as_ref(), |catalog, origin, seen| {
            // The first catalog that has a name decides, even if what it has is for another machine.
            let new: Vec<_> = catalog.images.into_iter().filter(|i| !seen.contains(&i.about.name)).collect();
            seen.extend(new.iter().map(|i| i.about.name.clone()));
            let mine = new.into_iter().filter(|i| i.about.arch == ARCH);
            offers.extend(mine.map(|entry| image_offer(entry, origin, &records)));
        })?;
        Ok(offers)
    })
    .await
}

/// The same for kernels.
pub async fn kernels(d: &Shared, op: &Op, wanted: KernelCatalog) -> Result<Vec<KernelOffer>, Fault> {
    let op = op.clone();
    let brought = (!wanted.offline).then_some(wanted.environment);
    blocking(d, move |d| {
        let records = d.store.all::<KernelRecord>()?;
        let mut offers = vec![];
        collect(d, &op, brought.as_ref(), |catalog, origin, seen| {
            let new: Vec<_> = catalog.kernels.into_iter().filter(|k| !seen.contains(&k.about.name)).collect();
            seen.extend(new.iter().map(|k| k.about.name.clone()));
            let mine = new.into_iter().filter(|k| k.about.arch == ARCH);
            offers.extend(mine.map(|entry| kernel_offer(entry, origin, &records)));
        })?;
        Ok(offers)
    })
    .await
}

fn collect(
    d: &Daemon,
    op: &Op,
    brought: Option<&BTreeMap<String, String>>,
    mut take: impl FnMut(Catalog, &str, &mut BTreeSet<String>),
) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for Turn { origin, catalog } in catalog::each(&settings(d, brought), op) {
        match catalog {
            Ok(catalog) => take(catalog, &origin.to_string(), &mut seen),
            Err(CatalogError::Cancelled) => return Err(Fault::new(Code::Failed, "cancelled")),
            Err(e) => op.note(&chain(&e)),
        }
    }
    Ok(())
}

fn image_offer(entry: ImageEntry, origin: &str, records: &[ImageRecord]) -> ImageOffer {
    let there = records.iter().find(|record| record.names.contains(&entry.about.name));
    let (source, bytes, pulled) = match &entry.source {
        // What a registry has for it now is not known without asking.
        ImageSource::Reference(reference) => (reference.to_string(), None, there.is_some()),
        ImageSource::Bundle(bundle) => {
            let digest = bundle.digest.to_string();
            let pulled = there.is_some_and(|record| record.digest.as_ref() == Some(&digest));
            (bundle.location.to_string(), Some(bundle.size), pulled)
        }
    };
    let about = entry.about;
    ImageOffer {
        name: about.name,
        distro: about.distro,
        arch: about.arch,
        kernel: about.kernel,
        description: about.description,
        source,
        bytes,
        state: state(pulled),
        catalog: origin.to_owned(),
    }
}

fn kernel_offer(entry: KernelEntry, origin: &str, records: &[KernelRecord]) -> KernelOffer {
    let KernelEntry { about, bundle } = entry;
    let there = records.iter().find(|record| record.name == about.name);
    let pulled = there.is_some_and(|record| record.bundle.as_deref() == Some(bundle.digest.hex()));
    KernelOffer {
        name: about.name,
        version: about.version,
        arch: about.arch,
        description: about.description,
        source: bundle.location.to_string(),
        bytes: bundle.size,
        state: state(pulled),
        catalog: origin.to_owned(),
    }
}

fn state(pulled: bool) -> OfferState {
    if pulled { OfferState::Pulled } else { OfferState::Available }
}
