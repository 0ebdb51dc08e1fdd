use std::fs::{File, OpenOptions};

use super::*;

const OWNER: u32 = 1000;

fn facts(role: Role) -> Facts {
    let (kind, mode, flags) = match role {
        Role::Sockets => (FileType::Directory, 0o700, OFlags::RDONLY | OFlags::DIRECTORY),
        Role::Console | Role::Log => (FileType::RegularFile, 0o600, OFlags::WRONLY | OFlags::APPEND),
        Role::Drive(_, DriveKind::Writable | DriveKind::Disposable) => {
            (FileType::RegularFile, 0o600, OFlags::RDWR)
        }
        _ => (FileType::RegularFile, 0o444, OFlags::RDONLY),
    };
    // O_LARGEFILE is there or not, as the caller's libc likes.
    Facts { kind, uid: OWNER, mode: Mode::from_raw_mode(mode), links: 1, flags: flags | OFlags::LARGEFILE }
}

const ALL: [Role; 8] = [
    Role::Sockets,
    Role::Console,
    Role::Log,
    Role::Kernel,
    Role::Initrd,
    Role::Drive(0, DriveKind::ReadOnly),
    Role::Drive(1, DriveKind::Writable),
    Role::Drive(1, DriveKind::Disposable),
];

/// One letter for each of [`ALL`]: `.` is fit, the others are the first letter of what is wrong.
fn outcome(change: impl Fn(&mut Facts)) -> String {
    let judged = ALL.map(|role| {
        let mut facts = facts(role);
        change(&mut facts);
        match judge(role, &facts, OWNER) {
            Ok(()) => '.',
            Err(Unfit::Kind) => 'k',
            Err(Unfit::Access) => 'a',
            Err(Unfit::Owner(_)) => 'o',
            Err(Unfit::Links(_)) => 'l',
            Err(Unfit::Closed) => 'c',
        }
    });
    judged.into_iter().collect()
}

#[test]
fn every_role_refuses_what_it_must() {
    use FileType as T;
    let access = |flags: OFlags| outcome(move |f| f.flags = flags);
    let kind = |kind: FileType| outcome(move |f| f.kind = kind);
    let mode = |mode: u32| outcome(move |f| f.mode = Mode::from_raw_mode(mode));
    let table = [
        ("as they should be", outcome(|_| {}), "........"),
        ("all regular files", kind(T::RegularFile), "k......."),
        ("all directories", kind(T::Directory), ".kkkkkkk"),
        ("all symlinks", kind(T::Symlink), "kkkkkkkk"),
        ("all devices", kind(T::BlockDevice), "kkkkkkkk"),
        ("all FIFOs", kind(T::Fifo), "kkkkkkkk"),
        ("all sockets", kind(T::Socket), "kkkkkkkk"),
        ("opened to read", access(OFlags::RDONLY), ".aa...aa"),
        ("opened to write", access(OFlags::WRONLY), "aaaaaaaa"),
        ("opened to read and write", access(OFlags::RDWR), "aaaaaa.."),
        ("opened to append", access(OFlags::WRONLY | OFlags::APPEND), "a..aaaaa"),
        ("opened to read and append", access(OFlags::RDWR | OFlags::APPEND), "aaaaaaaa"),
        ("opened as mere paths", access(OFlags::PATH), "aaaaaaaa"),
        ("root's", outcome(|f| f.uid = 0), "ooo...oo"),
        ("somebody else's", outcome(|f| f.uid = OWNER + 1), "oooooooo"),
        ("with a second name", outcome(|f| f.links = 2), ".ll...ll"),
        ("with no name", outcome(|f| f.links = 0), ".ll...ll"),
        ("for the owner alone", mode(0o600), "...ccc.."),
        ("open to all", mode(0o777), "........"),
    ];
    for (what, got, want) in table {
        assert_eq!(got, want, "{what}");
    }
}

fn launch(drives: &[DriveKind]) -> Launch {
    Launch {
        vm: "0123456789ab".parse().expect("an id"),
        name: "dev".parse().expect("a name"),
        vmm: crate::proto::root::Vmm::QemuTcg,
        vsock: crate::proto::root::Vsock::Device,
        vcpu: 1,
        memory: crate::vm::size::Mib(256),
        drives: drives.to_vec(),
        root: crate::proto::root::Root::Plain,
        modules: false,
        network: false,
        ready_port: 1001,
    }
}

#[test]
fn real_descriptors_are_looked_at_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    crate::host::files::write_atomic(&path, b"x", 0o644).expect("writes");
    let append = || OpenOptions::new().append(true).open(&path).expect("opens").into();
    let read = || -> OwnedFd { File::open(&path).expect("opens").into() };
    let given = |drive: OwnedFd| {
        vec![File::open(dir.path()).expect("opens").into(), append(), append(), read(), read(), drive]
    };
    let me = rustix::process::geteuid().as_raw();
    let launch = launch(&[DriveKind::ReadOnly]);
    let sorted = sort(&launch, me, given(read())).expect("fit");
    assert_eq!(sorted.last().expect("a drive").0, Role::Drive(0, DriveKind::ReadOnly));
    let error = sort(&launch, me, given(append())).expect_err("unfit").to_string();
    assert_eq!(error, "drive 0 is not opened as it must be: for reading only");
    let error = sort(&launch, me, vec![]).expect_err("too few").to_string();
    assert_eq!(error, "0 descriptors came with a launch that needs 6");
    let error = sort(&launch, me + 1, given(read())).expect_err("a stranger's").to_string();
    assert_eq!(
        error,
        format!("the directory for sockets belongs to user {me}, whom this helper does not serve")
    );
    let path = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).expect("opens");
    let error = sort(&launch, me, given(path)).expect_err("a mere path").to_string();
    assert_eq!(error, "drive 0 is not opened as it must be: for reading only");
}
