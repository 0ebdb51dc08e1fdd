//! The packs that prepares leave in a repository: kept, so that git's tidying up passes over them, and never many.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::objects::Objects;
use super::tree;
use crate::git::pack::{Builder, Entry, Index, Source, merge, resolve, scan, write_index};
use crate::git::{Format, Id};

/// What is in the `.keep` of ours.
const KEEP: &str = "banger: placed by the host\n";
/// With more of ours than this, they are merged, and so many are left alone: the large ones, which would take long to copy.
const MOST: usize = 20;
const LARGE: usize = 10;
/// How many are merged at once: each is an open file.
const AT_ONCE: usize = 200;

/// A pack that is not whole yet. Dropped, it is gone.
pub struct NewPack {
    directory: PathBuf,
    path: PathBuf,
}

impl NewPack {
    /// A file in `objects`/pack whose name git takes for something unfinished.
    pub fn create(objects: &Path, what: &str) -> io::Result<(Self, File)> {
        let directory = objects.join("pack");
        let path = directory.join(format!("tmp_pack_banger_{what}"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).mode(0o444).open(&path)?;
        Ok((Self { directory, path }, file))
    }

    /// Puts it where git finds it, and keeps it from git's tidying up. Returns its path, without an extension.
    fn install(self, format: Format, entries: Vec<Entry>, checksum: Id) -> io::Result<PathBuf> {
        let stem = self.directory.join(format!("pack-{checksum}"));
        let index = self.path.with_extension("idx");
        drop(fs::remove_file(&index));
        let file = File::options().write(true).create_new(true).mode(0o444).open(&index)?;
        let mut out = io::BufWriter::new(file);
        write_index(&mut out, format, entries, checksum)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::write(stem.with_extension("keep"), KEEP)?;
        fs::rename(&self.path, stem.with_extension("pack"))?;
        fs::rename(&index, stem.with_extension("idx"))?;
        Ok(stem)
    }

    pub fn install_built(self, builder: Builder, format: Format) -> io::Result<()> {
        let (_, entries, checksum) = builder.finish()?;
        if entries.is_empty() { Ok(()) } else { self.install(format, entries, checksum).map(drop) }
    }

    /// Takes the host's pack, if it sends any, to the end of `from`.
    pub fn receive(
        self,
        file: &File,
        from: &mut dyn Read,
        format: Format,
        objects: &mut Objects,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(128 << 10, file);
        let scanned = scan(from, &mut out, format)?;
        io::Write::flush(&mut out)?;
        let Some(scanned) = scanned.filter(|scanned| !scanned.is_empty()) else { return Ok(()) };
        let (entries, checksum) = resolve(scanned, file, &mut |id| objects.read(id))?;
        self.install(format, entries, checksum).map(drop)
    }
}

impl Drop for NewPack {
    fn drop(&mut self) {
        // Installed, they have other names by now.
        drop(fs::remove_file(&self.path));
        drop(fs::remove_file(self.path.with_extension("idx")));
    }
}

/// Merges ours in `objects`, if there are many. git may be at work meanwhile: an object is in the new pack before it leaves an old one, and git
/// looks again for what it does not find (packfile.c, reprepare_packed_git).
///
/// # Errors
/// Then all objects are where they were, or in both.
pub fn tidy(objects: &Path, format: Format) -> io::Result<()> {
    let directory = objects.join("pack");
    loop {
        let mut ours = ours(&directory)?;
        // A chain of indices of many packs cannot do without any of them, and git alone knows how to end it.
        if ours.len() <= MOST || directory.join("multi-pack-index.d").exists() {
            return Ok(());
        }
        ours.sort();
        let sizes: Vec<u64> = ours.iter().map(|(size, _)| *size).collect();
        let old: Vec<&Path> = ours[..how_many(&sizes).min(AT_ONCE)].iter().map(|(_, stem)| &**stem).collect();
        let new = merged(objects, &old, format)?;
        // As git does it itself (builtin/repack.c, remove_redundant_pack): it does without one.
        remove(&directory.join("multi-pack-index"))?;
        // Where all objects are in one of them, the merged one may be that very one.
        old.into_iter().filter(|stem| *stem != new).try_for_each(remove_pack)?;
    }
}

/// Puts a pack of all that is in `old` beside them, on the disk. Returns its path, without an extension.
fn merged(objects: &Path, old: &[&Path], format: Format) -> io::Result<PathBuf> {
    let source = |stem: &&Path| {
        let index = Index::open(File::open(stem.with_extension("idx"))?, format)?;
        Source::new(File::open(stem.with_extension("pack"))?, &index, format)
    };
    let sources = old.iter().map(source).collect::<io::Result<Vec<_>>>()?;
    let (pack, file) = NewPack::create(objects, "merged")?;
    let (entries, checksum) = merge(&sources, &file, format)?;
    let new = pack.install(format, entries, checksum)?;
    tree::sync(objects)?;
    Ok(new)
}

/// How many packs of rising sizes are merged: as many as have to be, and those that are not longer than all before them together, so that an
/// object is copied again only when twice as much has come.
fn how_many(sizes: &[u64]) -> usize {
    let mut count = sizes.len().saturating_sub(LARGE);
    let mut sum: u64 = sizes[..count].iter().sum();
    while let Some(size) = sizes.get(count).filter(|size| **size <= sum) {
        sum += size;
        count += 1;
    }
    count
}

/// The sizes and paths, without extensions, of the packs that are ours. What was left half removed is removed.
fn ours(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut ours = vec![];
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "keep") || !is_ours(&path)? {
            continue;
        }
        let stem = path.with_extension("");
        match (stem.with_extension("idx").exists(), fs::metadata(stem.with_extension("pack"))) {
            (true, Ok(meta)) => ours.push((meta.len(), stem)),
            (false, _) => remove_pack(&stem)?,
            (true, Err(_)) => {}
        }
    }
    Ok(ours)
}

