//! What `docker save` wrote before it wrote layouts: `manifest.json` with the names of a configuration and of layers, which
//! are plain tars (moby image/spec/v1.2.md).

use serde::Deserialize;

use crate::image::digest::Digest;
use crate::image::manifest::{BadManifest, Configuration, MAX_DOCUMENT, harmless};
use crate::image::platform::Platform;
use crate::oci::archive::layout::local_name;
use crate::oci::archive::shelf::Shelf;
use crate::oci::archive::{Image, no_image};
use crate::oci::blob::Blob;
use crate::oci::error::OciError;
use crate::oci::hash;
use crate::oci::layer::Layer;
use crate::oci::select::none;

/// So many configurations, which may all be the same large one, are read to find the one that is for this machine.
const MAX_SAVED: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Saved {
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.repo_tags.iter().flatten().map(String::as_str)
    }

    fn shown(&self) -> String {
        harmless(self.tags().next().unwrap_or(&self.config))
    }
}

/// The list of saved images; None: the archive is not docker's. A root file system may have a manifest.json of its own.
pub fn manifest(shelf: &Shelf) -> Result<Option<Vec<Saved>>, OciError> {
    let read = |e| OciError::io("read manifest.json", e);
    let Some(file) = shelf.file("manifest.json").map_err(read)? else { return Ok(None) };
    let Some(bytes) = file.read_all(MAX_DOCUMENT).map_err(read)? else { return Ok(None) };
    Ok(serde_json::from_slice::<Vec<Saved>>(&bytes).ok().filter(|saved| !saved.is_empty()))
}

/// Opens the saved image that is for this machine.
pub fn open(name: &str, shelf: &Shelf, saved: Vec<Saved>, wanted: &Platform) -> Result<Image, OciError> {
    if saved.len() > MAX_SAVED {
        return Err(no_image(
            name,
            &format!("it has {} images; save the one that is meant alone", saved.len()),
        ));
    }
    let mut have = vec![];
    let mut fitting = vec![];
    for one in saved {
        let configuration = configuration(name, shelf, &one)?;
        let platform = configuration.platform();
        if platform.architecture.is_empty() || platform.rank(wanted).is_some() {
            fitting.push((one, configuration));
        } else {
            have.push(platform);
        }
    }
    if fitting.len() > 1 {
        let have = fitting.iter().map(|(one, _)| one.shown()).take(20).collect();
        return Err(OciError::Several { source_name: name.to_owned(), have });
    }
    let Some((saved, configuration)) = fitting.pop() else { return Err(none(name, wanted, have)) };
    let paths = saved.layers.as_deref().unwrap_or_default();
    let ids = configuration.diff_ids();
    if paths.len() != ids.len() {
        let why = format!("it has {} layers, but its configuration has {} diff IDs", paths.len(), ids.len());
        return Err(OciError::Manifest { image: name.to_owned(), source: BadManifest::Contradicts(why) });
    }
    let layers = paths.iter().zip(ids).map(|(path, diff_id)| {
        let file = shelf.file(path).map_err(|e| OciError::io(format!("read {}", harmless(path)), e))?;
        let missing = || no_image(name, &format!("the layer {} is missing in it", harmless(path)));
        Ok(Layer::new(Blob::Here(file.ok_or_else(missing)?), None, diff_id.clone()))
    });
    let layers = layers.collect::<Result<Vec<Layer>, OciError>>()?;
    let platform = configuration.platform();
    Ok(Image {
        names: local_names(saved.tags()),
        digest: None,
        arch: if platform.architecture.is_empty() {
            wanted.architecture.clone()
        } else {
            platform.architecture
        },
        config: configuration.process(),
        layers,
    })
}

fn configuration(name: &str, shelf: &Shelf, saved: &Saved) -> Result<Configuration, OciError> {
    let shown = harmless(&saved.config);
    let read = |e| OciError::io(format!("read {shown}"), e);
    let file = shelf.file(&saved.config).map_err(read)?;
    let file = file.ok_or_else(|| no_image(name, &format!("its configuration {shown} is missing")))?;
    let bytes = file.read_all(MAX_DOCUMENT).map_err(read)?;
    let bytes = bytes.ok_or_else(|| no_image(name, "its configuration is larger than 4 MiB"))?;
    // The file is named by its digest, with `.json` behind it or as a layout has it.
    let last = saved.config.rsplit('/').next().unwrap_or_default();
    let hex = last.strip_suffix(".json").unwrap_or(last);
    if let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() {
        hash::check(&bytes, &digest)
            .map_err(|found| OciError::wrong_digest("configuration", &digest, &found))?;
    }
    Configuration::parse(&bytes).map_err(|source| OciError::Manifest { image: name.to_owned(), source })
}

/// The names that are names, as they are kept here.
pub fn local_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut known: Vec<String> = vec![];
    for name in names.filter_map(local_name) {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_end_of_one_configuration_is_refused_before_it_is_read() {
        let shelf = Shelf::directory("/nowhere".into());
        let list = format!("[{}]", vec![r#"{"Config":"a"}"#; MAX_SAVED + 1].join(","));
        let saved = serde_json::from_str(&list).expect("a list");
        let error = open("x.tar", &shelf, saved, &Platform::linux("amd64")).expect_err("refused").to_string();
        assert!(error.contains("it has 257 images; save the one that is meant alone"), "{error}");
    }
}
