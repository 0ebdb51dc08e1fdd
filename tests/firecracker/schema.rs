//! As much of OpenAPI 2.0 as firecracker.yaml uses: types, required and unknown properties, enumerations, bounds, references.

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

const TEXT: &str = include_str!("firecracker.yaml");

pub struct Schema(Yaml<'static>);

impl Schema {
    pub fn read() -> Self {
        let mut documents = Yaml::load_from_str(TEXT).expect("firecracker.yaml is YAML");
        assert_eq!(documents.len(), 1);
        Self(documents.remove(0))
    }

    /// The definition of the body that `method` on `path` takes; None if it takes none. Panics if there is no such request.
    pub fn body_of(&self, method: &str, path: &str) -> Option<&str> {
        let paths = get(&self.0, "paths").expect("paths");
        let request = get(paths, path).and_then(|p| get(p, &method.to_lowercase()));
        let request = request.unwrap_or_else(|| panic!("{method} {path} is not described"));
        let parameters = get(request, "parameters").and_then(Yaml::as_sequence)?;
        let body = parameters.iter().find(|p| get(p, "in").and_then(Yaml::as_str) == Some("body"))?;
        get(body, "schema").map(reference)
    }

    /// What is wrong with `value` as a `definition`; a sentence each.
    pub fn faults(&self, definition: &str, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(self.definition(definition), value, definition, &mut faults);
        faults
    }

    fn definition(&self, name: &str) -> &Yaml<'static> {
        let definitions = get(&self.0, "definitions").expect("definitions");
        get(definitions, name).unwrap_or_else(|| panic!("{name} is not defined"))
    }

    fn check(&self, schema: &Yaml<'static>, value: &Value, place: &str, faults: &mut Vec<String>) {
        if get(schema, "$ref").is_some() {
            return self.check(self.definition(reference(schema)), value, place, faults);
        }
        let kind = get(schema, "type").and_then(Yaml::as_str).expect("every schema has a type");
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            other => panic!("the type {other} is not known here"),
        };
        if !fits {
            return faults.push(format!("{place} is no {kind}"));
        }
        self.check_object(schema, value, place, faults);
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            let items = get(schema, "items").expect("every array has items");
            self.check(items, item, &format!("{place}[{i}]"), faults);
        }
        if let (Some(words), Some(word)) = (get(schema, "enum").and_then(Yaml::as_sequence), value.as_str())
            && !words.iter().any(|w| w.as_str() == Some(word))
        {
            faults.push(format!("{place} is none of {words:?}"));
        }
        let bound = |name| get(schema, name).and_then(Yaml::as_integer);
        if let (Some(least), Some(n)) = (bound("minimum"), value.as_i64())
            && n < least
        {
            faults.push(format!("{place} is below {least}"));
        }
        if let (Some(most), Some(n)) = (bound("maximum"), value.as_i64())
            && n > most
        {
            faults.push(format!("{place} is above {most}"));
        }
    }

    fn check_object(&self, schema: &Yaml<'static>, value: &Value, place: &str, faults: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return };
        for required in get(schema, "required").and_then(Yaml::as_sequence).into_iter().flatten() {
            let name = required.as_str().expect("a name");
            if !object.contains_key(name) {
                faults.push(format!("{place}.{name} is missing"));
            }
        }
        for (name, value) in object {
            match get(schema, "properties").and_then(|properties| get(properties, name)) {
                Some(property) => self.check(property, value, &format!("{place}.{name}"), faults),
                None => faults.push(format!("{place}.{name} is unknown")),
            }
        }
    }
}

fn get<'a>(yaml: &'a Yaml<'static>, key: &str) -> Option<&'a Yaml<'static>> {
    yaml.as_mapping_get(key)
}

/// `#/definitions/Name` of a schema that is a reference.
fn reference<'a>(schema: &'a Yaml<'static>) -> &'a str {
    let text = get(schema, "$ref").and_then(Yaml::as_str).expect("a reference");
    text.strip_prefix("#/definitions/").expect("a reference into the definitions")
}
