//! The tables by which a guest's modprobe and udev find modules. A distribution's package does not hold them: its installation
//! runs depmod(8), and so do we, whatever programs the host has.

use crate::kernel::catalog::Catalog;
use crate::kernel::index::Index;
use crate::kernel::modinfo::{Module, normalised};

/// Names and contents of the tables for a directory that holds the modules of `catalog` at their paths.
pub fn tables(catalog: &Catalog) -> Vec<(&'static str, Vec<u8>)> {
    let (dep, dep_bin) = dependencies(catalog);
    let (alias, alias_bin) =
        by_name(catalog, "# Aliases extracted from modules themselves.\n", |m| m.aliases.clone(), "alias");
    let (symbols, symbols_bin) = by_name(
        catalog,
        "# Aliases for symbols, used by symbol_request().\n",
        |m| m.exports.iter().map(|s| format!("symbol:{s}")).collect(),
        "alias",
    );
    let mut builtin = Index::default();
    catalog.builtin().for_each(|name| builtin.insert(name, "", 0));
    let mut builtin_alias = Index::default();
    catalog.builtin_aliases().for_each(|(alias, name)| builtin_alias.insert(alias, name, 0));
    vec![
        ("modules.dep", dep.into_bytes()),
        ("modules.dep.bin", dep_bin),
        ("modules.alias", alias.into_bytes()),
        ("modules.alias.bin", alias_bin),
        ("modules.symbols", symbols.into_bytes()),
        ("modules.symbols.bin", symbols_bin),
        ("modules.builtin.bin", builtin.bytes()),
        ("modules.builtin.alias.bin", builtin_alias.bytes()),
        ("modules.softdep", softdeps(catalog).into_bytes()),
        ("modules.devname", device_nodes(catalog).into_bytes()),
    ]
}

/// `path: path...`, what is loaded last standing first (modules.dep(5)).
fn dependencies(catalog: &Catalog) -> (String, Vec<u8>) {
    let (mut text, mut index) = (String::new(), Index::default());
    for (i, module) in numbered(catalog) {
        let mut line = format!("{}:", module.path);
        for dependency in catalog.dependencies(i as usize).into_iter().rev() {
            line += " ";
            line += &catalog.modules()[dependency].path;
        }
        index.insert(&module.name, &line, i);
        text += &line;
        text += "\n";
    }
    (text, index.bytes())
}

fn by_name(
    catalog: &Catalog,
    head: &str,
    keys: impl Fn(&Module) -> Vec<String>,
    word: &str,
) -> (String, Vec<u8>) {
    let (mut text, mut index) = (head.to_owned(), Index::default());
    for (i, module) in numbered(catalog) {
        for key in keys(module) {
            text += &format!("{word} {key} {}\n", module.name);
            index.insert(&normalised(&key), &module.name, i);
        }
    }
    (text, index.bytes())
}

fn softdeps(catalog: &Catalog) -> String {
    let mut text = "# Soft dependencies extracted from modules themselves.\n".to_owned();
    for module in catalog.modules() {
        for softdep in &module.softdeps {
            text += &format!("softdep {} {softdep}\n", module.name);
        }
    }
    text
}

/// The device nodes that exist before their module is loaded, and load it when they are opened: /dev/fuse, /dev/net/tun.
fn device_nodes(catalog: &Catalog) -> String {
    let mut text = "# Device nodes to trigger on-demand module loading.\n".to_owned();
    for module in catalog.modules() {
        let find = |prefix: &str| module.aliases.iter().find_map(|alias| alias.strip_prefix(prefix));
        let number = |kind: char, prefix: &str| {
            let (major, minor) = find(prefix)?.split_once('-')?;
            let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
            Some(format!("{kind}{major}:{minor}"))
        };
        let node = number('c', "char-major-").or_else(|| number('b', "block-major-"));
        if let (Some(name), Some(node)) = (find("devname:"), node) {
            text += &format!("{} {name} {node}\n", module.name);
        }
    }
    text
}

fn numbered(catalog: &Catalog) -> impl Iterator<Item = (u32, &Module)> {
    (0..).zip(catalog.modules())
}
