//! Manifests: what a registry or a layout says that an image is made of. OCI and docker v2 schema 2, which differ in
//! their media types only.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::image::config::ImageConfig;
use crate::image::digest::Digest;
use crate::image::platform::Platform;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest, index or configuration, in bytes (distribution-spec: registries accept 4 MiB).
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// How deep an index may lie in an index.
pub const MAX_INDEX_DEPTH: usize = 4;
/// The largest blob, in bytes.
pub const MAX_BLOB: u64 = 16 << 30;
/// Docker stacks at most 127.
const MAX_LAYERS: usize = 1024;

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Whether it lists no image but something about one (a signature, BuildKit's attestations).
    pub fn is_about_another(&self) -> bool {
        self.platform.as_ref().is_some_and(Platform::is_attestation)
            || self.annotation("vnd.docker.reference.type").is_some()
    }
}

/// The parsed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    /// Oldest first.
    pub layers: Vec<Descriptor>,
}

/// Why a document describes no image that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadManifest {
    /// Not JSON, or a field is missing or wrong.
    Malformed(String),
    /// Its parts say different things of what it is (CVE-2021-41190).
    Contradicts(String),
    /// An image in docker's format of before 2016.
    Schema1,
    /// Not a container image but something else that registries hold.
    NotAnImage(String),
    TooBig(String),
}

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the manifest is malformed: {why}"),
            Self::Contradicts(why) => write!(f, "the manifest contradicts itself: {why}"),
            Self::Schema1 => {
                f.write_str("it is in docker's old schema 1; push it again with a current docker")
            }
            Self::NotAnImage(what) => write!(f, "it is no container image but {what}"),
            Self::TooBig(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BadManifest {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses a manifest or an index. `said` is what the one who handed it over called it (Content-Type, or the descriptor's
/// media type), where they said anything.
pub fn parse(bytes: &[u8], said: Option<&str>) -> Result<Document, BadManifest> {
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|e| BadManifest::Malformed(harmless(&e.to_string())))?;
    if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
        return Err(BadManifest::Schema1);
    }
    if raw.schema_version != Some(2) {
        return Err(BadManifest::Malformed("schemaVersion is not 2".to_owned()));
    }
    let said = said.and_then(is_index_type);
    let own = match raw.media_type.as_deref() {
        None | Some("") => None,
        Some(text) => Some(
            is_index_type(text).ok_or_else(|| BadManifest::NotAnImage(format!("a {}", harmless(text))))?,
        ),
    };
    if let (Some(said), Some(own)) = (said, own)
        && said != own
    {
        return Err(BadManifest::Contradicts("it came as another media type than it names".to_owned()));
    }
    let has_image = raw.config.is_some() || raw.layers.is_some();
    match (raw.manifests, has_image) {
        (Some(_), true) => Err(BadManifest::Contradicts("it has both manifests and layers".to_owned())),
        (None, false) => Err(BadManifest::Malformed("it has neither manifests nor layers".to_owned())),
        (Some(_), false) if own.or(said) == Some(false) => {
            Err(BadManifest::Contradicts("it is called an image manifest but lists manifests".to_owned()))
        }
        (None, true) if own.or(said) == Some(true) => {
            Err(BadManifest::Contradicts("it is called an index but lists layers".to_owned()))
        }
        (Some(manifests), false) => Ok(Document::Index(manifests)),
        (None, true) => image(raw.config, raw.layers.unwrap_or_default()).map(Document::Manifest),
    }
}

fn image(config: Option<Descriptor>, layers: Vec<Descriptor>) -> Result<Manifest, BadManifest> {
    let config = config.ok_or_else(|| BadManifest::Malformed("it has no config".to_owned()))?;
    let known = [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        // Written by some older builders.
        "application/octet-stream",
        "",
    ];
    if !known.contains(&config.media_type.as_str()) {
        return Err(BadManifest::NotAnImage(format!("an artifact with a {}", harmless(&config.media_type))));
    }
    if config.size > MAX_DOCUMENT {
        return Err(BadManifest::TooBig("its configuration is larger than 4 MiB".to_owned()));
    }
    if layers.len() > MAX_LAYERS {
        return Err(BadManifest::TooBig(format!("it has more than {MAX_LAYERS} layers")));
    }
    for layer in &layers {
        if !is_layer_type(&layer.media_type) {
            let what = format!("holds a {}", harmless(&layer.media_type));
            return Err(BadManifest::NotAnImage(format!("something that {what}")));
        }
        if layer.size > MAX_BLOB {
            return Err(BadManifest::TooBig(format!("layer {} is larger than 16 GiB", layer.digest)));
        }
    }
    Ok(Manifest { config, layers })
}

/// Some(whether it names an index); None: something else, or a type that says nothing such as `application/json`.
fn is_index_type(text: &str) -> Option<bool> {
    match text.split(';').next().unwrap_or_default().trim() {
        OCI_INDEX | DOCKER_LIST => Some(true),
        OCI_MANIFEST | DOCKER_MANIFEST => Some(false),
        _ => None,
    }
}

/// What a layer is packed with is read from its content, as containerd does; here it only has to be a file system's, and not
/// be wrapped in anything else, such as `+encrypted`.
fn is_layer_type(text: &str) -> bool {
    const TARS: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let tar = TARS.iter().find_map(|tar| text.strip_prefix(tar));
    tar.is_some_and(|packing| matches!(packing, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd" | "+xz"))
        || matches!(text, "" | "application/octet-stream")
}

/// The image configuration (image-spec config.md), as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Configuration {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub variant: Option<String>,
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RootFs,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

impl Configuration {
    /// Parses the blob that [`Manifest::config`] points to.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        serde_json::from_slice(bytes).map_err(|e| {
            BadManifest::Malformed(format!("in the image's configuration, {}", harmless(&e.to_string())))
        })
    }

    /// The digest of each layer's content when unpacked, oldest first.
    pub fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    pub fn process(&self) -> ImageConfig {
        self.config.clone().unwrap_or_default()
    }

    pub fn platform(&self) -> Platform {
        let or_linux = |os: &str| if os.is_empty() { "linux".to_owned() } else { os.to_owned() };
        Platform {
            os: or_linux(&self.os),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().filter(|v| !v.is_empty()),
        }
    }
}

