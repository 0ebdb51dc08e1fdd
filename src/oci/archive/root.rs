//! A plain root file system says nowhere what machine it is for; its programs do.

use crate::ext4::spool::Spool;
use crate::ext4::tree::{InodeId, Kind, Tree};
use crate::image::platform::elf_architecture;

/// Programs that a root file system has, one or another.
const WELL_KNOWN: [&str; 8] = [
    "sbin/init",
    "bin/sh",
    "bin/busybox",
    "usr/bin/env",
    "usr/bin/dash",
    "usr/bin/bash",
    "usr/lib/systemd/systemd",
    "init",
];
const MAX_SYMLINKS: u32 = 40;

/// The architecture of the first well-known program that is there; None: there is none of them.
pub fn architecture(tree: &Tree, spool: &Spool) -> Option<&'static str> {
    WELL_KNOWN.iter().find_map(|path| {
        let Kind::File(content) = &tree.get(find(tree, path)?).kind else { return None };
        let mut head = [0; 20];
        let first = content.pieces.first().filter(|p| p.at == 0 && p.len >= head.len() as u64)?;
        // One that cannot be read will be said so when it is written out.
        let n = spool.read(&mut head, first.offset).ok()?;
        elf_architecture(&head[..n])
    })
}

/// Looks a path up as a guest would.
fn find(tree: &Tree, path: &str) -> Option<InodeId> {
    let mut stack = vec![InodeId::ROOT];
    let mut todo: Vec<Vec<u8>> = path.split('/').rev().map(|p| p.as_bytes().to_vec()).collect();
    let mut symlinks = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            stack.truncate(stack.len().saturating_sub(1).max(1));
            continue;
        }
        let next = tree.lookup(*stack.last()?, &name)?;
        match &tree.get(next).kind {
            Kind::Symlink(target) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return None;
                }
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                let parts = target.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b"."));
                todo.extend(parts.rev().map(<[u8]>::to_vec));
            }
            _ => stack.push(next),
        }
    }
    stack.last().copied()
}
