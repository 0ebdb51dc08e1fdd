//! Where banger's files are (DESIGN, "Where things are").

use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The root helper's, on an installed machine and for root without an installation.
const ROOT_RUNTIME: &str = "/run/banger-root";

/// The roots below which everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    pub state: PathBuf,
    pub cache: PathBuf,
    pub runtime: PathBuf,
    pub config: PathBuf,
    /// The root helper's socket and what it has made, root's own.
    pub root_runtime: PathBuf,
}

impl Dirs {
    /// The directories of this process: below `BANGER_ROOT` where it is set, else the user's by the XDG base directory
    /// specification.
    ///
    /// # Errors
    /// A sentence, when neither `BANGER_ROOT` nor `HOME` says where.
    pub fn from_env() -> Result<Self, NoHome> {
        Self::choose(|name| std::env::var(name).ok().filter(|v| !v.is_empty()), geteuid().as_raw())
    }

    /// The installation's directories, or those below `BANGER_ROOT` where it is set.
    pub fn installed() -> Self {
        match std::env::var_os("BANGER_ROOT").map(PathBuf::from).filter(|root| root.is_absolute()) {
            Some(root) => Self::below(&root),
            None => Self::host(),
        }
    }

    /// The installation's directories on the host.
    pub fn host() -> Self {
        Self {
            state: PathBuf::from("/var/lib/banger"),
            cache: PathBuf::from("/var/cache/banger"),
            runtime: PathBuf::from("/run/banger"),
            config: PathBuf::from("/etc/banger"),
            root_runtime: PathBuf::from(ROOT_RUNTIME),
        }
    }

    /// Everything below `root`.
    pub fn below(root: &Path) -> Self {
        Self {
            state: root.join("state"),
            cache: root.join("cache"),
            runtime: root.join("run"),
            config: root.join("config"),
            root_runtime: root.join("run-root"),
        }
    }

    fn choose(env: impl Fn(&str) -> Option<String>, uid: u32) -> Result<Self, NoHome> {
        // A relative path would mean another place in each process; the XDG specification says to ignore it.
        let absolute = |name| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
        if let Some(root) = absolute("BANGER_ROOT") {
            return Ok(Self::below(&root));
        }
        let home = absolute("HOME");
        let below = |name, rest: &str| {
            absolute(name)
                .or_else(|| home.as_ref().map(|h| h.join(rest)))
                .map(|p| p.join("banger"))
                .ok_or(NoHome)
        };
        Ok(Self {
            state: below("XDG_DATA_HOME", ".local/share")?,
            cache: below("XDG_CACHE_HOME", ".cache")?,
            config: below("XDG_CONFIG_HOME", ".config")?,
            root_runtime: PathBuf::from(ROOT_RUNTIME),
            runtime: match absolute("XDG_RUNTIME_DIR") {
                Some(dir) => dir.join("banger"),
                None if uid == 0 => PathBuf::from("/run/banger-0"),
                // Without a session there is no place that the specification calls safe: one below the state, then.
                None => below("XDG_DATA_HOME", ".local/share")?.join("run"),
            },
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.runtime.join("bangerd.sock")
    }
    /// The root helper's, in a directory of root's.
    pub fn root_socket(&self) -> PathBuf {
        self.root_runtime.join("bangerd-root.sock")
    }
    pub fn database(&self) -> PathBuf {
        self.state.join("banger.redb")
    }
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("bangerd.log")
    }
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }
    pub fn image_file(&self, id: &str) -> PathBuf {
        self.images().join(format!("{id}.ext4"))
    }
    pub fn kernels(&self) -> PathBuf {
        self.state.join("kernels")
    }
    pub fn kernel(&self, name: &str) -> PathBuf {
        self.kernels().join(name)
    }
    /// Programs that came in a bundle: the owner's, so nothing that root runs.
    pub fn programs(&self) -> PathBuf {
        self.state.join("programs")
    }
    /// A VM's disk and logs.
    pub fn vm(&self, id: impl std::fmt::Display) -> PathBuf {
        self.state.join("vms").join(id.to_string())
    }
    /// A VM's sockets; short, since a socket's path has at most 107 bytes (unix(7)).
    pub fn vm_sockets(&self, id: impl std::fmt::Display) -> PathBuf {
        self.runtime.join("vms").join(id.to_string())
    }
    pub fn blobs(&self) -> PathBuf {
        self.cache.join("oci/blobs/sha256")
    }
    /// What is known of catalogs, for when they cannot be had.
    pub fn catalogs(&self) -> PathBuf {
        self.cache.join("catalogs")
    }
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }
    /// Whose installation this is.
    pub fn install_file(&self) -> PathBuf {
        self.config.join("install.toml")
    }
    pub fn all(&self) -> [&Path; 3] {
        [&self.state, &self.cache, &self.runtime]
    }
}

/// Nothing says where this user's files belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHome;

impl std::fmt::Display for NoHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HOME is not set; set it, or set BANGER_ROOT to the directory for banger's files")
    }
}

impl std::error::Error for NoHome {}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(env: &[(&str, &str)], uid: u32) -> Result<Dirs, NoHome> {
        Dirs::choose(|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()), uid)
    }

    #[test]
    fn banger_root_puts_everything_below_one_directory() {
        let dirs = choose(&[("BANGER_ROOT", "/t"), ("HOME", "/h")], 1000).expect("chosen");
        assert_eq!(dirs.socket(), Path::new("/t/run/bangerd.sock"));
        assert_eq!(dirs.image_file("ab"), Path::new("/t/state/images/ab.ext4"));
    }

    #[test]
    fn without_it_the_xdg_directories_are_used_and_relative_ones_ignored() {
        let dirs =
            choose(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_DATA_HOME", "data")], 7)
                .expect("chosen");
        assert_eq!(dirs.state, Path::new("/h/.local/share/banger"));
        assert_eq!(dirs.cache, Path::new("/h/.cache/banger"));
        assert_eq!(dirs.runtime, Path::new("/run/user/7/banger"));
        assert_eq!(choose(&[("HOME", "/h")], 0).expect("chosen").runtime, Path::new("/run/banger-0"));
        assert_eq!(
            choose(&[("HOME", "/h")], 7).expect("chosen").runtime,
            Path::new("/h/.local/share/banger/run")
        );
        assert_eq!(choose(&[], 7), Err(NoHome));
    }
}
