//! Contents become objects of the scratch repository, through one fast-import: thousands of files cost no process each, and a file of
//! gigabytes goes through in pieces.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::Stdio;

use super::super::error::WorkspaceError;
use super::super::index::is_id;
use super::scratch::Scratch;
use crate::copy::CopyError;
use crate::host::cmd::CmdError;
use crate::host::cmd::git::{Running, Stdin};

/// A fast-import that runs.
pub struct Blobs<'a> {
    scratch: &'a Scratch,
    git: Running,
    stdin: BufWriter<Stdin>,
    count: usize,
    /// How much more may come.
    pub room: Room,
}

/// How much may still come from a guest, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// On this host's disk.
    free: u64,
    /// In a patch.
    patch: u64,
}

/// What a patch takes, in bytes: a file, and all of them together. A guest may say that a file has any size, and git compares it in memory.
const MAX_FILE: u64 = 4 << 30;
const MAX_ALL: u64 = 16 << 30;

const MARKS: &str = "marks";

/// How much a guest may send, in bytes: it may fill its own disk, not this host's.
pub fn room(scratch: &Scratch) -> Result<u64, WorkspaceError> {
    Ok(free(scratch)?.min(MAX_ALL))
}

fn free(scratch: &Scratch) -> Result<u64, WorkspaceError> {
    let dir = scratch.git_dir();
    let stat = rustix::fs::statvfs(&dir).map_err(|e| WorkspaceError::here("read", &dir)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) / 10 * 9)
}

impl Room {
    /// Takes room for `size` bytes of `name`; `place` is where the disk is.
    pub fn take(&mut self, name: &str, size: u64, place: &Path) -> Result<(), WorkspaceError> {
        let copies = "`banger vm cp` copies files as they are";
        if size > MAX_FILE {
            return WorkspaceError::refused(format!(
                "{name} has {size} bytes in the guest, and a patch takes no file of more than 4 GiB; {copies}"
            ));
        }
        let Some(patch) = self.patch.checked_sub(size) else {
            return WorkspaceError::refused(format!(
                "with {name}, what differs has more than 16 GiB, which is more than a patch takes; {copies}"
            ));
        };
        let Some(free) = self.free.checked_sub(size) else {
            return WorkspaceError::refused(format!(
                "{name} has {size} bytes in the guest, for which there is no room in {}",
                place.display()
            ));
        };
        (self.patch, self.free) = (patch, free);
        Ok(())
    }
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
        let room = Room { free: free(scratch)?, patch: MAX_ALL };
        Ok(Self { scratch, git, stdin: BufWriter::with_capacity(64 * 1024, stdin), count: 0, room })
    }

    /// Adds what `content` holds, `size` bytes; `name` is for people. Returns its number, from 0.
    pub fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<usize, WorkspaceError> {
        self.room.take(name, size, &self.scratch.git_dir())?;
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
        write: impl FnOnce(&mut BufWriter<Stdin>) -> io::Result<()>,
    ) -> Result<(), WorkspaceError> {
        write(&mut self.stdin).map_err(|e| match self.git.doing().failed(e) {
            CmdError::Spawn { source, .. } => {
                let what = "git fast-import takes no more; is there room for what the guest sends in";
                WorkspaceError::Here {
                    what: "write objects to",
                    path: self.scratch.git_dir(),
                    source: io::Error::new(source.kind(), what),
                }
            }
            e => e.into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_files_of_a_size_that_git_can_compare_and_no_more_than_there_is_room_for() {
        const GIB: u64 = 1 << 30;
        for (free, sizes, want) in [
            (100 * GIB, vec![4 * GIB; 4], None),
            (100 * GIB, vec![4 * GIB + 1], Some("takes no file of more than 4 GiB; `banger vm cp` copies")),
            (u64::MAX, vec![u64::MAX], Some("takes no file of more than 4 GiB")),
            (
                100 * GIB,
                vec![4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB, 1],
                Some("with f, what differs has more than 16 GiB"),
            ),
            (GIB, vec![GIB, 1], Some("f has 1 bytes in the guest, for which there is no room in /d")),
        ] {
            let mut room = Room { free, patch: MAX_ALL };
            let taken: Result<Vec<()>, _> =
                sizes.iter().map(|size| room.take("f", *size, Path::new("/d"))).collect();
            match (taken, want) {
                (Ok(_), None) => {}
                (Err(e), Some(want)) => assert!(e.to_string().contains(want), "{e}"),
                (taken, want) => panic!("{taken:?} instead of {want:?}"),
            }
        }
    }
}
