//! What a bundle says of itself, in its manifest.json: the same as the catalog's entry for it, or it is refused. So a bundle
//! cannot be passed off as another, even by whoever may sign the catalog, without it being seen.
//!
//! ```json
//! {"version": 1, "image": {"name": "golden", "distro": "debian", "arch": "amd64", "kernel": "generic-6.12",
//!                          "description": "...", "config": {"Env": ["LANG=C.UTF-8"]}}}
//! {"version": 1, "kernel": {"name": "generic-6.12", "arch": "amd64", "version": "6.12.30", "description": "..."}}
//! ```

use serde::{Deserialize, Serialize};

use crate::catalog::about::{ImageAbout, KernelAbout, RawAbout};
use crate::catalog::bundle::BundleError;
use crate::image::config::ImageConfig;
use crate::image::manifest::harmless;

pub const VERSION: u64 = 1;
/// The longest manifest, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// `config`: how its processes are started, as an OCI image has it.
    Image {
        about: ImageAbout,
        config: ImageConfig,
    },
    Kernel {
        about: KernelAbout,
    },
}

#[derive(Deserialize)]
struct Raw {
    image: Option<RawImage>,
    kernel: Option<RawAbout>,
}

#[derive(Deserialize)]
struct RawImage {
    #[serde(flatten)]
    about: RawAbout,
    #[serde(default)]
    config: ImageConfig,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<WrittenImage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<&'a KernelAbout>,
}

#[derive(Serialize)]
struct WrittenImage<'a> {
    #[serde(flatten)]
    about: &'a ImageAbout,
    config: &'a ImageConfig,
}

impl Manifest {
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: Option<u64>,
        }
        let bad = |why: String| BundleError::Manifest(why);
        let not_json = |e: serde_json::Error| {
            bad(format!("it is not JSON as a bundle has it: {}", harmless(&e.to_string())))
        };
        match serde_json::from_slice::<Versioned>(bytes).map_err(not_json)?.version {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => {
                return Err(bad(format!(
                    "it is of version {newer}, and this banger knows bundles up to version {VERSION}; update banger"
                )));
            }
            _ => return Err(bad(format!("it does not say that it is of version {VERSION}"))),
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(not_json)?;
        let field = |e: crate::catalog::about::BadField| bad(e.to_string());
        match (raw.image, raw.kernel) {
            (Some(RawImage { about, config }), None) => {
                Ok(Self::Image { about: ImageAbout::parse(about).map_err(field)?, config })
            }
            (None, Some(about)) => Ok(Self::Kernel { about: KernelAbout::parse(about).map_err(field)? }),
            (Some(_), Some(_)) | (None, None) => Err(bad("it is of either an image or a kernel".to_owned())),
        }
    }

    /// The bytes of manifest.json.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let (image, kernel) = match self {
            Self::Image { about, config } => (Some(WrittenImage { about, config }), None),
            Self::Kernel { about } => (None, Some(about)),
        };
        let mut bytes = serde_json::to_vec_pretty(&Written { version: VERSION, image, kernel })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: &str = r#"{"version":1,"later":1,"image":{"name":"golden","distro":"debian","arch":"amd64","kernel":"k",
        "description":"d","config":{"Env":["A=1"]}}}"#;
    const KERNEL: &str = r#"{"version":1,"kernel":{"name":"k","arch":"amd64","version":"6.12"}}"#;

    #[test]
    fn both_kinds_are_read_and_written_again_as_they_were() {
        for text in [IMAGE, KERNEL] {
            let manifest = Manifest::parse(text.as_bytes()).expect("reads");
            let written = manifest.to_bytes().expect("writes");
            assert_eq!(Manifest::parse(&written).expect("reads"), manifest);
        }
        let Manifest::Image { config, .. } = Manifest::parse(IMAGE.as_bytes()).expect("reads") else {
            panic!("an image")
        };
        assert_eq!(config.env, ["A=1"]);
    }

    #[test]
    fn what_is_no_manifest_of_one_thing_is_refused() {
        let both = IMAGE.replace("\"later\":1", r#""kernel":{"name":"k","arch":"amd64","version":"6"}"#);
        for (text, why) in [
            ("", "not JSON"),
            ("{}", "of version 1"),
            (r#"{"version":2,"image":[]}"#, "update banger"),
            (r#"{"version":1}"#, "either an image or a kernel"),
            (both.as_str(), "either an image or a kernel"),
            (&KERNEL.replace("6.12", "../x"), "its version"),
            (&IMAGE.replace("golden", "a/b"), "its name"),
        ] {
            let error = Manifest::parse(text.as_bytes()).expect_err(text);
            let said =
                std::error::Error::source(&error).map(ToString::to_string).unwrap_or(error.to_string());
            assert!(said.contains(why), "{said}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
