//! The file for `--config-file`: `FullVmConfiguration` of Firecracker's API description, firecracker.yaml.

use std::path::Path;

use serde_json::{Value, json};

use crate::vmm::{Drive, Machine, PlanError, text};

/// Describes `machine`, with the kernel command line `words` and its vsock device behind the socket `vsock`.
pub fn config(machine: &Machine, words: &str, vsock: &Path) -> Result<Value, PlanError> {
    let drives =
        machine.drives.iter().enumerate().map(|(i, d)| drive(i, d)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
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
    }))
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
