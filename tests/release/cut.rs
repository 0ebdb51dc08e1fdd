//! A download of install.sh that was cut off does nothing, wherever it was cut.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::rig::{INSTALLER, names_in, write_executable};

#[test]
#[ignore = "needs bash; runs it a thousand times"]
fn no_part_of_the_script_does_anything() {
    let script = fs::read(INSTALLER).expect("reads");
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    for name in ["bin", "home"] {
        fs::create_dir(at(name)).expect("makes a directory");
    }
    // The only programs there are; each leaves its name.
    write_executable(&at("bin/trace"), &format!("#!/bin/sh\necho \"$0 $*\" >>{}\n", at("ran").display()));
    for name in [
        "awk", "apt-get", "cargo", "cat", "curl", "dpkg", "head", "id", "mktemp", "openssl", "rm", "sed",
        "sudo", "tar", "uname", "wget",
    ] {
        symlink("trace", at("bin").join(name)).expect("links");
    }
    let run = |part: &[u8]| {
        fs::write(at("part"), part).expect("writes");
        let mut command = Command::new("/bin/bash");
        command.args(["-s", "--", "--yes"]).stdin(fs::File::open(at("part")).expect("opens"));
        command
            .env_clear()
            .env("PATH", at("bin"))
            .env("HOME", at("home"))
            .env("TMPDIR", at("home"))
            .current_dir(at("home"));
        command.output().expect("runs")
    };
    let lines = script.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(i, _)| i + 1);
    // After each line, at many places within them, and everywhere near the end. The last byte is a newline that nothing waits for.
    let end = script.len() - 1;
    let cuts: std::collections::BTreeSet<usize> =
        lines.chain((0..script.len()).step_by(97)).chain(end - 100..end).filter(|cut| *cut < end).collect();
    for cut in cuts {
        let out = run(&script[..cut]);
        let shown = String::from_utf8_lossy(&script[cut.saturating_sub(60)..cut]).into_owned();
        assert!(
            !at("ran").exists(),
            "cut after {cut} bytes, {shown:?}: {}",
            fs::read_to_string(at("ran")).unwrap_or_default()
        );
        assert!(out.stdout.is_empty(), "cut after {cut} bytes, {shown:?}: {out:?}");
        assert_eq!(names_in(&at("home")), [""; 0], "cut after {cut} bytes, {shown:?}");
    }
    // The whole of it does: this test would see it.
    run(&script);
    assert!(at("ran").exists());
}
