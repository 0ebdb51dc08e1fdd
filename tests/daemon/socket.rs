//! The socket: who may ask, and what becomes of those who ask badly.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use banger::proto::api::{Code, DaemonStatus, DaemonStop, ImageImport, MAX_REQUEST, VmList, VmShow};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::rig::Rig;

#[test]
fn the_socket_is_its_owners_alone() {
    let rig = Rig::started();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("stats").mode() & 0o777;
    assert_eq!(mode(&rig.dirs().socket()), 0o600);
    assert_eq!(mode(&rig.dirs().runtime), 0o700);
    assert_eq!(mode(&rig.dirs().state), 0o700);
}

#[test]
fn what_is_no_request_gets_a_sentence_with_the_operations_id() {
    let rig = Rig::started();
    for (line, want) in [
        (&b"nonsense\n"[..], "this is no request that bangerd knows: "),
        (b"\n", "this is no request that bangerd knows: "),
        (b"{\"method\":\"vm.fly\",\"params\":{}}\n", "unknown method \"vm.fly\""),
        (b"\xff\xfe\n", "this is no request that bangerd knows: "),
        (b"{}\n{}\n", "more than one line came"),
    ] {
        let mut client = rig.connect();
        client.stream.write_all(line).expect("sends");
        let failure = client.failure();
        assert!(failure.message.contains(want), "{failure:?}");
        assert_eq!(failure.code, Code::BadRequest);
        assert!(rig.log().contains(&failure.op), "{} is in the log", failure.op);
        assert_eq!(client.line(), None);
    }
}

#[test]
fn an_endless_line_is_refused() {
    let rig = Rig::started();
    let mut client = rig.connect();
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..=MAX_REQUEST / piece.len() + 1 {
        // It may be refused, and the connection closed, before all of it is sent.
        if client.stream.write_all(&piece).is_err() {
            break;
        }
    }
    assert!(client.failure().message.starts_with("the request is too long"));
    rig.call(DaemonStatus {}).expect("it goes on");
}

#[test]
fn a_client_that_says_nothing_is_given_up_and_hurts_nobody() {
    let rig = Rig::started();
    let mut idle: Vec<_> = (0..200).map(|_| rig.connect()).collect();
    idle[0].stream.write_all(b"{\"method\":").expect("sends half");
    for _ in 0..20 {
        rig.call(VmList {}).expect("others are served meanwhile");
    }
    for client in &mut idle {
        assert_eq!(client.failure().message, "no whole request came within 5 seconds");
    }
}

#[test]
fn a_client_that_hangs_up_hurts_nobody() {
    let rig = Rig::started();
    for _ in 0..50 {
        let mut client = rig.connect();
        client.ask(VmList {});
        drop(client);
        drop(rig.connect());
    }
    rig.call(VmList {}).expect("it goes on");
}

#[test]
fn a_client_that_shuts_its_writing_half_still_gets_its_answer() {
    let rig = Rig::started();
    let mut client = rig.connect();
    client.ask(VmList {});
    client.stream.shutdown(std::net::Shutdown::Write).expect("shuts");
    client.outcome::<VmList>().expect("answers");
}

#[test]
fn a_descriptor_comes_with_the_request() {
    let rig = Rig::started();
    let client = rig.connect();
    let line = banger::proto::api::Request::from(ImageImport {
        path: None,
        name: None,
        force: false,
        platform: None,
    })
    .to_json()
    .expect("serialises")
        + "\n";
    let file = std::fs::File::open("/dev/null").expect("opens");
    let fds = [file.as_fd(), file.as_fd(), file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // More of them than one are closed, and harm nobody.
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&client.stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::empty())
        .expect("sends");
    let mut client = client;
    let failure = client.outcome::<ImageImport>().expect_err("an empty stream is no image");
    assert!(failure.message.starts_with("cannot import the stream: "), "{failure:?}");
    let without = rig
        .call(ImageImport { path: None, name: None, force: false, platform: None })
        .expect_err("there is nothing to import");
    assert_eq!(without.message, "there is neither a path nor a stream to import from");
}

