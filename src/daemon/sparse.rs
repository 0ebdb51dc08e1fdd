//! Copies of files with holes: shared blocks where the file system can share them, else data is copied and holes stay holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::daemon::image_id;
use crate::daemon::op::Op;
use crate::host::progress::{Progress, Unit};

/// How much is read at once where the bytes are looked at, and the least hole that a copy of zeros gets.
const PIECE: usize = 64 << 10;

/// Copies all of `from` to the empty file `to`.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    if share(from, to)? {
        return Ok(());
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

/// The same, and returns the blake3 of what the copy holds. Zeros become holes, since all of it is looked at anyway.
pub fn copy_hashed(from: &File, to: &File, op: &Op) -> io::Result<String> {
    if share(from, to)? {
        return image_id::of(to);
    }
    let length = from.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let at = hasher.count();
        let piece = match from.read_at(&mut buffer, at)? {
            0 => break,
            n => &buffer[..n],
        };
        if op.cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        hasher.update(piece);
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all_at(piece, at)?;
        }
        op.advance(hasher.count(), length, Unit::Bytes);
    }
    to.set_len(hasher.count())?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Lets `to` have the blocks of `from`; false where that is not possible.
fn share(from: &File, to: &File) -> io::Result<bool> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        // Not on this file system, not between these two, or not for this file (ioctl_ficlonerange(2)).
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => Ok(false),
        Err(e) => Err(e.into()),
    }
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
        let read = |name| std::fs::read(dir.path().join(name)).expect("reads");
        type Copy = fn(&File, &File);
        let hashed: Copy = |from, to| {
            let op = Op::own();
            let hash = copy_hashed(from, to, &op).expect("copies");
            assert_eq!(hash, image_id::of(from).expect("reads"));
        };
        for (name, copy) in
            [("plain", (|from, to| copy(from, to).expect("copies")) as Copy), ("hashed", hashed)]
        {
            let options = File::options().read(true).write(true).create_new(true).open(dir.path().join(name));
            let to = options.expect("creates");
            copy(&from, &to);
            assert!(read("from") == read(name), "the same bytes");
            let blocks = to.metadata().expect("stats").blocks();
            assert!(blocks * 512 <= 1 << 20, "{blocks} blocks");
        }
    }
}
