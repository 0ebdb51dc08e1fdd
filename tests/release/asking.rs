//! install.sh asks before it does anything, on the terminal, whatever its stdin is; and its options.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use crate::rig::{Home, INSTALLER, Publisher, Ran, names_in, sh};

/// Runs a line of shell on a terminal of its own, on which somebody answers when asked. Everything that is shown comes as `out`.
fn on_a_terminal(home: &Home, line: &str, answer: &str) -> Ran {
    let mut command = home.command("/usr/bin/script", &["-q", "-e", "-c", line, "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut keyboard = child.stdin.take().expect("a pipe");
    let mut screen = child.stdout.take().expect("a pipe");
    let (mut shown, mut answered) = (vec![], false);
    let mut buffer = [0; 4096];
    loop {
        let n = screen.read(&mut buffer).expect("reads");
        if n == 0 {
            break;
        }
        shown.extend_from_slice(&buffer[..n]);
        if !answered && String::from_utf8_lossy(&shown).contains("Go on? [y/N] ") {
            keyboard.write_all(answer.as_bytes()).expect("types");
            answered = true;
        }
    }
    let code = child.wait().expect("ends").code();
    let ran = Ran { code, out: String::from_utf8_lossy(&shown).into_owned(), err: String::new() };
    assert_eq!(names_in(&home.path("tmp")), [""; 0], "{ran:#?}");
    assert!(answered, "nobody was asked: {ran:#?}");
    ran
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn without_a_terminal_and_without_yes_nothing_is_done() {
    let (publisher, home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let script = fs::read(publisher.out().join("install.sh")).expect("reads");
    for args in [&["--prefix", &home.text("p")][..], &[]] {
        let ran = home.piped(&script, args);
        // What it would have done has been said.
        assert!(ran.out.contains("This will"), "{ran:#?}");
        let said = home.sentence(ran);
        assert!(said.contains("there is no terminal to ask on; run this with --yes"), "{said}");
    }
    assert!(!home.path("p").exists());
    assert_eq!(home.log(), "");
    let seen = publisher.server.seen();
    assert!(seen.iter().all(|path| path == "/manifest.json"), "nothing else was downloaded: {seen:?}");
}

#[test]
#[ignore = "needs bash, curl, openssl and script"]
fn on_a_terminal_the_answer_decides_also_when_the_script_comes_from_a_pipe() {
    let (publisher, home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let script = publisher.out().join("install.sh").display().to_string();
    let (piped, file) = (format!("cat {script} | bash"), format!("bash {script}"));
    for line in [&piped, &file] {
        for answer in ["n\n", "\n", "yesterday\n", "\x04"] {
            let ran = on_a_terminal(&home, line, answer);
            assert!(
                ran.code == Some(1) && ran.out.contains("nothing has been changed"),
                "{line} {answer:?}: {ran:#?}"
            );
        }
        assert_eq!(home.log(), "");
    }
    for (line, answer) in [(&piped, "y\n"), (&file, "YES\n")] {
        let ran = on_a_terminal(&home, line, answer);
        assert_eq!(ran.code, Some(0), "{line}: {ran:#?}");
        let at = |text: &str| ran.out.find(text).unwrap_or_else(|| panic!("{text}: {ran:#?}"));
        assert!(
            at("Root is needed") < at("Go on? [y/N]") && at("Go on?") < at("downloading banger-v1.2.3"),
            "{ran:#?}"
        );
        assert_eq!(home.log(), "sudo\nbanger system install --owner me\n");
        fs::remove_file(home.path("log")).expect("removes");
    }
    // And so for taking it away.
    fs::create_dir_all(home.path("root/bin")).expect("makes directories");
    crate::rig::write_program(&home.path("root/bin/banger"), "v1.2.3");
    let line = format!("bash {INSTALLER} --uninstall");
    assert_eq!(on_a_terminal(&home, &line, "n\n").code, Some(1));
    assert_eq!(home.log(), "");
    assert_eq!(on_a_terminal(&home, &line, "y\n").code, Some(0));
    assert_eq!(home.log(), "sudo\nbanger system uninstall\n");
}

#[test]
#[ignore = "needs bash, curl, openssl and script"]
fn one_that_is_interrupted_leaves_nothing() {
    let (publisher, home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let script = publisher.out().join("install.sh").display().to_string();
    // Ctrl-C at the question, and a signal while nothing comes.
    let ran = on_a_terminal(&home, &format!("bash {script} --prefix {}", home.text("p")), "\x03");
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    publisher.server.put("/manifest.json", crate::server::Page::Silent);
    for signal in ["TERM", "HUP", "INT"] {
        let line = format!(
            "set -em; bash {script} --yes --prefix {0} & pid=$!; until [ -n \"$(ls {1})\" ]; do kill -0 $pid; sleep 0.05; done; \
             kill -{signal} -- -$pid; wait $pid || true",
            home.text("p"),
            home.text("tmp")
        );
        let ran = Ran::from(home.command("/bin/bash", &["-c", &line]).output().expect("runs"));
        assert_eq!((ran.code, names_in(&home.path("tmp"))), (Some(0), vec![]), "{signal}: {ran:#?}");
    }
    assert!(!home.path("p").exists());
}

#[test]
#[ignore = "needs bash"]
fn options_that_make_no_sense_are_refused_before_anything_is_done() {
    let home = Home::new();
    for (args, why) in [
        (&["--frobnicate"][..], "there is no option --frobnicate"),
        (&["v1.2.3"], "there is no option v1.2.3"),
        (&["--version"], "--version needs a value"),
        (&["--prefix", ""], "--prefix needs a value"),
        (&["--version", "1.2.3"], "--version is written like v1.2.3"),
        (&["--version", "v1.2.3\nx"], "--version is written like v1.2.3"),
        (&["--unverified"], "--unverified belongs to --from"),
        (&["--prefix", "/x", "--owner", "me"], "--owner and --prefix do not go together"),
        (&["--uninstall", "--from", "x"], "--uninstall takes away what is there"),
        (&["--try", "--yes"], "--try is alone"),
        (&["--yes", "--try"], "--try is alone"),
    ] {
        let ran = home.run(args);
        let said =
            ran.err.lines().count() == 1 && ran.err.starts_with("install.sh: ") && ran.err.contains(why);
        assert!(ran.code == Some(2) && said, "{args:?}: {ran:#?}");
    }
    for args in [&["--help"][..], &["-h"], &["--yes", "--help"]] {
        assert!(home.ok(args).out.starts_with("Usage: install.sh"), "{args:?}");
    }
    // Not for every shell, and it says so; and not outside of a checkout, for what needs one.
    sh(
        &home.path("home"),
        &format!("dash {INSTALLER} --help 2>said && exit 1; grep -q 'pipe it into bash' said"),
    );
    let said = home.sentence(home.piped(&fs::read(INSTALLER).expect("reads"), &["--try"]));
    assert!(said.contains("this is not banger's source"), "{said}");
}
