//! Every key with what holds for it and where that comes from, for `banger config show`.

use serde::Serialize;
use serde_json::Value;

use crate::config::Read;
use crate::config::keys::{Absent, KEYS, Key};
use crate::vm::size::Mib;
use crate::vm::spec::{Host, Wish};

/// A key as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    pub key: &'static str,
    /// Null: nothing; `origin` says what is done without it.
    pub value: Value,
    pub origin: Origin,
    /// Where it is set: a file, or a variable of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    /// It follows from this host's CPUs, memory and disk.
    Host,
    File,
    Environment,
}

/// The variables that win over keys.
const VARIABLES: [(&str, &str); 3] = [
    ("log_level", "BANGER_LOG_LEVEL"),
    ("vm_defaults.vmm", "BANGER_VMM"),
    ("vm_defaults.accel", "BANGER_ACCEL"),
];

/// All keys of the table. `env`: of the environment that the daemon and the command line have; `host`: None where it cannot be looked at.
pub fn shown(read: &Read, env: impl Fn(&str) -> Option<String>, host: Option<&Host>) -> Vec<Shown> {
    KEYS.iter().map(|key| one(key, read, &env, host)).collect()
}

fn one(key: &Key, read: &Read, env: impl Fn(&str) -> Option<String>, host: Option<&Host>) -> Shown {
    let (value, origin, place) =
        from_environment(key, env).or_else(|| from_files(key, read)).unwrap_or_else(|| {
            (absent(key, host), if key.absent == Absent::Host { Origin::Host } else { Origin::Default }, None)
        });
    Shown { key: key.name, value, origin, place, about: key.about }
}

fn from_environment(
    key: &Key,
    env: impl Fn(&str) -> Option<String>,
) -> Option<(Value, Origin, Option<String>)> {
    let (_, variable) = VARIABLES.iter().find(|(name, _)| *name == key.name)?;
    let value = env(variable).filter(|value| !value.is_empty())?;
    Some((value.into(), Origin::Environment, Some((*variable).to_owned())))
}

/// The last file that says it; of a table of tables, all that all of them say.
fn from_files(key: &Key, read: &Read) -> Option<(Value, Origin, Option<String>)> {
    let mut found: Option<(Value, Option<String>)> = None;
    for layer in &read.layers {
        let Some(value) = get(&layer.document.values, key.name) else { continue };
        // Numbers, texts, lists and tables of them, all of which JSON has.
        let value = serde_json::to_value(value).unwrap_or_default();
        let line = layer.document.place(key.name).map_or(String::new(), |(line, _)| format!(":{line}"));
        let place = format!("{}{line}", layer.path.display());
        found = Some(match (found, value) {
            (Some((Value::Object(mut under), before)), Value::Object(over)) => {
                under.extend(over);
                let before = before.map_or(String::new(), |before| format!("{before}, "));
                (Value::Object(under), Some(format!("{before}{place}")))
            }
            (_, value) => (value, Some(place)),
        });
    }
    found.map(|(value, place)| (value, Origin::File, place))
}

fn absent(key: &Key, host: Option<&Host>) -> Value {
    match key.absent {
        Absent::Without(_) => Value::Null,
        Absent::Is(text) => {
            let table = format!("x = {text}").parse::<toml::Table>().unwrap_or_default();
            serde_json::to_value(table.get("x")).unwrap_or_default()
        }
        Absent::Host => {
            let spec = host.and_then(|host| Wish::default().settle(host, Mib(0)).ok());
            spec.map_or(Value::Null, |spec| match key.name {
                "vm_defaults.vcpu" => spec.vcpu.into(),
                "vm_defaults.memory" => format!("{}M", spec.memory.0).into(),
                _ => format!("{}M", spec.disk.0).into(),
            })
        }
    }
}

fn get<'a>(values: &'a toml::Table, name: &str) -> Option<&'a toml::Value> {
    match name.split_once('.') {
        Some((section, leaf)) => values.get(section)?.as_table()?.get(leaf),
        None => values.get(name),
    }
}

/// What a person is shown of it.
pub fn words(shown: &Shown) -> String {
    match (&shown.value, crate::config::keys::find(shown.key).map(|key| key.absent)) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, Some(Absent::Without(what))) => format!("({what})"),
        (Value::Null, _) => "(not known)".to_owned(),
        (other, _) => other.to_string(),
    }
}

/// Where a person is told that it comes from.
pub fn origin(shown: &Shown) -> String {
    match (shown.origin, &shown.place) {
        (_, Some(place)) => place.clone(),
        (Origin::Host, None) => "this host".to_owned(),
        (_, None) => "default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Places, read};

    fn shown_of(roots: &str, own: &str, env: &[(&str, &str)]) -> Vec<(&'static str, String, String)> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("root.toml"), roots).expect("writes");
        std::fs::write(path("own.toml"), own).expect("writes");
        let places = Places { roots: Some(path("root.toml")), own: path("own.toml"), home: None };
        let read = read(&places).expect("a configuration");
        let host = Host { cpus: 8, memory: Mib(32_768), disk: Mib(100_000) };
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let below = |place: String| place.replace(&format!("{}/", dir.path().display()), "");
        shown(&read, env, Some(&host)).iter().map(|s| (s.key, words(s), below(origin(s)))).collect()
    }

    #[test]
    fn every_key_is_shown_with_where_it_comes_from() {
        let roots = "dns_suffix = 'test'\n[vm_defaults]\nvcpu = 2\nmemory = 512\n[registries.'a.io']\ninsecure = true\n";
        let own = "catalog_urls = ['https://example.org/c.json']\n[vm_defaults]\nmemory = '1G'\nvmm = 'qemu'\n\
                   [registries.'b.io']\nmirrors = ['https://mirror.example']\n";
        let all = shown_of(roots, own, &[("BANGER_VMM", "firecracker"), ("BANGER_ACCEL", "")]);
        assert_eq!(all.len(), KEYS.len());
        let has = |key: &str, value: &str, origin: &str| {
            let found = all.iter().find(|(name, ..)| *name == key).expect(key);
            assert_eq!((found.1.as_str(), found.2.as_str()), (value, origin), "{key}");
        };
        has("dns_suffix", "test", "root.toml:1");
        has("dns_port", "42069", "default");
        has("auto_stop_stale_after", "(off)", "default");
        has("vm_defaults.vcpu", "2", "root.toml:3");
        has("vm_defaults.memory", "1G", "own.toml:3");
        has("vm_defaults.disk_size", "8192M", "this host");
        has("vm_defaults.vmm", "firecracker", "BANGER_VMM");
        has("vm_defaults.accel", "auto", "default");
        has("catalog_urls", "[\"https://example.org/c.json\"]", "own.toml:1");
        has(
            "registries",
            "{\"a.io\":{\"insecure\":true},\"b.io\":{\"mirrors\":[\"https://mirror.example\"]}}",
            "root.toml:5, own.toml:5",
        );
    }
}
