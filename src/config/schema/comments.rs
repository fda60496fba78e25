//! What `config/callgate.yaml` says of each key: its description and its default.

use std::collections::HashMap;

use super::form::{Form, Key};

/// The file that shows every key.
const SHIPPED: &str = include_str!("../../../config/callgate.yaml");

/// What the file says of a key.
#[derive(Default)]
pub(super) struct Comment {
    /// Empty, if no comment belongs to it.
    pub(super) text: String,
    /// As it is written there.
    pub(super) default: Option<String>,
}

/// A key under which further ones are.
struct Level {
    column: usize,
    path: String,
    form: &'static Form,
}

/// By path: `[]` for an item of a list, `*` for a name of the operator's choice.
pub(super) fn comments(root: &'static Form) -> HashMap<String, Comment> {
    let mut found: HashMap<String, Comment> = HashMap::new();
    let mut levels: Vec<Level> = Vec::new();
    // The comment that has begun, and the one that belongs to the last key and those behind it that have none.
    let (mut begun, mut last) = (Vec::new(), String::new());
    for line in SHIPPED.lines() {
        let code = Code::of(line);
        let Some((name, value)) = code.key() else {
            match code.text {
                "" if !code.is_comment => (begun, last) = (Vec::new(), String::new()),
                text if code.is_comment => begun.push(text),
                _ => begun.clear(),
            }
            continue;
        };
        let above = levels.iter().rposition(|level| level.column < code.column);
        let (path, form) = above.map_or(("", root), |index| (&*levels[index].path, levels[index].form));
        let Some((path, key, form)) = below(path, form, name) else {
            if code.is_comment {
                begun.push(code.text);
            }
            continue;
        };
        levels.truncate(above.map_or(0, |index| index + 1));
        levels.push(Level { column: code.column, path: path.clone(), form });
        let Some(key) = key else { continue };
        if !begun.is_empty() {
            last = begun.join(" ");
            begun.clear();
        }
        let comment = found.entry(path).or_insert_with(|| Comment { text: sentence(&last), default: None });
        let is_default = !value.is_empty() && !value.contains("# Example") && !key.required && !key.example;
        let is_off = code.is_comment && (code.is_prose || last.contains("Off:"));
        if is_default && !is_off && comment.default.is_none() {
            comment.default = Some(value.split(" #").next().unwrap_or(value).to_owned());
        }
    }
    found
}

/// A key under `path`, whose value has `form`: its path, what is known of it (nothing, if the operator chooses it), and its form.
fn below(path: &str, form: &'static Form, name: &str) -> Option<(String, Option<&'static Key>, &'static Form)> {
    if let Some(key) = form.keys().iter().find(|key| key.name == name) {
        return Some((join(path, form.suffix(), name), Some(key), key.form));
    }
    form.named().map(|of| (join(path, "", "*"), None, of))
}

/// What a key means.
pub(super) fn description<'a>(key: &Key, comment: Option<&'a Comment>) -> Option<&'a str> {
    key.description.or(comment.map(|comment| &*comment.text)).filter(|text| !text.is_empty())
}

/// The path of a key.
pub(super) fn join(path: &str, suffix: &str, name: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{suffix}{dot}{name}")
}

/// A comment that leads to an example ends as a sentence.
fn sentence(text: &str) -> String {
    text.strip_suffix(':').map_or_else(|| text.to_owned(), |text| format!("{text}."))
}

/// A line without what makes it a comment.
struct Code<'a> {
    text: &'a str,
    /// That of the text.
    column: usize,
    is_comment: bool,
    /// A comment for people, in which a key may be shown, and not just a key that is off.
    is_prose: bool,
}

impl<'a> Code<'a> {
    fn of(line: &'a str) -> Self {
        let mut text = line.trim_start();
        let mut column = line.len() - text.len();
        let (mut is_comment, mut is_prose) = (false, false);
        while let Some(rest) = text.strip_prefix('#') {
            is_comment = true;
            is_prose |= rest.starts_with(' ');
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            text = rest.trim_start();
            column += rest.len() - text.len();
        }
        if let Some(item) = text.strip_prefix("- ") {
            text = item;
            column += 2;
        }
        Self { text: text.trim_end(), column, is_comment, is_prose }
    }

    /// A key and its value, if this looks like one.
    fn key(&self) -> Option<(&'a str, &'a str)> {
        let (name, value) = self.text.split_once(':')?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b));
        (is_name && (value.is_empty() || value.starts_with(' '))).then_some((name, value.trim()))
    }
}
