//! Why a VM was not launched in its jail, or its jail not removed.

use std::fmt;
use std::io;

use crate::proto::root::Code;
use crate::root::launch::BoxError;
use crate::root::launch::cgroup::CgroupError;
use crate::root::launch::descriptors::BadDescriptor;
use crate::root::launch::machine::BadMachine;
use crate::root::launch::programs::ProgramError;
use crate::root::launch::roots_own::NotRoots;
use crate::vmm::PlanError;

#[derive(Debug)]
pub enum LaunchError {
    /// It runs, as this process.
    Running(u32),
    Descriptor(BadDescriptor),
    Machine(BadMachine),
    Plan(PlanError),
    Program(ProgramError),
    /// The directory for jails is not root's own.
    Base(NotRoots),
    Cgroup(CgroupError),
    Tap(BoxError),
    /// The process could not make its jail, or not become the program; it has said why.
    Jail {
        source: io::Error,
    },
    Effect {
        what: &'static str,
        source: io::Error,
    },
}

impl LaunchError {
    pub(super) fn effect(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Effect { what, source }
    }

    /// What the caller is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Running(_) => Code::Conflict,
            Self::Descriptor(BadDescriptor::Unfit { .. }) => Code::Denied,
            Self::Descriptor(_) | Self::Machine(_) | Self::Plan(_) => Code::BadRequest,
            Self::Program(_)
            | Self::Base(_)
            | Self::Cgroup(_)
            | Self::Tap(_)
            | Self::Jail { .. }
            | Self::Effect { .. } => Code::Failed,
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(pid) => write!(f, "it runs already, as process {pid}"),
            Self::Descriptor(e) => e.fmt(f),
            Self::Machine(e) => e.fmt(f),
            Self::Plan(e) => e.fmt(f),
            Self::Program(e) => e.fmt(f),
            Self::Base(_) => f.write_str("the directory for jails is not root's own"),
            Self::Cgroup(e) => e.fmt(f),
            Self::Tap(_) => f.write_str("cannot open its tap"),
            Self::Jail { .. } => f.write_str("its process could not enter its jail"),
            Self::Effect { what, .. } => write!(f, "cannot {what}"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Running(_) | Self::Machine(_) | Self::Plan(_) => None,
            // Its own words are above, and what is behind it below.
            Self::Descriptor(e) => e.source(),
            Self::Program(e) => e.source(),
            Self::Cgroup(e) => e.source(),
            Self::Base(e) => Some(e),
            Self::Tap(e) => Some(&**e),
            Self::Jail { source } | Self::Effect { source, .. } => Some(source),
        }
    }
}
