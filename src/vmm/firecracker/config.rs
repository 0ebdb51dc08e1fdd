//! The file for `--config-file`: `FullVmConfiguration` of Firecracker's API description, firecracker.yaml.

use std::path::Path;

use serde_json::{Value, json};

use crate::vmm::{Drive, Machine, Nic, PlanError, Tap, text};

/// Describes `machine`, with the kernel command line `words` and its vsock device behind the socket `vsock`.
pub fn config(machine: &Machine, words: &str, vsock: &Path) -> Result<Value, PlanError> {
    let drives =
        machine.drives.iter().enumerate().map(|(i, d)| drive(i, d)).collect::<Result<Vec<_>, _>>()?;
    let mut config = json!({
        "boot-source": {
            "kernel_image_path": text(&machine.kernel)?,
            "initrd_path": text(&machine.initrd)?,
            "boot_args": words,
        },
        "drives": drives,
        "machine-config": {
            "vcpu_count": machine.vcpu,
            "mem_size_mib": machine.memory.0,
            "smt": false,
            "track_dirty_pages": false,
        },
        "vsock": {
            "guest_cid": machine.cid,
            "uds_path": text(vsock)?,
        },
    });
    if let Some(interface) = interface(machine.nic.as_ref())? {
        config["network-interfaces"] = json!([interface]);
    }
    Ok(config)
}

fn interface(nic: Option<&Nic>) -> Result<Option<Value>, PlanError> {
    match nic {
        None => Ok(None),
        Some(Nic::User) => Err(PlanError::UserNetwork),
        Some(Nic::Tap { tap: Tap::Open(_), .. }) => Err(PlanError::OpenTap),
        Some(Nic::Tap { tap: Tap::Named(name), mac }) => Ok(Some(json!({
            "iface_id": "net",
            "host_dev_name": name.to_string(),
            "guest_mac": mac.to_string(),
        }))),
    }
}

/// No drive is the root device: that would move it to the front and put `root=` on the command line (Firecracker:
/// vmm_config/drive.rs), while /init finds them by their order.
fn drive(i: usize, drive: &Drive) -> Result<Value, PlanError> {
    Ok(json!({
        "drive_id": format!("drive{i}"),
        "path_on_host": text(&drive.path)?,
        "is_root_device": false,
        "is_read_only": drive.read_only,
        // Writeback is what passes the guest's flushes on (Firecracker: docs/api_requests/block-caching.md).
        "cache_type": if drive.disposable { "Unsafe" } else { "Writeback" },
    }))
}
