//! Copies of files with holes: shared blocks where the file system can share them, else data is copied and holes stay holes.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Copies all of `from` to the empty file `to`.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    match ioctl_ficlone(to, from) {
        Ok(()) => return Ok(()),
        // Not on this file system, not between these two, or not for this file (ioctl_ficlonerange(2)).
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {}
        Err(e) => return Err(e.into()),
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only holes are left.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        at = seek(from, SeekFrom::Hole(start))?;
        copy_range(from, to, start, at)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let left = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        if copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn data_is_copied_and_holes_stay_holes() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut from = File::create_new(dir.path().join("from")).expect("creates");
        from.set_len(64 << 20).expect("sizes it");
        for at in [0, 5 << 20, (64 << 20) - 3] {
            from.seek(io::SeekFrom::Start(at)).expect("seeks");
            from.write_all(b"abc").expect("writes");
        }
        let from = File::open(dir.path().join("from")).expect("opens");
        let to = File::create_new(dir.path().join("to")).expect("creates");
        copy(&from, &to).expect("copies");
        let read = |name| std::fs::read(dir.path().join(name)).expect("reads");
        assert!(read("from") == read("to"), "the same bytes");
        let blocks = to.metadata().expect("stats").blocks();
        assert!(blocks * 512 <= 1 << 20, "{blocks} blocks");
    }
}
