//! Every request, in every state in which its verdict differs.

use super::*;
use crate::network::subnet;
use crate::proto::root::{DriveKind, Port, Signal, Vmm, Vsock};
use crate::root::records::BridgeRecord;
use crate::vm::state::{Process, Processes};

fn owner() -> Uid {
    Uid::from_raw(1000)
}

/// In the order of [`all`].
type Verdicts = [Result<(), Denied>; 10];

fn id(n: u64) -> VmId {
    VmId::from_random(n)
}

fn at(slot: u16) -> Port {
    Port { slot, nat: false, lan: false, direct: false }
}

fn launch(n: u64) -> Launch {
    Launch {
        vm: id(n),
        name: "dev".parse().expect("a name"),
        vmm: Vmm::Firecracker,
        vsock: Vsock::Device,
        vcpu: 1,
        memory: Mib(128),
        drives: vec![DriveKind::ReadOnly, DriveKind::Disposable, DriveKind::ReadOnly],
        root: Root::Snapshot { sectors: 8 },
        modules: true,
        network: true,
        ready_port: 1001,
    }
}

/// A bridge, and VMs: 2 has a tap, 3 was launched, 4 is direct, 5 was begun, 6 was half launched, 7 half removed, 8 is unreadable.
fn full() -> Exists {
    let bridge = Some(BridgeRecord { subnet: subnet::DEFAULT, dns_port: 42069 });
    let mut exists = Exists { bridge, ..Exists::default() };
    for n in 2..=7u16 {
        let record = Record {
            vm: id(n.into()),
            port: Port { direct: n == 4, ..at(n) },
            processes: (n == 3).then_some(Processes { vmm: Process { pid: 9, started: 9 }, vsock: None }),
            doing: match n {
                5 => Some(Doing::CreatingTap),
                6 => Some(Doing::Launching),
                7 => Some(Doing::Removing),
                _ => None,
            },
        };
        exists.vms.insert(record.vm, record);
    }
    exists.unreadable.insert(id(8));
    exists
}

fn verdict(exists: &Exists, request: &Request) -> Result<(), Denied> {
    let asker = Asker { uid: owner(), descriptors: descriptors(request) };
    judge(asker, installed(), exists, request)
}

fn installed() -> Installed {
    Installed { owner: owner(), subnet: subnet::DEFAULT }
}

fn all(n: u64) -> Vec<Request> {
    vec![
        Request::EnsureBridge { subnet: subnet::DEFAULT, dns_port: 42069 },
        Request::CreateTap { vm: id(n), port: at(9) },
        Request::DeleteTap { vm: id(n) },
        Request::SetNat { vm: id(n), nat: true, lan: true },
        Request::SetResolver { dns_port: 42069 },
        Request::ClearResolver,
        Request::LaunchVm(launch(n)),
        Request::SignalVm { vm: id(n), signal: Signal::Kill },
        Request::RemoveVm { vm: id(n) },
        Request::Status,
    ]
}

