//! Removes an installation: services first, then what the helper has made, then files, and what says whose it was last, so that it can
//! be taken up again wherever it was cut off.

use std::io;
use std::path::Path;

use crate::host::cmd::CmdError;
use crate::host::failpoint::reach;
use crate::system::apply;
use crate::system::error::SystemError;
use crate::system::files::{self, Fate};
use crate::system::hold::hold;
use crate::system::install::remembered;
use crate::system::layout::Layout;
use crate::system::plan;
use crate::system::services::{Unit, Units};

/// How much of it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// VMs, images, caches and the administrator's configuration go too.
    pub purge: bool,
    /// What still runs of VMs is ended.
    pub end_vms: bool,
}

/// Whether there is anything to remove.
pub fn is_there(layout: &Layout, purge: bool) -> bool {
    let files =
        files::all(layout).into_iter().chain([layout.binary(), layout.previous(), layout.keep.clone()]);
    let data = [&layout.dirs.state, &layout.dirs.cache].map(Clone::clone);
    files.chain(data.into_iter().filter(|_| purge)).any(|path| std::fs::symlink_metadata(path).is_ok())
}

/// Where systemd has the processes of [`Unit::Daemon`].
const DAEMONS_CGROUP: &str = "/sys/fs/cgroup/system.slice/bangerd.service/cgroup.procs";

/// What runs of VMs while no daemon does that could be asked: phrases, such as `VM 00000000002a`.
pub fn running(layout: &Layout) -> Result<Vec<String>, SystemError> {
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(SystemError::Look(e)),
    };
    // The helper has a record of each VM that is on the bridge or in a jail.
    let mut running = vec![];
    match std::fs::read_dir(layout.dirs.root_runtime.join("vms")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(SystemError::Look(e)),
        Ok(records) => {
            for record in records {
                let name = record.map_err(SystemError::Look)?.file_name();
                let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
                running.extend(id.map(|id| format!("VM {id}")));
            }
        }
    }
    // Others are the daemon's children, which outlive it.
    if *layout == Layout::host() {
        let pids = read(Path::new(DAEMONS_CGROUP))?;
        running.extend(pids.lines().map(|pid| format!("process {pid} that bangerd has started")));
    }
    running.sort();
    Ok(running)
}

/// Removes it. `clear` removes what the helper has made of the network and of jails, and is called once no helper runs.
///
/// # Errors
/// Whatever went wrong first; what is left is found by the next attempt.
pub fn remove(
    layout: &Layout,
    extent: Extent,
    units: &impl Units,
    clear: impl FnOnce() -> Result<(), SystemError>,
) -> Result<(), SystemError> {
    let _held = if layout.keep.exists() { Some(hold(layout)?) } else { None };
    stop(layout, extent, units)?;
    reach("system-uninstall: stopped");
    if layout.dirs.install_file().exists() {
        clear()?;
    }
    reach("system-uninstall: cleared");
    let install_file = layout.dirs.install_file();
    for path in files::all(layout).into_iter().chain(plan::marked(layout).map_err(SystemError::Look)?) {
        if path != install_file {
            apply::remove(&path)?;
            reach("system-uninstall: a file");
        }
    }
    units.reload()?;
    units.forget_failures()?;
    for runtime in [&layout.dirs.runtime, &layout.dirs.root_runtime] {
        apply::remove_tree(runtime)?;
    }
    reach("system-uninstall: runtime");
    remove_directories(layout, extent)?;
    // The way back goes before the executable, and whose it was when nothing of it is left.
    apply::remove(&layout.previous())?;
    apply::remove(&layout.binary())?;
    reach("system-uninstall: executable");
    apply::remove(&install_file)?;
    if extent.purge {
        apply::remove_tree(&layout.dirs.config)?;
    }
    let made = remembered(layout)?;
    for path in made.iter().rev().filter(|path| **path != layout.keep) {
        remove_if_empty(path)?;
    }
    reach("system-uninstall: directories");
    Ok(apply::remove_tree(&layout.keep)?)
}

fn stop(layout: &Layout, extent: Extent, units: &impl Units) -> Result<(), SystemError> {
    let is_there = |unit: &Unit| layout.units.join(unit.name()).exists();
    // The daemon first: it would ask for the helper, and the socket would start it.
    let order = [Unit::Daemon, Unit::HelperSocket, Unit::Helper, Unit::Recovery];
    for unit in order.into_iter().filter(is_there) {
        units.disable(unit)?;
        units.stop(unit)?;
    }
    if extent.end_vms && is_there(&Unit::Daemon) {
        // VMs that the daemon has started itself are in its cgroup, and nowhere else. With none there is nobody to be killed.
        match units.kill(Unit::Daemon) {
            Ok(()) | Err(CmdError::Failed { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn remove_directories(layout: &Layout, extent: Extent) -> Result<(), SystemError> {
    let mut directories = files::directories(layout);
    directories.reverse();
    for directory in directories {
        match directory.fate {
            Fate::Goes if directory.path == layout.keep => {}
            Fate::Goes => apply::remove_tree(&directory.path)?,
            Fate::Kept if extent.purge => apply::remove_tree(&directory.path)?,
            // A daemon that never had anything to keep leaves nothing behind.
            Fate::Kept => remove_if_empty(&directory.path)?,
            Fate::IfEmpty => {}
        }
    }
    if extent.purge {
        apply::remove_tree(&layout.dirs.cache)?;
    }
    Ok(())
}

fn remove_if_empty(path: &Path) -> Result<(), SystemError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(apply::remove_empty(path).map(drop)?),
        // A name that means something else by now is not ours.
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(SystemError::Look(e)),
    }
}
