//! `[registries]` in config.toml: a table for each registry, with its mirrors and whether it is insecure.

use serde::Deserialize;

use crate::oci::registries::{Registries, Terms};
use crate::vm::lookup::nearest;

const KEYS: [&str; 2] = ["mirrors", "insecure"];

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    insecure: bool,
}

/// Parses the value of the key `registries`.
///
/// # Errors
/// A sentence that says which registry and what of it.
pub fn parse(value: toml::Value) -> Result<Registries, String> {
    let toml::Value::Table(table) = value else {
        return Err(
            "registries: it holds a table for each registry, such as [registries.\"docker.io\"]".to_owned()
        );
    };
    let mut registries = Registries::default();
    for (name, value) in table {
        let within = |why: String| format!("registries.{name:?}: {why}");
        if let toml::Value::Table(keys) = &value {
            refuse_unknown(keys, &KEYS).map_err(within)?;
        }
        let raw: Raw = value.try_into().map_err(|e: toml::de::Error| within(e.message().to_owned()))?;
        let mirrors = raw.mirrors.iter().map(|url| url.parse()).collect::<Result<_, _>>();
        let terms = Terms { mirrors: mirrors.map_err(|e| within(format!("{e}")))?, insecure: raw.insecure };
        registries.add(&name, terms).map_err(|e| format!("registries: {e}"))?;
    }
    Ok(registries)
}

/// Names the first key that is not known, and the nearest one that is.
fn refuse_unknown(table: &toml::Table, known: &[&str]) -> Result<(), String> {
    let Some(key) = table.keys().find(|k| !known.contains(&k.as_str())) else { return Ok(()) };
    Err(match nearest(key, known.iter().copied()) {
        Some(near) => format!("there is no key {key:?}; did you mean {near}?"),
        None => format!("there is no key {key:?}; there are {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Registries, String> {
        parse(text.parse::<toml::Table>().expect("TOML").remove("registries").expect("the key"))
    }

    #[test]
    fn mirrors_keep_their_order_and_registries_their_names() {
        let text = r#"
            [registries."docker.io"]
            mirrors = ["https://mirror.example", "http://127.0.0.1:5001"]
            [registries."192.168.0.5:5000"]
            insecure = true"#;
        let registries = read(text).expect("parses");
        let mirrors: Vec<String> = registries.mirrors("docker.io").iter().map(|m| m.to_string()).collect();
        assert_eq!(mirrors, ["https://mirror.example", "http://127.0.0.1:5001"]);
        assert!(registries.is_insecure("192.168.0.5:5000") && !registries.is_insecure("docker.io"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_registry() {
        let table = [
            ("registries = 5", "registries: it holds a table"),
            ("registries.'ghcr.io' = 5", "registries.\"ghcr.io\": invalid type"),
            ("registries.'ghcr.io'.mirror = []", "there is no key \"mirror\"; did you mean mirrors?"),
            ("registries.'ghcr.io'.mirrors = ['ghcr']", "registries.\"ghcr.io\": \"ghcr\" is no mirror"),
            ("registries.'ghcr.io'.insecure = 'yes'", "registries.\"ghcr.io\": invalid type"),
            (
                "registries.'https://ghcr.io'.insecure = true",
                "registries: \"https://ghcr.io\" is no registry",
            ),
        ];
        for (text, want) in table {
            let error = read(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
