//! The configuration's form as a JSON Schema.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::comments::{Comment, description, join};
use super::form::{Form, Key};
use super::texts;
use crate::config::units::parse_size;
use crate::config::yaml::{self, YamlNode, YamlValue};

pub(super) fn document(root: &'static Form, comments: &HashMap<String, Comment>) -> Value {
    let mut schema = section(root.keys(), "", comments);
    // The dialect that editors understand best.
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("The configuration of Callgate");
    schema["definitions"] = json!({
        "duration": { "type": "string", "pattern": texts::DURATION },
        "size": { "type": "string", "pattern": texts::SIZE },
        "variable": { "type": "string", "pattern": "\\$\\{" },
    });
    schema
}

fn section(keys: &'static [Key], path: &str, comments: &HashMap<String, Comment>) -> Value {
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let properties = keys.iter().map(|key| {
        let path = join(path, "", key.name);
        let mut schema = any_of(key.form, &path, comments);
        let comment = comments.get(&path);
        if let Some(text) = description(key, comment) {
            schema["description"] = json!(text);
        }
        if let Some(default) = comment.and_then(|comment| comment.default.as_deref()) {
            schema["default"] = yaml::parse(default, 1_000).map_or(Value::Null, |node| value(&node));
        }
        (key.name.to_owned(), schema)
    });
    let properties: Map<String, Value> = properties.collect();
    // An empty section is one without keys.
    let kind = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    json!({ "type": kind, "properties": properties, "required": required, "additionalProperties": false })
}

fn any_of(form: &'static Form, path: &str, comments: &HashMap<String, Comment>) -> Value {
    let mut forms = Vec::new();
    add(form, path, comments, &mut forms);
    if takes_variable(form) {
        forms.push(json!({ "$ref": "#/definitions/variable" }));
    }
    if forms.len() == 1 { forms.remove(0) } else { json!({ "anyOf": forms }) }
}

/// Whether the value may come from a variable, and no form of it takes any text.
fn takes_variable(form: &Form) -> bool {
    match form {
        Form::Text(_) | Form::List(..) | Form::Named(..) | Form::Section(_) => false,
        Form::OneOrList(of, _) => takes_variable(of),
        Form::Either(forms) => {
            !forms.iter().any(|form| matches!(form, Form::Text(_))) && forms.iter().any(|form| takes_variable(form))
        }
        Form::Flag
        | Form::Number(..)
        | Form::Duration(..)
        | Form::Size(..)
        | Form::Percent
        | Form::Share
        | Form::Fraction
        | Form::Words(_)
        | Form::Name(..)
        | Form::Pattern(..) => true,
    }
}

fn add(form: &'static Form, path: &str, comments: &HashMap<String, Comment>, forms: &mut Vec<Value>) {
    let list = |of, least: usize| {
        let items = any_of(of, &format!("{path}[]"), comments);
        let kind = if least == 0 { json!(["array", "null"]) } else { json!("array") };
        json!({ "type": kind, "items": items, "minItems": least })
    };
    match form {
        Form::Flag => forms.push(json!({ "type": "boolean" })),
        Form::Number(least, most) => forms.push(json!({ "type": "integer", "minimum": least, "maximum": most })),
        Form::Duration(least, _) => {
            forms.push(json!({ "$ref": "#/definitions/duration" }));
            if *least == "0s" {
                forms.push(json!({ "const": 0 }));
            }
        }
        Form::Size(least, most) => {
            let [least, most] = [least, most].map(|size| parse_size(size).unwrap_or_default());
            forms.push(json!({ "type": "integer", "minimum": least, "maximum": most }));
            forms.push(json!({ "$ref": "#/definitions/size" }));
        }
        Form::Percent => forms.push(pattern(texts::PERCENT)),
        Form::Fraction => forms.push(json!({ "type": "number", "minimum": 0, "maximum": 1 })),
        Form::Share => forms.push(pattern(texts::SHARE)),
        Form::Words(words) => {
            forms.push(json!({ "enum": words.iter().flat_map(|word| spellings(word)).collect::<Vec<_>>() }))
        }
        Form::Name(most, set) => forms.push(pattern(&format!("^[{}]{{1,{most}}}$", class(set)))),
        Form::Text(_) => forms.push(json!({ "type": "string", "minLength": 1 })),
        Form::Pattern(_, regex) => forms.push(pattern(regex)),
        Form::List(of, least) => forms.push(list(of, *least)),
        Form::OneOrList(of, least) => {
            add(of, path, comments, forms);
            forms.push(list(of, *least));
        }
        Form::Named(name, of, least) => {
            let mut names = Vec::new();
            add(name, path, comments, &mut names);
            let values = any_of(of, &join(path, "", "*"), comments);
            let kind = if *least == 0 { json!(["object", "null"]) } else { json!("object") };
            forms.push(json!({
                "type": kind, "propertyNames": names.remove(0), "additionalProperties": values, "minProperties": least,
            }));
        }
        Form::Section(keys) => forms.push(section(keys, path, comments)),
        Form::Either(either) => either.iter().for_each(|form| add(form, path, comments, forms)),
    }
}

fn pattern(regex: &str) -> Value {
    json!({ "type": "string", "pattern": regex })
}

/// A word, also as the number or truth value that it is without quotes.
fn spellings(word: &str) -> Vec<Value> {
    let bare = serde_json::from_str::<Value>(word).ok().filter(|value| value.is_number() || value.is_boolean());
    std::iter::once(json!(word)).chain(bare).collect()
}

/// A set such as `A-Z a-z _ . -` as the inside of a character class.
fn class(set: &str) -> String {
    let escaped = |part: &str| match part {
        "\\" | "]" | "[" | "^" | "-" => format!("\\{part}"),
        part => part.to_owned(),
    };
    set.split(' ').map(escaped).collect()
}

/// A value of the shipped file.
fn value(node: &YamlNode) -> Value {
    match &node.value {
        YamlValue::Null => Value::Null,
        YamlValue::Bool(value) => json!(value),
        YamlValue::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        YamlValue::Text(text) => json!(text),
        YamlValue::List(items) => items.iter().map(value).collect(),
        YamlValue::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), value(&entry.node))).collect())
        }
    }
}
