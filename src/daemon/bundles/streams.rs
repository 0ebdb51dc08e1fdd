//! The descriptor of whoever asked: a file, or a pipe on which nothing may come for long. It is waited for only as long as he is there.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::daemon::op::Op;
use crate::host::progress::Progress;

/// A pipe that is ready takes as much without waiting (pipe(7), PIPE_BUF).
const PIECE: usize = 4096;
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Reads and writes as its file does, and fails when nobody waits for it any more.
pub struct Patient<'a> {
    file: &'a File,
    op: &'a Op,
    /// Never makes anybody wait.
    regular: bool,
}

impl<'a> Patient<'a> {
    pub fn new(file: &'a File, op: &'a Op) -> Self {
        Self { file, op, regular: file.metadata().is_ok_and(|meta| meta.is_file()) }
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        if self.regular {
            return Ok(());
        }
        loop {
            if self.op.cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            match poll(&mut [PollFd::new(self.file, flags)], Some(&GLANCE)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        self.file.read(buffer)
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT)?;
        let length = if self.regular { bytes.len() } else { bytes.len().min(PIECE) };
        self.file.write(&bytes[..length])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_on_which_nothing_happens_is_given_up_with_whoever_asked() {
        let (read, write) = io::pipe().expect("a pipe");
        let (read, write) =
            (File::from(std::os::fd::OwnedFd::from(read)), File::from(std::os::fd::OwnedFd::from(write)));
        let op = Op::own();
        // All that goes in without a reader, which is no more than a pipe holds.
        let filled = std::thread::scope(|scope| {
            let writer =
                scope.spawn(|| io::copy(&mut io::repeat(1).take(1 << 20), &mut Patient::new(&write, &op)));
            std::thread::sleep(std::time::Duration::from_millis(50));
            op.cancel();
            writer.join().expect("no panic")
        });
        assert_eq!(filled.expect_err("given up").to_string(), "cancelled");
        let gone = Op::own();
        gone.cancel();
        assert_eq!(
            Patient::new(&read, &gone).read(&mut [0; 8]).expect_err("given up").to_string(),
            "cancelled"
        );
        let mut some = [0; 8];
        assert_eq!(Patient::new(&read, &Op::own()).read(&mut some).expect("reads"), 8);
    }
}
