//! Records of a guest's, a NUL after each, as they come: no more than a work tree can give cause to.

use super::error::WorkspaceError;
use super::peer::Peer;
use crate::git::MAX_PATH;
use crate::proto::workspace::MAX_PATHS;

/// The longest record: its path, two modes or stamps, an id, a size.
const MAX_RECORD: usize = MAX_PATH + 256;

/// How much is taken from a guest.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub paths: usize,
    /// Of all records together.
    pub bytes: usize,
}

impl Limits {
    pub const WORK_TREE: Self = Self { paths: MAX_PATHS, bytes: 1 << 30 };
}

// As many paths as can be brought can be heard of: two modes or a mode and a stamp, an id, a fate, and a path of 100 bytes on average.
const _: () = assert!(Limits::WORK_TREE.bytes / Limits::WORK_TREE.paths > 7 + 65 + 33 + 10 + 100);

/// Reads a segment of records, without the NUL, to its end.
///
/// # Errors
/// A sentence for a guest that says too much, or breaks off.
pub fn each(
    peer: &mut Peer<'_, '_>,
    limits: Limits,
    mut take: impl FnMut(&[u8]) -> Result<(), WorkspaceError>,
) -> Result<(), WorkspaceError> {
    let (mut begun, mut count, mut total) = (vec![], 0, 0);
    while let Some(piece) = peer.piece()? {
        total += piece.len();
        if total > limits.bytes {
            return too_much();
        }
        let mut parts = piece.split(|b| *b == 0).peekable();
        while let Some(part) = parts.next() {
            begun.extend_from_slice(part);
            if begun.len() > MAX_RECORD {
                return WorkspaceError::refused("the guest tells of a path that is longer than paths can be");
            }
            if parts.peek().is_none() {
                // No NUL behind it yet.
                break;
            }
            if count == limits.paths {
                return too_much();
            }
            count += 1;
            take(&begun)?;
            begun.clear();
        }
    }
    match begun.is_empty() {
        true => Ok(()),
        false => WorkspaceError::refused("the guest broke off in the middle of a path"),
    }
}

fn too_much<T>() -> Result<T, WorkspaceError> {
    WorkspaceError::refused("the guest tells of more paths than a work tree can have; nothing was made of it")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::cli::client::Attention;
    use crate::cli::render::Progress;
    use crate::proto::frame::{Frame, Kind};

    fn read(pieces: &[&[u8]], limits: Limits) -> Result<Vec<String>, String> {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        for piece in pieces {
            Frame::new(Kind::Data, *piece).write(&mut far).expect("writes");
        }
        Frame::new(Kind::Eof, []).write(&mut far).expect("writes");
        let (mut progress, mut taken) = (Progress::silent(), vec![]);
        let mut attention = Attention::to(&mut progress);
        let mut peer = Peer::new(near.into(), &mut attention);
        let read = each(&mut peer, limits, |record| {
            taken.push(String::from_utf8_lossy(record).into_owned());
            Ok(())
        });
        read.map(|()| taken).map_err(|e| e.to_string())
    }

    #[test]
    fn records_come_whole_however_they_are_cut_and_no_more_than_is_allowed() {
        let limits = Limits { paths: 3, bytes: 12 };
        assert_eq!(read(&[], limits).expect("is empty"), [""; 0]);
        assert_eq!(read(&[b"a\0b", b"c", b"\0", b"d\0"], limits).expect("fits"), ["a", "bc", "d"]);
        for many in [&[&b"a\0b\0c\0d\0"[..]][..], &[b"123456", b"7890123"]] {
            assert!(
                read(many, limits).expect_err("too many").contains("more paths than a work tree can have")
            );
        }
        assert!(read(&[b"a\0b"], limits).expect_err("is cut").ends_with("broke off in the middle of a path"));
    }
}
