//! ssh into VMs over vsock: `banger vm ssh`, and by `banger ssh-config` plain `ssh dev.vm`, scp, rsync, git and editors.
//!
//! ```text
//! ssh dev.vm -> ProxyCommand: banger internal ssh-proxy dev.vm -> bangerd: exec in the guest -> sshd -i
//! ```
//!
//! The guest's sshd is started for each connection, by the agent, with options of ours ([`guest`]), whether or not one runs there as a
//! service. So it needs no network and no open port; it makes no difference what the image's own sshd lets in, or that an image has host
//! keys which all its copies share; and nothing is written into anybody's home: the public key lies in the guest's /run, and counts for
//! root and all other users. Whoever can start commands in the guest is its root already, so this opens no door.
//!
//! The host key is the VM's own, and comes over vsock before ssh says a word ([`proxy`]), so it is never trusted blindly: ssh is told to
//! refuse whatever is not in our known_hosts ([`known`]). What is there belongs to a VM by its id, and goes with it.

pub mod configuration;
mod edit;
mod guest;
mod key;
mod known;
mod options;
pub mod proxy;
pub mod session;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub use self::known::forget;
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::config;
use crate::host::dirs::Dirs;
use crate::host::files::{create_private_dir, lock};

/// Where the files of this user's are, whoever's daemon it is that they speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Ours alone, with the known_hosts.
    dir: PathBuf,
    /// The private key.
    key: PathBuf,
    /// What VMs' names end with.
    suffix: String,
}

impl Place {
    /// As the configuration says.
    pub fn find(client: &Client) -> Result<Self, Error> {
        let config = config::read(client.config()).map_err(Error::Config)?.config;
        let dir = dirs()?.state.join("ssh");
        let key = config.ssh_key.unwrap_or_else(|| dir.join("id_ed25519"));
        for path in [&dir, &key] {
            options::refuse_unspeakable(path)?;
        }
        Ok(Self { dir, key, suffix: config.network.suffix.to_string() })
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// Makes the directory, and lets one process at a time change what is in it, for as long as the file is open.
    fn lock(&self) -> Result<File, Error> {
        let locked = create_private_dir(&self.dir).and_then(|()| lock(&self.dir.join("lock")));
        locked.map_err(failed("use", &self.dir))
    }
}

fn dirs() -> Result<Dirs, Error> {
    Dirs::from_env().map_err(|e| Error::Refused(e.to_string()))
}

fn failed(op: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = format!("{op} {}", path.display());
    move |source| Error::Host { what, source }
}
