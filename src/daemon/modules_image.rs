//! A kernel's module tree as a small ext4 file, which guests mount read-only at /lib/modules/<version>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::ext4::tree::{Inode, InodeId, Kind, Meta, Time, Tree};
use crate::ext4::{self, Image, Seed, WriteError};
use crate::kernel::tree::{self as modules, Entry};

/// Files of a kernel have no time of their own; 0 would be shown as missing by some programs.
const TIME: Time = Time { seconds: 1, nanoseconds: 0 };

/// Packs a kernel's modules into the new file `out`, which is sparse and not synced. The same modules give the same bytes.
///
/// # Errors
/// As [`ext4::finish`]; then there may be a part of the file.
pub fn pack(modules: &modules::Tree, out: &Path) -> Result<File, WriteError> {
    let file = File::options().read(true).write(true).create_new(true).open(out)?;
    let mut image = Image::new(file);
    let mut tree = Tree::default();
    *tree.meta_mut(InodeId::ROOT) = meta(0o755);
    let mut seed = blake3::Hasher::new_derive_key("banger 2026 file system of kernel modules");
    let mut directories: BTreeMap<String, InodeId> = BTreeMap::from([(String::new(), InodeId::ROOT)]);
    modules.walk(|path, entry| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        // A directory comes before what is in it.
        let Some(&parent) = directories.get(parent) else { return Ok(()) };
        seed.update(path.as_bytes()).update(&[0]);
        let (mode, kind) = match entry {
            Entry::Directory => (0o755, Kind::Directory(BTreeMap::new())),
            Entry::File(content) => {
                seed.update(&(content.len() as u64).to_le_bytes()).update(content);
                let mut file = image.file(content.len() as u64);
                file.write(content)?;
                (0o644, Kind::File(file.finish()?))
            }
        };
        let id = tree.insert(parent, name.as_bytes(), Inode { meta: meta(mode), kind }, 0);
        if entry == Entry::Directory {
            directories.insert(path.to_owned(), id);
        }
        Ok::<(), io::Error>(())
    })?;
    ext4::finish(image, tree, Seed(*seed.finalize().as_bytes()), 0, &|| false)
}

fn meta(mode: u16) -> Meta {
    Meta { mode, mtime: TIME, ..Meta::default() }
}
