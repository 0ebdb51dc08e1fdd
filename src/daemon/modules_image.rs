//! A kernel's module tree as a small read-only ext4 file, which guests mount at /lib/modules/<version>.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::host::cmd::{self, CmdError};

const BLOCK: u64 = 4096;

/// What a directory holds, all below it included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Holds {
    blocks: u64,
    inodes: u64,
}

/// Why there is no file.
#[derive(Debug)]
pub enum PackError {
    NoMke2fs(CmdError),
    Mke2fs(CmdError),
    Io(io::Error),
}

/// Packs `directory` into the new file `out`.
pub fn pack(directory: &Path, out: &Path) -> Result<(), PackError> {
    let holds = holds(directory).map_err(PackError::Io)?;
    let size = format!("{}", holds.blocks);
    let inodes = holds.inodes.to_string();
    let args = [
        "-q".as_ref(),
        "-F".as_ref(),
        "-t".as_ref(),
        "ext4".as_ref(),
        "-b".as_ref(),
        "4096".as_ref(),
        "-m".as_ref(),
        "0".as_ref(),
        "-N".as_ref(),
        inodes.as_ref(),
        // It is never written to, so it needs neither a journal nor room to grow.
        "-O".as_ref(),
        "^has_journal,^resize_inode".as_ref(),
        "-E".as_ref(),
        "root_owner=0:0,nodiscard".as_ref(),
        "-d".as_ref(),
        directory.as_os_str(),
        out.as_os_str(),
        size.as_ref(),
    ];
    match cmd::run("mke2fs", args) {
        Ok(_) => Ok(()),
        Err(e @ CmdError::Spawn { .. }) => Err(PackError::NoMke2fs(e)),
        Err(e) => Err(PackError::Mke2fs(e)),
    }
}

/// Room for the tree: its data, its directories and inodes, and an eighth more for ext4's own tables.
fn holds(directory: &Path) -> io::Result<Holds> {
    let tree = tree(directory)?;
    let inodes = tree.inodes + 64;
    let blocks = tree.blocks + inodes.div_ceil(BLOCK / 256);
    Ok(Holds { blocks: blocks + blocks / 8 + 1024, inodes })
}

fn tree(directory: &Path) -> io::Result<Holds> {
    let mut sum = Holds { blocks: 0, inodes: 1 };
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let below = match meta.is_dir() {
            true => tree(&entry.path())?,
            false => Holds { blocks: 0, inodes: 1 },
        };
        sum.blocks += below.blocks + meta.size().div_ceil(BLOCK).max(1);
        sum.inodes += below.inodes;
    }
    Ok(sum)
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoMke2fs(_) => f.write_str("mke2fs is missing; install the package e2fsprogs"),
            Self::Mke2fs(_) => f.write_str("cannot make the file system"),
            Self::Io(_) => f.write_str("cannot look at the modules"),
        }
    }
}

impl std::error::Error for PackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoMke2fs(e) | Self::Mke2fs(e) => Some(e),
            Self::Io(e) => Some(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_a_sound_file_system_with_the_tree_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let modules = dir.path().join("modules");
        for n in 0..300 {
            let below = modules.join(format!("kernel/{}", n % 7));
            std::fs::create_dir_all(&below).expect("makes directories");
            std::fs::write(below.join(format!("m{n}.ko")), vec![n as u8; n * 100]).expect("writes");
        }
        let out = dir.path().join("modules.ext4");
        pack(&modules, &out).expect("packs");
        let check = std::process::Command::new("e2fsck").args(["-f", "-n"]).arg(&out).output().expect("runs");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        let cat = std::process::Command::new("debugfs")
            .args(["-R", "cat /kernel/5/m299.ko"])
            .arg(&out)
            .output()
            .expect("runs");
        assert!(cat.stdout == vec![299usize as u8; 29_900], "{} bytes", cat.stdout.len());
    }
}
