//! Asking the two daemons of an installation.

use rustix::process::Uid;

use crate::cli::client::{Client, ClientError, helper};
use crate::cli::render;
use crate::proto::api::{DaemonStatus, DaemonView, VmList, VmStop, VmView};
use crate::proto::root;
use crate::system::layout::Layout;
use crate::system::ready::Daemons;

/// The daemons of the installation of `owner`.
pub struct Asked<'a> {
    pub layout: &'a Layout,
    pub owner: Uid,
}

impl Asked<'_> {
    fn client(&self) -> Client {
        Client::of_installation(self.layout.dirs.clone(), self.owner)
    }

    pub fn daemon_view(&self) -> Result<DaemonView, ClientError> {
        self.client().ask_running(DaemonStatus {})
    }

    pub fn helper_status(&self) -> Result<root::Status, std::io::Error> {
        helper::status(&self.layout.dirs.root_socket())
    }

    pub fn vms(&self) -> Result<Vec<VmView>, ClientError> {
        self.client().ask_running(VmList {})
    }

    /// Ends `vm` at once.
    pub fn kill(&self, vm: &VmView) -> Result<(), ClientError> {
        self.client().ask_running(VmStop { vm: vm.record.id.to_string(), force: true }).map(drop)
    }
}

impl Daemons for Asked<'_> {
    fn daemon(&self) -> Result<(String, String), String> {
        self.daemon_view().map(|view| (view.version, view.commit)).map_err(|e| match e {
            // What to do about it is what is being done.
            ClientError::Down => "nobody listens at its socket".to_owned(),
            e => render::chain(&e),
        })
    }

    fn helper(&self) -> Result<String, String> {
        self.helper_status().map(|status| status.version).map_err(|e| e.to_string())
    }
}

/// Whether something runs for `vm`.
pub fn runs(vm: &VmView) -> bool {
    vm.record.state.processes().is_some()
}
