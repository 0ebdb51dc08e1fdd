//! Contents become objects of the scratch repository, through one fast-import: thousands of files cost no process each, and a file of
//! gigabytes goes through in pieces.

use std::io::{self, BufWriter, Read, Write};
use std::process::{ChildStdin, Stdio};

use super::super::error::WorkspaceError;
use super::super::index::is_id;
use super::scratch::Scratch;
use crate::copy::CopyError;
use crate::host::cmd::git::Running;

/// A fast-import that runs.
pub struct Blobs<'a> {
    scratch: &'a Scratch,
    git: Running,
    stdin: BufWriter<ChildStdin>,
    count: usize,
    /// How much more fits, in bytes.
    room: u64,
}

const MARKS: &str = "marks";

/// How much a guest may send, in bytes: it may fill its own disk, not this host's.
pub fn room(scratch: &Scratch) -> Result<u64, WorkspaceError> {
    let dir = scratch.git_dir();
    let stat = rustix::fs::statvfs(&dir).map_err(|e| WorkspaceError::here("read", &dir)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) / 10 * 9)
}

impl<'a> Blobs<'a> {
    pub fn start(scratch: &'a Scratch) -> Result<Self, WorkspaceError> {
        let marks = scratch.path(MARKS);
        let marks = format!("--export-marks={}", marks.display());
        // Deltas are for what is kept.
        let args = ["fast-import", "--quiet", "--depth=0", &marks];
        let mut git = scratch.git.start_into(&args, Stdio::piped(), Stdio::null())?;
        let Some(stdin) = git.stdin.take() else {
            return WorkspaceError::refused("git fast-import takes no input");
        };
        let room = room(scratch)?;
        Ok(Self { scratch, git, stdin: BufWriter::with_capacity(64 * 1024, stdin), count: 0, room })
    }

    /// Adds what `content` holds, `size` bytes; `name` is for people. Returns its number, from 0.
    pub fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<usize, WorkspaceError> {
        match self.room.checked_sub(size) {
            Some(left) => self.room = left,
            None => {
                return WorkspaceError::refused(format!(
                    "{name} has {size} bytes in the guest, for which there is no room in {}",
                    self.scratch.git_dir().display()
                ));
            }
        }
        self.count += 1;
        let count = self.count;
        self.write(|to| write!(to, "blob\nmark :{count}\ndata {size}\n"))?;
        let (mut buffer, mut left) = (vec![0; 64 * 1024], size);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = content.read(&mut buffer[..most]).map_err(CopyError::Connection)?;
            if n == 0 {
                return Err(CopyError::Stream { why: format!("{name} breaks off") }.into());
            }
            self.write(|to| to.write_all(&buffer[..n]))?;
            left -= n as u64;
        }
        self.write(|to| to.write_all(b"\n"))?;
        Ok(count - 1)
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<ChildStdin>) -> io::Result<()>,
    ) -> Result<(), WorkspaceError> {
        write(&mut self.stdin).map_err(|e| {
            let what = "git fast-import takes no more; is there room for what the guest sends in".to_owned();
            WorkspaceError::Here {
                what: "write objects to",
                path: self.scratch.git_dir(),
                source: io::Error::new(e.kind(), what),
            }
        })
    }

    /// The ids of all that was added, in order.
    pub fn finish(self) -> Result<Vec<String>, WorkspaceError> {
        let Self { scratch, git, stdin, count, .. } = self;
        git.finish_after(stdin.into_inner().map(drop).map_err(io::IntoInnerError::into_error))?;
        let marks = scratch.path(MARKS);
        let text = std::fs::read_to_string(&marks).map_err(WorkspaceError::here("read", &marks))?;
        let mut ids = vec![String::new(); count];
        for (number, id) in text.lines().filter_map(|line| line.strip_prefix(':')?.split_once(' ')) {
            let slot = number.parse::<usize>().ok().and_then(|n| ids.get_mut(n.checked_sub(1)?));
            if let Some(slot) = slot.filter(|_| is_id(id)) {
                *slot = id.to_owned();
            }
        }
        match ids.iter().all(|id| is_id(id)) {
            true => Ok(ids),
            false => WorkspaceError::refused("git fast-import does not say what it made"),
        }
    }
}
