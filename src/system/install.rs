//! Makes an installation, or mends and refreshes the one that is there: the same steps either way.
//!
//! ```text
//!  prepare: what is wanted against what is there  (changes nothing; --dry-run ends here)
//!    -> directories -> executable -> install.toml, symlinks, units, completions, pages -> units enabled and started -> both daemons answer
//! ```
//!
//! Where nothing was installed before, whatever fails is followed by the removal of all that was made.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::failpoint::reach;
use crate::host::files::staged_name;
use crate::host::install::Install;
use crate::host::undo::Undo;
use crate::system::accounts::Account;
use crate::system::apply::{self, Ids};
use crate::system::check;
use crate::system::error::SystemError;
use crate::system::files::{self, Directory, Fate, Shared};
use crate::system::hold::hold;
use crate::system::layout::Layout;
use crate::system::plan::{self, Change, Step};
use crate::system::ready::{self, Build, Daemons};
use crate::system::refresh::changes_units;
use crate::system::services::{self, Unit, Units};

/// What is to be done.
#[derive(Debug)]
pub struct Prepared {
    /// Nothing is installed yet.
    pub fresh: bool,
    pub directories: Vec<(Directory, Change)>,
    pub binary: (PathBuf, Change),
    pub steps: Vec<Step>,
}

impl Prepared {
    /// Whether there is a directory to be made.
    pub fn makes_directories(&self) -> bool {
        self.directories.iter().any(|(_, change)| *change == Change::Create)
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Files that were created, replaced or removed.
    pub files: usize,
    /// The daemons had to be started anew.
    pub restarted: bool,
}

/// What an installation is made for and of.
#[derive(Debug, Clone)]
pub struct Wish {
    pub account: Account,
    pub build: Build,
    pub shared: Shared,
    pub root: (u32, u32),
}

/// Looks at what there is, and says what would be done.
pub fn prepare(layout: &Layout, wish: &Wish) -> Result<Prepared, SystemError> {
    let mut want = files::wanted(layout, &wish.account.name, &wish.shared);
    let install = Install {
        owner: wish.account.name.clone(),
        uid: wish.account.uid,
        gid: wish.account.gid,
        home: wish.account.home.clone(),
        version: wish.build.version.clone(),
        commit: wish.build.commit.clone(),
        built_at: wish.build.built_at.clone(),
    };
    // First: whoever comes after a crash must find whose installation it was to be.
    want.insert(0, files::install_file(layout, &install));
    let steps = plan::against_host(layout, want, wish.root).map_err(SystemError::Look)?;
    let directories = files::directories(layout)
        .into_iter()
        .map(|directory| {
            let change = if directory.path.exists() { Change::Keep } else { Change::Create };
            (directory, change)
        })
        .collect();
    let binary = layout.binary();
    let change = match binary.exists() {
        false => Change::Create,
        true => match check::is_same(&binary, &mut apply::myself()?, wish.root).map_err(SystemError::Look)? {
            true => Change::Keep,
            false => Change::Replace,
        },
    };
    let fresh = !layout.dirs.install_file().exists();
    Ok(Prepared { fresh, directories, binary: (binary, change), steps })
}

/// Does it. `patience` is for the daemons to answer.
///
/// # Errors
/// Whatever went wrong first. Of a fresh installation nothing is left then; an older one is left half mended.
pub fn install<U: Units + Clone + Send + 'static>(
    layout: &Layout,
    wish: &Wish,
    prepared: &Prepared,
    units: &U,
    daemons: &impl Daemons,
    patience: Duration,
) -> Result<Done, SystemError> {
    let mut undo = Undo::default();
    let done = attempt(layout, wish, prepared, units, daemons, patience, &mut undo);
    match done {
        // What there was before is not known to the last byte, and works more likely mended by half than taken away.
        Err(e) if !prepared.fresh => {
            undo.commit();
            Err(e)
        }
        Err(e) => Err(e),
        Ok(done) => {
            undo.commit();
            Ok(done)
        }
    }
}

