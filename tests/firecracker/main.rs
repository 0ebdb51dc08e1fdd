//! Everything that is sent to Firecracker, checked against Firecracker's own description of its API (firecracker.yaml,
//! src/firecracker/swagger of github.com/firecracker-microvm/firecracker, Apache-2.0), and against a real Firecracker where
//! there is one.

mod schema;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::network::names::{Mac, TapName};
use banger::vm::id::VmId;
use banger::vm::size::Mib;
use banger::vmm::firecracker::Firecracker;
use banger::vmm::firecracker::api::{self, InstanceState, Request};
use banger::vmm::{Drive, Kind, Launch, Machine, Nic, Plan, Tap, Vmm};
use serde_json::{Value, json};

use schema::Schema;

fn machine(dir: &Path) -> Machine {
    let drive = |read_only, disposable| Drive { path: dir.join("drive"), read_only, disposable };
    Machine {
        vcpu: 1,
        memory: Mib(256),
        kernel: dir.join("vmlinux"),
        initrd: dir.join("initrd"),
        words: "banger.id=7".to_owned(),
        drives: vec![drive(true, false), drive(false, false), drive(false, true)],
        cid: 3,
        nic: None,
        sockets: dir.join("7"),
        console_log: dir.join("7/console.log"),
        vmm_log: dir.join("7/vmm.log"),
    }
}

fn tap() -> Nic {
    let tap = Tap::Named(TapName::of(VmId::from_random(7)));
    Nic::Tap { tap, mac: Mac::of([172, 16, 0, 2].into()) }
}

fn plan(program: &str, machine: &Machine) -> Plan {
    Firecracker { program: PathBuf::from(program) }.plan(machine).expect("planned")
}

#[test]
fn the_configuration_file_is_one_that_firecracker_describes() {
    let schema = Schema::read();
    let smallest = Machine { drives: vec![], ..machine(Path::new("/t")) };
    let connected = Machine { nic: Some(tap()), ..machine(Path::new("/t")) };
    for machine in [machine(Path::new("/t")), smallest, connected] {
        let (_, bytes) = &plan("/bin/firecracker", &machine).files[0];
        let config = serde_json::from_slice(bytes).expect("JSON");
        assert_eq!(schema.faults("FullVmConfiguration", &config), [""; 0], "{config}");
    }
}

#[test]
fn every_request_is_one_that_firecracker_describes() {
    let schema = Schema::read();
    for request in Request::ALL {
        let body = schema.body_of(request.method(), request.path());
        match (body, request.body()) {
            (None, None) => {}
            (Some(definition), Some(json)) => {
                assert_eq!(schema.faults(definition, &json), [""; 0], "{request}");
            }
            (described, sent) => panic!("{request}: {described:?} is described, {sent:?} is sent"),
        }
    }
}

#[test]
fn the_validator_refuses_what_firecracker_would() {
    let schema = Schema::read();
    let connected = Machine { nic: Some(tap()), ..machine(Path::new("/t")) };
    let (_, bytes) = &plan("/bin/firecracker", &connected).files[0];
    let good: Value = serde_json::from_slice(bytes).expect("JSON");
    let table = [
        ("/machine-config/vcpu_count", json!(33), "is above 32"),
        ("/machine-config/vcpu_count", json!(0), "is below 1"),
        ("/machine-config/mem_size_mib", json!("256"), "is no integer"),
        ("/machine-config/smt", json!(1), "is no boolean"),
        ("/vsock/guest_cid", json!(2), "is below 3"),
        ("/drives/0/cache_type", json!("Writethrough"), "is none of"),
        ("/drives", json!({}), "is no array"),
        ("/network-interfaces", json!([{"iface_id": "net"}]), "host_dev_name is missing"),
        ("/drives/1", json!({"drive_id": "a", "root": true}), "root is unknown"),
        ("/drives/1", json!({"drive_id": "a"}), "is_root_device is missing"),
        ("/boot-source", json!({"boot_args": ""}), "kernel_image_path is missing"),
    ];
    for (place, value, fault) in table {
        let mut bad = good.clone();
        *bad.pointer_mut(place).expect("is there") = value;
        let faults = schema.faults("FullVmConfiguration", &bad);
        assert!(faults.iter().any(|f| f.contains(fault)), "{place}: {faults:?}");
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.0.kill().expect("kills");
            self.0.wait().expect("reaps");
        }
    }
}

fn launch(launch: &Launch) -> Ended {
    let log = OpenOptions::new().append(true).create(true).open(&launch.log).expect("opens");
    let child = Command::new(&launch.argv[0])
        .args(&launch.argv[1..])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("clones"))
        .stderr(log)
        .spawn()
        .expect("spawns");
    Ended(child)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Emulated hosts are slow.
const LONG: Duration = Duration::from_secs(300);

/// The directory holds `firecracker`, `vmlinux` and `initrd`; the /init in it may do what it likes, but not end.
#[test]
#[ignore = "needs BANGER_TEST_FIRECRACKER_DIR with firecracker, vmlinux and initrd, and KVM"]
fn a_real_firecracker_starts_answers_pauses_and_stops() {
    let given = std::env::var("BANGER_TEST_FIRECRACKER_DIR").expect("BANGER_TEST_FIRECRACKER_DIR is set");
    let given = Path::new(&given).canonicalize().expect("is there");
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("7")).expect("makes");
    std::fs::write(dir.path().join("drive"), vec![0; 1 << 20]).expect("writes");
    let machine =
        Machine { kernel: given.join("vmlinux"), initrd: given.join("initrd"), ..machine(dir.path()) };
    let firecracker = given.join("firecracker");
    let plan = plan(firecracker.to_str().expect("text"), &machine);
    let _ready = plan.channel.listen(1001).expect("listens");
    let socket = &plan.vmm.socket;
    // Twice: the second start finds what the first left behind.
    for _ in 0..2 {
        plan.prepare().expect("prepares");
        let mut vmm = launch(&plan.vmm);
        let log = || std::fs::read_to_string(&machine.console_log).unwrap_or_default();
        wait_until("the API answers", || {
            assert!(vmm.0.try_wait().expect("asks").is_none(), "it has ended: {}", log());
            Kind::Firecracker.is_running(socket, LONG).unwrap_or(false)
        });
        assert!(!log().contains("Running Firecracker"), "the console is the guest's alone: {}", log());
        let info = api::describe(socket, LONG).expect("answers");
        assert_eq!((info.id.as_str(), info.app_name.as_str()), ("banger-7", "Firecracker"));
        assert_eq!(api::version(socket, LONG).expect("answers"), info.vmm_version);
        for (request, state) in
            [(Request::Pause, InstanceState::Paused), (Request::Resume, InstanceState::Running)]
        {
            api::send(socket, request, LONG).expect("accepted");
            assert_eq!(api::describe(socket, LONG).expect("answers").state, state);
        }
        let refused = api::send(socket, Request::InstanceStart, LONG).expect_err("it runs already");
        assert!(matches!(refused, api::ApiError::Refused { status: 400, .. }), "{refused}");
        Kind::Firecracker.press_power(socket, LONG).expect("accepted");
        drop(vmm);
    }
}
