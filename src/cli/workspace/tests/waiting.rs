//! What git would wait for: named pipes and the like in the place of files that it reads.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use signal_hook::consts::SIGINT;

use super::{Host, sentence};
use crate::cli::workspace::WorkspaceError;
use crate::cli::workspace::gather::{Wish, gather, head_of};
use crate::host::cmd::git::Patience;
use crate::host::ending::Ending;

/// Puts a named pipe in the place of whatever is there.
fn pipe(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
    std::fs::remove_file(path).unwrap_or_default();
    let made = Command::new("mkfifo").arg(path).status().expect("runs mkfifo");
    assert!(made.success(), "{}", path.display());
}

fn impatient(host: &Host) -> Wish {
    let patience = Patience { idle: Duration::from_millis(200), ending: None };
    Wish { patience, ..host.wish() }
}

/// The children of this process.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("lists").map(|task| task.expect("a task").path());
    let all = tasks.map(|task| std::fs::read_to_string(task.join("children")).unwrap_or_default());
    all.flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A repository in which git waits where nobody looks before.
fn trap(name: &str) -> Host {
    let host = Host::new();
    host.write("new/f", "untracked");
    pipe(&host.path(name));
    host.git(&["config", "--file", ".git/config", "include.path", "elsewhere"]);
    host
}

#[test]
fn a_pipe_in_the_place_of_a_file_that_git_reads_is_refused_by_name() {
    let host = Host::new();
    host.write("d/e/f", "x");
    host.commit("more");
    let loose = host.git(&["rev-parse", "HEAD:a"]);
    let loose = format!(".git/objects/{}/{}", &loose[..2], &loose[2..]);
    for name in [
        ".gitignore",
        ".gitattributes",
        ".gitmodules",
        "d/.gitignore",
        "d/e/.gitignore",
        ".git/HEAD",
        ".git/config",
        ".git/index",
        ".git/info/attributes",
        ".git/info/exclude",
        ".git/info/sparse-checkout",
        ".git/objects/info/alternates",
        ".git/objects/pack/pack-1.idx",
        ".git/packed-refs",
        ".git/refs/heads/main",
        ".git/refs/tags/v1",
        ".git/shallow",
        ".git/sharedindex.1",
        &loose,
    ] {
        let kept = std::fs::read(host.path(name)).ok();
        pipe(&host.path(name));
        let said = sentence(gather(&host.wish()));
        let want = format!(
            "{} is a named pipe, a socket or a device, in the place of a file that git reads; remove it",
            host.path(name).display()
        );
        assert_eq!(said, want);
        std::fs::remove_file(host.path(name)).expect("removes");
        if let Some(kept) = kept {
            std::fs::write(host.path(name), kept).expect("writes");
        }
    }
    // Nobody reads these, and sockets of a file system monitor are where they belong.
    let _socket = std::os::unix::net::UnixListener::bind(host.path(".git/ipc")).expect("binds");
    for name in [".mise.toml", "d/f", "d/.gitattributes"] {
        pipe(&host.path(name));
    }
    assert_eq!(host.gather().items.len(), 2);
}

#[test]
fn a_git_that_does_nothing_is_ended_and_what_to_look_for_is_said() {
    for (name, verb) in [(".git/elsewhere", "git rev-parse"), ("new/.gitignore", "git ls-files")] {
        let host = trap(name);
        let said = sentence(gather(&impatient(&host)));
        let top = host.top();
        let begins = format!("{verb} did nothing for 200ms in {} and was ended: ", top.display());
        let ends = format!("`find {} -type p` lists those, for you to remove", top.display());
        assert!(said.starts_with(&begins) && said.ends_with(&ends), "{said}");
        assert_eq!(children(), [""; 0]);
    }
    let host = trap(".git/elsewhere");
    assert_eq!(head_of(&host.top(), &impatient(&host).patience), None);
}

#[test]
fn ctrl_c_ends_a_git_that_waits() {
    for name in [".git/elsewhere", "new/.gitignore"] {
        let ending = Ending::catch([SIGINT]).expect("catches");
        let host = trap(name);
        let patience = Patience { ending: Some(ending), ..Patience::default() };
        let wish = Wish { patience, ..host.wish() };
        let ended = std::thread::scope(|scope| {
            let gathering = scope.spawn(|| gather(&wish));
            while children().is_empty() && !gathering.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            signal_hook::low_level::raise(SIGINT).expect("raises");
            gathering.join().expect("no panic")
        });
        assert!(matches!(ended, Err(WorkspaceError::Interrupted(SIGINT))), "{}", sentence(ended));
        assert_eq!(children(), [""; 0]);
    }
    // So does the reading of a directory in which there is no git.
    let host = Host::new();
    let ending = Ending::catch([SIGINT]).expect("catches");
    signal_hook::low_level::raise(SIGINT).expect("raises");
    let patience = Patience { ending: Some(ending), ..Patience::default() };
    let wish = Wish { copy: true, patience, ..host.wish() };
    assert!(matches!(gather(&wish), Err(WorkspaceError::Interrupted(SIGINT))));
}
