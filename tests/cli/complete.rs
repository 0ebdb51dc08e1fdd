//! Completion, in the shells themselves.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use banger::proto::api::Request;
use serde_json::json;

use crate::fake::{Fake, Ran, vm};

fn daemon() -> Fake {
    Fake::start(|request, asked| {
        match request {
        Request::VmList(_) => asked.done(json!([vm("dev", 1, "running"), vm("web", 2, "stopped")])),
        Request::ImageList(_) => asked.done(json!([{
            "id": "ab", "names": ["debian:12", "debian:13", "app"], "source": "s", "arch": "amd64", "bytes": 1,
            "created_at": 1, "config": {}, "disk_bytes": 1, "used_by": [],
        }])),
        Request::KernelList(_) => asked.done(json!([])),
        other => panic!("{other:?}"),
    }
    })
}

/// The directory of the built program, under the name that people use.
fn path() -> String {
    let bin = PathBuf::from(env!("CARGO_BIN_EXE_banger"));
    let dir = bin.parent().expect("a directory").display();
    format!("{dir}:/usr/bin:/bin")
}

fn answers(fake: &Fake, words: &[&str]) -> Vec<String> {
    let ran = fake.run(&[&["complete", "--"], words].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{words:?}");
    ran.out.lines().map(|l| l.split('\t').next().expect("a word").to_owned()).collect()
}

#[test]
fn names_are_live_and_nothing_is_answered_when_the_daemon_is_down() {
    let fake = daemon();
    assert_eq!(answers(&fake, &["vm", "exec", ""]), ["dev", "web"]);
    assert_eq!(answers(&fake, &["vm", "exec", "w"]), ["web"]);
    assert_eq!(answers(&fake, &["vm", "run", "--image", "deb"]), ["debian:12", "debian:13"]);
    assert_eq!(answers(&fake, &["vm", "cp", "d"]), ["dev:", ":files"]);
    let down = Fake::absent();
    assert_eq!(answers(&down, &["vm", "exec", ""]), [""; 0]);
    assert_eq!(answers(&down, &["vm", "st"]), ["start", "stop", "stats"]);
    assert_eq!(std::fs::read_dir(down.root()).expect("lists").count(), 0, "no daemon was started");
}

/// What bash would offer for `line`, with the cursor at its end.
fn bash(fake: &Fake, line: &str) -> Vec<String> {
    // What readline does: cuts at COMP_WORDBREAKS, sets the variables, calls the function.
    let script = r#"
        source <(banger completion bash)
        shopt -s extglob
        compopt() { :; }
        COMP_LINE=$1 COMP_POINT=${#1}
        COMP_WORDS=() rest=$1
        while [[ -n $rest ]]; do
            if [[ $rest =~ ^[[:space:]]+ ]]; then rest=${rest#"${BASH_REMATCH[0]}"}; continue; fi
            [[ $rest =~ ^([:=]+|[^[:space:]:=]+) ]]
            COMP_WORDS+=("${BASH_REMATCH[0]}"); rest=${rest#"${BASH_REMATCH[0]}"}
        done
        [[ $1 == *[[:space:]] ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _banger
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    shell(fake, Command::new("bash").args(["--norc", "-c", script, "bash", line]))
}

fn shell(fake: &Fake, command: &mut Command) -> Vec<String> {
    let output = command
        .env("PATH", path())
        .env("BANGER_ROOT", fake.root())
        .current_dir(fake.root())
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    let ran = Ran::of(output);
    assert_eq!(ran.err, "");
    ran.out.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_names_and_names_with_colons() {
    let fake = daemon();
    std::fs::write(fake.root().join("notes"), "").expect("writes");
    let table: [(&str, &[&str]); 9] = [
        ("banger vm st", &["start", "stop", "stats"]),
        ("banger vm exec ", &["dev", "web"]),
        ("banger vm run --image debian:", &["12", "13"]),
        ("banger vm run --image debian:1", &["12", "13"]),
        ("banger vm run --image=app", &["app"]),
        ("banger vm run --vmm=q", &["qemu"]),
        ("banger vm cp n", &["notes"]),
        ("banger vm cp d", &["dev:"]),
        ("banger vm exec dev -- l", &[]),
    ];
    for (line, want) in table {
        assert_eq!(bash(&fake, line), want, "{line}");
    }
}

#[test]
#[ignore = "needs zsh"]
fn zsh_takes_the_script_and_completes() {
    let fake = daemon();
    let script = r#"
        autoload -Uz compinit && compinit -u -D
        source <(banger completion zsh)
        # _describe and compadd are zsh's own; what they are given is what counts.
        _describe() { print -rl -- "${(@P)2}" }
        compadd() { print -rl -- "${@[$#]}" }
        _files() { print files }
        words=(banger vm exec '') CURRENT=4; _banger
        words=(banger vm cp d) CURRENT=4; _banger
        words=(banger vm run --image deb) CURRENT=5; _banger
    "#;
    let offered = shell(&fake, Command::new("zsh").args(["-f", "-c", script]));
    assert_eq!(
        offered,
        [
            "dev:running from debian",
            "web:stopped from debian",
            "files",
            "dev:",
            "debian\\:12:1 B",
            "debian\\:13:1 B"
        ]
    );
}

#[test]
#[ignore = "needs fish"]
fn fish_takes_the_script_and_completes() {
    let fake = daemon();
    let script = "banger completion fish | source; complete -C 'banger vm exec '; complete -C 'banger vm run --image deb'; complete -C 'banger vm st'";
    let offered =
        shell(&fake, Command::new("fish").args(["--no-config", "-c", script]).env("HOME", fake.root()));
    let words: Vec<&str> = offered.iter().map(|l| l.split('\t').next().expect("a word")).collect();
    assert_eq!(words, ["dev", "web", "debian:12", "debian:13", "start", "stats", "stop"]);
}
