//! What has to be done for an installation to have the files that it is to have: what is wanted against what is there. Pure, but for
//! [`look`].

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::system::files::{File, PAGE_MARK, What};
use crate::system::layout::Layout;
use crate::system::units::MARK;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    Nothing,
    File {
        content: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Link {
        target: PathBuf,
    },
    /// A directory, a socket, and so on.
    Other,
}

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Create,
    Replace,
    Remove,
    Keep,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes the file what it is to be; `change` is Create, Replace or Keep.
    Put { file: File, change: Change },
    /// A file that an earlier or later version had.
    Remove { path: PathBuf },
}

/// A file larger than this is none of ours, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads what is at `path`.
pub fn look(path: &Path) -> io::Result<Have> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Have::Nothing);
        }
        other => other?,
    };
    if meta.is_symlink() {
        return Ok(Have::Link { target: std::fs::read_link(path)? });
    }
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Ok(Have::Other);
    }
    Ok(Have::File {
        content: std::fs::read(path)?,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// The steps to `want`. `root` is whose files they are to be; `strays` are those that are there and bear a mark.
pub fn plan(want: Vec<(File, Have)>, strays: Vec<PathBuf>, root: (u32, u32)) -> Vec<Step> {
    let stray = |path: &PathBuf| !want.iter().any(|(file, _)| file.path == *path);
    let removed: Vec<Step> = strays.into_iter().filter(stray).map(|path| Step::Remove { path }).collect();
    let put = want.into_iter().map(|(file, have)| {
        let change = match (&file.what, &have) {
            (_, Have::Nothing) => Change::Create,
            (What::Text { content, mode }, Have::File { content: there, mode: has, uid, gid })
                if content == there && mode == has && root == (*uid, *gid) =>
            {
                Change::Keep
            }
            (What::Link { target }, Have::Link { target: there }) if target == there => Change::Keep,
            (What::Text { .. } | What::Link { .. }, Have::File { .. } | Have::Link { .. } | Have::Other) => {
                Change::Replace
            }
        };
        Step::Put { file, change }
    });
    put.chain(removed).collect()
}

/// Looks at what there is, and plans.
pub fn against_host(layout: &Layout, want: Vec<File>, root: (u32, u32)) -> io::Result<Vec<Step>> {
    let want =
        want.into_iter().map(|file| look(&file.path).map(|have| (file, have))).collect::<io::Result<_>>()?;
    Ok(plan(want, marked(layout)?, root))
}

/// Units and manual pages of banger's that are there, of whichever version.
pub fn marked(layout: &Layout) -> io::Result<Vec<PathBuf>> {
    let mut marked = vec![];
    for (directory, mark) in [(&layout.units, MARK), (&layout.manual(), PAGE_MARK)] {
        for (path, have) in named(directory)? {
            if matches!(have, Have::File { content, .. } if content.starts_with(mark.as_bytes())) {
                marked.push(path);
            }
        }
    }
    Ok(marked)
}

/// What has a name in `directory` that begins as ours do.
pub fn named(directory: &Path) -> io::Result<Vec<(PathBuf, Have)>> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    let mut named = vec![];
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"banger")) {
            let have = look(&path)?;
            named.push((path, have));
        }
    }
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(named)
}

pub fn is_marked(content: &[u8]) -> bool {
    content.starts_with(MARK.as_bytes())
}

impl Step {
    pub fn path(&self) -> &Path {
        match self {
            Self::Put { file, .. } => &file.path,
            Self::Remove { path } => path,
        }
    }

    pub fn change(&self) -> Change {
        match self {
            Self::Put { change, .. } => *change,
            Self::Remove { .. } => Change::Remove,
        }
    }

    pub fn purpose(&self) -> &'static str {
        match self {
            Self::Put { file, .. } => file.purpose,
            Self::Remove { .. } => "is of another version",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Remove => "remove",
            Self::Keep => "keep",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> File {
        File { path: path.into(), what: What::Text { content: b"x".to_vec(), mode: 0o644 }, purpose: "" }
    }

    fn link(path: &str) -> File {
        File { path: path.into(), what: What::Link { target: "banger".into() }, purpose: "" }
    }

    fn there(content: &[u8], mode: u32, uid: u32) -> Have {
        Have::File { content: content.to_vec(), mode, uid, gid: 0 }
    }

    #[test]
    fn what_is_as_it_is_wanted_is_kept_and_all_else_is_replaced() {
        let to = |target: &str| Have::Link { target: target.into() };
        let table = [
            (text("/f"), Have::Nothing, Change::Create),
            (text("/f"), there(b"x", 0o644, 0), Change::Keep),
            (text("/f"), there(b"y", 0o644, 0), Change::Replace),
            (text("/f"), there(b"x", 0o664, 0), Change::Replace),
            (text("/f"), there(b"x", 0o644, 1000), Change::Replace),
            (text("/f"), to("/dev/null"), Change::Replace),
            (text("/f"), Have::Other, Change::Replace),
            (link("/l"), Have::Nothing, Change::Create),
            (link("/l"), to("banger"), Change::Keep),
            (link("/l"), to("/usr/local/bin/banger"), Change::Replace),
            (link("/l"), there(b"x", 0o755, 0), Change::Replace),
        ];
        for (file, have, want) in table {
            let steps = plan(vec![(file.clone(), have.clone())], vec![], (0, 0));
            assert_eq!(steps.iter().map(Step::change).collect::<Vec<_>>(), [want], "{file:?} {have:?}");
        }
    }

    #[test]
    fn a_unit_that_only_another_version_has_is_removed() {
        let want = vec![(text("/u/bangerd.service"), Have::Nothing)];
        let strays = vec!["/u/bangerd.service".into(), "/u/banger-later.service".into()];
        let steps = plan(want, strays, (0, 0));
        let steps: Vec<_> = steps.iter().map(|s| format!("{} {}", s.change(), s.path().display())).collect();
        assert_eq!(steps, ["create /u/bangerd.service", "remove /u/banger-later.service"]);
    }

    #[test]
    fn only_units_and_pages_with_our_name_and_our_mark_are_ours() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        assert_eq!(marked(&layout).expect("looks"), Vec::<PathBuf>::new());
        std::fs::create_dir(&layout.units).expect("makes");
        std::fs::create_dir_all(layout.manual()).expect("makes");
        let page = |name: &str, text: &str| std::fs::write(layout.manual().join(name), text).expect("writes");
        page("banger-later.1", ".TH BANGER\\-LATER 1");
        page("banger-mine.1", ".TH MINE 1");
        page("other.1", ".TH BANGER 1");
        let put = |name: &str, text: &str| std::fs::write(layout.units.join(name), text).expect("writes");
        put("banger-later.service", &format!("{MARK}\n[Unit]\n"));
        put("banger-mine.service", "[Unit]\n");
        put("other.service", &format!("{MARK}\n[Unit]\n"));
        let ours = [layout.units.join("banger-later.service"), layout.manual().join("banger-later.1")];
        assert_eq!(marked(&layout).expect("looks"), ours);
    }
}
