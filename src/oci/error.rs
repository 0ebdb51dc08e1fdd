//! What can go wrong between a reference or a file and a root file system.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::ext4::WriteError;
use crate::image::digest::Digest;
use crate::image::manifest::BadManifest;
use crate::oci::tar::TarError;

/// Why there is no image. Everything a stranger said is short and tame in it.
#[derive(Debug)]
pub enum OciError {
    /// Whoever asked has gone.
    Cancelled,
    /// The registry has no such image, or hides it.
    NotFound { image: String },
    /// The registry wants somebody else.
    Denied { registry: String, image: String, said: String, anonymous: bool },
    /// Too many requests. `wait` is how long the registry wants to be left alone.
    Throttled { registry: String, said: String, wait: Option<Duration> },
    /// The registry answers, but with an error.
    Refused { registry: String, status: u16, said: String, wait: Option<Duration> },
    /// What the registry answers breaks the protocol, or asks for something unsafe.
    Protocol { registry: String, why: String },
    /// No answer at all.
    Unreachable { host: String, source: Box<dyn Error + Send + Sync> },
    /// The answer ended before its time.
    Broken { host: String, source: Box<dyn Error + Send + Sync> },
    /// The host does not prove who it is.
    Tls { host: String, source: Box<dyn Error + Send + Sync> },
    /// The host has gone silent.
    TimedOut { host: String, during: &'static str },
    /// A blob did not come.
    Blob { what: &'static str, digest: String, source: Arc<OciError> },
    /// The file, directory or stream holds no image.
    NoImage { source_name: String, why: String },
    /// What calls itself an image cannot be used as one.
    Manifest { image: String, source: BadManifest },
    /// There is an image, but for other machines.
    Architecture { image: String, wanted: String, have: Vec<String> },
    /// There are several images, and nothing says which.
    Several { source_name: String, have: Vec<String> },
    /// Content is not what its digest says.
    Damaged { what: &'static str, digest: String, why: String },
    /// A layer unpacks to something else than the configuration says.
    DiffId { layer: String, want: String, found: String },
    /// A layer, or a root file system, that cannot be applied.
    Layer { layer: String, source: LayerError },
    /// The ext4 file cannot be made.
    Write(WriteError),
    /// This machine's disk.
    Io { op: String, source: io::Error },
}

/// Why a tar stream cannot be applied.
#[derive(Debug)]
pub enum LayerError {
    Tar(TarError),
    /// A member that would do harm, or that no file system can hold.
    Member {
        path: String,
        why: String,
    },
    /// More than any image has.
    TooMuch(String),
    /// The disk is full, or broken.
    Disk(io::Error),
    Cancelled,
}

impl OciError {
    pub(super) fn wrong_digest(what: &'static str, digest: &Digest, found: &str) -> Self {
        let why = format!("its content has the digest {found}");
        Self::Damaged { what, digest: digest.to_string(), why }
    }

    pub(super) fn wrong_size(what: &'static str, digest: &Digest, want: u64, found: u64) -> Self {
        let more = if found > want { "at least " } else { "" };
        let why = format!("it has {more}{found} bytes, not {want}");
        Self::Damaged { what, digest: digest.to_string(), why }
    }

    /// Whether somebody did not prove who they are.
    pub(super) fn is_distrust(&self) -> bool {
        match self {
            Self::Tls { .. } => true,
            Self::Blob { source, .. } => source.is_distrust(),
            _ => false,
        }
    }

    pub(super) fn io(op: impl Into<String>, source: io::Error) -> Self {
        Self::Io { op: op.into(), source }
    }
}

/// A time as a sentence has it, in whole seconds: never none.
pub(super) fn seconds(time: Duration) -> String {
    let whole = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    humantime::format_duration(Duration::from_secs(whole.max(1))).to_string()
}

impl fmt::Display for OciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = |said: &str| if said.is_empty() { String::new() } else { format!(": {said}") };
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::NotFound { image } => write!(f, "there is no image {image}; check the name and the tag"),
            Self::Denied { registry, image, said, anonymous: true } => write!(
                f,
                "{registry} does not give {image} to anonymous users{}; log in with 'docker login {registry}', \
                 or check the name",
                colon(said)
            ),
            Self::Denied { registry, image, said, anonymous: false } => write!(
                f,
                "{registry} does not give {image} to the user in docker's config.json{}; \
                 log in with 'docker login {registry}', or check the name",
                colon(said)
            ),
            Self::Throttled { registry, said, wait } => {
                let until = wait.map(|w| format!(" for {}", seconds(w))).unwrap_or_default();
                write!(f, "{registry} wants fewer requests{}; wait{until}, or log in", colon(said))
            }
            Self::Refused { registry, status, said, .. } if *status >= 500 => {
                write!(f, "{registry} is in trouble (status {status}{}); try again later", colon(said))
            }
            Self::Refused { registry, status, said, .. } => {
                write!(f, "{registry} refuses (status {status}{})", colon(said))
            }
            Self::Protocol { registry, why } => write!(f, "{registry} does not behave as a registry: {why}"),
            Self::Unreachable { host, .. } => write!(f, "cannot reach {host}"),
            Self::Broken { host, .. } => write!(f, "the connection to {host} broke"),
            Self::Tls { host, .. } => {
                write!(
                    f,
                    "cannot trust {host}; if its authority is your own, name its certificate in SSL_CERT_FILE"
                )
            }
            Self::TimedOut { host, during } => write!(f, "{host} does not answer ({during} timed out)"),
            Self::Blob { what, digest, .. } => write!(f, "cannot fetch {what} {digest}"),
            Self::NoImage { source_name, why } => write!(f, "{source_name} is no image: {why}"),
            Self::Manifest { image, .. } => write!(f, "cannot use {image}"),
            Self::Architecture { image, wanted, have } => {
                write!(
                    f,
                    "{image} is for another architecture: this machine is {wanted}, it has {}",
                    have.join(", ")
                )
            }
            Self::Several { source_name, have } => write!(
                f,
                "{source_name} holds several images and nothing says which: {}; import a file with one of them",
                have.join(", ")
            ),
            Self::Damaged { what, digest, why } => write!(f, "{what} {digest} is damaged: {why}"),
            Self::DiffId { layer, want, found } => {
                write!(
                    f,
                    "{layer} is not the layer that the image's configuration means: it unpacks to {found}, not to {want}"
                )
            }
            Self::Layer { layer, .. } => write!(f, "cannot unpack {layer}"),
            Self::Write(_) => f.write_str("cannot write the root file system"),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
        }
    }
}

impl Error for OciError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } | Self::Broken { source, .. } | Self::Tls { source, .. } => {
                Some(&**source)
            }
            Self::Blob { source, .. } => Some(&**source),
            Self::Manifest { source, .. } => Some(source),
            Self::Layer { source, .. } => Some(source),
            Self::Write(source) => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::Cancelled
            | Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::Throttled { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::TimedOut { .. }
            | Self::NoImage { .. }
            | Self::Architecture { .. }
            | Self::Several { .. }
            | Self::Damaged { .. }
            | Self::DiffId { .. } => None,
        }
    }
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar(e) => e.fmt(f),
            Self::Member { path, why } => write!(f, "its member '{path}' {why}"),
            Self::TooMuch(what) => f.write_str(what),
            Self::Disk(_) => f.write_str("cannot keep its files"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl Error for LayerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Tar(e) => e.source(),
            Self::Disk(e) => Some(e),
            Self::Member { .. } | Self::TooMuch(_) | Self::Cancelled => None,
        }
    }
}
