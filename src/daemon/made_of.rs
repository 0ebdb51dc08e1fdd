//! What a new VM is made of: an image and a kernel, pulled where they are not here.
//!
//! ```text
//!  image    --image, else the configuration's, else debian-bookworm   here?  else a catalog's, else a registry's
//!  kernel   --kernel, else the one that the image wants, else the default one, else the first of a catalog
//! ```
//!
//! What nobody asked for by name is pulled with a line that says so. The kernel comes first: it is small, and without one the image
//! would be of no use.

use std::collections::BTreeMap;
use std::path::Path;

use crate::catalog::record::ImageEntry;
use crate::daemon::fault::{Fault, chain};
use crate::daemon::names::Names;
use crate::daemon::op::Op;
use crate::daemon::pulls::{self, Wish};
use crate::daemon::{Daemon, Shared, blocking, catalogs, images, kernels};
use crate::host::progress::Progress;
use crate::image::record::ImageRecord;
use crate::image::reference::Reference;
use crate::kernel::import;
use crate::kernel::record::KernelRecord;
use crate::proto::api::Code;
use crate::vm::lookup::LookupError;

/// The image of a new VM.
pub enum Wanted {
    /// An image that is here, and what it was called.
    Here(ImageRecord, String),
    /// One to be pulled.
    Entry(ImageEntry),
    Reference(Reference),
}

impl Wanted {
    /// The name of the kernel that it wants.
    pub fn kernel(&self) -> Option<&str> {
        match self {
            Self::Here(record, _) => record.kernel.as_deref(),
            Self::Entry(entry) => entry.about.kernel.as_deref(),
            Self::Reference(_) => None,
        }
    }
}

