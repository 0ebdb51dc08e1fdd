//! A blob on its way into the store.
//!
//! ```text
//!              lead              finish, and it is what its digest says
//!   Waiting ----------> Led ------------------------------------------> Whole
//!      ^                 |  `-----------------------------------------> Damaged
//!      `-----------------'     finish, and it is not
//!        given up: what has come stays, and its hash
//! ```
//!
//! Several pulls may want it at once, or one pull twice. One of them leads: it fetches. The others wait, read what has come, and
//! one of them leads on when the first gives up.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::host::files::remove_if_present;
use crate::host::undo::Undo;
use crate::image::digest::Digest;
use crate::oci::blobs::{Blobs, hold};
use crate::oci::error::OciError;
use crate::oci::fate::Fate;
use crate::oci::hash::Hasher;
use crate::oci::region::Region;
use crate::oci::spool::fresh_name;

/// How often whoever waits looks whether its pull goes on.
const LOOK: Duration = Duration::from_millis(50);

pub struct Transfer {
    store: Blobs,
    digest: Digest,
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Made by the first that leads.
    staged: Option<Staged>,
    /// So many bytes of it have come.
    written: u64,
    stage: Stage,
}

struct Staged {
    file: Arc<File>,
    path: PathBuf,
    /// Takes the file away again, until it is in its place.
    undo: Undo,
}

enum Stage {
    Waiting(Box<Hasher>),
    Led,
    Whole,
    /// Why it is not what it should be.
    Damaged(String),
}

/// What somebody who wants the blob has to do.
pub enum Turn<'t> {
    /// To fetch the rest of it.
    Lead(Lead<'t>),
    /// Nothing: it is here.
    Whole(Region),
    Damaged(String),
    /// Nothing: the pull has ended.
    Over,
}

/// Why a blob that has come is not in the store.
#[derive(Debug)]
pub enum FinishError {
    Damaged(String),
    Disk(io::Error),
}

impl Transfer {
    pub fn new(store: Blobs, digest: Digest, size: u64) -> Self {
        let stage = Stage::Waiting(Box::new(Hasher::new(digest.algorithm())));
        let state = State { staged: None, written: 0, stage };
        Self { store, digest, size, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while somebody else leads, until there is something to do or nothing any more. Meanwhile `told` hears how many
    /// bytes have come.
    pub fn take_part(&self, fate: &Fate, told: &mut dyn FnMut(u64)) -> io::Result<Turn<'_>> {
        let mut state = self.state();
        loop {
            told(state.written);
            if fate.is_sealed() {
                return Ok(Turn::Over);
            }
            match std::mem::replace(&mut state.stage, Stage::Led) {
                Stage::Led => {}
                Stage::Damaged(why) => {
                    state.stage = Stage::Damaged(why.clone());
                    return Ok(Turn::Damaged(why));
                }
                Stage::Whole => {
                    state.stage = Stage::Whole;
                    let staged = state.staged.as_ref().ok_or(io::ErrorKind::NotFound)?;
                    return Region::whole(staged.file.try_clone()?).map(Turn::Whole);
                }
                Stage::Waiting(hasher) => {
                    let file = match &state.staged {
                        Some(staged) => Ok(Arc::clone(&staged.file)),
                        None => self.stage(&mut state),
                    };
                    let written = state.written;
                    return match file {
                        Ok(file) => {
                            Ok(Turn::Lead(Lead { transfer: self, file, written, hasher: Some(hasher) }))
                        }
                        Err(e) => {
                            state.stage = Stage::Waiting(hasher);
                            Err(e)
                        }
                    };
                }
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn stage(&self, state: &mut State) -> io::Result<Arc<File>> {
        let path = self.store.directory().join(fresh_name("blob"));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let (mut undo, doomed) = (Undo::default(), path.clone());
        undo.push(format!("file {}", path.display()), move || remove_if_present(&doomed));
        hold(&file);
        let file = Arc::new(file);
        state.staged = Some(Staged { file: Arc::clone(&file), path, undo });
        Ok(file)
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfer({}, {} of {})", self.digest, self.state().written, self.size)
    }
}

/// The right to fetch, and the duty: dropping it without [`Lead::finish`] passes both on.
pub struct Lead<'t> {
    transfer: &'t Transfer,
    file: Arc<File>,
    written: u64,
    hasher: Option<Box<Hasher>>,
}

impl Lead<'_> {
    /// How many bytes have come: where to go on.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What is still to come, in bytes.
    pub fn missing(&self) -> u64 {
        self.transfer.size - self.written
    }

    /// Takes the next bytes, of which there must be no more than are missing.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.missing() {
            return Err(io::Error::other("more came than was asked for"));
        }
        self.file.write_all_at(bytes, self.written)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.written += bytes.len() as u64;
        self.transfer.state().written = self.written;
        self.transfer.changed.notify_all();
        Ok(())
    }

