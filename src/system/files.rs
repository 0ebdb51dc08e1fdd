//! All that an installation has besides the executable: units, symlinks, completions, manual pages, install.toml, and directories.

use std::path::PathBuf;

use crate::host::install::Install;
use crate::system::layout::Layout;
use crate::system::units;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file of root's.
    Text { content: Vec<u8>, mode: u32 },
    /// A symlink.
    Link { target: PathBuf },
}

/// A file that an installation has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    pub what: What,
    /// What it is there for, as a person is told.
    pub purpose: &'static str,
}

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Root,
    Owner,
}

/// What becomes of a directory when banger is uninstalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is removed if it is empty and was made for the installation: it may hold what others have put there.
    IfEmpty,
    /// It goes with all that is in it.
    Goes,
    /// It holds what the owner has made, or what others can be made of: it goes only where that is asked for.
    Kept,
}

/// A directory that an installation has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    pub path: PathBuf,
    pub whose: Whose,
    pub mode: u32,
    pub fate: Fate,
    pub purpose: &'static str,
}

/// What others read: shells, who complete `banger` with what `banger completion` prints, and man(1).
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    pub bash: &'static str,
    pub zsh: &'static str,
    pub fish: &'static str,
    /// Names of manual pages, such as `banger-vm`, and their texts.
    pub pages: fn() -> Vec<(String, String)>,
}

/// What a manual page begins with: by it one is known as banger's.
pub const PAGE_MARK: &str = ".TH BANGER";

/// Every file that an installation has besides the executable, but for manual pages, of which each version has its own.
pub fn all(layout: &Layout) -> Vec<PathBuf> {
    let units = units::ALL.iter().map(|unit| layout.units.join(unit.name));
    let completions = completion_paths(layout).into_iter();
    layout.links().into_iter().chain([layout.dirs.install_file()]).chain(units).chain(completions).collect()
}

/// What [`all`] of them, and manual pages, are to be in this installation, but for install.toml ([`install_file`]): this executable's word, whichever
/// version wrote the ones that are there.
pub fn wanted(layout: &Layout, owner: &str, shared: &Shared) -> Vec<File> {
    let links = layout.links().into_iter().map(|path| File {
        path,
        what: What::Link { target: PathBuf::from("banger") },
        purpose: "is the executable under another name",
    });
    let units = units::ALL.iter().map(|unit| File {
        path: layout.units.join(unit.name),
        what: text(&unit.text(layout, owner)),
        purpose: unit.purpose,
    });
    let [bash, zsh, fish] = completion_paths(layout);
    let completions = [
        (bash, shared.bash, "completes banger's words in bash"),
        (zsh, shared.zsh, "completes banger's words in zsh"),
        (fish, shared.fish, "completes banger's words in fish"),
    ]
    .map(|(path, content, purpose)| File { path, what: text(content), purpose });
    let pages = (shared.pages)().into_iter().map(|(name, content)| File {
        path: layout.manual().join(format!("{name}.1")),
        what: text(&content),
        purpose: "is read by man",
    });
    links.chain(units).chain(completions).chain(pages).collect()
}

/// install.toml of `install`.
pub fn install_file(layout: &Layout, install: &Install) -> File {
    File {
        path: layout.dirs.install_file(),
        what: text(&install.text()),
        purpose: "says whose installation this is, and of which version",
    }
}

/// Where bash, zsh and fish look for what the administrator has installed (bash-completion: XDG_DATA_DIRS; zsh: $fpath; fish:
/// vendor_completions.d).
fn completion_paths(layout: &Layout) -> [PathBuf; 3] {
    [
        layout.share.join("bash-completion/completions/banger"),
        layout.share.join("zsh/site-functions/_banger"),
        layout.share.join("fish/vendor_completions.d/banger.fish"),
    ]
}

fn text(content: &str) -> What {
    What::Text { content: content.as_bytes().to_vec(), mode: 0o644 }
}

/// The daemon's in /run, which is systemd's to make where it is not needed sooner.
pub fn runtime(layout: &Layout) -> Directory {
    Directory {
        path: layout.dirs.runtime.clone(),
        whose: Whose::Owner,
        mode: 0o700,
        fate: Fate::Goes,
        purpose: "holds the daemon's sockets",
    }
}

/// The directories of an installation, each after the one that it lies in. Those of /run are systemd's to make (RuntimeDirectory=).
pub fn directories(layout: &Layout) -> Vec<Directory> {
    let dirs = &layout.dirs;
    let root =
        |path: PathBuf, mode, fate, purpose| Directory { path, whose: Whose::Root, mode, fate, purpose };
    let owners =
        |path: PathBuf, fate, purpose| Directory { path, whose: Whose::Owner, mode: 0o700, fate, purpose };
    let mut all = vec![
        root(
            dirs.config.clone(),
            0o755,
            Fate::IfEmpty,
            "holds install.toml, and the administrator's config.toml",
        ),
        owners(dirs.state.clone(), Fate::Kept, "holds VMs, images and kernels"),
        root(dirs.cache.clone(), 0o755, Fate::IfEmpty, "holds what can be downloaded again"),
        owners(dirs.cache.join("oci"), Fate::Kept, "holds layers of images"),
        owners(dirs.catalogs(), Fate::Kept, "holds what is known of catalogs"),
        root(layout.staging.clone(), 0o700, Fate::Goes, "holds what an update downloads"),
        root(layout.keep.clone(), 0o755, Fate::Goes, "holds what an update needs to be undone"),
    ];
    // They are there on most hosts, with modes of their own.
    let page = layout.manual().join("banger.1");
    for path in completion_paths(layout).into_iter().chain([page]) {
        let parents = path.ancestors().skip(1).take_while(|above| above.starts_with(&layout.share));
        let mut parents: Vec<PathBuf> = parents.map(PathBuf::from).collect();
        parents.reverse();
        for parent in parents {
            if !all.iter().any(|directory| directory.path == parent) {
                all.push(root(
                    parent,
                    0o755,
                    Fate::IfEmpty,
                    "is where shells and man look for what is installed",
                ));
            }
        }
    }
    all.push(root(layout.bin.clone(), 0o755, Fate::IfEmpty, "is where the executable is"));
    all
}

impl Directory {
    /// Whether others than banger put files there, so that its mode and owner are theirs to choose.
    pub fn is_shared(&self, layout: &Layout) -> bool {
        self.path == layout.bin || self.path.starts_with(&layout.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SHARED: Shared = Shared {
        bash: "b",
        zsh: "z",
        fish: "f",
        pages: || vec![("banger-vm".to_owned(), ".TH BANGER\\-VM".to_owned())],
    };

    #[test]
    fn all_is_what_is_wanted_and_install_toml_but_for_manual_pages() {
        let layout = Layout::host();
        let mut wanted: BTreeSet<_> =
            wanted(&layout, "me", &SHARED).into_iter().map(|file| file.path).collect();
        wanted.insert(layout.dirs.install_file());
        assert!(wanted.remove(&PathBuf::from("/usr/local/share/man/man1/banger-vm.1")));
        assert_eq!(all(&layout).into_iter().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(wanted.len(), 11);
    }

    #[test]
    fn a_directory_comes_after_the_one_that_it_lies_in() {
        let layout = Layout::host();
        let directories = directories(&layout);
        for (at, directory) in directories.iter().enumerate() {
            let inner = directories.iter().take(at).find(|other| other.path.starts_with(&directory.path));
            assert_eq!(inner, None, "{}", directory.path.display());
        }
    }
}
