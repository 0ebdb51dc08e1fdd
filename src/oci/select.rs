//! From an index, or a manifest, to the one image that is for this machine.

use crate::image::manifest::{
    BadManifest, Configuration, Descriptor, Document, MAX_DOCUMENT, MAX_INDEX_DEPTH, Manifest, parse,
};
use crate::image::platform::Platform;
use crate::oci::blob::Blob;
use crate::oci::error::OciError;
use crate::oci::hash;
use crate::oci::layer::Layer;
use crate::oci::region::Region;

/// Where an image's parts come from: a registry, or an archive.
pub trait Content {
    /// What people call it, for errors.
    fn name(&self) -> String;
    /// A manifest or an index, as long as the descriptor says, and verified.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError>;
    /// A configuration or a layer, as long as the descriptor says; verified by whoever reads it.
    fn blob(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Region, OciError>;
}

/// The image for this machine.
#[derive(Debug)]
pub struct Found {
    pub manifest: Manifest,
    pub configuration: Configuration,
}

/// As many of an index's images are looked into for their platform, where the index does not tell it.
const MAX_LOOKED_INTO: usize = 16;

/// The image in `document` that a machine of `arch` runs.
///
/// # Errors
/// [`OciError::Architecture`] with what there is, if none is.
pub fn choose(content: &mut dyn Content, document: Document, wanted: &Platform) -> Result<Found, OciError> {
    let mut have = vec![];
    match find(content, document, wanted, 0, &mut have)? {
        Some(found) => Ok(found),
        None => Err(none(&content.name(), wanted, have)),
    }
}

/// The refusal that lists what there is.
pub fn none(image: &str, wanted: &Platform, mut have: Vec<Platform>) -> OciError {
    have.sort();
    have.dedup();
    let mut have: Vec<String> =
        have.iter().map(|p| crate::image::manifest::harmless(&p.to_string())).take(20).collect();
    if have.is_empty() {
        have.push("none at all".to_owned());
    }
    OciError::Architecture { image: image.to_owned(), wanted: wanted.to_string(), have }
}

/// As [`choose`], but an image for another machine is no error: what was seen is added to `have`.
pub fn find(
    content: &mut dyn Content,
    document: Document,
    wanted: &Platform,
    depth: usize,
    have: &mut Vec<Platform>,
) -> Result<Option<Found>, OciError> {
    let listed = match document {
        Document::Index(listed) => listed,
        Document::Manifest(manifest) => return fits(content, manifest, wanted, have),
    };
    if depth >= MAX_INDEX_DEPTH {
        let why = format!("it nests indexes more than {MAX_INDEX_DEPTH} deep");
        return Err(OciError::Manifest { image: content.name(), source: BadManifest::Malformed(why) });
    }
    let images = listed.into_iter().filter(|d| !d.is_about_another());
    let (told, untold): (Vec<_>, Vec<_>) =
        images.partition(|d| d.platform.as_ref().is_some_and(|p| !p.architecture.is_empty()));
    let rank = |d: &Descriptor| d.platform.as_ref().and_then(|p| p.rank(wanted));
    // Of equals the first, as docker takes it.
    let best = told.iter().filter_map(|d| Some((rank(d)?, d))).min_by_key(|(rank, _)| *rank);
    if let Some((_, best)) = best {
        let document = document_of(content, best)?;
        return find(content, document, wanted, depth + 1, have);
    }
    have.extend(told.into_iter().filter_map(|d| d.platform));
    for descriptor in untold.iter().take(MAX_LOOKED_INTO) {
        let document = document_of(content, descriptor)?;
        if let Some(found) = find(content, document, wanted, depth + 1, have)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The document that a descriptor points to.
pub fn document_of(content: &mut dyn Content, descriptor: &Descriptor) -> Result<Document, OciError> {
    let bytes = content.document(descriptor)?;
    parse(&bytes, Some(&descriptor.media_type))
        .map_err(|source| OciError::Manifest { image: content.name(), source })
}

fn fits(
    content: &mut dyn Content,
    manifest: Manifest,
    wanted: &Platform,
    have: &mut Vec<Platform>,
) -> Result<Option<Found>, OciError> {
    let bad = |image: String, source| OciError::Manifest { image, source };
    let blob = content.blob("configuration", &manifest.config)?;
    let bytes = blob
        .read_all(MAX_DOCUMENT)
        .map_err(|e| OciError::io("read the image's configuration", e))?
        .ok_or_else(|| {
        bad(content.name(), BadManifest::TooBig("its configuration is larger than 4 MiB".to_owned()))
    })?;
    hash::check(&bytes, &manifest.config.digest)
        .map_err(|found| OciError::wrong_digest("configuration", &manifest.config.digest, &found))?;
    let configuration = Configuration::parse(&bytes).map_err(|e| bad(content.name(), e))?;
    let (ids, layers) = (configuration.diff_ids().len(), manifest.layers.len());
    if ids != layers {
        let why = format!("it has {layers} layers, but its configuration has {ids} diff IDs");
        return Err(bad(content.name(), BadManifest::Contradicts(why)));
    }
    let platform = configuration.platform();
    if platform.architecture.is_empty() || platform.rank(wanted).is_some() {
        return Ok(Some(Found { manifest, configuration }));
    }
    have.push(platform);
    Ok(None)
}

/// The image's layers, whose bytes `open` gives, with what must be true of each.
pub fn layers(
    found: &Found,
    mut open: impl FnMut(&Descriptor) -> Result<Blob, OciError>,
) -> Result<Vec<Layer>, OciError> {
    let pairs = found.manifest.layers.iter().zip(found.configuration.diff_ids());
    pairs
        .map(|(descriptor, diff_id)| {
            let bytes = open(descriptor)?;
            Ok(Layer::new(bytes, Some(descriptor.digest.clone()), diff_id.clone()))
        })
        .collect()
}
