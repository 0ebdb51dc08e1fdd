//! The tools that a work tree asks for, by mise's files or asdf's: installed in the guest by the mise that is there.

use std::collections::VecDeque;

use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::workspace::export::{Ran, run};
use crate::image::config::Asked;
use crate::proto::api::VmExec;

/// The files that ask for tools, at the top of a work tree.
const FILES: [&str; 3] = [".mise.toml", "mise.toml", ".tool-versions"];
/// The most lines of an installation that are shown.
const MAX_LINES: usize = 100;
/// The script's exit status where the image has no mise.
const NO_MISE: u8 = 3;

/// What both ways have in common: `$1` is the work tree, `$2` the log.
const BEGIN: &str = r#"cd "$1" && mkdir -p "${2%/*}" || exit
PATH=$PATH:/root/.local/bin
command -v mise >/dev/null || { echo "this image has no mise, so no tools were installed" >"$2"; exit 3; }
install() { echo "mise install in $PWD"; mise trust --yes; mise install --yes; }
"#;
/// It goes on by itself.
const BEHIND: &str = r#"install >"$2" 2>&1 </dev/null &"#;
/// What it prints is in the log and here.
const BEFORE: &str = r#"{ install; echo $? >"$2.status"; } 2>&1 </dev/null | tee "$2"
read -r status <"$2.status"; rm -f "$2.status"; exit "$status""#;

/// The file among `paths` of a work tree that asks for tools.
pub fn asked_by<'a>(paths: impl Iterator<Item = &'a [u8]> + Clone) -> Option<&'static str> {
    FILES.into_iter().find(|file| paths.clone().any(|path| path == file.as_bytes()))
}

/// Why it is not begun.
pub fn no_way_out(file: &str) -> Error {
    Error::Refused(format!(
        "the work tree has a {file}, whose tools are fetched from the internet; --nat gives the VM a way there, --no-bootstrap leaves them out"
    ))
}

/// Installs the tools of the work tree at `path`, and says where that is written: behind what follows, or with `wait` before it.
///
/// # Errors
/// Where nothing can be run in the guest. Tools that do not install are worth a word, and no error.
pub fn begin(
    client: &Client,
    vm: &str,
    path: &str,
    wait: bool,
    attention: &mut Attention<'_>,
) -> Result<(), Error> {
    let log = log_of(path);
    let script = format!("{BEGIN}{}", if wait { BEFORE } else { BEHIND });
    let argv = ["sh", "-c", &script, "sh", path, &log].map(str::to_owned).to_vec();
    let asked = Asked { argv, user: Some("0".to_owned()), ..Asked::default() };
    let request = VmExec { vm: vm.to_owned(), asked, as_run: false, tty: None, stdin: true };
    let guest = client.open(request, attention)?;
    let mut line = vec![];
    // The log has all of it.
    let mut said = VecDeque::new();
    let ran = run(guest, b"", attention, |bytes| {
        for byte in bytes {
            match byte {
                b'\n' => said.push_back(std::mem::take(&mut line)),
                byte if line.len() < 4096 => line.push(*byte),
                _ => {}
            }
        }
        said.drain(..said.len().saturating_sub(MAX_LINES));
        true
    })?;
    for line in &said {
        attention.progress.say(&String::from_utf8_lossy(line));
    }
    attention.progress.say(&match ran {
        Some(Ran { status: NO_MISE, .. }) => {
            format!("the image has no mise, so the tools of {path} are not installed; {log} in the guest says so too")
        }
        Some(Ran { status: 0, .. }) if wait => format!("the tools of {path} are installed; {log} in the guest has the log"),
        Some(Ran { status: 0, .. }) => format!("the tools of {path} are being installed; {log} in the guest has the log"),
        _ => format!("the tools of {path} could not be installed; {log} in the guest says why"),
    });
    Ok(())
}

fn log_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("/root/.cache/banger/vm-run-tooling-{}.log", name.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cmd;

    #[test]
    fn tools_are_asked_for_at_the_top_of_a_tree() {
        let asked = |paths: &[&str]| asked_by(paths.iter().map(|path| path.as_bytes()));
        assert_eq!(asked(&["a", "mise.toml"]), Some("mise.toml"));
        assert_eq!(asked(&[".tool-versions", ".mise.toml"]), Some(".mise.toml"));
        assert_eq!(asked(&["a/mise.toml", "x.mise.toml", "mise.toml.bak"]), None);
    }

    #[test]
    fn a_log_has_the_name_of_its_tree() {
        assert_eq!(log_of("/root/my repo\n"), "/root/.cache/banger/vm-run-tooling-my_repo_.log");
    }

    #[test]
    fn the_script_installs_by_mise_and_its_status_is_the_installations() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tree, log) = (dir.path().join("tree"), dir.path().join("cache/log"));
        std::fs::create_dir(&tree).expect("creates");
        let mise =
            |status: u8| format!("mise() {{ echo \"mise $*\"; [ $1 != install ] || return {status}; }}\n");
        let sh = |script: String| {
            let args = ["-c", &script, "sh", tree.to_str().expect("text"), log.to_str().expect("text")];
            let env = [("PATH", cmd::PATH)];
            let limit = std::time::Duration::from_secs(60);
            let ended = cmd::run_fed("/bin/sh".as_ref(), &args, &env, b"", limit).expect("runs");
            (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
        };
        let logged = || std::fs::read_to_string(&log).expect("there is a log");
        let all = format!("mise install in {}\nmise trust --yes\nmise install --yes\n", tree.display());
        for status in [0, 7] {
            let ended = sh(format!("{}{BEGIN}{BEFORE}", mise(status)));
            assert_eq!((ended, logged()), ((Some(status.into()), all.clone()), all.clone()));
        }
        assert_eq!(sh(format!("{}{BEGIN}{BEHIND} wait", mise(7))), (Some(0), String::new()));
        assert_eq!(logged(), all);
        let hidden = BEGIN.replace("command -v mise", "command -v no-such-program");
        assert_eq!(sh(format!("{hidden}{BEFORE}")), (Some(i32::from(NO_MISE)), String::new()));
        assert!(logged().contains("this image has no mise"));
    }
}