/// A stranger's text, short and without anything that a terminal would obey.
pub fn harmless(text: &str) -> String {
    const MAX: usize = 200;
    let mut shown: String = text.trim().chars().take(MAX).flat_map(char::escape_debug).collect();
    // escape_debug is for literals; in a sentence quotes are themselves.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if text.trim().chars().nth(MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":7}}"#)
    }

    fn manifest(head: &str) -> String {
        let (config, layer) = (descriptor(CONFIG), descriptor(LAYER));
        format!(r#"{{"schemaVersion":2{head},"config":{config},"layers":[{layer}]}}"#)
    }

    fn index(head: &str) -> String {
        format!(r#"{{"schemaVersion":2{head},"manifests":[{}]}}"#, descriptor(OCI_MANIFEST))
    }

    #[test]
    fn documents_are_told_apart_with_and_without_media_types() {
        for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
            let head = format!(r#","mediaType":"{media_type}""#);
            for said in [None, Some(media_type), Some("application/json"), Some("text/plain; charset=utf-8")]
            {
                assert!(matches!(parse(manifest(&head).as_bytes(), said), Ok(Document::Manifest(_))));
                assert!(matches!(parse(manifest("").as_bytes(), said), Ok(Document::Manifest(_))));
            }
        }
        for media_type in [OCI_INDEX, DOCKER_LIST] {
            let head = format!(r#","mediaType":"{media_type}""#);
            assert!(matches!(parse(index(&head).as_bytes(), Some(media_type)), Ok(Document::Index(_))));
            assert!(matches!(parse(index("").as_bytes(), None), Ok(Document::Index(_))));
        }
    }

    #[test]
    fn a_document_that_contradicts_itself_is_refused() {
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}}"#, descriptor(CONFIG));
        let table = [
            (both, None),
            (manifest(&format!(r#","mediaType":"{OCI_INDEX}""#)), None),
            (index(&format!(r#","mediaType":"{OCI_MANIFEST}""#)), None),
            (manifest(""), Some(OCI_INDEX)),
            (index(""), Some(DOCKER_MANIFEST)),
            (manifest(&format!(r#","mediaType":"{OCI_MANIFEST}""#)), Some(DOCKER_LIST)),
        ];
        for (text, said) in table {
            let error = parse(text.as_bytes(), said).expect_err(&text);
            assert!(matches!(error, BadManifest::Contradicts(_)), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused_with_the_reason() {
        let artifact = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
            descriptor("application/vnd.cncf.helm.config.v1+json")
        );
        let odd = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor(CONFIG),
            descriptor("application/vnd.oci.empty.v1+json")
        );
        let table = [
            ("{", "malformed"),
            ("[]", "malformed"),
            ("{}", "schemaVersion is not 2"),
            (r#"{"schemaVersion":2}"#, "neither manifests nor layers"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            (r#"{"schemaVersion":2,"layers":[]}"#, "it has no config"),
            (&artifact, "no container image"),
            (&odd, "no container image"),
        ];
        for (text, why) in table {
            let error = parse(text.as_bytes(), None).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let twice = r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#;
        assert!(
            parse(twice.as_bytes(), None).is_err(),
            "a field that is there twice is read differently by others"
        );
    }

    #[test]
    fn a_configuration_yields_its_diff_ids_and_its_process() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let config = Configuration::parse(text.as_bytes()).expect("parses");
        assert_eq!(config.diff_ids().len(), 1);
        assert_eq!(config.process().cmd, ["sh"]);
        assert_eq!(config.platform().to_string(), "linux/amd64");
        assert!(Configuration::parse(b"{}").is_err());
    }

    #[test]
    fn a_strangers_text_is_short_and_tame() {
        let shown = harmless(&format!("\x1b]0;x\x07 \"it's\" {}", "y".repeat(500)));
        assert!(shown.len() < 300 && !shown.contains('\x1b') && shown.contains("\"it's\""), "{shown}");
    }
}
