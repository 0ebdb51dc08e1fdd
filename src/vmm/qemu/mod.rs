//! QEMU's microvm machine: virtio over MMIO, no PCI, an uncompressed kernel started through PVH (QEMU: system/i386/microvm).

pub mod args;
pub mod qmp;
pub mod version;
mod words;

use std::path::{Path, PathBuf};

use crate::vmm::{
    Accel, Channel, Kind, Launch, Machine, PORT_SUFFIX, Plan, PlanError, Vmm, check_drives, command_line,
    socket, text,
};

/// A QEMU that this host can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    pub program: PathBuf,
    pub accel: Accel,
    pub vsock: VsockDevice,
    /// The rate of the host's time stamp counter, where guests under TCG can be told ([`crate::vmm::tsc`]).
    pub tsc_khz: Option<u32>,
}

/// What stands behind the guest's vsock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VsockDevice {
    /// The host's kernel, by /dev/vhost-vsock.
    Kernel,
    /// `vhost-device-vsock`, a process for each VM.
    Process { program: PathBuf },
}

impl Vmm for Qemu {
    fn kind(&self) -> Kind {
        Kind::Qemu
    }

    fn accel(&self) -> Accel {
        self.accel
    }

    fn channel(&self, sockets: &Path, cid: u32) -> Result<Channel, PlanError> {
        match self.vsock {
            VsockDevice::Kernel => Ok(Channel::Vhost { cid }),
            VsockDevice::Process { .. } => {
                Ok(Channel::Hybrid { socket: socket(sockets, "vsock.sock", PORT_SUFFIX)? })
            }
        }
    }

    fn plan(&self, machine: &Machine) -> Result<Plan, PlanError> {
        check_drives(machine)?;
        let channel = self.channel(&machine.sockets, machine.cid)?;
        let vsock = self.vsock_process(machine, &channel)?;
        let qmp = socket(&machine.sockets, Kind::Qemu.control_socket(), 0)?;
        let words = command_line(&words::words(self.accel, machine.vcpu, self.tsc_khz), machine)?;
        let argv = args::argv(self, machine, &words, &qmp, vsock.as_ref().map(|launch| &*launch.socket))?;
        let mut stale = vec![qmp.clone()];
        if let Some(launch) = &vsock {
            stale.push(launch.socket.clone());
        }
        if let Channel::Hybrid { socket } = &channel {
            stale.push(socket.clone());
        }
        Ok(Plan {
            stale,
            files: vec![],
            vsock,
            vmm: Launch { argv, log: machine.vmm_log.clone(), socket: qmp },
            channel,
        })
    }
}

impl Qemu {
    fn vsock_process(&self, machine: &Machine, channel: &Channel) -> Result<Option<Launch>, PlanError> {
        let (VsockDevice::Process { program }, Channel::Hybrid { socket: uds }) = (&self.vsock, channel)
        else {
            return Ok(None);
        };
        let vhost = socket(&machine.sockets, "vhost.sock", 0)?;
        let argv = [
            text(program)?,
            "--guest-cid",
            &machine.cid.to_string(),
            "--socket",
            text(&vhost)?,
            "--uds-path",
            text(uds)?,
        ];
        let argv = argv.map(str::to_owned).to_vec();
        Ok(Some(Launch { argv, log: machine.vmm_log.clone(), socket: vhost }))
    }
}

#[cfg(test)]
mod tests;
