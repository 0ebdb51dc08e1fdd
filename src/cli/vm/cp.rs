//! `banger vm cp`: files and trees between this host and a VM.

use std::io::{self, IsTerminal, Read, Write};

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::copy::{Destination, Incoming, Outgoing, Skipped, Source, pack, unpack};
use crate::proto::agent::{self, Target};
use crate::proto::api::{Event, Unit, VmRead, VmWrite};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Copy files and trees between this host and a running VM, with their modes, times and symlinks, and, towards the VM or as root, their owners.
#[argh(
    subcommand,
    name = "cp",
    help_triggers("-h", "--help", "help"),
    example = "banger vm cp ./app dev:/srv            # as /srv/app if /srv exists\n\
               banger vm cp ./app/. dev:/srv          # what is in app\n\
               banger vm cp dev:/var/log/syslog .\n\
               banger vm cp dev:/etc - | tar t        # a tar stream\n\
               tar c . | banger vm cp - dev:/srv",
    note = "On the way to this host, devices are left out and files and directories lose setuid and setgid bits, as a guest's word is not to be trusted; a tar stream to - has them."
)]
pub struct Cp {
    /// a path here, VM:path, or - for a tar stream from stdin
    #[argh(positional)]
    src: String,
    /// a path here, VM:path, or - for a tar stream to stdout
    #[argh(positional)]
    dst: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Stream,
    Here(&'a str),
    Guest { vm: &'a str, path: String },
}

impl<'a> Side<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        // As docker: what begins like a path is one, whatever colons it has.
        match text.split_once(':') {
            _ if text.starts_with(['/', '.']) => Ok(Self::Here(text)),
            Some((vm, path)) if !vm.is_empty() && !vm.contains('/') => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                Ok(Self::Guest { vm, path: format!("{slash}{path}") })
            }
            _ if text.is_empty() => {
                Err(Error::Refused("a path is empty; write . for this directory".to_owned()))
            }
            _ => Ok(Self::Here(text)),
        }
    }
}

impl Cp {
    pub fn run(&self) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::Refused(text.to_owned()));
        match (Side::parse(&self.src)?, Side::parse(&self.dst)?) {
            (Side::Here(src), Side::Guest { vm, path }) => send(src, vm, &path),
            (Side::Stream, Side::Guest { .. }) if io::stdin().is_terminal() => refuse(
                "a tar stream is to come from stdin, which is a terminal; redirect it from a file or a pipe",
            ),
            (Side::Stream, Side::Guest { vm, path }) => send_stream(vm, path),
            (Side::Guest { vm, path }, Side::Here(dst)) => fetch(vm, &path, dst),
            (Side::Guest { .. }, Side::Stream) if io::stdout().is_terminal() => refuse(
                "a tar stream is to go to stdout, which is a terminal; redirect it to a file or a pipe",
            ),
            (Side::Guest { vm, path }, Side::Stream) => fetch_stream(vm, &path),
            (Side::Guest { .. }, Side::Guest { .. }) => {
                refuse("cp copies between this host and one VM; copy here first, then to the other VM")
            }
            (Side::Here(_) | Side::Stream, Side::Here(_) | Side::Stream) => {
                refuse("neither side is in a VM; write one of them as VM:path")
            }
        }
    }
}

fn send(src: &str, vm: &str, path: &str) -> Result<(), Error> {
    let source = Source::find(src)?;
    // A slash at the end says that it is a directory, which must exist then.
    let target = if path.ends_with('/') { Target::Into } else { Target::Place };
    let write = agent::Write { path: path.to_owned(), target, owner: None };
    let mut progress = Progress::new(false);
    let client = Client::from_env()?;
    let guest = client.open(VmWrite { vm: vm.to_owned(), write }, &mut Attention::to(&mut progress))?;
    let mut outgoing = Outgoing::new(guest, |done| moved(&mut progress, done));
    let skipped = pack(source, &mut outgoing)?;
    outgoing.finish()?;
    progress.clear();
    tell(&skipped);
    Ok(())
}

