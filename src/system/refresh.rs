//! Brings units, symlinks, completions and manual pages to what this executable wants, in an installation that is there.

use crate::host::install::Install;
use crate::system::apply::{self, Ids};
use crate::system::error::SystemError;
use crate::system::files::{self, Shared};
use crate::system::install::remember;
use crate::system::layout::Layout;
use crate::system::plan::{self, Change, Step};
use crate::system::services::Services;

/// What would be done. install.toml is not part of it: whoever has put the executable there writes it.
pub fn plan(
    layout: &Layout,
    install: &Install,
    shared: &Shared,
    root: (u32, u32),
) -> Result<Vec<Step>, SystemError> {
    let want = files::wanted(layout, &install.owner, shared);
    plan::against_host(layout, want, root).map_err(SystemError::Look)
}

/// Does it, and has systemd read its units again if one changed. Restarts nothing.
pub fn apply(
    layout: &Layout,
    steps: &[Step],
    root: (u32, u32),
    services: &impl Services,
) -> Result<(), SystemError> {
    // Directories that this version has and an earlier one had not; those of the owner are the daemon's to make.
    let new =
        files::directories(layout).into_iter().filter(|one| one.is_shared(layout) && !one.path.exists());
    let new: Vec<_> = new.collect();
    let ids = Ids { root, owner: root };
    if !new.is_empty() {
        remember(layout, new.iter().map(|one| one.path.clone()), ids)?;
    }
    for one in &new {
        apply::directory(one, layout, ids)?;
    }
    for step in steps {
        apply::step(step, root).map_err(SystemError::Apply)?;
    }
    match changes_units(layout, steps) {
        true => services.reload().map_err(SystemError::Services),
        false => Ok(()),
    }
}

/// Whether systemd has to read a unit again.
pub fn changes_units(layout: &Layout, steps: &[Step]) -> bool {
    steps.iter().any(|step| step.change() != Change::Keep && step.path().starts_with(&layout.units))
}
