//! Collects a kernel's modules, file by file, from wherever they come.
//!
//! Modules are kept unpacked: the kernel in the guest takes them from any modprobe then, also from one that was built without
//! xz or zstd (busybox's, often), at the price of disk space that all guests share.

use std::io;
use std::path::Path;

use crate::kernel::catalog::{Catalog, builtin_names};
use crate::kernel::depmod;
use crate::kernel::error::KernelError;
use crate::kernel::modinfo::Module;
use crate::kernel::modules::builtin_by_config;
use crate::kernel::packed::{self, MAX_MODULE, module_path};
use crate::kernel::tree::Tree;

/// What is there so far of /lib/modules/<version>.
#[derive(Debug)]
pub struct Gather {
    tree: Tree,
    modules: Vec<Module>,
    /// The kernel's configuration, if it is known.
    config: Option<String>,
}

const ORDER: &str = "modules.order";
const BUILTIN: &str = "modules.builtin";
const BUILTIN_MODINFO: &str = "modules.builtin.modinfo";
/// The largest of the lists above and of configurations, in bytes; Debian's have 300 kB.
pub const MAX_LIST: usize = 16 << 20;

/// Whether a file of /lib/modules/<version> is taken: the modules and what the kernel's build says of them. The tables are made
/// anew, and `build` and `source` lead out of the tree.
pub fn wanted(path: &str) -> bool {
    module_path(path).is_some() || matches!(path, ORDER | BUILTIN | BUILTIN_MODINFO)
}

impl Gather {
    pub fn new(scratch: &Path) -> Result<Self, KernelError> {
        let tree = Tree::new(scratch).map_err(KernelError::Scratch)?;
        Ok(Self { tree, modules: vec![], config: None })
    }

    /// Takes the file at `path`, relative to /lib/modules/<version>, packed or not.
    pub fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), KernelError> {
        let Some(plain) = module_path(path) else { return self.keep(path, bytes) };
        let bad = |source: Box<dyn std::error::Error + Send + Sync>| KernelError::Module {
            path: path.escape_default().to_string(),
            source,
        };
        let module = packed::unpack(bytes, MAX_MODULE).map_err(|e| bad(e.into()))?;
        self.modules.push(Module::parse(plain, &module).map_err(|e| bad(e.into()))?);
        self.keep(plain, &module)
    }

    pub fn config(&mut self, text: String) {
        self.config = Some(text);
    }

    /// How many modules there are.
    pub fn modules(&self) -> usize {
        self.modules.len()
    }

    /// The tree with its tables, and what is in it; no tree where there are no modules and no lists.
    ///
    /// `version` is the kernel's, for errors.
    pub fn finish(mut self, version: &str) -> Result<(Option<Tree>, Catalog), KernelError> {
        let order = self.text(ORDER)?.unwrap_or_default();
        let catalog = Catalog::new(std::mem::take(&mut self.modules), &order);
        let Some(builtin) = self.text(BUILTIN)? else {
            let config =
                self.config.ok_or_else(|| KernelError::UnknownDrivers { version: version.to_owned() })?;
            let catalog = catalog.with_builtin(builtin_by_config(&config));
            return finish(self.tree, catalog);
        };
        let modinfo = self.tree.read(BUILTIN_MODINFO).map_err(KernelError::Scratch)?.unwrap_or_default();
        finish(self.tree, catalog.with_builtin(builtin_names(&builtin)).with_builtin_modinfo(&modinfo))
    }

    fn keep(&mut self, path: &str, bytes: &[u8]) -> Result<(), KernelError> {
        self.tree.add(path, bytes).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => {
                KernelError::Module { path: path.escape_default().to_string(), source: e.into() }
            }
            _ => KernelError::Scratch(e),
        })
    }

    fn text(&self, path: &str) -> Result<Option<String>, KernelError> {
        let bytes = self.tree.read(path).map_err(KernelError::Scratch)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn finish(mut tree: Tree, catalog: Catalog) -> Result<(Option<Tree>, Catalog), KernelError> {
    if catalog.modules().is_empty() {
        return Ok((None, catalog));
    }
    for (name, content) in depmod::tables(&catalog) {
        tree.add(name, &content).map_err(KernelError::Scratch)?;
    }
    Ok((Some(tree), catalog))
}
