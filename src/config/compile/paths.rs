//! Path patterns of routes: which are valid, and which clash.

use std::collections::HashMap;

use http::Method;
use matchit::{InsertError, Router};

use crate::config::{HeaderMatch, PathForms};

/// Bytes of a pattern, and braces in it: the router gives up, by a panic, where it runs out of letters for parameters.
const MAX_PATTERN_BYTES: usize = 2_048;
const MAX_BRACES: usize = 20;

/// Checks a pattern such as `/api/v1/calls/{id}` by itself; `allowed` are the ambiguous forms that its route takes.
///
/// # Errors
/// What is wrong, to be put after the name of the setting.
pub(super) fn check(path: &str, allowed: PathForms) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("must start with a slash (for example /api/v1/calls)".to_owned());
    }
    if let Some(mark) = path.find(['?', '#']) {
        return Err(format!("must be a path alone (remove everything from the {} onwards)", &path[mark..=mark]));
    }
    if path.len() > MAX_PATTERN_BYTES {
        return Err(format!("must not be longer than {MAX_PATTERN_BYTES} bytes"));
    }
    if path.matches('{').count() > MAX_BRACES {
        return Err(format!("must not have more than {MAX_BRACES} parameters"));
    }
    check_escapes(path)?;
    let forms = forms(path).without(allowed);
    for (form, sign) in PathForms::SIGNS {
        if !form.without(forms).is_empty() {
            continue;
        }
        let name = PathForms::NAMES.iter().find(|(_, named)| form.without(*named).is_empty());
        if let Some((name, _)) = name {
            return Err(format!(
                "has {sign}, and requests with that are rejected (remove it, or set allow_path_forms: [{name}])"
            ));
        }
    }
    let special = |c: char| !(c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%{}\\".contains(c));
    if let Some(c) = path.chars().find(|c| special(*c)) {
        let mut buffer = [0; 4];
        let escapes: String = c.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(format!("has {c:?}, which a request can't have unescaped (write {escapes})"));
    }
    Ok(())
}

/// A warning about fixed text that is a parameter in other proxies: nobody would notice that such a route guards nothing.
pub(super) fn foreign(path: &str) -> Option<String> {
    path.split('/').find_map(|segment| {
        let remedy = match segment {
            "*" | "**" => "{*rest} at the end, or {name}".to_owned(),
            named => format!("{{{}}}", named.strip_prefix(':').filter(|name| !name.is_empty())?),
        };
        Some(format!("the segment {segment:?} is fixed text, not a parameter (write {remedy})"))
    })
}

/// Requests are matched with the escapes of unreserved characters (RFC 3986, section 2.3) decoded.
fn check_escapes(path: &str) -> Result<(), String> {
    for (index, _) in path.match_indices('%') {
        let digits = path.get(index + 1..index + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return Err("has a % without two hexadecimal digits after it (write %25 for a percent sign)".to_owned());
        };
        let escape = &path[index..index + 3];
        if byte.is_ascii_control() && !b"\t\n\r".contains(&byte) {
            return Err(format!("has {}, and requests with that are rejected (remove it)", &path[index..index + 3]));
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            let c = char::from(byte);
            return Err(format!("has {escape}, which is decoded before routes are matched (write {c})"));
        }
    }
    Ok(())
}

/// The ambiguous forms in a path.
fn forms(path: &str) -> PathForms {
    let lower = path.to_ascii_lowercase();
    let dots = path.split('/').any(|segment| segment == "." || segment == "..");
    [
        (dots, PathForms::DOT_SEGMENTS),
        (path.contains("//"), PathForms::EMPTY_SEGMENTS),
        (lower.contains("%2f"), PathForms::ENCODED_SLASH),
        (path.contains('\\') || lower.contains("%5c"), PathForms::BACKSLASH),
        (path.contains(';'), PathForms::SEMICOLON),
        (path.contains("%09"), PathForms::ENCODED_TAB),
        (lower.contains("%0a"), PathForms::ENCODED_LINE_FEED),
        (lower.contains("%0d"), PathForms::ENCODED_RETURN),
    ]
    .into_iter()
    .filter_map(|(found, form)| found.then_some(form))
    .fold(PathForms::default(), PathForms::with)
}

