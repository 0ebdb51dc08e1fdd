//! A pipe between two threads: one inflates a layer, the other applies it. Layers inflate side by side but are applied in their
//! order, so what comes of one whose turn has not come goes to a [`Spool`]. When it is applied, it goes through a little memory, and
//! it is the inflating thread that waits.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::host::progress::Progress;
use crate::oci::io_cancelled;
use crate::oci::spool::Spool;

/// Bytes of a chunk, and how many of them are kept in memory.
pub const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;
/// How often a thread that waits looks whether anybody still wants it.
const LOOK: Duration = Duration::from_millis(100);

/// Some bytes on their way.
pub struct Chunk {
    bytes: Box<[u8]>,
    len: usize,
}

impl Chunk {
    fn new() -> Self {
        Self { bytes: vec![0; CHUNK].into(), len: 0 }
    }

    /// Reads until it is full or `reader` ends; it is empty then if there was nothing more.
    pub fn fill(&mut self, reader: &mut impl Read) -> io::Result<()> {
        self.len = 0;
        while self.len < CHUNK {
            match reader.read(&mut self.bytes[self.len..]) {
                Ok(0) => break,
                Ok(n) => self.len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

struct State<T> {
    chunks: VecDeque<Chunk>,
    /// Used chunks, to be filled again.
    spare: Vec<Chunk>,
    /// What goes before the chunks, from `spool_read` on.
    spool: Option<Spool>,
    spool_read: u64,
    /// Somebody reads: the writer may wait.
    read: bool,
    reader_gone: bool,
    /// How it ended; the writer is gone.
    outcome: Option<T>,
    writer_gone: bool,
}

impl<T> State<T> {
    fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, |spool| spool.end() - self.spool_read)
    }

    fn next_in_spool(&mut self) -> io::Result<Chunk> {
        let mut chunk = self.spare.pop().unwrap_or_else(Chunk::new);
        if let Some(spool) = &self.spool {
            chunk.len = spool.read(&mut chunk.bytes, self.spool_read)?;
        }
        self.spool_read += chunk.len as u64;
        if self.spooled() == 0 {
            // The writer goes on in memory.
            (self.spool, self.spool_read) = (None, 0);
        }
        Ok(chunk)
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    directory: PathBuf,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic of the other side leaves what is said of chunks true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait_timeout(guard, LOOK).unwrap_or_else(PoisonError::into_inner).0
    }
}

pub struct Sender<T>(Arc<Shared<T>>);

pub struct Receiver<'a, T> {
    shared: Arc<Shared<T>>,
    chunk: Option<Chunk>,
    at: usize,
    progress: &'a dyn Progress,
}

/// Nobody reads any more.
#[derive(Debug)]
pub enum SendError {
    Gone,
    /// The spool cannot be written.
    Disk(io::Error),
}

/// A pipe that keeps its spool in `directory`, and hands over a `T` at its end. A read ends with an error when nobody waits for it.
pub fn pipe<T>(directory: PathBuf, progress: &dyn Progress) -> (Sender<T>, Receiver<'_, T>) {
    let state = State {
        chunks: VecDeque::new(),
        spare: vec![],
        spool: None,
        spool_read: 0,
        read: false,
        reader_gone: false,
        outcome: None,
        writer_gone: false,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), directory });
    (Sender(Arc::clone(&shared)), Receiver { shared, chunk: None, at: 0, progress })
}

impl<T> Sender<T> {
    /// A chunk to be filled.
    pub fn chunk(&self) -> Chunk {
        self.0.lock().spare.pop().unwrap_or_else(Chunk::new)
    }

    /// Hands over a chunk: at once, or through the spool, or when there is room.
    pub fn send(&self, chunk: Chunk) -> Result<(), SendError> {
        let mut state = self.0.lock();
        loop {
            if state.reader_gone {
                return Err(SendError::Gone);
            }
            if !state.read {
                return self.spool(state, chunk);
            }
            if state.spooled() == 0 && state.chunks.len() < CHUNKS {
                state.chunks.push_back(chunk);
                self.0.changed.notify_all();
                return Ok(());
            }
            state = self.0.wait(state);
        }
    }