/// The image that a new VM asks for. Without a wish: the default one.
///
/// `environment` is what the caller brings along for transfers, here and below.
pub async fn image(
    d: &Shared,
    op: &Op,
    typed: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<Wanted, Fault> {
    let name = match typed {
        Some(typed) => typed,
        None => default_name(d)?,
    };
    let unknown = match images::look_up(d, name)? {
        Ok(record) => return Ok(Wanted::Here(record, name.to_owned())),
        Err(LookupError::Unknown { .. }) => {
            LookupError::Unknown { noun: "image", typed: name.to_owned(), near: None }
        }
        Err(ambiguous) => return Err(ambiguous.into()),
    };
    let Ok(reference) = name.parse::<Reference>() else { return Err(unknown.into()) };
    Ok(match catalogs::image(d, op, name, environment).await? {
        Some(entry) => Wanted::Entry(entry),
        None => Wanted::Reference(reference),
    })
}

/// What the configuration says; else the catalog's image, or, where that has not been pulled, one that somebody has called
/// `debian`, as install.sh does with what it makes of Debian's packages.
pub fn default_name(d: &Daemon) -> Result<&str, Fault> {
    const OWN: &str = "debian";
    let default = d.config.default_image.as_str();
    if d.config.default_image_is_set {
        return Ok(default);
    }
    let records = d.store.all::<ImageRecord>()?;
    let is_here = |name: &str| records.iter().any(|record| record.names.iter().any(|n| n == name));
    Ok(if is_here(OWN) && !is_here(default) { OWN } else { default })
}

/// The image, pulled where it is not here, and what it was called. `typed` is what was asked for, if anything was.
pub async fn here(
    d: &Shared,
    op: &Op,
    wanted: Wanted,
    typed: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<(ImageRecord, String), Fault> {
    let (name, from) = match &wanted {
        Wanted::Here(record, name) => return Ok((record.clone(), name.clone())),
        Wanted::Entry(ImageEntry { about, source }) => (about.name.clone(), source.to_string()),
        Wanted::Reference(reference) => (reference.local_name(), reference.to_string()),
    };
    if typed.is_none() {
        op.note(&format!("there is no image {name} here yet; pulling it from {from}"));
    }
    let wish = Wish::plain(Names::new(vec![name.clone()], None, false), environment);
    let pulled = match wanted {
        Wanted::Here(record, _) => Ok(record),
        Wanted::Entry(entry) => pulls::pull_entry(d, op, entry, wish).await,
        Wanted::Reference(reference) => pulls::pull_reference(d, op, reference, wish).await,
    };
    match pulled {
        Ok(record) => Ok((record, name)),
        Err(fault) if typed.is_none() => Err(Fault {
            message: format!(
                "there is no image {name} here yet, and it could not be pulled ({}); get one with `banger image pull REF` or \
                 `banger image import PATH`, and name it with --image",
                fault.message
            ),
            ..fault
        }),
        Err(fault) => Err(fault.within(format!("there is no image {:?} here", typed.unwrap_or(&name)))),
    }
}

/// The kernel of a new VM.
pub struct Chosen {
    pub record: KernelRecord,
    /// The VM keeps it, whatever the default will be.
    pub pinned: bool,
}

/// The kernel that a new VM asks for; else the one that its image wants; else the default one; and where there is none yet, the
/// first one that a catalog has. What a catalog has is pulled.
pub async fn kernel(
    d: &Shared,
    op: &Op,
    typed: Option<&str>,
    image_wants: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<Chosen, Fault> {
    if let Some(typed) = typed {
        return Ok(Chosen { record: kernels::find(d, typed)?, pinned: true });
    }
    if let Some(name) = image_wants {
        if let Some(record) = d.store.get::<KernelRecord>(name)? {
            return Ok(Chosen { record, pinned: true });
        }
        if let Some(record) = pull_for_image(d, op, name, environment).await? {
            return Ok(Chosen { record, pinned: true });
        }
    }
    if let Some(record) = kernels::default_kernel(d)? {
        return Ok(Chosen { record, pinned: false });
    }
    let offered = {
        let (op, environment) = (op.clone(), environment.clone());
        blocking(d, move |d| catalogs::any_kernel(d, &op, &environment)).await
    };
    match offered {
        Ok(Some(entry)) => {
            op.note(&format!(
                "there is no kernel here yet; pulling {} from {}",
                entry.about.name, entry.bundle.location
            ));
            let record = kernels::pull_entry(d, op, entry, false, environment).await?;
            Ok(Chosen { record, pinned: false })
        }
        Ok(None) => Err(no_kernel("")),
        Err(e) => Err(no_kernel(&format!(", and the catalogs cannot be asked for one ({})", chain(&e)))),
    }
}

/// The kernel that an image wants and that is not here; None: there is no such kernel to be had, but another to go on with.
async fn pull_for_image(
    d: &Shared,
    op: &Op,
    name: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Option<KernelRecord>, Fault> {
    let looked = {
        let (op, name, environment) = (op.clone(), name.to_owned(), environment.clone());
        blocking(d, move |d| catalogs::kernel(d, &op, &name, &environment)).await
    };
    let pulled = match looked {
        Ok(Some(entry)) => {
            op.note(&format!("the image wants the kernel {name}; pulling it from {}", entry.bundle.location));
            kernels::pull_entry(d, op, entry, false, environment).await.map(Some)
        }
        Ok(None) => Ok(None),
        Err(fault) => Err(fault),
    };
    let why = match pulled {
        Ok(Some(record)) => return Ok(Some(record)),
        Ok(None) => "no catalog has it".to_owned(),
        Err(fault) if op.cancelled() => return Err(fault),
        Err(fault) => fault.message,
    };
    if kernels::default_kernel(d)?.is_some() {
        op.note(&format!(
            "the image wants the kernel {name}, which is not here; the default one is taken ({why})"
        ));
    }
    Ok(None)
}

/// There is no kernel, and nobody has one for us; `besides` says more of that.
pub fn no_kernel(besides: &str) -> Fault {
    let host = import::host_is_readable(Path::new("/"), &import::running_release());
    Fault::new(Code::NotFound, no_kernel_text(host, besides))
}

/// What works comes first.
fn no_kernel_text(host_is_readable: bool, besides: &str) -> String {
    let host = "`banger kernel import --host` takes the one that this machine runs";
    let deb = "`banger kernel import --deb FILE` takes one from a Debian package linux-image-*.deb";
    let from = "`banger kernel import --from DIR` one of your own";
    match host_is_readable {
        true => format!("there is no kernel yet{besides}; {host}, {deb}, {from}"),
        false => format!(
            "there is no kernel yet{besides}; {deb}, {from}; {host}, which this user cannot read here"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_kernel_what_works_here_is_said_first() {
        let at =
            |text: &str, what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
        let readable = no_kernel_text(true, "");
        assert!(at(&readable, "--host`") < at(&readable, "--deb FILE`"), "{readable}");
        let not = no_kernel_text(false, ", and x");
        assert!(at(&not, "--deb FILE`") < at(&not, "--host`"), "{not}");
        assert!(not.starts_with("there is no kernel yet, and x; "), "{not}");
    }
}
