//! `[[file_sync]]`: what a VM gets of the owner's home each time it starts, before anyone is told that it is ready.

use std::fs;
use std::io;

use crate::config::FileSync;
use crate::copy::{CopyError, How, Outgoing, Part, Skipped, Source, pack_all};
use crate::daemon::agent;
use crate::daemon::fault::Fault;
use crate::proto::agent::{Request, Target, Write};
use crate::proto::api::Code;
use crate::vmm::Channel;

/// The mode of a file for which none is written.
const MODE: u32 = 0o600;

/// Sends what there is of `list` to the guest behind `channel`, as root's; `note` hears what is left out.
///
/// # Errors
/// All but a path that is not there.
pub fn run(list: &[FileSync], channel: &Channel, note: impl Fn(&str)) -> Result<(), Fault> {
    let parts = parts(list, &note)?;
    if parts.is_empty() {
        return Ok(());
    }
    let write = Write { path: "/".to_owned(), target: Target::Into, owner: Some((0, 0)) };
    let (_, guest) = agent::ask(channel, &Request::Write(write), agent::ANSWER_DEADLINE)?;
    let mut outgoing = Outgoing::new(guest, |_| {});
    let sent = pack_all(&parts, How::Plain, &mut outgoing)
        .and_then(|skipped| outgoing.finish().map(|()| skipped))
        .map_err(|e: CopyError| Fault::failed("cannot copy what file_sync names", &e))?;
    if sent != Skipped::default()
        && let Some(text) = sent.sentence()
    {
        note(&format!("file_sync: {text}"));
    }
    Ok(())
}

/// What there is to send.
fn parts(list: &[FileSync], note: &impl Fn(&str)) -> Result<Vec<Part>, Fault> {
    let mut parts = vec![];
    for FileSync { home, host, guest, mode } in list {
        let shown = host.display();
        let find = || Ok::<_, io::Error>((fs::canonicalize(host)?, fs::canonicalize(home)?));
        let (path, home) = match find() {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                note(&format!("file_sync: {shown} does not exist, and is left out"));
                continue;
            }
            Err(e) => return Err(Fault::failed(format!("file_sync: cannot read {shown}"), &e)),
        };
        if !path.starts_with(&home) {
            let text = format!("file_sync: {shown} leads to {}, which is not in your home", path.display());
            return Err(Fault::new(Code::BadRequest, text));
        }
        let meta =
            fs::metadata(&path).map_err(|e| Fault::failed(format!("file_sync: cannot read {shown}"), &e))?;
        let file_mode = match (meta.is_dir(), meta.is_file()) {
            (true, _) => None,
            (false, true) => Some(mode.unwrap_or(MODE)),
            (false, false) => {
                let text = format!("file_sync: {shown} is neither a file nor a directory");
                return Err(Fault::new(Code::BadRequest, text));
            }
        };
        let name = guest.strip_prefix("/").unwrap_or(guest).as_os_str().to_owned();
        parts.push(Part { source: Source { path, name, follow: false }, file_mode });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::*;
    use crate::proto::frame::{Frame, Kind};

    fn entry(home: &Path, host: &str, guest: &str, mode: Option<u32>) -> FileSync {
        FileSync { home: home.to_owned(), host: home.join(host), guest: guest.into(), mode }
    }

    /// Of a stream: name, mode, owner, type, content.
    type Member = (String, u32, u64, u8, String);

    /// What a guest gets.
    fn sent(parts: &[Part]) -> (Vec<Member>, Skipped) {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let guest = std::thread::spawn(move || {
            let mut stream = vec![];
            while let Some(frame) = Frame::read(&mut far).expect("reads") {
                match frame.kind {
                    Kind::Eof => break,
                    _ => stream.extend(frame.payload),
                }
            }
            Frame::new(Kind::Eof, []).write(&mut far).expect("writes");
            stream
        });
        let mut outgoing = Outgoing::new(near.into(), |_| {});
        let skipped = pack_all(parts, How::Plain, &mut outgoing).expect("packs");
        outgoing.finish().expect("finishes");
        let stream = guest.join().expect("ends");
        let mut archive = tar::Archive::new(&stream[..]);
        let members = archive.entries().expect("a tar").map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = String::new();
            io::Read::read_to_string(&mut entry, &mut content).expect("reads");
            let header = entry.header();
            let (mode, owner) = (header.mode().expect("a mode"), header.uid().expect("an owner"));
            (name, mode, owner, header.entry_type().as_byte(), content)
        });
        (members.collect(), skipped)
    }

    #[test]
    fn files_come_with_their_mode_and_directories_as_they_are_without_symlinks() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path();
        fs::create_dir_all(home.join("d/sub")).expect("creates");
        for (name, mode) in [("secret", 0o644), ("plain", 0o644), ("d/script", 0o755), ("d/sub/f", 0o640)] {
            fs::write(home.join(name), name).expect("writes");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(home.join(name), mode).expect("sets the mode");
        }
        symlink("/etc/passwd", home.join("d/link")).expect("links");
        symlink("plain", home.join("top")).expect("links");
        fs::hard_link(home.join("d/script"), home.join("d/same")).expect("links");
        let notes = RefCell::new(vec![]);
        let list = [
            entry(home, "secret", "/root/.secret", None),
            entry(home, "gone", "/root/gone", None),
            entry(home, "top", "/root/a/b/top", Some(0o444)),
            entry(home, "d", "/root/d", Some(0o400)),
        ];
        let parts = parts(&list, &|text: &str| notes.borrow_mut().push(text.to_owned())).expect("is there");
        let (members, skipped) = sent(&parts);
        let files: Vec<(&str, u32, &str)> =
            members.iter().filter(|m| m.3 == b'0').map(|m| (&*m.0, m.1, &*m.4)).collect();
        assert_eq!(
            files,
            [
                ("root/.secret", 0o600, "secret"),
                ("root/a/b/top", 0o444, "plain"),
                ("root/d/same", 0o755, "d/script"),
                ("root/d/script", 0o755, "d/script"),
                ("root/d/sub/f", 0o640, "d/sub/f"),
            ]
        );
        assert!(members.iter().all(|m| m.2 == 0 && matches!(m.3, b'0' | b'5')), "{members:?}");
        assert_eq!(skipped.sentence().as_deref(), Some("left out 1 symlink"));
        let gone = format!("file_sync: {} does not exist, and is left out", home.join("gone").display());
        assert_eq!(notes.into_inner(), [gone]);
    }

    #[test]
    fn what_leads_out_of_the_home_stops_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("home");
        fs::create_dir(&home).expect("creates");
        symlink("/etc/passwd", home.join("out")).expect("links");
        symlink("loop", home.join("loop")).expect("links");
        for (name, want) in [("out", "which is not in your home"), ("loop", "cannot read")] {
            let error = parts(&[entry(&home, name, "/root/x", None)], &|_: &str| {}).expect_err(name);
            assert!(error.message.contains(want), "{error:?}");
        }
    }
}
