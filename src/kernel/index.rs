//! The binary tables of /lib/modules/<version>, in which modprobe and udev look names up: a radix tree, written from the
//! leaves to the root, all numbers big-endian (kmod: libkmod/libkmod-index.c, whose header comment is the specification).

use std::collections::BTreeMap;

/// A table from keys to values, each with a priority: of several that match, the lowest is tried first.
#[derive(Debug, Default)]
pub struct Index(BTreeMap<Vec<u8>, Vec<(u32, String)>>);

/// Bytes of a key; it bounds the depth of the tree.
const MAX_KEY: usize = 1024;
/// A key with its values.
type Slot<'a> = (&'a [u8], &'a [(u32, String)]);

const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 0x0002_0001;
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;

impl Index {
    /// Adds a value. A key with anything but ASCII cannot be looked up, and is left out, as depmod does; so is one longer
    /// than [`MAX_KEY`], which is no device's.
    pub fn insert(&mut self, key: &str, value: &str, priority: u32) {
        if key.len() <= MAX_KEY && key.is_ascii() && !key.contains('\0') && !value.contains('\0') {
            let values = self.0.entry(key.as_bytes().to_vec()).or_default();
            let at = values.partition_point(|(p, _)| *p <= priority);
            values.insert(at, (priority, value.to_owned()));
        }
    }

    /// The table's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [MAGIC, VERSION, 0].map(u32::to_be_bytes).concat();
        let entries = self.0.iter().map(|(k, v)| (&k[..], &v[..])).collect::<Vec<_>>();
        let root = write_node(&entries, 0, &mut out);
        out[8..12].copy_from_slice(&root.to_be_bytes());
        out
    }
}

/// Writes the node of `entries`, sorted, which agree in their first `depth` bytes, behind the nodes below it; returns its offset
/// with its flags.
fn write_node(entries: &[Slot<'_>], depth: usize, out: &mut Vec<u8>) -> u32 {
    let prefix = common_prefix(entries, depth);
    let depth = depth + prefix.len();
    // Sorted, so the key that ends here, if any, is the first.
    let (own, below) = match entries.split_first() {
        Some(((key, values), rest)) if key.len() == depth => (*values, rest),
        _ => (&[][..], entries),
    };
    let children: Vec<(u8, u32)> = below
        .chunk_by(|a, b| a.0[depth] == b.0[depth])
        .map(|group| (group[0].0[depth], write_node(group, depth + 1, out)))
        .collect();
    let mut offset = out.len() as u32;
    if !prefix.is_empty() {
        out.extend(prefix);
        out.push(0);
        offset |= PREFIX;
    }
    if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
        out.extend([*first, *last]);
        for byte in *first..=*last {
            let child = children.iter().find(|(b, _)| *b == byte).map_or(0, |(_, offset)| *offset);
            out.extend(child.to_be_bytes());
        }
        offset |= CHILDREN;
    }
    if !own.is_empty() {
        out.extend((own.len() as u32).to_be_bytes());
        for (priority, value) in own {
            out.extend(priority.to_be_bytes());
            out.extend(value.bytes().chain([0]));
        }
        offset |= VALUES;
    }
    offset
}

fn common_prefix<'a>(entries: &[Slot<'a>], depth: usize) -> &'a [u8] {
    let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return &[] };
    let (first, last) = (&first[depth..], &last[depth..]);
    let same = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    &first[..same]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_table_has_the_bytes_that_the_format_says() {
        let mut index = Index::default();
        index.insert("ab", "x", 2);
        index.insert("ac", "y", 1);
        index.insert("ac", "z", 0);
        let want = [
            &b"\xb0\x07\xf4\x57\0\x02\0\x01"[..],
            // The root: a prefix and children.
            &(PREFIX | CHILDREN | 38).to_be_bytes(),
            b"\0\0\0\x01\0\0\0\x02x\0",
            b"\0\0\0\x02\0\0\0\0z\0\0\0\0\x01y\0",
            b"a\0bc",
            &(VALUES | 12).to_be_bytes(),
            &(VALUES | 22).to_be_bytes(),
        ]
        .concat();
        assert_eq!(index.bytes(), want);
    }

    #[test]
    fn an_empty_table_is_a_header_and_an_empty_node() {
        assert_eq!(Index::default().bytes(), b"\xb0\x07\xf4\x57\0\x02\0\x01\0\0\0\x0c");
    }
}
