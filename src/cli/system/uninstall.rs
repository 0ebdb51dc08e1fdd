//! `banger system uninstall`.

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::ClientError;
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::system::daemons::{Asked, runs};
use crate::cli::system::need_root;
use crate::host::cmd;
use crate::host::install::Install;
use crate::proto::api::VmView;
use crate::system::error::SystemError;
use crate::system::layout::Layout;
use crate::system::remove::{self, Extent};
use crate::system::services::Manager;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Remove banger from this machine: daemons, files, bridge and firewall. VMs, images and configuration stay, unless --purge.
#[argh(
    subcommand,
    name = "uninstall",
    help_triggers("-h", "--help", "help"),
    example = "sudo banger system uninstall\nsudo banger system uninstall --purge --force   # everything, whatever runs"
)]
pub struct Uninstall {
    /// remove VMs, images, caches and /etc/banger too; there is no way back
    #[argh(switch)]
    purge: bool,
    /// end VMs that run
    #[argh(switch)]
    force: bool,
}

impl Uninstall {
    pub fn run(&self, layout: &Layout) -> Result<(), Error> {
        need_root("uninstall")?;
        if !remove::is_there(layout, self.purge) {
            return Err(Error::Refused("banger is not installed on this machine".to_owned()));
        }
        let install = match Install::read(&layout.dirs.install_file()) {
            Ok(install) => install,
            // Whoever it was for, it goes.
            Err(e) if self.force => {
                render::say(&format!("banger: {e}"));
                None
            }
            Err(e) => return Err(Error::Install(e)),
        };
        if let Some(install) = &install {
            self.see_to_vms(&Asked { layout, owner: install.owner_uid() })?;
        }
        let extent = Extent { purge: self.purge, end_vms: self.force };
        remove::remove(layout, extent, &Manager::of(layout), clear)?;
        let kept = [&layout.dirs.state, &layout.dirs.cache, &layout.dirs.config].map(|dir| dir.as_path());
        let kept: Vec<String> =
            kept.iter().filter(|dir| dir.exists()).map(|dir| dir.display().to_string()).collect();
        render::out(&match kept.as_slice() {
            [] => "banger is removed from this machine\n".to_owned(),
            kept => format!(
                "banger is removed from this machine; kept: {} (`uninstall --purge` removes that too)\n",
                kept.join(", ")
            ),
        })
    }

    /// Ends VMs that run, if that is wanted, and refuses to go on if not.
    fn see_to_vms(&self, asked: &Asked<'_>) -> Result<(), Error> {
        let vms = match asked.vms() {
            Ok(vms) => vms,
            // It may have been stopped by an attempt that was cut off.
            Err(ClientError::Down) => return self.see_to_rest(asked.layout),
            // What is in a jail is ended with the jail, and what is not with the daemon's cgroup.
            Err(e) if self.force => {
                render::say(&format!("banger: cannot ask which VMs run, and goes on: {}", render::chain(&e)));
                return Ok(());
            }
            Err(e) => {
                return Err(Error::Refused(format!(
                    "cannot ask which VMs run: {}; --force goes on unasked, and ends them",
                    render::chain(&e)
                )));
            }
        };
        let running: Vec<&VmView> = vms.iter().filter(|vm| runs(vm)).collect();
        if !running.is_empty() && !self.force {
            let names: Vec<String> = running.iter().map(|vm| vm.record.name.to_string()).collect();
            return Err(Error::Refused(format!(
                "VMs are running: {}; stop them (`banger vm stop {}`), or use --force, which ends them",
                names.join(", "),
                names.join(" ")
            )));
        }
        for vm in running {
            asked.kill(vm)?;
            render::say(&format!("ended VM {}", vm.record.name));
        }
        Ok(())
    }

    /// The same without a daemon that could be asked.
    fn see_to_rest(&self, layout: &Layout) -> Result<(), Error> {
        let running = remove::running(layout)?;
        match running.is_empty() || self.force {
            true => Ok(()),
            false => Err(Error::Refused(format!(
                "bangerd does not run, and this does: {}; `sudo banger system restart` lets VMs be stopped, and --force ends them",
                running.join(", ")
            ))),
        }
    }
}

/// Has the helper's other self remove what the helper has made.
fn clear() -> Result<(), SystemError> {
    cmd::run_myself("bangerd-root", &["--clear"]).map(drop).map_err(SystemError::Services)
}
