//! An update that was cut off, mended by the next command: root's finishes or undoes it, anybody else's says how.

use rustix::process::geteuid;

use crate::cli::error::Error;
use crate::cli::render;
use crate::host::install::Install;
use crate::host::progress::{Progress, Silent};
use crate::system::layout::Layout;
use crate::system::services::{Systemd, Units};
use crate::updater::Updater;
use crate::updater::fetch::Patience;
use crate::updater::held;
use crate::updater::recover::{Recovered, When};
use crate::updater::unmanaged::Unmanaged;

/// An installation, and who starts its services.
pub struct Place<'a> {
    layout: &'a Layout,
    services: Box<dyn Units>,
    managed: bool,
}

impl<'a> Place<'a> {
    pub fn new(layout: &'a Layout) -> Self {
        // Below BANGER_ROOT nobody but banger starts anything, and the host's services are another installation's.
        let managed = *layout == Layout::host();
        let services: Box<dyn Units> =
            if managed { Box::new(Systemd) } else { Box::new(Unmanaged { binary: layout.binary() }) };
        Self { layout, services, managed }
    }

    pub fn updater<'b>(
        &'b self,
        install: &'b Install,
        progress: &'b dyn Progress,
        patience: Patience,
    ) -> Updater<'b> {
        Updater {
            layout: self.layout,
            install,
            services: &*self.services,
            helper: self.managed,
            progress,
            patience,
        }
    }
}

/// Looks for an update that was cut off, before any command of a person. Costs one stat where there is none.
pub fn before_command() {
    let layout = Layout::from_env();
    if std::fs::symlink_metadata(layout.journal()).is_err() {
        return;
    }
    if !geteuid().is_root() {
        return tell(&layout);
    }
    match mend(&layout, When::Now) {
        Ok(Some(recovered)) => render::say(&format!("banger: {recovered}")),
        Ok(None) => {}
        // The command is not about this, and may be what is needed to mend it.
        Err(e) => render::say(&format!(
            "banger: an update that was cut off cannot be mended: {}",
            render::chain(&e)
        )),
    }
}

/// What an unprivileged user is told.
fn tell(layout: &Layout) {
    let cut_off =
        held::journal(layout).map_or(true, |journal| journal.is_some_and(|j| !held::is_under_way(&j)));
    if cut_off {
        render::say("banger: an update was cut off; `sudo banger update` mends it");
    }
}

/// For banger-recover.service: before the daemons are started.
pub fn at_boot() -> Result<(), Error> {
    if let Some(recovered) = mend(&Layout::from_env(), When::AtBoot)? {
        render::say(&format!("banger: {recovered}"));
    }
    Ok(())
}

/// None: there is nothing to mend, or somebody is at it.
fn mend(layout: &Layout, when: When) -> Result<Option<Recovered>, Error> {
    if std::fs::symlink_metadata(layout.journal()).is_err() {
        return Ok(None);
    }
    let Some(held) = held::hold(layout)? else { return Ok(None) };
    let install = Install::read(&layout.dirs.install_file()).map_err(Error::Install)?;
    let Some(install) = install else {
        return Err(Error::Refused(format!(
            "{} is there, and banger is not installed; remove it",
            layout.journal().display()
        )));
    };
    let place = Place::new(layout);
    let updater = place.updater(&install, &Silent, Patience::default());
    Ok(updater.recover(&held, when)?)
}