#[test]
fn a_second_bangerd_says_that_there_is_a_first() {
    let rig = Rig::started();
    let second = rig.run(&[]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another bangerd is running already, at "), "{said}");
    rig.call(VmList {}).expect("the first goes on");
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_in_its_place_is_not() {
    let mut rig = Rig::started();
    rig.kill();
    assert!(rig.dirs().socket().exists());
    rig.start();
    rig.kill();
    std::fs::remove_file(rig.dirs().socket()).expect("removes it");
    std::fs::write(rig.dirs().socket(), "precious").expect("writes");
    let said = String::from_utf8_lossy(&rig.run(&[]).stderr).into_owned();
    assert!(said.contains("is no socket; remove it"), "{said}");
    assert_eq!(std::fs::read(rig.dirs().socket()).expect("reads"), b"precious");
}

#[test]
fn stop_is_answered_and_leaves_no_socket() {
    let rig = Rig::started();
    rig.call(DaemonStop {}).expect("answers");
    assert!(!rig.dirs().socket().exists());
}

#[test]
fn a_daemon_that_is_started_while_another_one_ends_waits_for_it() {
    let mut rig = Rig::started();
    for _ in 0..10 {
        rig.call(DaemonStop {}).expect("answers");
        let first = rig.daemon_pid();
        rig.restart();
        assert_ne!(rig.daemon_pid(), first);
    }
}

#[test]
fn unknown_arguments_are_refused_in_one_line() {
    let rig = Rig::new();
    for args in [&["--frobnicate"][..], &["now"], &["--system"]] {
        let out = rig.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.starts_with("bangerd: ") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn the_migration_check_answers_by_status_and_line_beside_a_daemon_and_after_its_death() {
    let mut rig = Rig::new();
    let check = |rig: &Rig| {
        let out = rig.run(&["--check-migrations"]);
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let compatible = (Some(0), "compatible: schema 1\n".to_owned());
    assert_eq!(check(&rig), compatible);
    rig.seed();
    rig.start();
    assert_eq!(check(&rig), compatible);
    rig.create("dev");
    rig.kill();
    assert_eq!(check(&rig), compatible);
    std::fs::write(rig.dirs().database(), "garbage").expect("damages it");
    assert_eq!(check(&rig).0, Some(3));
    let said = String::from_utf8_lossy(&rig.run(&[]).stderr).into_owned();
    assert!(said.contains("is damaged") && said.contains("put a copy of it back"), "{said}");
    std::fs::remove_file(rig.dirs().database()).expect("removes it");
    let said = String::from_utf8_lossy(&rig.run(&[]).stderr).into_owned();
    assert!(said.contains("has disks of VMs"), "{said}");
    assert_eq!(std::fs::read_dir(rig.dirs().state.join("vms")).expect("lists").count(), 1);
}

#[test]
fn a_bad_configuration_is_named() {
    let rig = Rig::new();
    std::fs::create_dir_all(&rig.dirs().config).expect("makes a directory");
    std::fs::write(rig.dirs().config_file(), "[vm_defaults]\nmemroy = '1G'\n").expect("writes");
    let said = String::from_utf8_lossy(&rig.run(&[]).stderr).into_owned();
    assert!(
        said.contains("config.toml:2:1: there is no key \"memroy\" in [vm_defaults]; did you mean memory?"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root, to become somebody else"]
fn another_user_is_refused_even_with_a_way_to_the_socket() {
    let rig = Rig::started();
    for path in [rig.path(), &rig.dirs().runtime] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("opens the way");
    }
    std::fs::set_permissions(rig.dirs().socket(), PermissionsExt::from_mode(0o666)).expect("opens the way");
    let failure = std::thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            // Of this thread alone.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("becomes nobody");
            let mut client = rig.connect();
            client.ask(VmShow { vm: "dev".to_owned() });
            client.failure()
        });
        stranger.join().expect("asked")
    });
    assert_eq!(failure.message, "this bangerd serves uid 0, and you are uid 65534");
}

#[test]
#[ignore = "needs root, to give things away"]
fn a_directory_or_a_socket_of_somebody_else_is_refused() {
    let rig = Rig::new();
    std::fs::create_dir_all(&rig.dirs().runtime).expect("makes a directory");
    std::os::unix::fs::chown(rig.dirs().runtime, Some(65534), None).expect("gives it away");
    let said = String::from_utf8_lossy(&rig.run(&[]).stderr).into_owned();
    assert!(said.contains("belongs to the user with uid 65534, not to you"), "{said}");
    std::os::unix::fs::chown(rig.dirs().runtime, Some(0), None).expect("takes it back");
    let _theirs = UnixListener::bind(rig.dirs().socket()).expect("binds");
    std::os::unix::fs::chown(rig.dirs().socket(), Some(65534), None).expect("gives it away");
    let said = String::from_utf8_lossy(&rig.run(&[]).stderr).into_owned();
    assert!(said.contains("bangerd.sock belongs to the user with uid 65534"), "{said}");
    UnixStream::connect(rig.dirs().socket()).expect("theirs is still there");
}
