//! A program that runs in the guest, with what it is told on its stdin and what it says: bytes for us, not for a terminal.

use std::os::fd::OwnedFd;

use super::super::error::WorkspaceError;
use super::super::peer::Peer;
use crate::cli::client::Attention;
use crate::copy::CopyError;
use crate::proto::frame::{BadFrame, Kind, MAX_PAYLOAD};

/// What is kept of what it says on stderr, in bytes.
const MAX_STDERR: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub status: u8,
    /// The end of what it said on stderr.
    pub stderr: String,
}

/// Gives `input` to the program behind `guest`, and what it prints to `take`, which says whether it wants more.
pub fn run(
    guest: OwnedFd,
    input: &[u8],
    attention: &mut Attention<'_>,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<Option<Ran>, WorkspaceError> {
    let mut peer = Peer::new(guest, attention);
    for piece in input.chunks(MAX_PAYLOAD) {
        peer.say(Kind::Stdin, piece)?;
    }
    peer.say(Kind::Eof, &[])?;
    let mut stderr = vec![];
    loop {
        let (kind, payload) = peer.any()?;
        match kind {
            Kind::Stdout if !take(&payload) => return Ok(None),
            Kind::Stdout | Kind::Window => {}
            Kind::Stderr => {
                stderr.extend(payload);
                stderr.drain(..stderr.len().saturating_sub(MAX_STDERR));
            }
            Kind::Exit => {
                let status = payload.first().copied().unwrap_or(u8::MAX);
                return Ok(Some(Ran { status, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() }));
            }
            Kind::Failed => {
                let message = String::from_utf8_lossy(&payload).into_owned();
                return Err(CopyError::Guest { message }.into());
            }
            kind => return Err(CopyError::from(BadFrame::Unexpected(kind)).into()),
        }
    }
}