#[test]
fn every_request_has_its_verdict_in_every_state() {
    use Denied as D;
    // In the order of all(): ensure-bridge, create-tap, delete-tap, set-nat, set-resolver, clear-resolver, launch-vm, signal-vm,
    // remove-vm, status.
    let nothing = Exists::default();
    let only_bridge = Exists { bridge: full().bridge, ..Exists::default() };
    let full = full();
    let table: [(&str, &Exists, u64, Verdicts); 9] = [
        (
            "nothing exists",
            &nothing,
            9,
            [
                Ok(()),
                Err(D::NoBridge),
                Err(D::Unknown(id(9))),
                Err(D::Unknown(id(9))),
                Err(D::NoBridge),
                Ok(()),
                Err(D::NoBridge),
                Err(D::Unknown(id(9))),
                Err(D::Unknown(id(9))),
                Ok(()),
            ],
        ),
        (
            "only the bridge",
            &only_bridge,
            9,
            [
                Ok(()),
                Ok(()),
                Err(D::Unknown(id(9))),
                Err(D::Unknown(id(9))),
                Ok(()),
                Ok(()),
                Err(D::Unknown(id(9))),
                Err(D::Unknown(id(9))),
                Err(D::Unknown(id(9))),
                Ok(()),
            ],
        ),
        (
            "a tap",
            &full,
            2,
            [
                Ok(()),
                Err(D::HasTap(id(2))),
                Ok(()),
                Ok(()),
                Ok(()),
                Ok(()),
                Ok(()),
                Err(D::NotLaunched(id(2))),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            "launched",
            &full,
            3,
            [
                Ok(()),
                Err(D::HasTap(id(3))),
                Err(D::Launched(id(3))),
                Ok(()),
                Ok(()),
                Ok(()),
                Err(D::Launched(id(3))),
                Ok(()),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            "direct",
            &full,
            4,
            [
                Ok(()),
                Err(D::HasTap(id(4))),
                Ok(()),
                Ok(()),
                Ok(()),
                Ok(()),
                Err(D::Direct(id(4))),
                Err(D::NotLaunched(id(4))),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            "half created",
            &full,
            5,
            [
                Ok(()),
                Err(D::Unfinished(id(5))),
                Ok(()),
                Err(D::Unfinished(id(5))),
                Ok(()),
                Ok(()),
                Err(D::Unfinished(id(5))),
                Err(D::NotLaunched(id(5))),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            "half launched",
            &full,
            6,
            [
                Ok(()),
                Err(D::Unfinished(id(6))),
                Err(D::Launched(id(6))),
                Err(D::Unfinished(id(6))),
                Ok(()),
                Ok(()),
                Err(D::Unfinished(id(6))),
                Err(D::NotLaunched(id(6))),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            "half removed",
            &full,
            7,
            [
                Ok(()),
                Err(D::Unfinished(id(7))),
                Ok(()),
                Err(D::Unfinished(id(7))),
                Ok(()),
                Ok(()),
                Err(D::Unfinished(id(7))),
                Err(D::NotLaunched(id(7))),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            "unreadable",
            &full,
            8,
            [
                Ok(()),
                Err(D::Unreadable(id(8))),
                Err(D::Unreadable(id(8))),
                Err(D::Unreadable(id(8))),
                Ok(()),
                Ok(()),
                Err(D::Unreadable(id(8))),
                Err(D::Unreadable(id(8))),
                Err(D::Unreadable(id(8))),
                Ok(()),
            ],
        ),
    ];
    for (state, exists, n, want) in table {
        for (request, want) in all(n).iter().zip(want) {
            assert_eq!(verdict(exists, request), want, "{state}: {request:?}");
        }
    }
}

#[test]
fn nobody_but_root_and_the_owner_is_served_whatever_they_ask() {
    let full = full();
    for request in all(2) {
        let ask = |uid| {
            let asker = Asker { uid: Uid::from_raw(uid), descriptors: descriptors(&request) };
            judge(asker, installed(), &full, &request)
        };
        for uid in [1, 999, 1001, 65534, 1_900_000_002, u32::MAX - 1] {
            assert_eq!(ask(uid), Err(Denied::Peer(uid)), "{request:?}");
        }
        assert_eq!(ask(0), ask(1000), "root is the owner's equal");
    }
}

#[test]
fn descriptors_come_with_a_launch_and_with_nothing_else() {
    let full = full();
    for request in all(2) {
        let wanted = if matches!(request, Request::LaunchVm(_)) { 8 } else { 0 };
        for came in [0, 1, 7, 8, 9, 16] {
            let asker = Asker { uid: owner(), descriptors: came };
            let verdict = judge(asker, installed(), &full, &request);
            let refused = verdict == Err(Denied::Descriptors { came, wanted });
            assert_eq!(refused, came != wanted, "{came} with {request:?}");
        }
    }
}

#[test]
fn numbers_are_judged() {
    let full = full();
    let slot = |slot| verdict(&full, &Request::CreateTap { vm: id(9), port: at(slot) });
    for bad in [0, 1, 255, 256, u16::MAX] {
        assert_eq!(slot(bad), Err(Denied::Slot { slot: bad, subnet: subnet::DEFAULT }));
    }
    assert_eq!(slot(3), Err(Denied::SlotTaken { slot: 3, by: id(3) }));
    assert_eq!(slot(254), Ok(()));
    for (port, want) in [(0, false), (53, false), (1023, false), (1024, true), (u16::MAX, true)] {
        let want = if want { Ok(()) } else { Err(Denied::Port(port)) };
        assert_eq!(verdict(&full, &Request::SetResolver { dns_port: port }), want);
        assert_eq!(verdict(&full, &Request::EnsureBridge { subnet: subnet::DEFAULT, dns_port: port }), want);
    }
}

#[test]
fn a_network_with_vms_on_it_stays_what_it_is() {
    let request = Request::EnsureBridge { subnet: "10.9.0.1/24".parse().expect("a subnet"), dns_port: 42069 };
    assert_eq!(verdict(&full(), &request), Err(Denied::OtherSubnet(subnet::DEFAULT)));
    let empty = Exists { bridge: full().bridge, ..Exists::default() };
    assert_eq!(verdict(&empty, &request), Err(Denied::NotConfigured(subnet::DEFAULT)));
    // Root has changed its configuration, and no VM is there that knows the old one.
    let asker = Asker { uid: owner(), descriptors: 0 };
    let changed = Installed { owner: owner(), subnet: "10.9.0.1/24".parse().expect("a subnet") };
    assert_eq!(judge(asker, changed, &empty, &request), Ok(()));
    let unreadable = Exists { vms: Default::default(), ..full() };
    assert_eq!(verdict(&unreadable, &request), Err(Denied::OtherSubnet(subnet::DEFAULT)));
}

#[test]
fn what_makes_no_machine_is_not_launched() {
    let full = full();
    let spoilt = |spoil: &dyn Fn(&mut Launch)| {
        let mut launch = launch(2);
        spoil(&mut launch);
        verdict(&full, &Request::LaunchVm(launch))
    };
    assert_eq!(spoilt(&|_| {}), Ok(()));
    assert_eq!(spoilt(&|l| l.vcpu = 32), Ok(()));
    for (what, spoil) in [
        ("its number of vCPUs", &(|l: &mut Launch| l.vcpu = 0) as &dyn Fn(&mut Launch)),
        ("its number of vCPUs", &|l| l.vcpu = 33),
        ("its memory", &|l| l.memory = Mib(127)),
        ("its memory", &|l| l.memory = Mib(u64::MAX)),
        ("its number of drives", &|l| l.drives.truncate(2)),
        ("its number of drives", &|l| l.drives.clear()),
        ("its number of drives", &|l| l.drives = vec![DriveKind::ReadOnly; 12]),
        ("the size of its root", &|l| l.root = Root::Snapshot { sectors: 0 }),
    ] {
        assert_eq!(spoilt(spoil), Err(Denied::Machine(what)));
    }
}
