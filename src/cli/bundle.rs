//! `banger bundle`: what a machine without a network needs, in one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::files::absolute;
use crate::cli::render::{self, Progress};
use crate::cli::signals::Signals;
use crate::host::files::{remove_if_present, sync_directory};
use crate::host::undo::Undo;
use crate::proto::api::{BundleCreate, BundleInstall, BundlePart, BundleView, PartKind, PartState};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Carry images, kernels and banger itself to a machine without a network, in one file.
#[argh(
    subcommand,
    name = "bundle",
    help_triggers("-h", "--help", "help"),
    example = "banger bundle create ./offline.bundle --image debian --kernel 6.1.0-56-cloud-amd64\n\
               banger bundle install ./offline.bundle"
)]
pub struct Bundle {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Create(Create),
    Install(Install),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Write images and kernels of this machine, and banger itself, into one file. The same content gives the same file. Its sha256 is printed, as sha256sum does.
#[argh(
    subcommand,
    name = "create",
    help_triggers("-h", "--help", "help"),
    example = "banger bundle create ./offline.bundle --image debian --kernel 6.1.0-56-cloud-amd64\n\
               banger bundle create ./offline.bundle --image debian --image ci --with-firecracker /usr/local/bin\n\
               banger bundle create - --image debian | ssh host banger bundle install -",
    note = "Fields of --json: banger, parts (kind, name, bytes, state), sha256."
)]
struct Create {
    /// the file to make; - writes to stdout
    #[argh(positional)]
    file: String,
    /// an image that goes in, with all its names; may be given more than once
    #[argh(option, arg_name = "name")]
    image: Vec<String>,
    /// a kernel that goes in; may be given more than once
    #[argh(option, arg_name = "name")]
    kernel: Vec<String>,
    /// the program Firecracker, or a directory with it; the jailer beside it goes in too
    #[argh(option, arg_name = "path")]
    with_firecracker: Option<String>,
    /// replace the file if it is there
    #[argh(switch)]
    force: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Install what is in a bundle: all of it, or nothing where something is wrong with it. What is here already stays as it is.
#[argh(
    subcommand,
    name = "install",
    help_triggers("-h", "--help", "help"),
    example = "banger bundle install ./offline.bundle\n\
               banger bundle install ./offline.bundle --force     # names may move to what is in it",
    note = "Fields of --json: banger (the version that made it), parts (kind: image, kernel or program; name; bytes; state: installed, replaced or here)."
)]
struct Install {
    /// the bundle; - reads from stdin
    #[argh(positional)]
    file: String,
    /// let names stand for what is in it even if they stand for something else
    #[argh(switch)]
    force: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

impl Bundle {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        match &self.verb {
            Verb::Create(create) => create.run(&client),
            Verb::Install(install) => install.run(&client),
        }
    }
}

impl Create {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let request = BundleCreate {
            images: self.image.clone(),
            kernels: self.kernel.clone(),
            firecracker: self.with_firecracker.as_deref().map(absolute).transpose()?,
        };
        if self.file == "-" {
            return self.to_stdout(client, request);
        }
        let place = Place::new(&self.file, self.force)?;
        let (file, undo) = place.stage()?;
        let view = self.ask(client, request, &file)?;
        place.publish(self.force)?;
        undo.commit();
        match self.json {
            true => render::json(&view),
            false => render::out_line(&summed(&view, &self.file)),
        }
    }

    fn to_stdout(&self, client: &Client, request: BundleCreate) -> Result<(), Error> {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            let text = "`banger bundle create -` writes the bundle to stdout, which is a terminal; redirect it to a file or a pipe";
            return Err(Error::Refused(text.to_owned()));
        }
        if self.json {
            return Err(Error::Refused("stdout has the bundle; leave --json out".to_owned()));
        }
        let view = self.ask(client, request, &stdout)?;
        render::say(&summed(&view, "-"));
        Ok(())
    }

    fn ask(&self, client: &Client, request: BundleCreate, to: &impl AsFd) -> Result<BundleView, Error> {
        let mut signals =
            Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
        let mut progress = Progress::new(self.quiet);
        // The file must go when somebody asks us to end.
        let mut attention = Attention { progress: &mut progress, signals: Some(&mut signals) };
        let view = client.call_with(request, to.as_fd(), &mut attention);
        progress.clear();
        Ok(view?)
    }
}

