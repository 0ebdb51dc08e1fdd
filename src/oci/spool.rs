//! The spool: bytes that are kept for a while, end to end, in a file without a name. The kernel frees it with the last
//! descriptor, so no crash can leave it behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Contents of this size are kept out of the spool where they are zeros.
const BLOCK: usize = 4096;

pub struct Spool {
    file: File,
    end: u64,
}

impl Spool {
    /// An empty spool on the file system of `directory`.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: nameless(directory)?, end: 0 })
    }

    /// Where the next content begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The file, as long as what was appended.
    pub fn into_file(self) -> io::Result<File> {
        self.file.set_len(self.end)?;
        Ok(self.file)
    }

    /// Appends `bytes`. Blocks of zeros become holes: a layer of nothing but zeros must not fill the disk.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let zeros: usize = rest.chunks(BLOCK).take_while(|b| is_zeros(b)).map(<[u8]>::len).sum();
            let data = &rest[zeros..];
            let len: usize = data.chunks(BLOCK).take_while(|b| !is_zeros(b)).map(<[u8]>::len).sum();
            self.end += zeros as u64;
            self.file.write_all_at(&data[..len], self.end)?;
            self.end += len as u64;
            rest = &data[len..];
        }
        Ok(())
    }

    /// Reads up to `buffer.len()` bytes at `offset`; what was never written reads as zeros.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.end.saturating_sub(offset);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], offset)?;
        if read > 0 || wanted == 0 {
            return Ok(read);
        }
        buffer[..wanted].fill(0);
        Ok(wanted)
    }
}

fn is_zeros(block: &[u8]) -> bool {
    block.iter().all(|b| *b == 0)
}

/// A file without a name on the file system of `directory`, readable and writable.
pub fn nameless(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Ok(fd) => return Ok(fd.into()),
        // Some file systems have no O_TMPFILE (open(2)): NFS, FUSE, 9p.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let path = directory.join(fresh_name("spool"));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&path, flags, mode)?);
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// A name for something that is not finished, not used before by this process; a crash leaves it, and who owns the
/// directory removes it by its beginning, `.staged-`.
pub fn fresh_name(what: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(".staged-{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_zeros_take_no_room() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        let mut spool = Spool::new(dir.path()).expect("a spool");
        spool.append(b"first").expect("writes");
        let zeros_at = spool.end();
        spool.append(&vec![0; 1 << 20]).expect("writes");
        let mut buffer = [0xff; 8];
        assert_eq!(spool.read(&mut buffer, 0).expect("reads"), 5);
        assert_eq!(&buffer[..5], b"first");
        assert_eq!(spool.read(&mut buffer, zeros_at).expect("reads"), 8);
        assert_eq!(buffer, [0; 8]);
        assert_eq!(spool.read(&mut buffer, spool.end()).expect("reads"), 0);
        assert!(spool.file.metadata().expect("stats").blocks() * 512 < 1 << 20);
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0, "it has no name");
    }
}
