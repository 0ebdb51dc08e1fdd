//! A file system as a tree in memory: what layers are applied to, and what is written out in the end.
//!
//! A directory holds names of inodes; an inode may have several names (hard links), except a directory, which has one.
//! There is no `.` and no `..`, and a symlink is only a text: whoever wants it followed does so inside the tree.

use std::collections::BTreeMap;

use crate::ext4::extent::Extent;

/// A time as ext4 keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What every kind of inode has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permissions, set-id and sticky bits: `mode & 0o7777`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// By full name, such as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where a file's contents are; the image holds them already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// In bytes, with its holes.
    pub size: u64,
    /// In the order of the file, not overlapping, all below `size`.
    pub extents: Vec<Extent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory(BTreeMap<Vec<u8>, Name>),
    File(Content),
    Symlink(Vec<u8>),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// A directory's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    pub inode: InodeId,
    /// The number of the layer that had it last.
    pub layer: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    pub meta: Meta,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    pub const ROOT: Self = Self(0);

    /// Below [`Tree::slots`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
struct Slot {
    inode: Inode,
    /// How many names it has; 0: the slot is free.
    names: u32,
}

/// The file system. It always has its root directory.
#[derive(Debug)]
pub struct Tree {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Where contents were that no name leads to any more.
    freed: Vec<Extent>,
}

impl Default for Tree {
    fn default() -> Self {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        let root = Inode { meta, kind: Kind::Directory(BTreeMap::new()) };
        Self { slots: vec![Slot { inode: root, names: 1 }], free: vec![], freed: vec![] }
    }
}

impl Tree {
    pub fn get(&self, id: InodeId) -> &Inode {
        &self.slots[id.0 as usize].inode
    }

    pub fn meta_mut(&mut self, id: InodeId) -> &mut Meta {
        &mut self.slots[id.0 as usize].inode.meta
    }

    /// How many names an inode has.
    pub fn names(&self, id: InodeId) -> u32 {
        self.slots[id.0 as usize].names
    }

