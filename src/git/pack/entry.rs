//! What is before an object's bytes in a pack.

use std::io;

use super::bad;
use crate::git::{Format, Id};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

/// What an entry's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole(Kind),
    /// A delta to the entry this far before it.
    Offset(u64),
    Reference(Id),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub form: Form,
    /// Of what comes out of its deflated bytes.
    pub size: u64,
    /// Of the head itself.
    pub length: usize,
}

/// The longest head: a size and an offset of ten bytes each, or a name.
pub const MAX_HEAD: usize = 10 + 32;

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }

    pub fn parse(name: &[u8]) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Tag]
            .into_iter()
            .find(|kind| kind.name().as_bytes() == name)
    }

    fn number(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Tree => 2,
            Self::Blob => 3,
            Self::Tag => 4,
        }
    }
}

impl Head {
    /// Reads a head at the beginning of `bytes`, which are [`MAX_HEAD`] unless the pack ends before.
    pub fn parse(bytes: &[u8], format: Format) -> io::Result<Self> {
        let cut = || bad("it ends within an object");
        let mut at = 0;
        let mut next = || {
            let byte = bytes.get(at).copied().ok_or_else(cut);
            at += 1;
            byte
        };
        let first = next()?;
        let (mut size, mut shift, mut byte) = (u64::from(first & 15), 4, first);
        while byte & 0x80 != 0 {
            byte = next()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || bits << shift >> shift != bits {
                return Err(bad("an object's size is out of bounds"));
            }
            size |= bits << shift;
            shift += 7;
        }
        let form = match first >> 4 & 7 {
            1 => Form::Whole(Kind::Commit),
            2 => Form::Whole(Kind::Tree),
            3 => Form::Whole(Kind::Blob),
            4 => Form::Whole(Kind::Tag),
            6 => {
                let mut byte = next()?;
                let mut distance = u64::from(byte & 0x7f);
                while byte & 0x80 != 0 {
                    byte = next()?;
                    if distance >= 1 << 56 {
                        return Err(bad("a delta's base is out of bounds"));
                    }
                    distance = (distance + 1) << 7 | u64::from(byte & 0x7f);
                }
                Form::Offset(distance)
            }
            7 => {
                let end = at + format.id_bytes();
                let id = bytes.get(at..end).and_then(Id::from_bytes).ok_or_else(cut)?;
                at = end;
                Form::Reference(id)
            }
            kind => return Err(bad(format!("an object of the unknown kind {kind}"))),
        };
        Ok(Self { form, size, length: at })
    }
}

/// The head of a whole object.
pub fn head(kind: Kind, size: u64) -> Vec<u8> {
    sized(kind.number(), size)
}

/// The head of a delta to `base`.
pub fn reference(base: &Id, size: u64) -> Vec<u8> {
    let mut bytes = sized(7, size);
    bytes.extend_from_slice(base.bytes());
    bytes
}

fn sized(number: u8, size: u64) -> Vec<u8> {
    let mut bytes = vec![number << 4 | (size & 15) as u8];
    let mut rest = size >> 4;
    while rest > 0 {
        let last = bytes.len() - 1;
        bytes[last] |= 0x80;
        bytes.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_were_written() {
        for size in [0, 15, 16, 2047, 2048, 1 << 32, u64::MAX] {
            let bytes = head(Kind::Tree, size);
            let read = Head::parse(&bytes, Format::Sha1).expect("reads");
            assert_eq!(read, Head { form: Form::Whole(Kind::Tree), size, length: bytes.len() });
            for format in [Format::Sha1, Format::Sha256] {
                let base = crate::git::Hasher::new(format).finish();
                let bytes = reference(&base, size);
                let read = Head::parse(&bytes, format).expect("reads");
                assert_eq!(read, Head { form: Form::Reference(base), size, length: bytes.len() });
            }
        }
    }

    #[test]
    fn a_head_that_is_cut_off_or_out_of_bounds_is_refused() {
        let long = [&[0xb0][..], &[0xff; 12]].concat();
        let far = [&[0x60][..], &[0xff; 12]].concat();
        for bytes in [&[][..], &[0xb0], &[0x00], &[0x50], &long, &far, &[0x70; 20]] {
            assert!(Head::parse(bytes, Format::Sha1).is_err(), "{bytes:?}");
        }
    }
}