impl Install {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let request = BundleInstall { force: self.force };
        let mut progress = Progress::new(self.quiet);
        let view = if self.file == "-" {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                let text = "`banger bundle install -` reads a bundle from stdin, which is a terminal; redirect it from a file or a pipe";
                return Err(Error::Refused(text.to_owned()));
            }
            client.call_with(request, stdin.as_fd(), &mut Attention::to(&mut progress))
        } else {
            let reading = |source| Error::Host { what: format!("read {}", self.file), source };
            let file = File::open(&self.file).map_err(reading)?;
            if file.metadata().map_err(reading)?.is_dir() {
                return Err(Error::Refused(format!("{} is a directory, and no bundle", self.file)));
            }
            client.call_with(request, file.as_fd(), &mut Attention::to(&mut progress))
        };
        progress.clear();
        let view = view?;
        if self.json {
            return render::json(&view);
        }
        let row = |part: &BundlePart| {
            let kind = match part.kind {
                PartKind::Image => "image",
                PartKind::Kernel => "kernel",
                PartKind::Program => "program",
            };
            let state = match part.state {
                PartState::Packed => "packed",
                PartState::Installed => "installed",
                PartState::Replaced => "installed in place of another",
                PartState::Here => "here already",
            };
            [kind.to_owned(), part.name.clone(), render::bytes(part.bytes), state.to_owned()]
        };
        let rows: Vec<_> = view.parts.iter().map(row).collect();
        render::out(&render::table(["KIND", "NAME", "SIZE", "STATE"], &rows))
    }
}

/// As sha256sum(1) prints it, and checks it with -c.
fn summed(view: &BundleView, file: &str) -> String {
    format!("{}  {file}", view.sha256.as_deref().unwrap_or_default())
}

/// Where a bundle goes. It is written beside that, so that what has its name is whole.
struct Place {
    path: PathBuf,
    directory: PathBuf,
    staged: PathBuf,
}

impl Place {
    /// # Errors
    /// [`Error::Refused`] if something is there that is not to be replaced.
    fn new(file: &str, force: bool) -> Result<Self, Error> {
        let path = PathBuf::from(absolute(file)?);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Refused(format!("{file:?} is no file's name")));
        };
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                return Err(Error::Refused(format!("{file} is a directory; name the file to make in it")));
            }
            Ok(meta) if !meta.is_file() => {
                return Err(Error::Refused(format!(
                    "{file} is no file, and stays as it is; use - and redirect stdout to it"
                )));
            }
            Ok(_) if !force => return Err(there(&path)),
            // Another reason will show when the file is made.
            Ok(_) | Err(_) => {}
        }
        let staged = directory.join(format!(".staged-{}-{}", std::process::id(), name.display()));
        Ok(Self { directory: directory.to_owned(), staged, path })
    }

    fn stage(&self) -> Result<(File, Undo), Error> {
        let make = |source| Error::Host { what: format!("make {}", self.staged.display()), source };
        let file = OpenOptions::new().write(true).create_new(true).open(&self.staged).map_err(make)?;
        let mut undo = Undo::default();
        let doomed = self.staged.clone();
        undo.push(format!("file {}", doomed.display()), move || remove_if_present(&doomed));
        Ok((file, undo))
    }

    fn publish(&self, force: bool) -> Result<(), Error> {
        let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let moved = match renameat_with(CWD, &self.staged, CWD, &self.path, flags) {
            Err(Errno::EXIST) => return Err(there(&self.path)),
            // Not every file system of a memory stick can (rename(2), EINVAL).
            Err(Errno::INVAL) if !self.path.exists() => fs::rename(&self.staged, &self.path),
            other => other.map_err(io::Error::from),
        };
        moved
            .and_then(|()| sync_directory(&self.directory))
            .map_err(|source| Error::Host { what: format!("make {}", self.path.display()), source })
    }
}

fn there(path: &Path) -> Error {
    Error::Refused(format!("{} is there already; --force replaces it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_without_force_and_nothing_half_made_remains() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("b");
        let name = path.to_str().expect("UTF-8");
        let names = || fs::read_dir(dir.path()).expect("lists").count();
        let place = Place::new(name, false).expect("nothing is there");
        drop(place.stage().expect("makes it"));
        assert_eq!(names(), 0, "given up");
        let (_, undo) = place.stage().expect("makes it");
        place.publish(false).expect("moves it");
        undo.commit();
        assert_eq!(names(), 1);
        assert!(Place::new(name, false).is_err_and(|e| e.to_string().contains("--force replaces it")));
        // Somebody was quicker.
        let (_, undo) = place.stage().expect("makes it");
        assert!(place.publish(false).is_err_and(|e| e.to_string().contains("--force replaces it")));
        drop(undo);
        let forced = Place::new(name, true).expect("may be replaced");
        let (_, undo) = forced.stage().expect("makes it");
        forced.publish(true).expect("replaces it");
        undo.commit();
        assert_eq!(names(), 1);
        assert!(Place::new(dir.path().to_str().expect("UTF-8"), true).is_err());
        assert!(Place::new("/dev/null", true).is_err_and(|e| e.to_string().contains("redirect stdout")));
    }
}