fn send_stream(vm: &str, path: String) -> Result<(), Error> {
    let write = agent::Write { path, target: Target::Into, owner: None };
    let mut progress = Progress::new(false);
    let client = Client::from_env()?;
    let guest = client.open(VmWrite { vm: vm.to_owned(), write }, &mut Attention::to(&mut progress))?;
    let mut outgoing = Outgoing::new(guest, |done| moved(&mut progress, done));
    let mut buffer = vec![0; 64 * 1024];
    let mut stdin = io::stdin().lock();
    loop {
        let n = stdin
            .read(&mut buffer)
            .map_err(|source| Error::Host { what: "read the tar stream from stdin".to_owned(), source })?;
        if n == 0 {
            break;
        }
        outgoing.send(&buffer[..n])?;
    }
    Ok(outgoing.finish()?)
}

fn fetch(vm: &str, path: &str, dst: &str) -> Result<(), Error> {
    let (path, contents, follow) = guest_path(path);
    let destination = Destination::find(dst, contents)?;
    let mut progress = Progress::new(false);
    let client = Client::from_env()?;
    let read = agent::Read { path, follow };
    let guest = client.open(VmRead { vm: vm.to_owned(), read }, &mut Attention::to(&mut progress))?;
    let mut incoming = Incoming::new(guest, |done| moved(&mut progress, done));
    let skipped = unpack(&mut incoming, &destination)?;
    progress.clear();
    tell(&skipped);
    Ok(())
}

fn fetch_stream(vm: &str, path: &str) -> Result<(), Error> {
    let (path, _, follow) = guest_path(path);
    let mut progress = Progress::silent();
    let client = Client::from_env()?;
    let read = agent::Read { path, follow };
    let guest = client.open(VmRead { vm: vm.to_owned(), read }, &mut Attention::to(&mut progress))?;
    let mut incoming = Incoming::new(guest, |_| {});
    let mut stdout = io::stdout().lock();
    while let Some(piece) = incoming.piece()? {
        stdout.write_all(&piece).map_err(Error::Stdout)?;
    }
    stdout.flush().map_err(Error::Stdout)
}

/// A guest's path without what `/` and `/.` at its end mean: whether the contents are asked for, and whether a symlink
/// there is followed.
fn guest_path(path: &str) -> (String, bool, bool) {
    let contents = path.ends_with("/.");
    let follow = contents || path.ends_with('/');
    let plain = path.strip_suffix("/.").unwrap_or(path).trim_end_matches('/');
    let plain = if plain.is_empty() { "/" } else { plain };
    (plain.to_owned(), contents, follow)
}

fn moved(progress: &mut Progress, done: u64) {
    progress.event(&Event::Progress { done, total: 0, unit: Unit::Bytes });
}

fn tell(skipped: &Skipped) {
    if let Some(text) = skipped.sentence() {
        render::say(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_vm_only_where_it_cannot_be_a_path() {
        let table = [
            ("-", Side::Stream),
            ("./a:b", Side::Here("./a:b")),
            ("/a:b", Side::Here("/a:b")),
            ("a/b:c", Side::Here("a/b:c")),
            ("file", Side::Here("file")),
            (":x", Side::Here(":x")),
            ("dev:/etc", Side::Guest { vm: "dev", path: "/etc".to_owned() }),
            ("dev:etc", Side::Guest { vm: "dev", path: "/etc".to_owned() }),
            ("dev:", Side::Guest { vm: "dev", path: "/".to_owned() }),
        ];
        for (text, want) in table {
            assert_eq!(Side::parse(text).expect(text), want, "{text}");
        }
        assert!(Side::parse("").is_err());
    }

    #[test]
    fn the_end_of_a_guests_path_says_what_is_meant() {
        let table = [
            ("/etc", ("/etc", false, false)),
            ("/etc/", ("/etc", false, true)),
            ("/etc/.", ("/etc", true, true)),
            ("/", ("/", false, true)),
            ("/.", ("/", true, true)),
            ("/a/..", ("/a/..", false, false)),
        ];
        for (path, (plain, contents, follow)) in table {
            assert_eq!(guest_path(path), (plain.to_owned(), contents, follow), "{path}");
        }
    }
}
