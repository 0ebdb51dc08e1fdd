//! Files by name: a directory's, or an archive's. An archive's symlinks and hard links lead to its own files only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::host::progress::Progress;
use crate::oci::path::normalise;
use crate::oci::region::Region;
use crate::oci::tar::{Reader, Source, TarError, Type};

/// An archive with more members is no image's: docker saves three to a layer.
const MAX_MEMBERS: usize = 1 << 16;
const MAX_LINKS: usize = 8;

#[derive(Debug)]
pub enum Shelf {
    Directory(PathBuf),
    Tar(BTreeMap<Vec<u8>, Member>),
}

#[derive(Debug)]
pub enum Member {
    File(Region),
    Link(Vec<u8>),
}

#[derive(Debug)]
pub enum ScanError {
    Cancelled,
    Tar(NotTar),
}

/// Why a file is no tar.
#[derive(Debug)]
pub enum NotTar {
    AtAll,
    Damaged(String),
    Read(io::Error),
}

impl Shelf {
    pub fn directory(path: PathBuf) -> Self {
        Self::Directory(path)
    }

    /// The members of a tar; None: there are too many for an image's archive, so it is something else.
    pub fn tar(region: Region, progress: &dyn Progress) -> Result<Option<Self>, ScanError> {
        let whole = region.clone();
        let mut reader = Reader::new(region.reader());
        let mut members = BTreeMap::new();
        let mut count = 0;
        loop {
            if progress.cancelled() {
                return Err(ScanError::Cancelled);
            }
            let entry = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(e) => return Err(ScanError::Tar(why(e, count))),
            };
            count += 1;
            // Past the limit it is only checked that it is a tar to its end.
            if count > MAX_MEMBERS {
                members.clear();
                continue;
            }
            let Ok(names) = normalise(&entry.path) else { continue };
            let name = names.join(&b'/');
            match entry.kind {
                Type::File => {
                    if let Some(part) = whole.part(reader.source().position(), entry.size) {
                        members.insert(name, Member::File(part));
                    }
                }
                Type::HardLink => drop(members.insert(name, Member::Link(entry.link))),
                Type::Symlink => {
                    let parent = &names[..names.len().saturating_sub(1)];
                    let target = [&parent.join(&b'/')[..], b"/", &entry.link].concat();
                    members.insert(name, Member::Link(target));
                }
                _ => {}
            }
        }
        if count == 0 {
            return Err(ScanError::Tar(NotTar::Damaged("it is an archive of nothing".to_owned())));
        }
        Ok((count <= MAX_MEMBERS).then_some(Self::Tar(members)))
    }

    /// The file of this name; None: there is none.
    pub fn file(&self, name: &str) -> io::Result<Option<Region>> {
        match self {
            Self::Directory(directory) => match File::open(directory.join(name)) {
                Ok(file) if file.metadata()?.is_file() => Region::whole(file).map(Some),
                Ok(_) => Ok(None),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Ok(None)
                }
                Err(e) => Err(e),
            },
            Self::Tar(members) => {
                let mut name = name.as_bytes().to_vec();
                for _ in 0..MAX_LINKS {
                    let Ok(names) = normalise(&name) else { return Ok(None) };
                    match members.get(&names.join(&b'/')) {
                        Some(Member::File(region)) => return Ok(Some(region.clone())),
                        Some(Member::Link(target)) => name = target.clone(),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }
}

fn why(error: TarError, members_before: usize) -> NotTar {
    match error {
        TarError::Read(e) => NotTar::Read(e),
        // A tar's first block is right, or it is no tar.
        TarError::NoHeader | TarError::Truncated { .. } if members_before == 0 => NotTar::AtAll,
        other => NotTar::Damaged(other.to_string()),
    }
}
