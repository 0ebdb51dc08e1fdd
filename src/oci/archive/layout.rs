//! An OCI image layout (image-spec image-layout.md): `oci-layout`, `index.json`, and blobs by digest.

use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, Document, MAX_DOCUMENT, harmless, parse};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::oci::archive::docker::{Saved, local_names};
use crate::oci::archive::shelf::Shelf;
use crate::oci::archive::{Image, no_image};
use crate::oci::blob::Blob;
use crate::oci::error::OciError;
use crate::oci::region::Region;
use crate::oci::registry::verify;
use crate::oci::select::{Content, Found, document_of, find, layers, none};

/// As many of index.json's entries are looked into.
const MAX_ENTRIES: usize = 256;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and docker's annotation with the whole reference; theirs in REF_NAME is the tag alone.
const FULL_NAME: &str = "io.containerd.image.name";

/// Whether it is a layout: it has the two files that the specification wants.
pub fn is(shelf: &Shelf) -> Result<bool, OciError> {
    let there = |name| shelf.file(name).map_err(|e| OciError::io(format!("read {name}"), e));
    Ok(there("oci-layout")?.is_some() && there("index.json")?.is_some())
}

struct Layout {
    name: String,
    shelf: Shelf,
}

/// Opens the image for this machine. `saved` is docker's own list, where `docker save` wrote both.
pub fn open(name: &str, shelf: Shelf, saved: Option<&[Saved]>, wanted: &Platform) -> Result<Image, OciError> {
    let index = shelf.file("index.json").map_err(|e| OciError::io("read index.json", e))?;
    let index = index.ok_or_else(|| no_image(name, "it has no index.json"))?;
    let bytes = index.read_all(MAX_DOCUMENT).map_err(|e| OciError::io("read index.json", e))?;
    let bytes = bytes.ok_or_else(|| no_image(name, "its index.json is larger than 4 MiB"))?;
    let mut layout = Layout { name: name.to_owned(), shelf };
    let bad = |source| OciError::Manifest { image: name.to_owned(), source };
    let entries = match parse(&bytes, None).map_err(bad)? {
        Document::Index(entries) => entries,
        Document::Manifest(_) => return Err(no_image(name, "its index.json is no index")),
    };
    let (entry, found) = pick(&mut layout, &entries, wanted)?;
    let named: Vec<&str> = match saved {
        Some([one]) => one.tags().collect(),
        _ => entry.annotation(FULL_NAME).or(entry.annotation(REF_NAME)).into_iter().collect(),
    };
    let layers = layers(&found, |descriptor| layout.blob("layer", descriptor).map(Blob::Here))?;
    let platform = found.configuration.platform();
    Ok(Image {
        // A tag alone is no name, unless it is a word of somebody's own: then it is all that there is.
        names: local_names(named.into_iter().filter(|n| *n != "latest")),
        digest: Some(entry.digest.clone()),
        arch: if platform.architecture.is_empty() {
            wanted.architecture.clone()
        } else {
            platform.architecture
        },
        config: found.configuration.process(),
        layers,
    })
}

/// The one entry that has an image for this machine.
fn pick<'e>(
    layout: &mut Layout,
    entries: &'e [Descriptor],
    wanted: &Platform,
) -> Result<(&'e Descriptor, Found), OciError> {
    let mut have: Vec<Platform> = vec![];
    let mut fitting: Vec<(&Descriptor, Found)> = vec![];
    for entry in entries.iter().filter(|e| !e.is_about_another()).take(MAX_ENTRIES) {
        let told = entry.platform.as_ref().filter(|p| !p.architecture.is_empty());
        if let Some(other) = told.filter(|p| p.rank(wanted).is_none()) {
            have.push(other.clone());
            continue;
        }
        // The same image under a second name is one image.
        if let Some((first, _)) = fitting.iter().find(|(first, _)| first.digest == entry.digest) {
            log::debug!("{}: {} is listed twice", layout.name, first.digest);
            continue;
        }
        let document = document_of(layout, entry)?;
        if let Some(found) = find(layout, document, wanted, 0, &mut have)? {
            fitting.push((entry, found));
        }
    }
    if fitting.len() > 1 {
        let called = |e: &Descriptor| {
            e.annotation(FULL_NAME).or(e.annotation(REF_NAME)).map_or_else(|| e.digest.to_string(), harmless)
        };
        let have = fitting.iter().map(|(entry, _)| called(entry)).take(20).collect();
        return Err(OciError::Several { source_name: layout.name.clone(), have });
    }
    fitting.pop().ok_or_else(|| none(&layout.name, wanted, have))
}

impl Layout {
    fn file(&self, what: &'static str, digest: &Digest) -> Result<Region, OciError> {
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let file = self.shelf.file(&path).map_err(|e| OciError::io(format!("read {path}"), e))?;
        file.ok_or_else(|| no_image(&self.name, &format!("the {what} {digest} is missing in it")))
    }

    fn sized(&self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError> {
        let region = self.file(what, &descriptor.digest)?;
        if region.len() == descriptor.size {
            return Ok(region);
        }
        Err(OciError::wrong_size(what, &descriptor.digest, descriptor.size, region.len()))
    }
}

impl Content for Layout {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let region = self.sized("manifest", descriptor)?;
        let bytes = region.read_all(MAX_DOCUMENT).map_err(|e| OciError::io("read a manifest", e))?;
        let bytes = bytes.ok_or_else(|| no_image(&self.name, "a manifest is larger than 4 MiB"))?;
        verify("manifest", descriptor, &bytes)?;
        Ok(bytes)
    }

    fn blob(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError> {
        self.sized(what, descriptor)
    }
}

/// A stranger's name for an image as it is kept here; None: it is none.
pub fn local_name(text: &str) -> Option<String> {
    text.parse::<Reference>().ok().map(|r| r.local_name())
}
