//! `banger ssh-config`: so that `ssh dev.vm`, scp, rsync, git and editors go into VMs.
//!
//! What ssh must know is in a file of banger's own; ~/.ssh/config only includes it, and is not touched unless it is asked for.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use super::{Place, dirs, edit, failed, key, options};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::host::files::{create_private_dir, remove_if_present, write_atomic};
use crate::proto::finding::Finding;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Let ssh, and with it scp, rsync, git and editors, go into VMs by their names: `ssh dev.vm`. It needs no network, but an sshd in the
/// image.
#[argh(
    subcommand,
    name = "ssh-config",
    help_triggers("-h", "--help", "help"),
    example = "banger ssh-config --install\n\
               ssh dev.vm\n\
               rsync -a ./data/ dev.vm:/root/data/\n\
               git fetch dev.vm:/root/repo main\n\
               banger ssh-config --uninstall",
    note = "Without an option, it writes banger's own file for ssh, and prints its path and the line that includes it; ~/.ssh/config stays as it is."
)]
pub struct SshConfig {
    /// include it at the top of ~/.ssh/config
    #[argh(switch)]
    install: bool,
    /// take that out of ~/.ssh/config again, and remove banger's own file
    #[argh(switch)]
    uninstall: bool,
}

impl SshConfig {
    pub fn run(&self) -> Result<(), Error> {
        let own = dirs()?.config.join("ssh_config");
        match (self.install, self.uninstall) {
            (true, true) => Err(Error::Refused("--install or --uninstall; choose one of them".to_owned())),
            (false, true) => uninstall(&own),
            (install, false) => {
                write(&own)?;
                let include = format!("Include {}", quoted(&own));
                if !install {
                    render::out_line(&own.display().to_string())?;
                    render::out_line(&include)?;
                    render::say(
                        "The second line belongs at the top of ~/.ssh/config; `banger ssh-config --install` puts it there.",
                    );
                    return Ok(());
                }
                let changed = rewrite(&user_config()?, |text| edit::with_block(text, &include))?;
                let already = if changed { "" } else { " already" };
                render::out_line(&format!("~/.ssh/config includes {}{already}", own.display()))
            }
        }
    }
}

/// Writes banger's own file, and makes the key that it names.
fn write(own: &Path) -> Result<(), Error> {
    options::refuse_unspeakable(own)?;
    let place = Place::find(&Client::from_env()?)?;
    key::public(&place)?;
    let banger = std::env::current_exe()
        .map_err(|source| Error::Host { what: "find this executable".to_owned(), source })?;
    options::refuse_unspeakable(&banger)?;
    if let Some(dir) = own.parent() {
        create_private_dir(dir).map_err(failed("create", dir))?;
    }
    let text = options::configuration(&place, &banger);
    write_atomic(own, text.as_bytes(), 0o600).map_err(failed("write", own))
}

fn uninstall(own: &Path) -> Result<(), Error> {
    let changed = rewrite(&user_config()?, edit::without_block)?;
    remove_if_present(own).map_err(failed("remove", own))?;
    let was = if changed { "no longer includes" } else { "does not include" };
    render::out_line(&format!("~/.ssh/config {was} {}", own.display()))
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// ~/.ssh/config.
fn user_config() -> Result<PathBuf, Error> {
    match std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()) {
        Some(home) => Ok(home.join(".ssh/config")),
        None => Err(Error::Refused("HOME is not set, so there is no ~/.ssh/config".to_owned())),
    }
}

/// Changes the file at the end of any symlinks, whole and with its mode; makes it only for something to be in it. Returns whether there
/// was something to change.
fn rewrite(path: &Path, edited: impl FnOnce(&[u8]) -> Result<Vec<u8>, edit::Torn>) -> Result<bool, Error> {
    let (real, old, mode) = match fs::canonicalize(path) {
        Ok(real) => {
            let old = fs::read(&real).map_err(failed("read", path))?;
            let mode = fs::metadata(&real).map_err(failed("read", path))?.permissions().mode() & 0o7777;
            (real, old, mode)
        }
        // Not one that leads nowhere: there would be nothing to keep, and no saying where it should be.
        Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            (path.to_owned(), vec![], 0o600)
        }
        Err(e) => return Err(failed("read", path)(e)),
    };
    let new = edited(&old).map_err(|edit::Torn| {
        Error::Refused(format!(
            "{} holds the first line of banger's block and not the last, `# <<< banger <<<`; mend it by hand",
            path.display()
        ))
    })?;
    if new == old {
        return Ok(false);
    }
    if let Some(dir) = real.parent().filter(|dir| !dir.exists()) {
        let made = fs::DirBuilder::new().mode(0o700).create(dir);
        made.map_err(failed("create", dir))?;
    }
    write_atomic(&real, &new, mode).map_err(failed("write", path))?;
    Ok(true)
}

/// A row of `banger doctor`.
pub fn row() -> Finding {
    let text = user_config().ok().and_then(|path| fs::read(path).ok()).unwrap_or_default();
    judge(edit::has_block(&text))
}

fn judge(installed: bool) -> Finding {
    match installed {
        true => Finding::pass("ssh-config", "~/.ssh/config includes VMs"),
        false => Finding::warn(
            "ssh-config",
            "ssh does not know VMs by their names",
            "`banger ssh-config --install` lets `ssh dev.vm`, scp, rsync, git and editors go into them; `banger vm ssh` does without.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(path: &Path) -> bool {
        rewrite(path, |text| edit::with_block(text, "Include x")).expect("edits")
    }

    #[test]
    fn a_config_keeps_its_mode_and_its_place_behind_a_symlink() {
        let dir = tempfile::tempdir().expect("a directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, b"Host a\xff\n").expect("writes");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("sets it");
        std::os::unix::fs::symlink("real", &link).expect("links");
        assert!(rewritten(&link));
        assert!(!rewritten(&link), "again");
        assert_eq!(fs::read_link(&link).expect("a link still"), Path::new("real"));
        let text = fs::read(&real).expect("reads");
        assert!(text.starts_with(b"# >>> banger >>>") && text.ends_with(b"Host a\xff\n"));
        assert_eq!(fs::metadata(&real).expect("is there").permissions().mode() & 0o7777, 0o640);
        assert!(rewrite(&link, edit::without_block).expect("edits"));
        assert_eq!(fs::read(&real).expect("reads"), b"Host a\xff\n");
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 2, "nothing beside them");
    }

    #[test]
    fn a_config_that_is_not_there_is_made_for_its_user_alone_and_only_to_be_filled() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(".ssh/config");
        assert!(!rewrite(&path, edit::without_block).expect("nothing to do"));
        assert!(!dir.path().join(".ssh").exists());
        assert!(rewritten(&path));
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&dir.path().join(".ssh"))), (0o600, 0o700));
        let astray = dir.path().join("astray");
        std::os::unix::fs::symlink("nowhere", &astray).expect("links");
        rewrite(&astray, edit::without_block).expect_err("a link to nowhere");
    }

    #[test]
    fn the_shortcut_is_a_row_of_its_own() {
        assert_eq!(judge(true).line(), "Pass ssh-config: ~/.ssh/config includes VMs");
        assert!(judge(false).line().starts_with("Warn ssh-config: ssh does not know VMs by their names => "));
    }
}
