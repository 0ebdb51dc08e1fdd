//! Objects out of a pack, by their offsets.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use flate2::{Decompress, FlushDecompress, Status};

use super::delta::apply;
use super::entry::{Form, Head, Kind, MAX_HEAD};
use super::{MAX_CHAIN, MAX_DELTIFIED, bad};
use crate::git::{Format, Id};

/// A pack's file, to be read where its index says.
pub struct Pack<'a> {
    pub file: &'a File,
    pub format: Format,
    /// Which it is to a cache that several share.
    pub number: u32,
}

/// Objects that may be bases soon again.
pub struct Cache {
    most: usize,
    held: usize,
    contents: HashMap<At, (Kind, Rc<Vec<u8>>)>,
    oldest: VecDeque<At>,
}

/// A pack's number, and an offset there.
type At = (u32, u64);

/// What an object's deflated bytes come to.
pub struct Inflate<'a> {
    file: &'a File,
    at: u64,
    buffer: Vec<u8>,
    taken: usize,
    filled: usize,
    inflater: Decompress,
    ended: bool,
}

impl Cache {
    /// Holds at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { most, held: 0, contents: HashMap::new(), oldest: VecDeque::new() }
    }

    fn put(&mut self, at: At, kind: Kind, content: &Rc<Vec<u8>>) {
        if content.len() > self.most || self.contents.insert(at, (kind, Rc::clone(content))).is_some() {
            return;
        }
        self.held += content.len();
        self.oldest.push_back(at);
        while self.held > self.most {
            let Some(oldest) = self.oldest.pop_front() else { return };
            self.held -= self.contents.remove(&oldest).map_or(0, |(_, content)| content.len());
        }
    }
}

impl<'a> Pack<'a> {
    fn head(&self, at: u64) -> io::Result<Head> {
        let mut bytes = [0; MAX_HEAD];
        let mut filled = 0;
        while filled < MAX_HEAD {
            match self.file.read_at(&mut bytes[filled..], at + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        Head::parse(&bytes[..filled], self.format)
    }

    /// An object that is no delta: its kind, its size, and its content as a stream. None: it is one.
    pub fn stream(&self, at: u64) -> io::Result<Option<(Kind, u64, Inflate<'a>)>> {
        let head = self.head(at)?;
        match head.form {
            Form::Whole(kind) => {
                Ok(Some((kind, head.size, Inflate::new(self.file, at + head.length as u64))))
            }
            Form::Offset(_) | Form::Reference(_) => Ok(None),
        }
    }

    /// An object, whole. `locate` knows where the base is of the delta at an offset that refers to it by name.
    pub fn content(
        &self,
        at: u64,
        cache: &mut Cache,
        locate: &dyn Fn(u64, &Id) -> io::Result<Option<u64>>,
    ) -> io::Result<(Kind, Rc<Vec<u8>>)> {
        // Down to what is no delta, or is known already.
        let mut chain = vec![];
        let mut next = at;
        let (kind, mut content) = loop {
            if let Some((kind, content)) = cache.contents.get(&(self.number, next)) {
                break (*kind, Rc::clone(content));
            }
            let head = self.head(next)?;
            let base = match head.form {
                Form::Whole(kind) => {
                    let content = Rc::new(self.bytes(next, head)?);
                    cache.put((self.number, next), kind, &content);
                    break (kind, content);
                }
                Form::Offset(distance) => next.checked_sub(distance).filter(|_| distance > 0),
                Form::Reference(id) => locate(next, &id)?,
            };
            chain.push((next, head));
            if chain.len() > MAX_CHAIN {
                return Err(bad("a chain of deltas is too long"));
            }
            next = base.ok_or_else(|| bad("a delta's base is missing"))?;
        };
        for (at, head) in chain.iter().rev() {
            let delta = self.bytes(*at, *head)?;
            content = Rc::new(apply(&content, &delta, MAX_DELTIFIED)?);
            cache.put((self.number, *at), kind, &content);
        }
        Ok((kind, content))
    }

    fn bytes(&self, at: u64, head: Head) -> io::Result<Vec<u8>> {
        if head.size > MAX_DELTIFIED {
            return Err(bad(format!("an object of {} bytes is part of a delta", head.size)));
        }
        inflate_whole(&mut Inflate::new(self.file, at + head.length as u64), head.size)
    }
}

/// Reads exactly `size` bytes to the end of `from`. They are allocated as they come.
pub fn inflate_whole(from: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(usize::MAX).min(1 << 20));
    from.take(size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(bad("an object is not as long as it says")) }
}

impl<'a> Inflate<'a> {
    /// Of a zlib stream at an offset of a file.
    pub fn new(file: &'a File, at: u64) -> Self {
        Self {
            file,
            at,
            buffer: vec![0; 32 << 10],
            taken: 0,
            filled: 0,
            inflater: Decompress::new(true),
            ended: false,
        }
    }
}

impl Read for Inflate<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !out.is_empty() {
            if self.taken == self.filled {
                self.filled = self.file.read_at(&mut self.buffer, self.at)?;
                self.taken = 0;
                self.at += self.filled as u64;
            }
            let input = &self.buffer[self.taken..self.filled];
            let (had, made) = (self.inflater.total_in(), self.inflater.total_out());
            let status = self
                .inflater
                .decompress(input, out, FlushDecompress::None)
                .map_err(|_| bad("an object is not deflated as it should be"))?;
            let used = (self.inflater.total_in() - had) as usize;
            let made = (self.inflater.total_out() - made) as usize;
            self.taken += used;
            self.ended = status == Status::StreamEnd;
            if made > 0 {
                return Ok(made);
            }
            if used == 0 && !self.ended {
                return Err(bad("an object is cut off"));
            }
        }
        Ok(0)
    }
}