/// All patterns of a file, in the form that requests are matched with.
#[derive(Default)]
pub(super) struct Patterns {
    router: Router<()>,
    /// Per pattern: the routes that have it, each with its methods (none: all) and headers.
    taken: HashMap<String, Vec<(usize, Conditions)>>,
}

/// The conditions of a route beside its host and path.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    pub(super) methods: Vec<Method>,
    pub(super) headers: Vec<HeaderMatch>,
}

impl Patterns {
    /// Adds the pattern of route number `index`.
    ///
    /// # Errors
    /// Why it clashes with the ones before it, to be put after the name of the setting.
    pub(super) fn add(&mut self, index: usize, path: &str, conditions: &Conditions) -> Result<(), String> {
        if let Some(others) = self.taken.get_mut(path) {
            let mut rivals = others.iter().filter(|(_, theirs)| theirs.headers == conditions.headers);
            let clash =
                |(other, theirs): &(usize, Conditions)| Some((*other, shared(&conditions.methods, &theirs.methods)?));
            let clash = rivals.find_map(clash);
            others.push((index, conditions.clone()));
            let Some((other, method)) = clash else { return Ok(()) };
            return Err(format!(
                "{method} already goes to routes[{other}] with the same path (give the two different methods)"
            ));
        }
        self.router.insert(path, ()).map_err(|error| self.explain(path, &error))?;
        self.taken.insert(path.to_owned(), vec![(index, conditions.clone())]);
        Ok(())
    }

    fn explain(&self, path: &str, error: &InsertError) -> String {
        match error {
            InsertError::Conflict { with } => {
                let first = self.taken.get(with).and_then(|routes| routes.first());
                let owner = first.map_or_else(String::new, |(index, _)| format!(" of routes[{index}]"));
                let remedy = if nameless(path) == nameless(with) {
                    "they differ only in a parameter's name; use the same name in both"
                } else if path.contains("{*") || with.contains("{*") {
                    "a {*rest} and a {name} can't begin at the same place; put a fixed segment before one of them"
                } else {
                    "text around a parameter makes them alike; give the parameter a segment of its own"
                };
                format!("clashes with \"{with}\"{owner} ({remedy})")
            }
            InsertError::InvalidParamSegment => {
                "has two parameters between two slashes, or text that touches a {*rest} (one {name} per segment)"
                    .to_owned()
            }
            InsertError::InvalidCatchAll => {
                "has a {*rest} that is not the end of the path (move it there, or write {rest})".to_owned()
            }
            // matchit may learn new reasons; this one says what all of them are about.
            _ => "has braces that do not form a parameter (write {name}, {*rest} at the end, or {{ and }} for braces)"
                .to_owned(),
        }
    }
}

/// What two lists of methods share, in words; an empty list means all.
fn shared(ours: &[Method], theirs: &[Method]) -> Option<String> {
    match (ours, theirs) {
        ([], []) => Some("every method".to_owned()),
        ([], some) | (some, []) => Some(some[0].to_string()),
        (ours, theirs) => {
            if let Some(method) = ours.iter().find(|method| theirs.contains(method)) {
                return Some(method.to_string());
            }
            let head = |a: &[Method], b: &[Method]| a.contains(&Method::HEAD) && b.contains(&Method::GET);
            (head(ours, theirs) || head(theirs, ours)).then(|| "HEAD, which comes with GET,".to_owned())
        }
    }
}

