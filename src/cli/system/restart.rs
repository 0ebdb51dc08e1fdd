//! `banger system restart`.

use argh::{ArgsInfo, FromArgs};

use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::system::daemons::Asked;
use crate::cli::system::{here, installed, need_root};
use crate::system::error::SystemError;
use crate::system::layout::Layout;
use crate::system::ready;
use crate::system::services::Manager;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Restart bangerd-root, then bangerd, and wait until both answer. VMs run on.
#[argh(
    subcommand,
    name = "restart",
    help_triggers("-h", "--help", "help"),
    example = "sudo banger system restart"
)]
pub struct Restart {}

impl Restart {
    pub fn run(&self, layout: &Layout) -> Result<(), Error> {
        need_root("restart")?;
        let install = installed(layout)?;
        if *layout != Layout::host() {
            return Err(Error::Refused(
                "below BANGER_ROOT daemons are started by the command that needs them; `banger daemon stop` stops bangerd"
                    .to_owned(),
            ));
        }
        ready::restart(&Manager::of(layout)).map_err(SystemError::Services)?;
        let asked = Asked { layout, owner: install.owner_uid() };
        ready::wait(&Manager::of(layout), &asked, &here(), ready::PATIENCE)?;
        let running = asked.daemon_view()?.running_vms;
        render::out(&format!("bangerd-root and bangerd were restarted; running VMs: {running}\n"))
    }
}
