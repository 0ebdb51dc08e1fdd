//! What there is of an installation, as far as it can be seen without asking the daemons.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde::Serialize;

use crate::host::cmd;
use crate::host::endpoint;
use crate::system::layout::Layout;
use crate::system::services::{self, State, Unit, Units};

/// The installed executable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binary {
    pub path: String,
    /// Its `--version` line; None where it cannot be run.
    pub says: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitView {
    pub unit: &'static str,
    #[serde(flatten)]
    pub state: State,
}

/// A socket that somebody speaks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Socket {
    pub path: String,
    pub uid: Option<u32>,
    /// In octal, such as 600.
    pub mode: Option<String>,
    pub listens: bool,
}

pub fn binary(layout: &Layout) -> Binary {
    let path = layout.binary();
    let path_text = path.display().to_string();
    let said = cmd::run(&path_text, ["--version"]).ok();
    let says = said.map(|out| String::from_utf8_lossy(&out).trim().to_owned());
    Binary { path: path_text, says }
}

pub fn units(units: &impl Units) -> Vec<UnitView> {
    let unknown = || State { active: "unknown".to_owned(), at_boot: String::new(), result: String::new() };
    let view =
        |unit: Unit| UnitView { unit: unit.name(), state: units.state(unit).unwrap_or_else(|_| unknown()) };
    services::ALL.map(view).into()
}

pub fn sockets(layout: &Layout) -> Vec<Socket> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    [layout.dirs.socket(), layout.dirs.root_socket()].iter().map(|path| socket(path, &table)).collect()
}

fn socket(path: &Path, table: &str) -> Socket {
    let meta = std::fs::symlink_metadata(path).ok().filter(|meta| meta.file_type().is_socket());
    Socket {
        path: path.display().to_string(),
        uid: meta.as_ref().map(MetadataExt::uid),
        mode: meta.as_ref().map(|meta| format!("{:o}", meta.mode() & 0o7777)),
        listens: endpoint::listens(table, path),
    }
}
