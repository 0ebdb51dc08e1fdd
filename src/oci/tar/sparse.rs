//! Files with holes, in GNU tar's four ways of writing them (tar manual, "Storing Sparse Files").

use std::io::Read;

use ::tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{MAX_FILE, TarError, bad, fill, pax::number};

/// A part of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub at: u64,
    pub len: u64,
}

/// The file's length, and its data in the order in which the archive has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Map {
    pub size: u64,
    pub stretches: Vec<Stretch>,
}

/// The `GNU.sparse.` records of a PAX header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub name: Option<Vec<u8>>,
    major: Option<u64>,
    size: Option<u64>,
    numbers: Vec<u64>,
}

const MAX_STRETCHES: usize = 1 << 18;
const BAD: &str = "has a bad sparse map";

impl Records {
    /// Takes one record; `key` is without its prefix.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"name" if !value.is_empty() && !value.contains(&0) => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(number(value).ok_or(BAD)?),
            b"size" | b"realsize" => self.size = Some(number(value).ok_or(BAD)?),
            b"map" => {
                for word in value.split(|b| *b == b',') {
                    self.numbers.push(number(word).ok_or(BAD)?);
                }
            }
            b"offset" | b"numbytes" => self.numbers.push(number(value).ok_or(BAD)?),
            _ => {}
        }
        if self.numbers.len() > 2 * MAX_STRETCHES { Err(BAD) } else { Ok(()) }
    }

    /// Whether the map stands before the data.
    pub fn is_version_1(&self) -> bool {
        self.major == Some(1)
    }

    /// The map where the records hold it; None: the file has no holes.
    pub fn version_0(&self) -> Result<Option<Map>, &'static str> {
        match (self.size, self.numbers.as_slice()) {
            (None, []) => Ok(None),
            (Some(size), numbers) => Ok(Some(Map { size, stretches: pairs(numbers)? })),
            (None, _) => Err(BAD),
        }
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Stretch>, &'static str> {
    if !numbers.len().is_multiple_of(2) {
        return Err(BAD);
    }
    Ok(numbers.chunks_exact(2).map(|pair| Stretch { at: pair[0], len: pair[1] }).collect())
}

/// The map in the header, and in the blocks that follow it.
pub fn old_gnu(header: &Header, source: &mut impl Read) -> Result<Map, TarError> {
    let gnu = header.as_gnu().ok_or_else(|| bad(&[], BAD))?;
    let size = gnu.real_size().map_err(|_| bad(&[], BAD))?;
    let mut stretches = vec![];
    let mut add = |part: &GnuSparseHeader| {
        if !part.is_empty() {
            let (at, len) =
                (part.offset().map_err(|_| bad(&[], BAD))?, part.length().map_err(|_| bad(&[], BAD))?);
            stretches.push(Stretch { at, len });
        }
        if stretches.len() > MAX_STRETCHES { Err(bad(&[], BAD)) } else { Ok(()) }
    };
    gnu.sparse.iter().try_for_each(&mut add)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        if fill(source, block.as_mut_bytes()).map_err(TarError::Read)? < 512 {
            return Err(TarError::truncated(&[]));
        }
        block.sparse().iter().try_for_each(&mut add)?;
        more = block.is_extended();
    }
    Ok(Map { size, stretches })
}

/// The map at the beginning of the data: decimal numbers on lines, padded to a block. Returns how much of the data it took.
pub fn version_1(records: &Records, data: &mut impl Read) -> Result<(Map, u64), TarError> {
    let size = records.size.ok_or_else(|| bad(&[], BAD))?;
    let mut taken = 0;
    let mut block = [0; 512];
    let mut rest = &block[..0];
    let mut numbers: Vec<u64> = vec![];
    let mut wanted = 1;
    let mut digits: Vec<u8> = vec![];
    while numbers.len() < wanted {
        let Some((byte, left)) = rest.split_first() else {
            if fill(data, &mut block).map_err(TarError::Read)? < block.len() {
                return Err(TarError::truncated(&[]));
            }
            taken += block.len() as u64;
            rest = &block;
            continue;
        };
        rest = left;
        match byte {
            b'0'..=b'9' if digits.len() < 20 => digits.push(*byte),
            b'\n' => {
                numbers.push(number(&digits).ok_or_else(|| bad(&[], BAD))?);
                digits.clear();
            }
            _ => return Err(bad(&[], BAD)),
        }
        if let [count] = numbers[..]
            && wanted == 1
        {
            let count = usize::try_from(count).ok().filter(|n| *n <= MAX_STRETCHES);
            wanted = 1 + 2 * count.ok_or_else(|| bad(&[], BAD))?;
        }
    }
    let stretches = pairs(&numbers[1..]).map_err(|why| bad(&[], why))?;
    Ok((Map { size, stretches }, taken))
}

/// Checks that the map is in order, within the file, and as long as the data that follows.
pub fn check(map: &Map, data: u64) -> Result<(), &'static str> {
    if map.size > MAX_FILE {
        return Err("is larger than 1 TiB");
    }
    let mut end = 0;
    let mut sum = 0_u64;
    for stretch in &map.stretches {
        if stretch.at < end {
            return Err(BAD);
        }
        end = stretch.at.checked_add(stretch.len).filter(|end| *end <= map.size).ok_or(BAD)?;
        sum += stretch.len;
    }
    if sum == data { Ok(()) } else { Err(BAD) }
}
