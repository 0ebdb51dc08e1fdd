//! Why a link could not be changed.

use std::fmt;
use std::io;

use crate::netlink::Refused;
use crate::network::names::BRIDGE;
use crate::network::subnet::Subnet;

#[derive(Debug)]
pub enum LinkError {
    /// The name is taken by a link that this banger did not make.
    Foreign {
        link: String,
    },
    /// Somebody else has addresses of the network that the VMs are to have: a sentence about whom.
    Clash {
        subnet: Subnet,
        with: String,
    },
    /// The bridge has another network, and VMs are on it.
    InUse {
        subnet: Subnet,
    },
    /// There is no bridge yet.
    NoBridge,
    Kernel {
        op: &'static str,
        link: String,
        error: io::Error,
    },
    /// A setting of the kernel below /proc/sys could not be read or written.
    Setting {
        path: String,
        error: io::Error,
    },
}

impl LinkError {
    pub(super) fn kernel(op: &'static str, link: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Kernel { op, link: link.to_string(), error }
    }

    pub(super) fn refused(link: impl fmt::Display) -> impl FnOnce(Refused) -> Self {
        move |Refused { op, error }| Self::Kernel { op, link: link.to_string(), error }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { link } => {
                write!(f, "{link} exists and is not this banger's; remove it (ip link delete {link})")
            }
            Self::Clash { with, .. } => {
                write!(f, "{with}; choose another network by bridge_address in config.toml")
            }
            Self::InUse { subnet } => {
                write!(f, "VMs are running in another network than {subnet}; stop them to change it")
            }
            Self::NoBridge => write!(f, "there is no {BRIDGE}"),
            Self::Kernel { op, link, .. } => write!(f, "cannot {op} {link}"),
            Self::Setting { path, .. } => write!(f, "cannot set {path}"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { error, .. } | Self::Setting { error, .. } => Some(error),
            Self::Foreign { .. } | Self::Clash { .. } | Self::InUse { .. } | Self::NoBridge => None,
        }
    }
}
