//! A file of the configuration: its values, and where each of them is.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    pub values: toml::Table,
    /// Line and column of each key, by its name with dots, from 1.
    places: BTreeMap<String, (usize, usize)>,
}

/// The text is no TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadText {
    pub at: Option<(usize, usize)>,
    pub why: String,
}

impl Document {
    pub fn parse(text: &str) -> Result<Self, BadText> {
        let bad = |e: toml::de::Error| BadText {
            at: e.span().map(|span| place(text, span.start)),
            // One line: it is the last of a log, or one among others.
            why: e.message().replace('\n', " "),
        };
        let spanned = DeTable::parse(text).map_err(bad)?;
        let mut places = BTreeMap::new();
        locate(text, "", spanned.get_ref(), &mut places);
        Ok(Self { values: text.parse().map_err(bad)?, places })
    }

    pub fn place(&self, name: &str) -> Option<(usize, usize)> {
        self.places.get(name).copied()
    }

    /// Gives the key `from` of a section the name `to` of the same section.
    ///
    /// # Errors
    /// A sentence, where both are there.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), String> {
        let (Some((section, old)), Some((_, new))) = (from.split_once('.'), to.split_once('.')) else {
            return Ok(());
        };
        let Some(toml::Value::Table(inner)) = self.values.get_mut(section) else { return Ok(()) };
        let Some(value) = inner.remove(old) else { return Ok(()) };
        if inner.contains_key(new) {
            return Err(format!("{old} is another name of {new}, which is there too; leave one of them out"));
        }
        inner.insert(new.to_owned(), value);
        self.places.extend(self.place(from).map(|place| (to.to_owned(), place)));
        Ok(())
    }
}

fn locate(text: &str, within: &str, table: &DeTable<'_>, places: &mut BTreeMap<String, (usize, usize)>) {
    for (key, value) in table {
        let name = joined(within, key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            locate(text, &name, inner, places);
        }
        places.insert(name, place(text, key.span().start));
    }
}

/// `section.leaf`.
pub fn joined(within: &str, leaf: &str) -> String {
    if within.is_empty() { leaf.to_owned() } else { format!("{within}.{leaf}") }
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_where_it_is() {
        let text = "a = 1\n\n[vm_defaults]\n  vcpu = 2\nmemory = '1G' # ü\n[registries.'docker.io']\ninsecure = true\n";
        let file = Document::parse(text).expect("TOML");
        let table = [
            ("a", (1, 1)),
            ("vm_defaults", (3, 2)),
            ("vm_defaults.vcpu", (4, 3)),
            ("vm_defaults.memory", (5, 1)),
            ("registries.docker.io.insecure", (7, 1)),
        ];
        for (name, want) in table {
            assert_eq!(file.place(name), Some(want), "{name}");
        }
        assert_eq!(file.values["vm_defaults"]["vcpu"].as_integer(), Some(2));
    }

    #[test]
    fn what_is_no_toml_is_one_line_with_its_place() {
        for (text, at) in
            [("x = 1\ndns_port 5", (2, 10)), ("[a", (1, 3)), ("'ü' = ", (1, 7)), ("a = 1\na = 2", (2, 1))]
        {
            let bad = Document::parse(text).expect_err(text);
            assert_eq!(bad.at, Some(at), "{text}: {bad:?}");
            assert!(!bad.why.contains('\n'), "{bad:?}");
        }
    }
}