/// A pattern without the names of its parameters.
fn nameless(path: &str) -> String {
    let parts = path.split_inclusive(['{', '}']).map(|part| match part.strip_suffix('}') {
        Some(name) if name.starts_with('*') => "*}",
        Some(_) => "}",
        None => part,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_a_pattern_by_itself() {
        for path in ["/", "/api/v1/calls", "/calls/{id}", "/a/{*rest}", "/a%20b", "/~user/@x:y,z", "/a/...", "/a.b/"] {
            assert_eq!(check(path, PathForms::default()), Ok(()), "{path}");
        }
        for path in [
            "", "api", "/a?b", "/a#b", "/a b", "/ä", "/%", "/%4", "/%zz", "/%41", "/%7e", "/%00", "/%1f", "/%7F",
            "/%0a", "/..", "/./a", "//", "/a//b", "/a%2Fb", "/a\\b", "/a%5cb", "/a;b", "/\"", "/a\u{0}", "/%ä",
        ] {
            assert!(check(path, PathForms::default()).is_err(), "{path:?} was accepted");
        }
    }

    #[test]
    fn warns_of_the_parameters_of_other_proxies() {
        for (path, remedy) in [("/a/*", "{*rest}"), ("/a/**", "{*rest}"), ("/*/b", "{name}"), ("/a/:id/b", "{id}")] {
            assert!(foreign(path).is_some_and(|message| message.contains(remedy)), "{path}");
        }
        for path in ["/a/{id}", "/a/{*rest}", "/calls:batch", "/a*b", "/:", "/a/{id}:stop"] {
            assert_eq!(foreign(path), None, "{path}");
        }
    }

    #[test]
    fn accepts_the_forms_that_the_route_allows() {
        for (path, form) in [
            ("/a/../b", PathForms::DOT_SEGMENTS),
            ("/a//b", PathForms::EMPTY_SEGMENTS),
            ("/a%2fb", PathForms::ENCODED_SLASH),
            ("/a%5Cb", PathForms::BACKSLASH),
            ("/a;b", PathForms::SEMICOLON),
            ("/a%09b", PathForms::ENCODED_TAB),
            ("/a%0Ab", PathForms::ENCODED_LINE_FEED),
            ("/a%0db", PathForms::ENCODED_RETURN),
        ] {
            assert_eq!(check(path, form), Ok(()), "{path}");
            assert!(check(path, PathForms::default()).is_err(), "{path}");
        }
    }

    /// What matchit 0.9 refuses to hold together, in words that fit.
    #[test]
    fn explains_conflicts() {
        for (first, second, reason) in [
            ("/a/{id}", "/a/{name}", "differ only in a parameter's name"),
            ("/a/{*rest}", "/a/{*more}", "differ only in a parameter's name"),
            ("/a/{*rest}", "/a/{id}/b", "at the same place"),
            ("/a/{id}/b", "/a/{*rest}", "at the same place"),
            ("/a{x}", "/{x}a", "text around a parameter"),
            ("/{x}ab", "/a{x}/b", "text around a parameter"),
        ] {
            let mut patterns = Patterns::default();
            assert_eq!(patterns.add(0, first, &Conditions::default()), Ok(()));
            let message = patterns.add(1, second, &Conditions::default()).unwrap_err();
            assert!(message.contains(reason) && message.contains("routes[0]"), "{first} and {second}: {message}");
        }
        let mut patterns = Patterns::default();
        for (index, path) in
            ["/", "/a", "/a/{id}", "/{b}/{id}", "/a/b/{*rest}", "/a/{name}/c", "/b/v{n}"].into_iter().enumerate()
        {
            assert_eq!(patterns.add(index, path, &Conditions::default()), Ok(()), "{path}");
        }
    }

    #[test]
    fn shares_methods() {
        let list =
            |names: &str| -> Vec<Method> { names.split_whitespace().filter_map(|name| name.parse().ok()).collect() };
        for (ours, theirs, clash) in [
            ("", "", true),
            ("GET", "", true),
            ("GET POST", "POST PUT", true),
            ("HEAD", "GET", true),
            ("GET", "HEAD", true),
            ("GET", "POST", false),
            ("HEAD", "POST", false),
        ] {
            assert_eq!(shared(&list(ours), &list(theirs)).is_some(), clash, "{ours:?} and {theirs:?}");
        }
    }
}
