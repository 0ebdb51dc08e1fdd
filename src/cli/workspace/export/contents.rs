//! Contents from the guest: a hostile tar stream, whose members are numbered after the paths that were asked for.

use std::collections::HashSet;
use std::io::{self, Read};

use super::super::error::WorkspaceError;
use super::super::peer::Peer;
use crate::copy::{Broken, CopyError, Entry, Kind, each};

/// How much may follow the end of a tar stream (its blocks are padded), in bytes.
const MAX_PADDING: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// As it was placed.
    Old,
    /// As it is now.
    New,
}

/// Asks for the contents of `paths`, and gives each that comes to `take`: whose it is, how long, and the bytes, which it need not read.
pub fn ask(
    peer: &mut Peer<'_, '_>,
    paths: &[&[u8]],
    mut take: impl FnMut(Side, usize, u64, &mut dyn Read) -> Result<(), WorkspaceError>,
) -> Result<(), WorkspaceError> {
    for path in paths {
        peer.put(path)?;
        peer.put(b"\0")?;
    }
    peer.end()?;
    let mut segment = Segment { peer, piece: vec![], taken: 0, ended: false, failed: None };
    let mut seen = HashSet::new();
    let read = each(&mut segment, |entry, content| {
        let (side, number) = whose(&entry, paths.len())?;
        if !seen.insert((side, number)) {
            return not_accepted("a content comes twice");
        }
        take(side, number, entry.size, content)
    });
    match (read, segment.failed.take()) {
        (_, Some(e)) | (Err(Broken::Taker(e)), None) => Err(e),
        (Err(Broken::Stream(why)), None) => not_accepted(&why),
        (Err(Broken::Read(e)), None) => Err(CopyError::Connection(e).into()),
        (Ok(()), None) => segment.drain(),
    }
}

/// What a member of the stream stands for: `old/7`, `new/7`.
fn whose(entry: &Entry, count: usize) -> Result<(Side, usize), WorkspaceError> {
    let named = match (&entry.kind, &entry.name[..]) {
        (Kind::File, [side, number]) => {
            let side = match side.to_str() {
                Some("old") => Some(Side::Old),
                Some("new") => Some(Side::New),
                _ => None,
            };
            let number = number.to_str().and_then(|n| n.parse().ok()).filter(|n| *n < count);
            side.zip(number)
        }
        _ => None,
    };
    named.map_or_else(|| not_accepted("it holds what was not asked for"), Ok)
}

fn not_accepted<T>(why: &str) -> Result<T, WorkspaceError> {
    Err(CopyError::Stream { why: why.to_owned() }.into())
}

/// A segment of the guest's as bytes.
struct Segment<'p, 'a, 'b> {
    peer: &'p mut Peer<'a, 'b>,
    piece: Vec<u8>,
    taken: usize,
    ended: bool,
    /// Why it broke off; an io::Error cannot carry it through the tar reader and back.
    failed: Option<WorkspaceError>,
}

impl Segment<'_, '_, '_> {
    fn drain(mut self) -> Result<(), WorkspaceError> {
        let read = io::copy(&mut (&mut self).take(MAX_PADDING), &mut io::sink());
        match (self.failed.take(), read) {
            (Some(e), _) => Err(e),
            (None, Err(e)) => Err(CopyError::Connection(e).into()),
            (None, Ok(_)) if self.ended => Ok(()),
            (None, Ok(_)) => not_accepted("it does not end where it says that it does"),
        }
    }
}

impl Read for Segment<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() && !self.ended {
            match self.peer.piece() {
                Ok(Some(piece)) => (self.piece, self.taken) = (piece, 0),
                Ok(None) => self.ended = true,
                Err(e) => {
                    self.failed = Some(e);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        let n = buffer.len().min(self.piece.len() - self.taken);
        buffer[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}