    /// Above all ids.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes what was freed since the last call.
    pub fn take_freed(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.freed)
    }

    /// How many inodes there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries(InodeId::ROOT).is_empty()
    }

    /// What a directory holds; nothing for any other kind.
    pub fn entries(&self, directory: InodeId) -> &BTreeMap<Vec<u8>, Name> {
        static NONE: BTreeMap<Vec<u8>, Name> = BTreeMap::new();
        match &self.get(directory).kind {
            Kind::Directory(entries) => entries,
            _ => &NONE,
        }
    }

    pub fn lookup(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.entries(directory).get(name).map(|n| n.inode)
    }

    pub fn is_directory(&self, id: InodeId) -> bool {
        matches!(self.get(id).kind, Kind::Directory(_))
    }

    /// Puts a new inode under `name` in `directory`, in place of whatever was there.
    pub fn insert(&mut self, directory: InodeId, name: &[u8], inode: Inode, layer: u32) -> InodeId {
        let slot = Slot { inode, names: 0 };
        let id = match self.free.pop() {
            Some(free) => {
                self.slots[free as usize] = slot;
                InodeId(free)
            }
            None => {
                self.slots.push(slot);
                // The caller caps the number of entries far below this.
                InodeId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.link(directory, name, id, layer);
        id
    }

    /// Gives an inode a further name, in place of whatever had that name.
    pub fn link(&mut self, directory: InodeId, name: &[u8], inode: InodeId, layer: u32) {
        self.slots[inode.0 as usize].names += 1;
        self.remove(directory, name);
        if let Kind::Directory(entries) = &mut self.slots[directory.0 as usize].inode.kind {
            entries.insert(name.to_vec(), Name { inode, layer });
        }
    }

    /// Notes that `layer` had this name.
    pub fn touch(&mut self, directory: InodeId, name: &[u8], layer: u32) {
        if let Kind::Directory(entries) = &mut self.slots[directory.0 as usize].inode.kind
            && let Some(entry) = entries.get_mut(name)
        {
            entry.layer = layer;
        }
    }

    /// Removes a name, and what is left without one, with everything below it.
    pub fn remove(&mut self, directory: InodeId, name: &[u8]) {
        let Kind::Directory(entries) = &mut self.slots[directory.0 as usize].inode.kind else { return };
        let mut doomed: Vec<InodeId> = entries.remove(name).map(|n| n.inode).into_iter().collect();
        while let Some(id) = doomed.pop() {
            let slot = &mut self.slots[id.0 as usize];
            slot.names -= 1;
            if slot.names > 0 {
                continue;
            }
            let emptied = Inode { meta: Meta::default(), kind: Kind::Fifo };
            match std::mem::replace(&mut slot.inode, emptied).kind {
                Kind::Directory(entries) => doomed.extend(entries.into_values().map(|n| n.inode)),
                Kind::File(content) => self.freed.extend(content.extents),
                _ => {}
            }
            self.free.push(id.0);
        }
    }

    /// Removes what a directory holds from the layers below `layer`.
    pub fn remove_older(&mut self, directory: InodeId, layer: u32) {
        let names: Vec<Vec<u8>> = self.entries(directory).keys().cloned().collect();
        for name in names {
            self.remove_if_older(directory, &name, layer);
        }
    }

    /// Removes a name as the layers below `layer` have it: what `layer` put there itself stays, and what leads to it.
    pub fn remove_if_older(&mut self, directory: InodeId, name: &[u8], layer: u32) {
        let Some(entry) = self.entries(directory).get(name).copied() else { return };
        self.remove_older(entry.inode, layer);
        if entry.layer < layer && self.entries(entry.inode).is_empty() {
            self.remove(directory, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Inode {
        Inode { meta: Meta::default(), kind: Kind::File(Content::default()) }
    }

    fn directory() -> Inode {
        Inode { meta: Meta::default(), kind: Kind::Directory(BTreeMap::new()) }
    }

    fn names(tree: &Tree, directory: InodeId) -> Vec<String> {
        tree.entries(directory).keys().map(|n| String::from_utf8_lossy(n).into_owned()).collect()
    }

    #[test]
    fn what_loses_its_last_name_is_gone_and_its_place_used_again() {
        let mut tree = Tree::default();
        let d = tree.insert(InodeId::ROOT, b"d", directory(), 0);
        let f = tree.insert(d, b"f", file(), 0);
        tree.link(InodeId::ROOT, b"g", f, 0);
        assert_eq!((tree.names(f), tree.len()), (2, 3));
        tree.remove(InodeId::ROOT, b"d");
        assert_eq!((tree.names(f), tree.len()), (1, 2));
        tree.insert(InodeId::ROOT, b"g", file(), 0);
        assert_eq!(tree.len(), 2);
        assert_eq!(tree.slots.len(), 3);
    }

    #[test]
    fn a_link_to_the_same_name_keeps_the_inode() {
        let mut tree = Tree::default();
        let f = tree.insert(InodeId::ROOT, b"f", file(), 0);
        tree.link(InodeId::ROOT, b"f", f, 1);
        assert_eq!((tree.names(f), tree.lookup(InodeId::ROOT, b"f")), (1, Some(f)));
    }

    #[test]
    fn an_opaque_directory_keeps_what_its_own_layer_put_there() {
        let mut tree = Tree::default();
        let d = tree.insert(InodeId::ROOT, b"d", directory(), 0);
        tree.insert(d, b"old", file(), 0);
        let sub = tree.insert(d, b"sub", directory(), 0);
        tree.insert(sub, b"old", file(), 0);
        tree.insert(sub, b"new", file(), 1);
        tree.insert(d, b"gone", directory(), 0);
        tree.insert(d, b"empty", directory(), 1);
        tree.remove_older(d, 1);
        assert_eq!(names(&tree, d), ["empty", "sub"]);
        assert_eq!(names(&tree, sub), ["new"]);
    }
}
