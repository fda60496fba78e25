//! A typed reader over the YAML tree that collects problems instead of stopping at the first.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::expand::expand;
use super::files::{Holds, NeededFile};
use super::nearest::nearest;
use super::place::{Place, Step, hint, shown};
use super::problem::{Problem, Severity};
use super::yaml::{At, Entry, Node, Value, plain};

/// What all fields of one file share.
pub(super) struct Reader<'a> {
    file: Arc<Path>,
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Problem>>,
    files: RefCell<Vec<NeededFile>>,
    keys: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            file: file.into(),
            env,
            problems: RefCell::default(),
            files: RefCell::default(),
            keys: RefCell::default(),
        }
    }

    /// The whole file as a field.
    pub(super) fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field { reader: self, node, at: node.at, place: Place::default() }
    }

    pub(super) fn report(&self, severity: Severity, at: At, path: String, message: String) {
        let file = self.file.clone();
        self.problems.borrow_mut().push(Problem { file, line: at.line, column: at.column, path, message, severity });
    }

    /// What was found, the files that the configuration needs, and the keys that it could have.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Vec<NeededFile>, BTreeSet<String>) {
        (self.problems.into_inner(), self.files.into_inner(), self.keys.into_inner())
    }

    /// Paths in the file are relative to its folder.
    fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// A value, where it stands, and how to complain about it.
#[derive(Clone)]
pub(super) struct Field<'a> {
    reader: &'a Reader<'a>,
    node: &'a Node,
    at: At,
    place: Place,
}

static ABSENT: Node = Node { at: At { line: 0, column: 0 }, value: Value::Null };

impl<'a> Field<'a> {
    pub(super) fn error(&self, message: impl Into<String>) {
        self.reader.report(Severity::Error, self.at, self.place.to_string(), message.into());
    }

    pub(super) fn warn(&self, message: impl Into<String>) {
        self.reader.report(Severity::Warning, self.at, self.place.to_string(), message.into());
    }

    /// The way to this value, to speak of it elsewhere.
    pub(super) fn path(&self) -> String {
        self.place.to_string()
    }

