use serde_json::{Value, json};

use super::*;
use crate::network::names::{Mac, TapName};
use crate::vm::boot::Halt;
use crate::vm::id::VmId;
use crate::vm::size::Mib;
use crate::vmm::{Drive, Nic, Tap};

fn machine() -> Machine {
    let drive = |path: &str, read_only, disposable| Drive { path: path.into(), read_only, disposable };
    Machine {
        vcpu: 2,
        memory: Mib(512),
        kernel: "/k/vmlinux".into(),
        initrd: "/k/initrd".into(),
        words: "banger.id=7".to_owned(),
        drives: vec![
            drive("/i/base", true, false),
            drive("/v/cow", false, false),
            drive("/v/tmp", false, true),
        ],
        cid: 5,
        nic: None,
        sockets: "/run/banger/vms/0000002a".into(),
        console_log: "/v/7/console.log".into(),
        vmm_log: "/v/7/vmm.log".into(),
    }
}

#[test]
fn a_machine_is_this_command_line_and_this_file() {
    let firecracker = Firecracker { program: "/usr/bin/firecracker".into() };
    let plan = firecracker.plan(&machine()).expect("planned");
    assert_eq!(
        plan.vmm.argv.join(" "),
        "/usr/bin/firecracker --id banger-0000002a --api-sock /run/banger/vms/0000002a/api.sock \
         --config-file /run/banger/vms/0000002a/firecracker.json --log-path /v/7/vmm.log --level Error --show-level"
    );
    assert_eq!(plan.vmm.log, Path::new("/v/7/console.log"));
    assert_eq!(plan.channel, Channel::Hybrid { socket: "/run/banger/vms/0000002a/vsock.sock".into() });
    assert_eq!(firecracker.halt(), Halt::Reboot);
    assert_eq!((&plan.files[1].0, plan.files[1].1.len()), (&"/v/7/vmm.log".into(), 0));
    let drive = |id: &str, path: &str, read_only: bool, cache: &str| {
        json!({
            "drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": read_only, "cache_type": cache,
        })
    };
    let golden = json!({
        "boot-source": {
            "kernel_image_path": "/k/vmlinux",
            "initrd_path": "/k/initrd",
            "boot_args": "console=ttyS0 quiet loglevel=3 reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd \
                          cryptomgr.notests banger.id=7",
        },
        "drives": [
            drive("drive0", "/i/base", true, "Writeback"),
            drive("drive1", "/v/cow", false, "Writeback"),
            drive("drive2", "/v/tmp", false, "Unsafe"),
        ],
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 512, "smt": false, "track_dirty_pages": false},
        "vsock": {"guest_cid": 5, "uds_path": "/run/banger/vms/0000002a/vsock.sock"},
    });
    assert_eq!(serde_json::from_slice::<Value>(&plan.files[0].1).expect("JSON"), golden);
}

#[test]
fn a_tap_is_named_in_the_file() {
    let firecracker = Firecracker { program: "/usr/bin/firecracker".into() };
    let tap = Tap::Named(TapName::of(VmId::from_random(42)));
    let nic = Some(Nic::Tap { tap, mac: Mac::of([172, 16, 0, 2].into()) });
    let plan = firecracker.plan(&Machine { nic, ..machine() }).expect("planned");
    let config: Value = serde_json::from_slice(&plan.files[0].1).expect("JSON");
    let golden =
        json!([{"iface_id": "net", "host_dev_name": "bgr00000000002a", "guest_mac": "06:ba:ac:10:00:02"}]);
    assert_eq!(config["network-interfaces"], golden);
}

#[test]
fn what_firecracker_cannot_do_is_refused_with_a_sentence() {
    let firecracker = Firecracker { program: "/usr/bin/firecracker".into() };
    let text = |change: fn(&mut Machine)| {
        let mut machine = machine();
        change(&mut machine);
        firecracker.plan(&machine).expect_err("refused").to_string()
    };
    let net = text(|m| m.nic = Some(Nic::User));
    assert_eq!(net, "Firecracker has no user-mode network; use --vmm qemu with --nat");
    let mac = Mac::of([172, 16, 0, 2].into());
    let open = Machine { nic: Some(Nic::Tap { tap: Tap::Open(5), mac }), ..machine() };
    let open = firecracker.plan(&open).expect_err("refused").to_string();
    assert_eq!(open, "Firecracker opens its tap by name and takes no descriptor");
    let long = text(|m| m.sockets = format!("/{}", "x".repeat(86)).into());
    assert!(long.contains("vsock.sock\" is too long"), "the suffix of a port counts: {long}");
}

#[test]
fn preparing_writes_the_files_and_removes_what_a_crash_left() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let machine = Machine {
        sockets: dir.path().to_owned(),
        console_log: dir.path().join("console.log"),
        vmm_log: dir.path().join("vmm.log"),
        ..machine()
    };
    let plan = Firecracker { program: "/bin/firecracker".into() }.plan(&machine).expect("planned");
    std::fs::write(dir.path().join("api.sock"), "").expect("writes");
    std::fs::write(dir.path().join("vsock.sock"), "").expect("writes");
    plan.prepare().expect("prepares");
    plan.prepare().expect("prepares again");
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .expect("lists")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["firecracker.json", "vmm.log"]);
    let mode = std::fs::metadata(dir.path().join("firecracker.json")).expect("stats").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
