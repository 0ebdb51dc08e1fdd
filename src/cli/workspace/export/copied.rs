//! What a plain copy was: no guest keeps it, but where it came from its files still are, unless somebody has changed them there since.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::super::changes::named;
use super::super::error::WorkspaceError;
use super::super::tree::{There, Tree};
use super::blobs::Blobs;
use super::scratch::Scratch;
use crate::git::Mode;
use crate::host::cmd::git::Patience;
use crate::proto::workspace::Difference;

/// What is at a path now: its mode and its blob. None: no file and no symlink.
pub type Now = Option<(Mode, String)>;

/// Makes blobs of what is below `top` at the paths that differ. Of new ones, only where it may be what the guest has: nothing else is asked of
/// them. A `top` that has gone holds nothing.
pub fn read(
    top: &Path,
    patience: &Patience,
    scratch: &Scratch,
    differences: &[Difference],
) -> Result<Vec<Now>, WorkspaceError> {
    let mut now = vec![None; differences.len()];
    let mut tree = match Tree::open(top, patience) {
        Ok(tree) => tree,
        Err(WorkspaceError::Here { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(now);
        }
        Err(e) => return Err(e),
    };
    let mut blobs = Blobs::start(scratch)?;
    let mut added = vec![];
    for (at, d) in differences.iter().enumerate() {
        let There::Item(item) = tree.look(&d.path)? else { continue };
        let (size, mut content): (u64, Box<dyn Read>) = match item.mode {
            Mode::Symlink => {
                let target = tree.link(&d.path)?;
                (target.len() as u64, Box::new(io::Cursor::new(target)))
            }
            _ => {
                let (file, stat) = tree.file(&d.path)?;
                let size = stat.st_size.unsigned_abs();
                // One that becomes shorter meanwhile is not what was brought.
                (size, Box::new(File::from(file).chain(io::repeat(0)).take(size)))
            }
        };
        if d.old.is_none() && d.new.is_none_or(|(_, new)| new != size) {
            continue;
        }
        let name = String::from_utf8_lossy(&d.path);
        let shown = tree.shown(&d.path);
        let failed = WorkspaceError::here("read", &shown);
        added.push((at, item.mode, blobs.add(&name, size, &mut content, failed)?));
    }
    let ids = blobs.finish()?;
    for (at, mode, number) in added {
        now[at] = Some((mode, ids[number].clone()));
    }
    Ok(now)
}

/// Why there is no patch of `paths`.
pub fn refuse<T>(top: &Path, paths: &[Vec<u8>]) -> Result<T, WorkspaceError> {
    let (were, them, they) =
        if paths.len() == 1 { ("was", "it", "it was") } else { ("were", "them", "they were") };
    WorkspaceError::refused(format!(
        "{} {were} changed or removed in {} as well since {they} brought, so no patch fits; put {them} back as {they}, or copy {them} out of \
         the guest with `banger vm cp`",
        named(paths),
        top.display()
    ))
}

/// What to know about applying a patch at `top`, if it is in the middle of a repository: `git apply` passes over all of it there, and says
/// nothing.
pub fn hint(top: &Path) -> Option<String> {
    let repository = top.ancestors().find(|dir| dir.join(".git").exists())?;
    let below = top.strip_prefix(repository).ok().filter(|below| !below.as_os_str().is_empty())?;
    Some(format!(
        "{} is inside the repository {}, so it takes `git apply --directory={}`, or `patch -p1`",
        top.display(),
        repository.display(),
        below.display()
    ))
}
