//! What can go wrong between a name in a catalog and the bundle that it stands for.

use std::error::Error;
use std::fmt;
use std::io;

use crate::catalog::record::BadCatalog;
use crate::catalog::signature::{BadKey, BadSignature};

/// Why a catalog or a bundle cannot be had.
#[derive(Debug)]
pub enum CatalogError {
    /// Whoever asked has gone.
    Cancelled,
    /// No answer, or none to its end.
    Unreachable {
        at: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer, but not what was asked for.
    Status {
        at: String,
        status: u16,
    },
    /// An answer that breaks the protocol, or leads somewhere unsafe.
    Protocol {
        at: String,
        why: &'static str,
    },
    /// More than there may be, in bytes.
    TooLong {
        at: String,
        limit: u64,
    },
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
            Self::Unreachable { .. } | Self::Status { .. } => true,
            Self::Cancelled
            | Self::Protocol { .. }
            | Self::TooLong { .. }
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

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Unreachable { at, .. } => write!(f, "cannot read {at}"),
            Self::Status { at, status: 404 } => write!(f, "there is nothing at {at} (status 404)"),
            Self::Status { at, status } => write!(f, "{at} cannot be had (status {status})"),
            Self::Protocol { at, why } => write!(f, "cannot read {at}: {why}"),
            Self::TooLong { at, limit } => write!(f, "{at} is longer than {limit} bytes"),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
            Self::Key { key, .. } => write!(f, "cannot use {key}, named in catalog_keys"),
            Self::Unsigned { at, signature } => {
                write!(f, "the catalog {at} is not signed: there is nothing at {signature}")
            }
            Self::Signature { at, .. } => write!(f, "the catalog {at} is not trusted"),
            Self::Catalog { at, .. } => write!(f, "the catalog {at} cannot be used"),
            Self::Damaged { at, why } => write!(f, "{at} is not what the catalog says: {why}"),
        }
    }
}

impl Error for CatalogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(&**source),
            Self::Io { source, .. } => Some(source),
            Self::Key { source, .. } => Some(source),
            Self::Signature { source, .. } => Some(source),
            Self::Catalog { source, .. } => Some(source),
            Self::Cancelled
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::TooLong { .. }
            | Self::Unsigned { .. }
            | Self::Damaged { .. } => None,
        }
    }
}
