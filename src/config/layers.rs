//! The files over one another: an installation has root's, and the owner's over it, key by key.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::file::Document;
use crate::config::judge::judge;
use crate::config::keys::{self, KEYS, Reader};
use crate::config::settings::Config;
use crate::config::{ConfigError, Places, Problem, Whose};

/// A configuration that was read, and of what it is made.
#[derive(Debug, Clone)]
pub struct Read {
    pub config: Config,
    /// In the order in which they count; those that are not there are empty.
    pub layers: Vec<Layer>,
    /// Of all that is set: it differs where two configurations do.
    pub digest: String,
}

#[derive(Debug, Clone)]
pub struct Layer {
    pub path: PathBuf,
    pub is_there: bool,
    pub document: Document,
}

/// Reads the files of `places`; without any, everything is as it is by default.
///
/// # Errors
/// A file that cannot be read, or all that is wrong with them.
pub fn read(places: &Places) -> Result<Read, ConfigError> {
    let home = places.home.as_deref();
    let (mut layers, mut problems) = (vec![], vec![]);
    for (whose, path) in places.files() {
        let (is_there, text) = match std::fs::read_to_string(path) {
            Ok(text) => (true, text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (false, String::new()),
            Err(e) => return Err(ConfigError::Read(path.to_owned(), e)),
        };
        let mut document = Document::parse(&text).unwrap_or_else(|bad| {
            problems.push(Problem { file: path.to_owned(), at: bad.at, why: bad.why });
            Document::default()
        });
        problems.extend(judge(path, &mut document, whose, home));
        if whose == Whose::Owners
            && let Some(roots) = layers.first()
        {
            problems.extend(clashes(roots, path, &document));
        }
        layers.push(Layer { path: path.to_owned(), is_there, document });
    }
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    let mut values = toml::Table::new();
    for layer in &layers {
        lay_over(&mut values, layer.document.values.clone());
    }
    let digest = digest(&values);
    // Each key is right by now.
    let whole = |why| ConfigError::Invalid(vec![Problem { file: places.own.clone(), at: None, why }]);
    let config = Config::of(values, home).map_err(whole)?;
    Ok(Read { config, layers, digest })
}

/// Where the owner's word differs from root's in what the helper goes by too, which would refuse what the daemon asks it for.
fn clashes(roots: &Layer, path: &Path, own: &Document) -> Vec<Problem> {
    let shared = KEYS.iter().filter(|key| key.reader == Reader::Both && keys::must_agree(key.name));
    let differs = |name: &str| {
        own.values.get(name).is_some_and(|wanted| roots.document.values.get(name) != Some(wanted))
    };
    let problem = |key: &keys::Key| Problem {
        file: path.to_owned(),
        at: own.place(key.name),
        why: format!(
            "{}: the root helper goes by it too; write it into {} alone",
            key.name,
            roots.path.display()
        ),
    };
    shared.filter(|key| differs(key.name)).map(problem).collect()
}

/// Keys of tables are laid over one by one, so that setting one default does not unset another.
fn lay_over(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => lay_over(inner, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn digest(values: &toml::Table) -> String {
    // Its keys are strings and in order.
    let bytes = serde_json::to_vec(values).unwrap_or_default();
    blake3::hash(&bytes).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::size::Mib;

    /// Reads an installation's two files.
    fn both(root: Option<&str>, owner: Option<&str>) -> Result<Read, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let (roots, own) = (dir.path().join("root.toml"), dir.path().join("owner.toml"));
        for (path, text) in [(&roots, root), (&own, owner)] {
            if let Some(text) = text {
                std::fs::write(path, text).expect("writes");
            }
        }
        let places = Places { roots: Some(roots), own, home: Some("/home/me".into()) };
        let shown = |e: ConfigError| e.to_string().replace(dir.path().to_str().expect("UTF-8"), "");
        read(&places).map_err(shown)
    }

    const ROOTS: &str = "dns_suffix = 'test'\ndefault_image_name = 'a'\n[vm_defaults]\nvcpu = 2\nmemory = 512\n[update]\nrefuse_expired = true";

    #[test]
    fn the_owners_keys_lie_over_roots_one_by_one() {
        let owner = "default_image_name = 'b'\n[vm_defaults]\nmemory = 1024";
        let config = both(Some(ROOTS), Some(owner)).expect("a configuration").config;
        assert_eq!((config.default_image.as_str(), config.network.suffix.as_str()), ("b", "test"));
        assert_eq!((config.vm_defaults.vcpu, config.vm_defaults.memory), (Some(2), Some(Mib(1024))));
        both(Some(ROOTS), Some("dns_suffix = 'test'")).expect("the same word twice");
        let neither = both(None, None).expect("neither is needed");
        assert!(neither.layers.iter().all(|layer| !layer.is_there));
    }

    #[test]
    fn a_mistake_is_looked_for_where_it_is() {
        for (owner, want) in [
            (
                "dns_suffix = 'other'",
                "/owner.toml:1:1: dns_suffix: the root helper goes by it too; write it into /root.toml alone",
            ),
            (
                "bridge_address = '10.9.0.1/24'",
                "/owner.toml:1:1: bridge_address: the root helper goes by it too",
            ),
            ("[update]\nmanifest_url = 'x'", "/owner.toml:2:1: update.manifest_url is the administrator's"),
            ("\n dns_port = 53", "/owner.toml:2:2: dns_port: 53 is root's to use"),
            (
                "dns_port = 53\nx = 1\ny = 2",
                "/owner.toml:1:1: dns_port: 53 is root's to use; choose 1024 or more (and 2 more",
            ),
        ] {
            let error = both(Some(ROOTS), Some(owner)).expect_err(owner);
            assert!(error.starts_with(want), "{error}");
        }
        let error = both(Some("dns_port = 53"), None).expect_err("root's mistake");
        assert!(error.starts_with("/root.toml:1:1: dns_port"), "{error}");
        both(Some(""), Some("firecracker_bin = '/my/own'")).expect("may differ from root's");
    }

    #[test]
    fn two_configurations_differ_in_their_digest_only_if_they_say_something_else() {
        let digest = |text: &str| both(None, Some(text)).expect(text).digest;
        assert_eq!(
            digest("dns_port = 5353 # mine\n[vm_defaults]\nvcpu = 2"),
            digest("vm_defaults.vcpu = 2\ndns_port = 5353")
        );
        assert_ne!(digest("dns_port = 5353"), digest("dns_port = 5354"));
    }
}
