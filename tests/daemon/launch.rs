//! Launching in two phases: a process that is known before it is anything.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use banger::host::process;

use crate::rig::{BANGER, alive};

fn shim() -> Child {
    Command::new(BANGER).arg0("bangerd").arg("--launch").stdin(Stdio::piped()).spawn().expect("spawns")
}

fn order(program: &[&str], log: &Path) -> String {
    serde_json::json!({ "argv": program, "log": log }).to_string()
}

#[test]
fn half_an_order_starts_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mark, log) = (dir.path().join("mark"), dir.path().join("log"));
    let order = order(&["/usr/bin/touch", mark.to_str().expect("text")], &log);
    for part in ["", &order[..order.len() / 2], &order] {
        let mut shim = shim();
        shim.stdin.take().expect("piped").write_all(part.as_bytes()).expect("writes");
        assert!(!shim.wait().expect("ends").success());
        assert!(!mark.exists() && !log.exists());
    }
}

#[test]
fn a_whole_order_makes_the_program_of_the_same_process_in_a_session_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut shim = shim();
    let known = process::observe(shim.id()).expect("reads /proc").expect("lives");
    let line =
        order(&["/bin/sh", "-c", "echo hello; ls /proc/self/fd; read x; echo end; exec sleep 300"], &log)
            + "\n";
    shim.stdin.take().expect("piped").write_all(line.as_bytes()).expect("writes");
    while !std::fs::read_to_string(&log).unwrap_or_default().ends_with("end\n") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(alive(known), "the same pid and start time");
    let pid = rustix::process::Pid::from_child(&shim);
    assert_eq!(rustix::process::getsid(Some(pid)).expect("asks"), pid);
    // 3 is ls's own, of the directory that it lists; stdin was at its end.
    assert_eq!(std::fs::read_to_string(&log).expect("reads"), "hello\n0\n1\n2\n3\nend\n");
    shim.kill().expect("kills it");
    shim.wait().expect("reaps it");
}

#[test]
fn a_program_that_is_not_there_is_named_in_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut shim = shim();
    let line = order(&["/no/such/program"], &log) + "\n";
    shim.stdin.take().expect("piped").write_all(line.as_bytes()).expect("writes");
    assert_eq!(shim.wait().expect("ends").code(), Some(127));
    let said = std::fs::read_to_string(&log).expect("reads");
    assert_eq!(said, "bangerd: cannot run /no/such/program: No such file or directory (os error 2)\n");
}
