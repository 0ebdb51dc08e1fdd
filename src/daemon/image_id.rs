//! An image's id: blake3 of its file. Most of a sparse file may be holes, which need not be read to be hashed; and BLAKE3 is a
//! tree, whose halves are hashed side by side (BLAKE3 specification, 5.1.2).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// What is shorter, in bytes, is not worth a thread.
const SPLIT: u64 = 16 << 20;
/// The tree is divided at its root and once more: into at most four parts.
const DEPTH: u32 = 2;

/// The id of an image, in hexadecimal.
pub fn of(file: &File) -> io::Result<String> {
    let len = file.metadata()?.len();
    if len <= SPLIT {
        let mut hasher = blake3::Hasher::new();
        feed(&mut hasher, file, 0, len)?;
        return Ok(hasher.finalize().to_hex().to_string());
    }
    let (left, right) = halves(file, 0, len, DEPTH - 1)?;
    Ok(merge_subtrees_root(&left, &right, Mode::Hash).to_hex().to_string())
}

/// The chaining values of the two subtrees of `from..from + len`.
fn halves(file: &File, from: u64, len: u64, depth: u32) -> io::Result<(ChainingValue, ChainingValue)> {
    let left_len = left_subtree_len(len);
    std::thread::scope(|scope| {
        let right = scope.spawn(move || subtree(file, from + left_len, len - left_len, depth));
        let left = subtree(file, from, left_len, depth)?;
        let right =
            right.join().unwrap_or_else(|_| Err(io::Error::other("a thread that hashes has panicked")))?;
        Ok((left, right))
    })
}

fn subtree(file: &File, from: u64, len: u64, depth: u32) -> io::Result<ChainingValue> {
    if depth > 0 && len > SPLIT {
        let (left, right) = halves(file, from, len, depth - 1)?;
        return Ok(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(from);
    feed(&mut hasher, file, from, from + len)?;
    Ok(hasher.finalize_non_root())
}

/// Hashes `from..to` of the file.
fn feed(hasher: &mut blake3::Hasher, file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = from;
    while at < to {
        let (data, hole) = next_data(file, at, to)?;
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
    Ok(())
}

/// Where the first data at or behind `at` begins and ends, up to `len`; both are `len` where there is none.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<(u64, u64)> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(len),
        Err(Errno::NXIO) => return Ok((len, len)),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, len)),
        Err(e) => return Err(e.into()),
    };
    // Two threads may move the position; nobody reads from it.
    let hole = if data < len { seek(file, SeekFrom::Hole(data))?.min(len) } else { len };
    Ok((data, hole))
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
    fn holes_count_as_zeros_and_parts_as_the_whole() {
        for (len, writes) in [
            (0, &[][..]),
            (3_000_000, &[]),
            (3_000_000, &[0, 300_000, 2_999_999]),
            (SPLIT, &[5]),
            (SPLIT + 1, &[5, SPLIT]),
            (5 * SPLIT + 12_345, &[0, SPLIT, 2 * SPLIT - 1, 4 * SPLIT + 7]),
        ] {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(len).expect("sizes");
            let mut whole = vec![0; len as usize];
            for at in writes {
                file.write_all_at(&[7], *at).expect("writes");
                whole[*at as usize] = 7;
            }
            let want = blake3::hash(&whole).to_hex().to_string();
            assert_eq!(of(&file).expect("hashes"), want, "{len} {writes:?}");
        }
    }
}