    /// All has come: if it is what its digest says, readers hear of its end, and it goes to its place in the store.
    pub fn finish(mut self) -> Result<Region, FinishError> {
        let transfer = self.transfer;
        let checked = match self.hasher.take() {
            Some(hasher) if self.written == transfer.size => hasher.check(&transfer.digest),
            _ => Err("that of a part of it".to_owned()),
        };
        let outcome = match checked {
            Ok(()) => Stage::Whole,
            Err(found) => Stage::Damaged(format!("its content has the digest {found}")),
        };
        let damage = if let Stage::Damaged(why) = &outcome { Some(why.clone()) } else { None };
        transfer.state().stage = outcome;
        transfer.changed.notify_all();
        let published = match damage {
            Some(why) => Err(FinishError::Damaged(why)),
            None => self.publish().map_err(FinishError::Disk),
        };
        transfer.store.forget(&transfer.digest, transfer);
        published
    }

    fn publish(&self) -> io::Result<Region> {
        self.file.sync_all()?;
        if let Some(staged) = &mut self.transfer.state().staged {
            self.transfer.store.place(&staged.path, &self.transfer.digest)?;
            std::mem::take(&mut staged.undo).commit();
        }
        Region::whole(self.file.try_clone()?)
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let Some(hasher) = self.hasher.take() {
            self.transfer.state().stage = Stage::Waiting(hasher);
            self.transfer.changed.notify_all();
        }
    }
}

/// An arriving blob as one pull sees it.
#[derive(Debug, Clone)]
pub struct Arrival {
    transfer: Arc<Transfer>,
    fate: Arc<Fate>,
}

impl Arrival {
    pub fn new(transfer: Arc<Transfer>, fate: Arc<Fate>) -> Self {
        Self { transfer, fate }
    }

    pub fn len(&self) -> u64 {
        self.transfer.size
    }

    pub fn reader(&self) -> ArrivalReader {
        ArrivalReader { arrival: self.clone(), at: 0 }
    }

    pub fn give_up(&self) {
        self.fate.give_up();
    }
}

pub struct ArrivalReader {
    arrival: Arrival,
    at: u64,
}

impl Read for ArrivalReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Arrival { transfer, fate } = &self.arrival;
        let mut state = transfer.state();
        let (file, there) = loop {
            if fate.is_sealed() {
                return Err(io::Error::other(fate.failure().unwrap_or(OciError::Cancelled)));
            }
            match (&state.stage, &state.staged) {
                (Stage::Damaged(why), _) => {
                    let digest = transfer.digest.to_string();
                    let damaged = OciError::Damaged { what: "layer", digest, why: why.clone() };
                    return Err(io::Error::other(damaged));
                }
                (_, Some(staged)) if state.written > self.at => {
                    break (Arc::clone(&staged.file), state.written);
                }
                (Stage::Whole, _) => return Ok(0),
                (Stage::Waiting(_) | Stage::Led, _) => {}
            }
            let waited = transfer.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(state);
        let wanted = buffer.len().min(usize::try_from(there - self.at).unwrap_or(usize::MAX));
        let n = file.read_at(&mut buffer[..wanted], self.at)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file in the cache was cut off"));
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
