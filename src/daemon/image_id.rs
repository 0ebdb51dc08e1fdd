//! An image's id: blake3 of its file. Most of a sparse file may be holes, which need not be read to be hashed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// The id of an image, in hexadecimal.
pub fn of(file: &File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let len = file.metadata()?.len();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let (data, hole) = next_data(file, at, len)?;
        buffer.fill(0);
        parts(at, data, |_, n| {
            hasher.update(&buffer[..n]);
            Ok(())
        })?;
        parts(data, hole, |at, n| {
            file.read_exact_at(&mut buffer[..n], at)?;
            hasher.update(&buffer[..n]);
            Ok(())
        })?;
        at = hole;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Where the first data at or behind `at` begins and ends; both are `len` where there is none.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<(u64, u64)> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(len),
        Err(Errno::NXIO) => return Ok((len, len)),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, len)),
        Err(e) => return Err(e.into()),
    };
    Ok((data, seek(file, SeekFrom::Hole(data))?.min(len)))
}

/// Calls `f` with the place and length of each part of `from..to` that is no longer than [`CHUNK`].
fn parts(from: u64, to: u64, mut f: impl FnMut(u64, usize) -> io::Result<()>) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let n = (to - at).min(CHUNK as u64);
        f(at, n as usize)?;
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_as_zeros() {
        for writes in [&[][..], &[0], &[300_000], &[0, 1_000_000, 2_999_999], &[2_999_999]] {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(3_000_000).expect("sizes");
            let mut whole = vec![0; 3_000_000];
            for at in writes {
                file.write_all_at(&[7], *at).expect("writes");
                whole[*at as usize] = 7;
            }
            assert_eq!(of(&file).expect("hashes"), blake3::hash(&whole).to_hex().to_string(), "{writes:?}");
        }
    }
}