fn attempt<U: Units + Clone + Send + 'static>(
    layout: &Layout,
    wish: &Wish,
    prepared: &Prepared,
    units: &U,
    daemons: &impl Daemons,
    patience: Duration,
    undo: &mut Undo,
) -> Result<Done, SystemError> {
    let ids = Ids { root: wish.root, owner: (wish.account.uid, wish.account.gid) };
    let _held = make_directories(layout, prepared, ids, undo)?;
    reach("system-install: directories");
    let (binary, change) = &prepared.binary;
    if *change != Change::Keep {
        apply::copy(&mut apply::myself()?, binary, 0o755, ids.root)?;
    }
    if *change == Change::Create {
        undo.push("the executable", remover(binary.clone()));
    }
    reach("system-install: executable");
    undo.push("systemd's view of the units", {
        let units = units.clone();
        move || units.reload().and_then(|()| units.forget_failures()).map_err(io::Error::other)
    });
    for step in &prepared.steps {
        apply::step(step, ids.root)?;
        undo.push(format!("file {}", step.path().display()), remover(step.path().to_owned()));
        reach("system-install: a file");
    }
    if prepared.fresh || changes_units(layout, &prepared.steps) {
        units.reload()?;
    }
    for unit in services::ALL {
        undo.push(unit.name(), {
            let units = units.clone();
            move || units.stop(unit).and_then(|()| units.disable(unit)).map_err(io::Error::other)
        });
        units.enable(unit)?;
    }
    reach("system-install: enabled");
    let files =
        prepared.steps.iter().map(Step::change).chain([*change]).filter(|c| *c != Change::Keep).count();
    // Daemons of this very build that answer need nothing but what makes them what the files say.
    let restarted = files > 0 || ready::answer(daemons, &wish.build).is_err();
    if restarted {
        for runtime in [&layout.dirs.runtime, &layout.dirs.root_runtime] {
            let runtime = runtime.clone();
            undo.push(format!("directory {}", runtime.display()), move || {
                apply::remove_tree(&runtime).map_err(io::Error::other)
            });
        }
        // Those are used by the daemons, which end first.
        stop_first(units, undo);
        ready::restart(units)?;
        reach("system-install: started");
        ready::wait(units, daemons, &wish.build, patience)?;
    }
    forget_updates(layout)?;
    Ok(Done { files, restarted })
}

/// What an update that was cut off wanted is no longer so: mended later, it would put an older executable in this one's place.
fn forget_updates(layout: &Layout) -> Result<(), SystemError> {
    let journal = layout.journal();
    for path in [staged_name(&journal), journal, layout.older(), staged_name(&layout.binary())] {
        apply::remove(&path)?;
    }
    Ok(apply::remove_tree(&layout.saved())?)
}

fn stop_first<U: Units + Clone + Send + 'static>(units: &U, undo: &mut Undo) {
    let units = units.clone();
    undo.push("the daemons' start", move || {
        let stop = |unit| units.stop(unit).map_err(io::Error::other);
        stop(Unit::Daemon).and(stop(Unit::HelperSocket)).and(stop(Unit::Helper))
    });
}

fn make_directories(
    layout: &Layout,
    prepared: &Prepared,
    ids: Ids,
    undo: &mut Undo,
) -> Result<Option<File>, SystemError> {
    // What will have been made is written down before it is: a crash must not make it look as if it had been there.
    let made = prepared.directories.iter().filter(|(_, change)| *change == Change::Create);
    let made: Vec<PathBuf> = made.map(|(directory, _)| directory.path.clone()).collect();
    let is_keep = |directory: &Directory| directory.path == layout.keep;
    let keep = prepared.directories.iter().find(|(directory, _)| is_keep(directory));
    let mut held = None;
    for (directory, change) in keep.into_iter().chain(&prepared.directories) {
        if apply::directory(directory, layout, ids)? {
            undo.push(format!("directory {}", directory.path.display()), {
                let (path, fate) = (directory.path.clone(), directory.fate);
                move || match fate {
                    // It was not there before, so that nothing in it is anybody's.
                    Fate::Kept | Fate::Goes => apply::remove_tree(&path).map_err(io::Error::other),
                    Fate::IfEmpty => apply::remove_empty(&path).map(drop).map_err(io::Error::other),
                }
            });
        }
        if is_keep(directory) && held.is_none() {
            held = Some(hold(layout)?);
            if *change == Change::Create {
                undo.push("the list of directories", remover(layout.made()));
            }
            if !made.is_empty() {
                remember(layout, made.iter().cloned(), ids)?;
            }
        }
    }
    Ok(held)
}

/// Adds `made` to the list of directories that go with the installation.
pub fn remember(layout: &Layout, made: impl Iterator<Item = PathBuf>, ids: Ids) -> Result<(), SystemError> {
    let mut all = remembered(layout)?;
    for path in made {
        if !all.contains(&path) {
            all.push(path);
        }
    }
    let text: String = all.iter().map(|path| format!("{}\n", path.display())).collect();
    Ok(apply::copy(&mut text.as_bytes(), &layout.made(), 0o644, ids.root)?)
}

/// The directories that an installation has made.
pub fn remembered(layout: &Layout) -> Result<Vec<PathBuf>, SystemError> {
    match std::fs::read_to_string(layout.made()) {
        Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(SystemError::Look(e)),
    }
}

fn remover(path: PathBuf) -> impl FnOnce() -> io::Result<()> + Send {
    move || apply::remove(&path).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
