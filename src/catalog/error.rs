//! What can go wrong between a name in a catalog and the bundle that it stands for.

use std::error::Error;
use std::fmt;
use std::io;

use crate::catalog::record::BadCatalog;
use crate::host::fetch::FetchError;
use crate::host::signature::{BadKey, BadSignature};

/// Why a catalog or a bundle cannot be had.
#[derive(Debug)]
pub enum CatalogError {
    /// Whoever asked has gone.
    Cancelled,
    Fetch(FetchError),
    /// This machine's disk.
    Io {
        op: String,
        source: io::Error,
    },
    /// A key of catalog_keys that is none.
    Key {
        key: String,
        source: BadKey,
    },
    /// There is a catalog, but nothing where its signature should be.
    Unsigned {
        at: String,
        signature: String,
    },
    Signature {
        at: String,
        source: BadSignature,
    },
    Catalog {
        at: String,
        source: BadCatalog,
    },
    /// A bundle is not the one that the catalog means.
    Damaged {
        at: String,
        why: String,
    },
}

impl CatalogError {
    /// Whether it may be different in an hour, without anybody's doing here: a server that is down, or not itself.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Fetch(e) => e.is_passing(),
            Self::Cancelled
            | Self::Io { .. }
            | Self::Key { .. }
            | Self::Unsigned { .. }
            | Self::Signature { .. }
            | Self::Catalog { .. }
            | Self::Damaged { .. } => false,
        }
    }

    pub(super) fn io(op: impl Into<String>, source: io::Error) -> Self {
        Self::Io { op: op.into(), source }
    }
}

impl From<FetchError> for CatalogError {
    fn from(e: FetchError) -> Self {
        Self::Fetch(e)
    }
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Fetch(e) => e.fmt(f),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
            Self::Key { key, .. } => write!(f, "cannot use {key}, named in catalog_keys"),
            Self::Unsigned { at, signature } => {
                write!(f, "the catalog {at} is not signed: there is nothing at {signature}")
            }
            Self::Signature { at, source: BadSignature::NoKey } => write!(
                f,
                "the catalog {at} is not trusted; name its publisher's key in catalog_keys (config.toml)"
            ),
            Self::Signature { at, .. } => write!(f, "the catalog {at} is not trusted"),
            Self::Catalog { at, .. } => write!(f, "the catalog {at} cannot be used"),
            Self::Damaged { at, why } => write!(f, "{at} is not what the catalog says: {why}"),
        }
    }
}

impl Error for CatalogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Fetch(e) => e.source(),
            Self::Io { source, .. } => Some(source),
            Self::Key { source, .. } => Some(source),
            Self::Signature { source, .. } => Some(source),
            Self::Catalog { source, .. } => Some(source),
            Self::Cancelled | Self::Unsigned { .. } | Self::Damaged { .. } => None,
        }
    }
}
