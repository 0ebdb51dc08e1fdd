//! The tar stream of a prepare: each file is written to the work tree, named, and put into a pack, in one pass.

use std::io::{self, Read, Write};

use tar::{Archive, Entry, EntryType};

use super::ledger::{Known, Ledger};
use super::prepare::{Want, Wants};
use super::seen::changed;
use super::segment::bad;
use super::tree::Tree;
use crate::git::pack::{Builder, hash_blob};
use crate::git::{Id, Mode};
use crate::guest::{Failed, failed};

pub struct Placing<'a> {
    pub tree: &'a mut Tree,
    pub wants: &'a Wants,
    pub ledger: &'a mut Ledger,
    /// None: a plain copy, without objects.
    pub builder: Option<Builder>,
    /// What has come, in the order of the stream.
    pub ids: Vec<Id>,
}

impl Placing<'_> {
    /// Places all of the stream, to its end.
    pub fn all(&mut self, stream: &mut impl Read) -> Result<(), Failed> {
        let mut archive = Archive::new(&mut *stream);
        for entry in archive.entries().map_err(failed("read the tar stream"))? {
            let mut entry = entry.map_err(failed("read the tar stream"))?;
            let mut path = entry.path_bytes().into_owned();
            if path.last() == Some(&b'/') {
                path.pop();
            }
            self.entry(&mut entry, &path).map_err(failed(format!("place \"{}\"", path.escape_ascii())))?;
        }
        io::copy(stream, &mut io::sink()).map(drop).map_err(failed("read the tar stream"))
    }

    /// Takes for placed what is there already, which is this blob.
    pub fn adopt(&mut self, path: &[u8], id: Id) -> io::Result<()> {
        let found = self.tree.find(path)?;
        self.tree.seen.check(path, found)?;
        let (Some(found), Some(want)) = (found, self.wants.get(path)) else { return Err(changed(path)) };
        if let Some(builder) = &mut self.builder {
            let out = &mut io::sink();
            let packed = match want.mode {
                Mode::Symlink => {
                    let target = self.tree.link(path)?;
                    builder.blob(target.len() as u64, &mut &target[..], out)?
                }
                _ => builder.blob(found.stat.size, &mut self.tree.file(path)?, out)?,
            };
            if packed != id {
                return Err(changed(path));
            }
        }
        self.ids.push(id);
        let known = Known { mode: want.mode, id: Some(id), stamp: want.stamp, stat: Some(found.stat) };
        self.ledger.records.insert(path.to_vec(), known);
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &[u8]) -> io::Result<()> {
        let Some(want @ Want { sent: true, .. }) = self.wants.get(path).copied() else {
            return Err(bad("nobody has said that it would come"));
        };
        let kind = entry.header().entry_type();
        let fits = match want.mode {
            Mode::File | Mode::Executable => matches!(kind, EntryType::Regular | EntryType::Continuous),
            Mode::Symlink => kind == EntryType::Symlink,
            Mode::Directory | Mode::Gitlink => kind == EntryType::Directory,
        };
        if !fits {
            return Err(bad(format!("it comes as {kind:?}, and is to be {}", want.mode.word())));
        }
        let mtime = i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX);
        let size = entry.size();
        let format = self.ledger.header.format;
        let builder = &mut self.builder;
        let named = match want.mode {
            Mode::Directory | Mode::Gitlink => {
                self.tree.put_directory(path)?;
                None
            }
            Mode::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| bad("it leads nowhere"))?.into_owned();
                let stat = self.tree.put_link(path, &target, mtime)?;
                let (size, mut target) = (target.len() as u64, &target[..]);
                let id = match builder {
                    Some(builder) => builder.blob(size, &mut target, &mut io::sink())?,
                    None => hash_blob(format, size, &mut target, |_| Ok(()))?,
                };
                Some((id, stat))
            }
            Mode::File | Mode::Executable => Some(self.tree.put_file(
                path,
                want.mode == Mode::Executable,
                mtime,
                |file| match builder {
                    Some(builder) => builder.blob(size, entry, file),
                    None => hash_blob(format, size, entry, |bytes| file.write_all(bytes)),
                },
            )?),
        };
        let (id, stat) = named.unzip();
        self.ids.extend(id);
        self.ledger.records.insert(path.to_vec(), Known { mode: want.mode, id, stamp: want.stamp, stat });
        Ok(())
    }
}
