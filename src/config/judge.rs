//! What is wrong with a file: every key alone, by those who go by it.

use std::path::Path;

use crate::config::file::{Document, joined};
use crate::config::keys::{self, ALIASES, Reader};
use crate::config::settings::Config;
use crate::config::{Problem, Whose};
use crate::root::Settings as Helpers;
use crate::updater::settings::Settings as Updates;

/// Where an installation has what is the administrator's.
const ROOTS: &str = "/etc/banger/config.toml";

/// Returns all that is wrong with `file`, in its own order, and gives its keys the names that they have in the table.
pub fn judge(file: &Path, document: &mut Document, whose: Whose, home: Option<&Path>) -> Vec<Problem> {
    let mut problems: Vec<(String, String)> = vec![];
    for (alias, name) in ALIASES {
        if let Err(why) = document.rename(alias, name) {
            problems.push((alias.to_owned(), why));
        }
    }
    let mut keys = vec![];
    leaves("", &document.values, &mut keys);
    for name in keys {
        if let Err(why) = one(&name, &document.values, whose, home) {
            problems.push((name, why));
        }
    }
    let mut problems: Vec<Problem> = problems
        .into_iter()
        .map(|(name, why)| Problem { file: file.to_owned(), at: document.place(&name), why })
        .collect();
    problems.sort_by_key(|problem| problem.at);
    problems
}

/// The names of all that is set: of sections with keys of ours, what is in them.
fn leaves(within: &str, table: &toml::Table, found: &mut Vec<String>) {
    for (leaf, value) in table {
        let name = joined(within, leaf);
        match value {
            toml::Value::Table(inner) if within.is_empty() && keys::is_section(&name) => {
                leaves(&name, inner, found)
            }
            _ => found.push(name),
        }
    }
}

/// Judges one key as if it were the only one.
fn one(name: &str, values: &toml::Table, whose: Whose, home: Option<&Path>) -> Result<(), String> {
    let Some(key) = keys::find(name) else {
        return Err(match keys::is_section(name) {
            true => format!("{name} is a section; write its keys below [{name}]"),
            false => keys::unknown(name),
        });
    };
    let alone = || alone(name, values);
    let of_config = || Config::of(alone(), home).map(drop);
    let of_helper = || Helpers::of(alone()).map(drop);
    let judged = match (key.reader, whose) {
        (Reader::Helper | Reader::Updates, Whose::Owners) => {
            return Err(format!("{name} is the administrator's; write it into {ROOTS}"));
        }
        (Reader::Helper, Whose::Users | Whose::Roots) => of_helper(),
        (Reader::Updates, Whose::Users | Whose::Roots) => Updates::of(alone()).map(drop),
        (Reader::Both, Whose::Roots) => of_config().and_then(|()| of_helper()),
        (Reader::Both, Whose::Users | Whose::Owners) | (Reader::Daemon, _) => of_config(),
    };
    let leaf = name.rsplit('.').next().unwrap_or(name);
    judged.map_err(|why| match why.starts_with(name) || why.starts_with(leaf) {
        true => why,
        // What a parser says that found something else than a value of this kind.
        false => format!("{name}: it takes {}, such as {}", key.takes.0, key.takes.1),
    })
}

/// A table with nothing but this key.
fn alone(name: &str, values: &toml::Table) -> toml::Table {
    let mut table = toml::Table::new();
    match name.split_once('.') {
        Some((section, leaf)) => {
            if let Some(toml::Value::Table(inner)) = values.get(section) {
                table.insert(section.to_owned(), alone(leaf, inner).into());
            }
        }
        None => table.extend(values.get(name).map(|value| (name.to_owned(), value.clone()))),
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, whose: Whose) -> Vec<String> {
        let mut document = Document::parse(text).expect("TOML");
        let problems = judge(Path::new("f"), &mut document, whose, Some(Path::new("/home/me")));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let text = "dns_port = 53\nmemroy = 1\n[vm_defaults]\nvcpu = 'two'\nmemory = 'much'\n[update]\nrefuse_expire = true\n";
        assert_eq!(
            said(text, Whose::Users),
            [
                "f:1:1: dns_port: 53 is root's to use; choose 1024 or more",
                "f:2:1: there is no key \"memroy\"; did you mean memory below [vm_defaults]?",
                "f:4:1: vm_defaults.vcpu: it takes a number, such as 2",
                "f:5:1: memory: \"much\" is no size; write it like 512M or 4G",
                "f:7:1: there is no key \"refuse_expire\" in [update]; did you mean refuse_expired?",
            ]
        );
    }

    #[test]
    fn every_key_takes_its_example_and_is_refused_what_is_none() {
        for key in keys::KEYS {
            let good = format!("{} = {}", key.name, key.takes.1);
            assert_eq!(said(&good, Whose::Users), [""; 0], "{good}");
            let bad = format!("{} = 1.5", key.name);
            let problems = said(&bad, Whose::Users);
            assert!(matches!(&problems[..], [one] if one.contains(key.name)), "{bad}: {problems:?}");
        }
    }

    #[test]
    fn what_is_the_administrators_is_refused_in_the_owners_file() {
        for text in ["jail_uids = 200000", "update.refuse_expired = true"] {
            let problems = said(text, Whose::Owners);
            assert!(problems[0].ends_with("write it into /etc/banger/config.toml"), "{problems:?}");
            assert_eq!(said(text, Whose::Roots), [""; 0]);
        }
        // Root's helper has no home.
        assert_eq!(said("firecracker_bin = '~/fc'", Whose::Owners), [""; 0]);
        assert!(
            said("firecracker_bin = '~/fc'", Whose::Roots)[0].contains("no absolute path; begin it with /")
        );
    }

    #[test]
    fn a_key_of_the_first_banger_is_known_by_its_old_name_but_not_by_both() {
        assert_eq!(said("[vm_defaults]\nmemory_mib = 1024", Whose::Users), [""; 0]);
        let both = said("[vm_defaults]\nmemory = 1024\nmemory_mib = 2048", Whose::Users);
        assert_eq!(
            both,
            ["f:3:1: memory_mib is another name of memory, which is there too; leave one of them out"]
        );
        let bad = said("[vm_defaults]\nmemory_mib = 'much'", Whose::Users);
        assert_eq!(bad, ["f:2:1: memory: \"much\" is no size; write it like 512M or 4G"]);
    }
}
