//! The JSON Schema and the reference: complete, true, and as committed.

mod validation;

use serde_json::{Map, Value};

use super::shipped::{known_keys, switched_on};
use super::*;

fn schema() -> Value {
    serde_json::from_str(&config::schema()).unwrap()
}

/// All keys of a schema, as `known_keys` names them.
fn keys(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        keys(form, path, found);
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        keys(below, &format!("{path}."), found);
        found.insert(path);
    }
    if schema["items"].is_object() {
        keys(&schema["items"], &format!("{}[].", path.trim_end_matches('.')), found);
    }
    if schema["additionalProperties"].is_object() {
        keys(&schema["additionalProperties"], &format!("{path}*."), found);
    }
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let mut found = BTreeSet::new();
    keys(&schema(), "", &mut found);
    let known = known_keys();
    let missing: Vec<_> = known.difference(&found).collect();
    assert!(
        missing.is_empty(),
        "the compiler reads keys that the schema lacks: {missing:?}\nadd each to the section it is in, in \
         src/config/schema/: `key(\"NAME\", &FORM)`, and to config/callgate.yaml with a comment"
    );
    let invented: Vec<_> = found.difference(&known).collect();
    assert!(invented.is_empty(), "remove from src/config/schema/ what the compiler does not read: {invented:?}");
}

#[test]
fn every_key_is_described() {
    fn walk(schema: &Value, path: &str, silent: &mut Vec<String>) {
        let inner = ["anyOf", "items", "additionalProperties"].into_iter().flat_map(|key| match &schema[key] {
            Value::Array(forms) => forms.iter().collect(),
            Value::Object(_) => vec![&schema[key]],
            _ => Vec::new(),
        });
        inner.for_each(|below| walk(below, path, silent));
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if below["description"].is_null() {
                silent.push(path.clone());
            }
            walk(below, &path, silent);
        }
    }
    let mut silent = Vec::new();
    walk(&schema(), "", &mut silent);
    assert!(
        silent.is_empty(),
        "nothing says what these keys mean: {silent:?}\nwrite a comment above them in config/callgate.yaml, or \
         `.says(\"…\")` in src/config/schema/"
    );
}

#[test]
fn the_committed_schema_and_reference_are_what_the_program_prints() {
    for (path, text) in
        [("config/callgate.schema.json", config::schema()), ("docs/reference/configuration.md", config::reference())]
    {
        if std::env::var_os(REWRITE).is_some() {
            fs::write(path, &text).unwrap();
        }
        let committed = fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text,
            "{path} is out of date: run this test with {REWRITE}=1, and look at the difference before you keep it"
        );
    }
}

#[test]
fn shipped_files_name_the_schema() {
    for (file, schema) in [
        ("config/callgate.yaml", "callgate.schema.json"),
        ("config/minimal.yaml", "callgate.schema.json"),
        ("deploy/compose/callgate.yaml", "../../config/callgate.schema.json"),
    ] {
        let text = fs::read_to_string(file).unwrap();
        let line = format!("# yaml-language-server: $schema={schema}\n");
        assert!(text.starts_with(&line), "{file} must begin with {line}");
        assert!(Path::new(file).parent().unwrap().join(schema).is_file());
    }
}

/// The value of a text of YAML 1.2; `None` if it is none.
fn document(text: &str) -> Option<Value> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { strict_booleans: true }).ok()
}

/// The defaults in a schema, by the paths of their keys.
fn defaults(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        defaults(form, path, found);
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        if let Some(default) = below.get("default") {
            found.push((path.clone(), default.clone()));
        }
        defaults(below, &format!("{path}."), found);
    }
    if schema["items"].is_object() {
        defaults(&schema["items"], &format!("{}[].", path.trim_end_matches('.')), found);
    }
    if schema["additionalProperties"].is_object() {
        defaults(&schema["additionalProperties"], &format!("{path}*."), found);
    }
}

/// The section of a key in a document: in lists the first item, and of names the one with most keys.
fn section<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Map<String, Value>, String)> {
    let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut value = document;
    for step in above.split('.').filter(|step| !step.is_empty()) {
        value = match step.strip_suffix("[]") {
            Some(list) => value.get_mut(list)?.get_mut(0)?,
            None if step == "*" => {
                let count = |value: &&mut Value| value.as_object().map_or(0, Map::len);
                value.as_object_mut()?.values_mut().max_by_key(count)?
            }
            None => value.get_mut(step)?,
        };
    }
    Some((value.as_object_mut()?, key.to_owned()))
}

/// JSON is YAML.
fn meaning(document: &Value) -> String {
    match parse(&document.to_string()) {
        Ok(loaded) => debug_text(&loaded.config),
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn defaults_are_true() {
    let mut found = Vec::new();
    defaults(&schema(), "", &mut found);
    let files = [document(SHIPPED).unwrap(), document(&switched_on()).unwrap()];
    for (path, default) in &found {
        let has = |file: &&Value| section(&mut (*file).clone(), path).is_some_and(|(map, key)| map.contains_key(&key));
        let mut given = files.iter().find(has).unwrap_or_else(|| panic!("{path} is in no file")).clone();
        let mut absent = given.clone();
        let (map, key) = section(&mut given, path).unwrap();
        map.insert(key, default.clone());
        let (map, key) = section(&mut absent, path).unwrap();
        map.remove(&key);
        assert!(
            meaning(&given) == meaning(&absent),
            "{default} is not the default of {path}: correct the line in config/callgate.yaml, write \"Off:\" into its \
             comment if it has no default, or mark the key as `.example()` in src/config/schema/"
        );
    }
    assert!(found.len() > 100, "only {} keys have a default", found.len());
}