fn is_ours(keep: &Path) -> io::Result<bool> {
    let mut text = vec![];
    File::open(keep)?.take(KEEP.len() as u64 + 1).read_to_end(&mut text)?;
    Ok(text == KEEP.as_bytes())
}

/// The index goes first: without it, to git there is no pack.
fn remove_pack(stem: &Path) -> io::Result<()> {
    ["idx", "rev", "bitmap", "pack", "keep"]
        .iter()
        .try_for_each(|extension| remove(&stem.with_extension(extension)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_packs_are_merged_and_large_ones_left_alone_until_they_are_small() {
        let sizes = |small: u64, large: &[u64]| [vec![small; 21 - large.len()], large.to_vec()].concat();
        for (sizes, want) in [
            (sizes(1, &[]), 21),
            (sizes(1, &[100]), 20),
            (sizes(1, &[20]), 21),
            (sizes(1, &[100; 10]), 11),
            (sizes(10, &[100; 10]), 21),
            (sizes(1, &[12, 24, 48, 96, 192, 384, 768, 1536, 3072, 6144]), 11),
            (sizes(1, &[11, 22, 44, 88, 177, 384, 768, 1536, 3072, 6144]), 15),
        ] {
            assert_eq!(how_many(&sizes), want, "{sizes:?}");
        }
    }

    #[test]
    fn however_many_there_are_they_are_merged_and_only_ours() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        fs::create_dir(dir.path().join("pack")).expect("makes a directory");
        let format = Format::Sha1;
        let ids: Vec<Id> = (0..450u32)
            .map(|n| {
                let (pack, file) = NewPack::create(dir.path(), "blobs").expect("begins");
                let mut builder = Builder::new(file, format).expect("begins");
                let content = n.to_string();
                let id = builder.blob(content.len() as u64, &mut content.as_bytes(), &mut io::sink());
                pack.install_built(builder, format).expect("is there");
                id.expect("is added")
            })
            .collect();
        let stems = ours(&dir.path().join("pack")).expect("lists");
        assert_eq!(stems.len(), ids.len());
        fs::write(stems[7].1.with_extension("keep"), "mine\n").expect("writes");
        let mut objects = Objects::open(dir.path(), format).expect("opens");
        let read = |objects: &mut Objects| {
            for (n, id) in ids.iter().enumerate().rev() {
                let (_, content) = objects.read(id).expect("reads").expect("is there");
                assert_eq!(content, n.to_string().as_bytes());
                assert!(objects.open_packs() <= 64);
            }
        };
        read(&mut objects);
        tidy(dir.path(), format).expect("merges");
        let left = ours(&dir.path().join("pack")).expect("lists");
        assert!(left.len() <= MOST, "{left:?}");
        assert!(stems[7].1.with_extension("idx").exists());
        assert_eq!(fs::read_dir(dir.path().join("pack")).expect("lists").count(), 3 * left.len() + 3);
        // What was opened before finds them still, and so does what is opened now.
        read(&mut objects);
        read(&mut Objects::open(dir.path(), format).expect("opens"));
    }
}
