//! The configuration's form as a page for people.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::comments::{Comment, description, join};
use super::form::{Form, Key};
use crate::config::changes::NEEDS_RESTART;

const HEAD: &str = "\
# Configuration

Every key of the configuration file. [config/callgate.yaml](../../config/callgate.yaml) shows them
in place, with comments. `callgate check FILE` reports everything that is wrong with a file, and
`callgate schema` prints the JSON Schema by which editors complete and check keys.

- `[]` in a path is an item of a list, `NAME` a name of your choice.
- A default of *off* means that the key has no value until you set one; its meaning says what
  applies until then.
- A running instance applies changes when the file changes. Those marked *restart* need a restart.
- Durations have a unit: `50ms`, `10s`, `4h`, `1h30m`. Sizes are bytes, or have a unit: `65536`,
  `64KiB`, `1MB`.
- `${VAR}` and `${VAR:-default}` in a text are replaced by environment variables.

The program makes this page (`callgate schema --markdown`), and tests compare it with what it reads.
";

pub(super) fn page(root: &'static Form, comments: &HashMap<String, Comment>) -> String {
    let mut page = HEAD.to_owned();
    section(&mut page, root, "", comments);
    page
}

/// A table of the keys of a section, and further ones for the sections in it.
fn section(page: &mut String, form: &'static Form, path: &str, comments: &HashMap<String, Comment>) {
    if !form.keys().is_empty() {
        let path = format!("{path}{}", form.suffix());
        let title = if path.is_empty() { "The file".to_owned() } else { format!("`{}`", shown(&path)) };
        let _ = write!(page, "\n## {title}\n\n");
        page.push_str("| Key | Type | Default | Change | Meaning |\n| --- | --- | --- | --- | --- |\n");
        for key in form.keys() {
            row(page, key, &join(&path, "", key.name), comments);
        }
        for key in form.keys() {
            section(page, key.form, &join(&path, "", key.name), comments);
        }
    }
    if let Some(of) = form.named() {
        section(page, of, &join(path, "", "*"), comments);
    }
}

fn row(page: &mut String, key: &'static Key, path: &str, comments: &HashMap<String, Comment>) {
    let comment = comments.get(path);
    let default = match comment.and_then(|comment| comment.default.as_deref()) {
        Some(default) => format!("`{}`", default.replace('|', "\\|")),
        None if key.required => "required".to_owned(),
        None if matches!(key.form, Form::Section(_)) => "–".to_owned(),
        None => "off".to_owned(),
    };
    let is_fixed = NEEDS_RESTART
        .iter()
        .any(|(fixed, _)| path.strip_prefix(fixed).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])));
    let change = if is_fixed { "restart" } else { "reload" };
    let meaning = description(key, comment).unwrap_or_default();
    let cells = [format!("`{}`", key.name), kind(key.form), default, change.to_owned(), escaped(meaning)];
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// A type and its range.
fn kind(form: &Form) -> String {
    match form {
        Form::Flag => "`true` or `false`".to_owned(),
        Form::Number(least, most) => format!("number, {least} to {most}"),
        Form::Duration(least, most) => format!("duration, {least} to {most}"),
        Form::Size(least, most) => format!("size, {least} to {most}"),
        Form::Percent | Form::Share => "share, 0% to 100%".to_owned(),
        Form::Fraction => "number, 0 to 1".to_owned(),
        Form::Words(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Form::Name(most, set) => format!("text, 1 to {most} of `{}`", set.replace('`', "").replace('|', "\\|")),
        Form::Text(what) | Form::Pattern(what, _) => escaped(what),
        Form::List(of, _) => format!("list: {}", kind(of)),
        Form::OneOrList(of, _) => format!("one or a list: {}", kind(of)),
        Form::Named(_, of, _) => format!("map of names: {}", kind(of)),
        Form::Section(_) => "map".to_owned(),
        Form::Either(forms) => forms.iter().map(|form| kind(form)).collect::<Vec<_>>().join(", or "),
    }
}

fn shown(path: &str) -> String {
    path.replace('*', "NAME")
}

/// Text in a cell of a table: outside code, stars and angle brackets stand for themselves.
fn escaped(text: &str) -> String {
    let part = |(index, part): (usize, &str)| {
        let part = part.replace('|', "\\|");
        if index % 2 == 1 { part } else { part.replace('*', "\\*").replace('<', "\\<") }
    };
    text.split('`').enumerate().map(part).collect::<Vec<_>>().join("`")
}
