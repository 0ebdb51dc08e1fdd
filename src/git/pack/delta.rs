//! Deltas (gitformat-pack, "Deltified representation").

use std::io;

use super::bad;

/// What `delta` makes of `base`, of at most `most` bytes. Nothing is allocated before the bytes for it are there.
pub fn apply(base: &[u8], delta: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut rest = delta;
    if number(&mut rest)? != base.len() as u64 {
        return Err(bad("a delta is of another base"));
    }
    let size = number(&mut rest)?;
    let size = match usize::try_from(size) {
        Ok(n) if size <= most => n,
        _ => return Err(bad(format!("a delta makes {size} bytes; {most} are allowed"))),
    };
    let mut made = Vec::with_capacity(size.min(1 << 20));
    while let Some(code) = take(&mut rest) {
        let piece = if code & 0x80 != 0 {
            let mut numbers = [0u8; 8];
            // Four bytes of offset, three of length; a bit for each that is there.
            for (bit, byte) in numbers.iter_mut().enumerate().take(7) {
                if code & 1 << bit != 0 {
                    *byte = take(&mut rest).ok_or_else(cut)?;
                }
            }
            let numbers = u64::from_le_bytes(numbers);
            let offset = (numbers & 0xffff_ffff) as usize;
            let length = match numbers >> 32 {
                0 => 0x1_0000,
                length => length as usize,
            };
            base.get(offset..)
                .and_then(|from| from.get(..length))
                .ok_or_else(|| bad("a delta copies what its base has not"))?
        } else if code > 0 {
            let (piece, left) = rest.split_at_checked(usize::from(code)).ok_or_else(cut)?;
            rest = left;
            piece
        } else {
            return Err(bad("a delta has an instruction that does not exist"));
        };
        if piece.len() > size - made.len() {
            return Err(bad("a delta makes more than it says"));
        }
        made.extend_from_slice(piece);
    }
    if made.len() == size { Ok(made) } else { Err(cut()) }
}

fn cut() -> io::Error {
    bad("a delta ends too early")
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, left) = rest.split_first()?;
    *rest = left;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> io::Result<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = take(rest).ok_or_else(cut)?;
        let bits = u64::from(byte & 0x7f);
        if shift > 63 || bits << shift >> shift != bits {
            return Err(bad("a delta's size is out of bounds"));
        }
        number |= bits << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_copies_and_inserts() {
        assert_eq!(apply(b"abcdef", &[6, 5, 0x91, 2, 3, 2, b'x', b'y'], 5).expect("applies"), b"cdexy");
        let base = vec![7; 0x1_0000];
        // No length at all is 64 KiB.
        assert_eq!(apply(&base, &[0x80, 0x80, 4, 0x80, 0x80, 4, 0x80], 1 << 20).expect("applies"), base);
        assert_eq!(apply(b"", &[0, 0], 0).expect("applies"), b"");
    }

    #[test]
    fn a_delta_that_lies_is_refused_before_it_costs_anything() {
        for (why, delta) in [
            ("no sizes", &[][..]),
            ("another base", &[5, 1, 1, b'x']),
            ("a result without end", &[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, b'x']),
            (
                "a size of more than 64 bits",
                &[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            ),
            ("a copy from behind the end", &[6, 1, 0x91, 6, 1]),
            ("a copy over the end", &[6, 3, 0x91, 4, 3]),
            ("an insert that is cut off", &[6, 3, 3, b'x']),
            ("a copy that is cut off", &[6, 3, 0x91, 4]),
            ("instruction 0", &[6, 1, 0, 1, b'x']),
            ("more than it says", &[6, 1, 2, b'x', b'y']),
            ("less than it says", &[6, 2, 1, b'x']),
        ] {
            assert!(apply(b"abcdef", delta, 1000).is_err(), "{why}");
        }
    }
}
