//! The form of the configuration file, as a JSON Schema for editors and as a page for people. What the compiler reads is in
//! `keys.rs`; descriptions and defaults come from `config/callgate.yaml`.

mod comments;
mod form;
mod json;
mod keys;
mod markdown;
mod routes;
mod texts;
mod upstreams;

use comments::comments;
use keys::FILE_FORM;

/// The JSON Schema (draft 7) of the configuration file, with a line break at its end.
pub fn schema() -> String {
    format!("{:#}\n", json::document(&FILE_FORM, &comments(&FILE_FORM)))
}

/// The reference of the configuration in Markdown.
pub fn reference() -> String {
    markdown::page(&FILE_FORM, &comments(&FILE_FORM))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::form::Form;
    use super::*;
    use crate::config::units::{format_size, parse_size};

    /// Keys about which the compiler says something else: names must be of something that exists, or the text has another form
    /// as well; the range of `max_calls` depends on another key.
    const SAID_OTHERWISE: [&str; 8] = [
        "listen.admin.mode",
        "listen.admin.group",
        "default_plan",
        "routes[0].upstream",
        "routes[0].mirror.upstream",
        "upstreams.*.balance",
        "upstreams.*.health.status[0]",
        "upstreams.*.max_calls",
    ];

    /// All forms of keys, with the paths of the keys and a YAML text in which `X` is the value.
    fn walk(form: &'static Form, path: &str, text: &str, found: &mut Vec<(String, String, &'static Form)>) {
        match form {
            Form::Section(keys) => {
                for key in *keys {
                    let (path, text) =
                        (comments::join(path, "", key.name), text.replace('X', &format!("{{ {}: X }}", key.name)));
                    walk(key.form, &path, &text, found);
                }
            }
            Form::List(of, _) | Form::OneOrList(of, _) => {
                walk(of, &format!("{path}[0]"), &text.replace('X', "[X]"), found)
            }
            Form::Named(_, of, _) => walk(of, &comments::join(path, "", "*"), &text.replace('X', "{ a: X }"), found),
            Form::Either(forms) => forms.iter().for_each(|form| walk(form, path, text, found)),
            _ => found.push((path.to_owned(), text.to_owned(), form)),
        }
    }

    /// A value that the form refuses, and how the compiler has to name what it wants.
    fn refused(form: &Form) -> Option<(&'static str, String)> {
        match form {
            Form::Flag => Some(("[]", "true or false".to_owned())),
            Form::Number(least, most) => Some(("wrong", format!("a whole number from {least} to {most}"))),
            Form::Duration(least, most) => Some(("999999d", format!("from {least} to {most}"))),
            Form::Size(least, most) => {
                let [least, most] = [least, most].map(|size| format_size(parse_size(size).unwrap()));
                Some(("9999999TiB", format!("from {least} to {most}")))
            }
            Form::Percent | Form::Share => Some(("wrong", "a share from 0% to 100%".to_owned())),
            Form::Fraction => Some(("wrong", "a number from 0 to 1".to_owned())),
            Form::Name(most, set) => Some(("\"\\t\"", format!("1 to {most} characters out of {set}"))),
            Form::Words(words) if words.len() > 2 => Some(("zzzz", format!("one of {}", words.join(", ")))),
            Form::Words(words) if words.len() == 2 => Some(("zzzz", words.join(" or "))),
            _ => None,
        }
    }

    #[test]
    fn forms_are_those_of_the_compiler() {
        let mut forms = Vec::new();
        walk(&FILE_FORM, "", "X", &mut forms);
        let mut compared = 0;
        let mut wrong = Vec::new();
        for (path, text, form) in forms {
            let Some((value, expected)) = refused(form).filter(|_| !SAID_OTHERWISE.contains(&&*path)) else { continue };
            let shown = path.replace('*', "a");
            let problems = crate::config::parse(Path::new("f.yaml"), &text.replace('X', value), &|_| None).unwrap_err();
            let said: Vec<_> = problems.0.iter().filter(|problem| problem.path == shown).map(|p| &*p.message).collect();
            compared += 1;
            if !said.iter().any(|message| message.contains(&expected)) {
                wrong.push(format!("{path}: the schema says \"{expected}\", and the compiler says {said:?}"));
            }
        }
        assert!(wrong.is_empty(), "correct src/config/schema/:\n{}", wrong.join("\n"));
        assert!(compared > 100, "{compared} forms");
    }
}