    fn spool(&self, mut state: MutexGuard<'_, State<T>>, chunk: Chunk) -> Result<(), SendError> {
        // The lock is held meanwhile: nobody reads yet.
        if state.spool.is_none() {
            state.spool = Some(Spool::new(&self.0.directory).map_err(SendError::Disk)?);
        }
        if let Some(spool) = &mut state.spool {
            spool.append(chunk.bytes()).map_err(SendError::Disk)?;
        }
        state.spare.push(chunk);
        Ok(())
    }

    /// Says how it ended.
    pub fn finish(self, outcome: T) {
        self.0.lock().outcome = Some(outcome);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().writer_gone = true;
        self.0.changed.notify_all();
    }
}

impl<T> Receiver<'_, T> {
    /// From now on the writer waits for this reader.
    pub fn begin(&self) {
        self.shared.lock().read = true;
        self.shared.changed.notify_all();
    }

    /// How it ended; None: it has not, or the writer's thread broke off.
    pub fn outcome(&self) -> Option<T> {
        self.shared.lock().outcome.take()
    }

    /// Gets the next chunk; at the end there is none.
    fn advance(&mut self) -> io::Result<()> {
        let used = self.chunk.take();
        self.at = 0;
        let mut state = self.shared.lock();
        state.spare.extend(used);
        loop {
            if state.spooled() > 0 {
                self.chunk = Some(state.next_in_spool()?);
                break;
            }
            if let Some(chunk) = state.chunks.pop_front() {
                self.chunk = Some(chunk);
                break;
            }
            if state.writer_gone {
                break;
            }
            if self.progress.cancelled() {
                return Err(io_cancelled());
            }
            state = self.shared.wait(state);
        }
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl<T> BufRead for Receiver<'_, T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.as_ref().map_or(0, |chunk| chunk.len) {
            self.advance()?;
        }
        Ok(self.chunk.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.at..]))
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl<T> Read for Receiver<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut part = self.fill_buf()?;
        let n = part.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<T> Drop for Receiver<'_, T> {
    fn drop(&mut self) {
        self.shared.lock().reader_gone = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::progress::{Cancelled, Silent};

    fn chunk(sender: &Sender<u8>, n: u32) -> Chunk {
        let mut chunk = sender.chunk();
        chunk.fill(&mut n.to_le_bytes().as_slice()).expect("fills");
        chunk
    }

    #[test]
    fn what_is_sent_before_anybody_reads_comes_in_its_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let (sender, mut receiver) = pipe::<u8>(dir.path().to_owned(), &Silent);
        for n in 0..100 {
            sender.send(chunk(&sender, n)).expect("nobody waits");
        }
        std::thread::scope(|scope| {
            receiver.begin();
            scope.spawn(move || {
                for n in 100..1000 {
                    sender.send(chunk(&sender, n)).expect("is read");
                }
                sender.finish(7);
            });
            let mut all = vec![];
            receiver.read_to_end(&mut all).expect("reads");
            let want: Vec<u8> = (0..1000_u32).flat_map(u32::to_le_bytes).collect();
            assert!(all == want);
            assert_eq!(receiver.outcome(), Some(7));
        });
    }

    #[test]
    fn a_writer_learns_that_nobody_reads_and_a_reader_that_nobody_writes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (sender, receiver) = pipe::<u8>(dir.path().to_owned(), &Silent);
        drop(receiver);
        assert!(matches!(sender.send(chunk(&sender, 1)), Err(SendError::Gone)));
        let (sender, mut receiver) = pipe::<u8>(dir.path().to_owned(), &Silent);
        drop(sender);
        assert_eq!(receiver.read(&mut [0; 8]).expect("reads"), 0);
        assert_eq!(receiver.outcome(), None);
    }

    #[test]
    fn a_read_ends_when_nobody_waits_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (_sender, mut receiver) = pipe::<u8>(dir.path().to_owned(), &Cancelled);
        receiver.read(&mut [0; 8]).expect_err("cancelled");
    }
}