    /// This value as a map that may hold `known` keys and no others.
    pub(super) fn section(&self, known: &'static [&'static str]) -> Section<'a> {
        let mut keys = self.reader.keys.borrow_mut();
        keys.extend(known.iter().map(|key| self.place.then(Step::Key(key)).pattern()));
        drop(keys);
        let section = Section { field: self.clone(), entries: self.entries(), known };
        for (entry, field) in section.entries.iter().zip(self.named()) {
            let key = Field { at: entry.key_at, ..field };
            if !known.contains(&entry.key.as_str()) {
                key.error(format!("unknown key{}", hint(&entry.key, known.iter().copied())));
            }
        }
        section
    }

    /// This value as a map whose keys the operator chooses; each key once.
    pub(super) fn names(&self) -> Vec<(&'a str, Field<'a>)> {
        let mut seen = BTreeSet::new();
        let entries = self.entries().iter().zip(self.named());
        entries.filter(|(entry, _)| seen.insert(&entry.key)).map(|(entry, field)| (&*entry.key, field)).collect()
    }

    fn named(&self) -> impl Iterator<Item = Field<'a>> {
        self.entries_quietly().iter().map(|entry| self.child(entry, Step::Name(entry.key.clone())))
    }

    /// An empty value has no place of its own: its key's is used.
    fn child(&self, entry: &'a Entry, step: Step) -> Field<'a> {
        let empty = matches!(entry.node.value, Value::Null);
        let at = if empty { entry.key_at } else { entry.node.at };
        Field { reader: self.reader, node: &entry.node, at, place: self.place.then(step) }
    }

    fn entries_quietly(&self) -> &'a [Entry] {
        match &self.node.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entries of a map; complains about anything else, and about keys given twice.
    fn entries(&self) -> &'a [Entry] {
        if !matches!(self.node.value, Value::Map(_) | Value::Null) {
            self.error(format!("must be a map of keys and values, not {}", self.kind()));
        }
        let entries = self.entries_quietly();
        let mut first: HashMap<&str, At> = HashMap::with_capacity(entries.len());
        for entry in entries {
            if let Some(before) = first.get(entry.key.as_str()) {
                let key = Field { at: entry.key_at, ..self.child(entry, Step::Name(entry.key.clone())) };
                key.error(format!("is given twice (the first is on line {}; keep one)", before.line));
            } else {
                first.insert(&entry.key, entry.key_at);
            }
        }
        entries
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<Field<'a>> {
        let Value::List(items) = &self.node.value else {
            if !matches!(self.node.value, Value::Null) {
                self.error(format!("must be a list, not {}", self.kind()));
            }
            return Vec::new();
        };
        let item = |(index, node): (usize, &'a Node)| Field {
            reader: self.reader,
            node,
            at: node.at,
            place: self.place.then(Step::Index(index)),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The items of a list, or this one text alone.
    pub(super) fn one_or_many(&self) -> Vec<Field<'a>> {
        if matches!(self.node.value, Value::Text(_)) { vec![self.clone()] } else { self.items() }
    }

    /// Whether this is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Whether nothing stands here.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// Whether this is a map (and not, say, a short form).
    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Whether this is a map without a key.
    pub(super) fn is_empty_map(&self) -> bool {
        matches!(&self.node.value, Value::Map(entries) if entries.is_empty())
    }

    /// This value with its `${…}` replaced, as if the result stood in the file without quotes. Complains and is `None` when
    /// a variable is missing.
    pub(super) fn scalar(&self) -> Option<Cow<'a, Value>> {
        let Value::Text(raw) = &self.node.value else { return Some(Cow::Borrowed(&self.node.value)) };
        match expand(raw, self.reader.env) {
            Ok(Cow::Borrowed(_)) => Some(Cow::Borrowed(&self.node.value)),
            Ok(Cow::Owned(text)) => Some(Cow::Owned(plain(&text))),
            Err(message) => {
                self.error(message);
                None
            }
        }
    }

    /// A text with its `${…}` replaced; complains about anything else.
    pub(super) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(raw) => match expand(raw, self.reader.env) {
                Ok(text) => return Some(text.into_owned()),
                Err(message) => self.error(message),
            },
            Value::Number(_) | Value::Bool(_) => {
                self.error(format!("must be a text, not {} (put it in quotes)", self.kind()));
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.error(format!("must be a text, not {}", self.kind())),
        }
        None
    }

    /// A text or a number as a text, for short forms that look like a number when they are incomplete.
    pub(super) fn word(&self) -> Option<String> {
        if let Value::Number(text) = &self.node.value { Some(text.clone()) } else { self.text() }
    }

    /// A text that may also be kept in a file (`file:PATH`), which is read and trimmed.
    pub(super) fn secret(&self) -> Option<String> {
        let text = self.text()?;
        let Some(path) = text.strip_prefix("file:") else { return Some(text) };
        let path = self.reader.resolve(path);
        match read_to_string(&path) {
            Ok(content) => Some(content.trim().to_owned()),
            Err(error) => {
                self.error(format!("the file {} {}", path.display(), why(&error)));
                None
            }
        }
    }

    /// The path of a file, made relative to the configuration's folder. `optional`: of tokens, which need not be there yet.
    pub(super) fn file(&self, optional: bool) -> Option<PathBuf> {
        self.file_of(if optional { Holds::Tokens } else { Holds::Anything })
    }

    /// The same for a file that is looked into.
    pub(super) fn file_of(&self, holds: Holds) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            self.error("must be the path of a file, not an empty text");
            return None;
        }
        let file = self.reader.resolve(&text);
        let needed = NeededFile { at: self.at, path: self.path(), file: file.clone(), holds };
        self.reader.files.borrow_mut().push(needed);
        Some(file)
    }

    /// What stands there, in YAML's words.
    pub(super) fn kind(&self) -> String {
        match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the truth value {value}"),
            Value::Number(number) => format!("the number {number}"),
            Value::Text(_) => format!("the text {}", self.shown()),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// The value as the file has it, in quotes: variables stay unresolved, for they may be secrets.
    pub(super) fn shown(&self) -> String {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) => shown(text),
            Value::Bool(value) => format!("\"{value}\""),
            Value::Null | Value::List(_) | Value::Map(_) => self.kind(),
        }
    }
}

/// A map of which Callgate knows the keys.
pub(super) struct Section<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
    known: &'static [&'static str],
}

impl<'a> Section<'a> {
    /// The value of a key; `None` when it is absent or empty.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(self.known.contains(&key), "{key} is not among the section's known keys");
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.node.value, Value::Null) {
            return None;
        }
        Some(self.field.child(entry, Step::Key(key)))
    }

    /// The value of a key, or an absent one that stands where the section does.
    pub(super) fn field_of(&self, key: &'static str) -> Field<'a> {
        let empty = || self.entries.iter().find(|entry| entry.key == key);
        self.get(key).or_else(|| empty().map(|entry| self.field.child(entry, Step::Key(key)))).unwrap_or_else(|| {
            Field {
                reader: self.field.reader,
                node: &ABSENT,
                at: self.field.at,
                place: self.field.place.then(Step::Key(key)),
            }
        })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &'static str, remedy: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        // A misspelt key has been told already, with this one as what was meant.
        let misspelt = |entry: &Entry| {
            !self.known.contains(&entry.key.as_str()) && nearest(&entry.key, self.known.iter().copied()) == Some(key)
        };
        if field.is_none() && !self.entries.iter().any(misspelt) {
            self.field_of(key).error(format!("is missing ({remedy})"));
        }
        field
    }

    /// The value of a key as `read` understands it, or its default; also the default when `read` complained.
    pub(super) fn or<T>(&self, key: &'static str, default: T, read: impl FnOnce(&Field<'a>) -> Option<T>) -> T {
        self.get(key).and_then(|field| read(&field)).unwrap_or(default)
    }
}

/// The start of a file: secrets are short, and some files never end.
fn read_to_string(path: &Path) -> std::io::Result<String> {
    const LONGEST: u64 = 64 << 10;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Why a file can't be used, without the operating system's numbers.
pub(super) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist (paths are relative to the configuration's folder)".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be read by this user (change its owner or mode)".to_owned(),
        std::io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        _ => format!("can't be read: {error}"),
    }
}
