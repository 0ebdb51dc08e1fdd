//! Where a daemon works: in its user's own directories, or in those of an installation, which root has made for it.

use std::path::PathBuf;

use rustix::process::geteuid;

use crate::config::Places;
use crate::daemon::fault::Fault;
use crate::host::dirs::Dirs;
use crate::host::install::Install;
use crate::proto::api::Code;

/// A daemon's place.
pub struct Place {
    pub dirs: Dirs,
    /// Directories that are this user's alone.
    pub private: Vec<PathBuf>,
    /// Where its configuration is.
    pub config: Places,
    pub installed: bool,
}

impl Place {
    pub fn of_user(dirs: Dirs) -> Result<Self, Fault> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let private = vec![dirs.state.clone(), dirs.cache.clone()];
        let config = Places::of_user(&dirs, home);
        Ok(Self { dirs, private, config, installed: false })
    }

    /// # Errors
    /// Where there is no installation, or this user is not its owner.
    pub fn of_installation(dirs: Dirs) -> Result<Self, Fault> {
        let install = Install::read(&dirs.install_file()).map_err(|e| Fault::failed("cannot start", &e))?;
        let Some(install) = install else {
            let text = format!(
                "cannot start: --system is for an installation, and {} is missing; `sudo banger system install` makes one",
                dirs.install_file().display()
            );
            return Err(Fault::new(Code::Failed, text));
        };
        if install.owner_uid() != geteuid() {
            let text = format!(
                "cannot start: this installation is {}'s (uid {}), and this process has uid {}; systemd starts it as it should be",
                install.owner,
                install.uid,
                geteuid().as_raw()
            );
            return Err(Fault::new(Code::Failed, text));
        }
        // The cache itself is root's, since what an update downloads lies there too.
        let private = vec![dirs.state.clone(), dirs.cache.join("oci"), dirs.catalogs()];
        let config = Places::of_installation(&dirs, &install.home);
        Ok(Self { dirs, private, config, installed: true })
    }
}
