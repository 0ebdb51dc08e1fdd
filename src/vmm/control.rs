//! A VMM that runs, through its control socket ([`crate::vmm::Launch::socket`]): the same few questions to either.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::vmm::Kind;
use crate::vmm::firecracker::api::{self, ApiError, InstanceState, Request};
use crate::vmm::qemu::qmp::{Qmp, QmpError};

/// Why a running VMM could not be asked.
#[derive(Debug)]
pub enum ControlError {
    Firecracker(ApiError),
    Qemu(QmpError),
}

impl Kind {
    /// Whether the VMM behind `socket` answers and its guest's processors run.
    pub fn is_running(self, socket: &Path, timeout: Duration) -> Result<bool, ControlError> {
        match self {
            Self::Firecracker => Ok(api::describe(socket, timeout)?.state == InstanceState::Running),
            Self::Qemu => Ok(Qmp::connect(socket, timeout)?.status()? == "running"),
        }
    }

    /// Asks the guest to end, without its agent: the power button, or where there is none Ctrl-Alt-Del. Whether it does is
    /// the guest's affair.
    pub fn press_power(self, socket: &Path, timeout: Duration) -> Result<(), ControlError> {
        match self {
            Self::Firecracker => Ok(api::send(socket, Request::SendCtrlAltDel, timeout).map(drop)?),
            Self::Qemu => Ok(Qmp::connect(socket, timeout)?.power_button()?),
        }
    }
}

impl From<ApiError> for ControlError {
    fn from(e: ApiError) -> Self {
        Self::Firecracker(e)
    }
}

impl From<QmpError> for ControlError {
    fn from(e: QmpError) -> Self {
        Self::Qemu(e)
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firecracker(e) => e.fmt(f),
            Self::Qemu(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The text is the inner error's own, so what follows it is that one's source.
        match self {
            Self::Firecracker(e) => e.source(),
            Self::Qemu(e) => e.source(),
        }
    }
}
