//! A typed reader of YAML files that collects problems instead of stopping at the first.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::expand::expand;
use super::files::{self, Expected};
use super::key_path::KeyPath;
use super::yaml::{Position, YamlEntry, YamlNode, YamlValue, parse, plain};
use super::{CertificateFiles, Problem, Severity, quoted};
use crate::certificates::Purpose;

/// Keys of a map that are compared one by one. With more, a table is quicker.
const FEW: usize = 16;

/// Which kind of file is read.
#[derive(Clone, Copy)]
pub(crate) enum FileKind<'a> {
    /// A configuration: `${VAR}` in texts is replaced from this environment, and problems quote wrong values.
    Configuration(&'a dyn Fn(&str) -> Option<String>),
    /// A token file: texts stand for themselves, and problems quote no value, because it may be a token.
    Tokens,
}

/// What all fields of one file share.
pub(crate) struct YamlReader<'a> {
    file: Arc<Path>,
    kind: FileKind<'a>,
    problems: RefCell<Vec<Problem>>,
    /// Files that the configuration names, each with the position and path of the value that does.
    files: RefCell<Vec<(Position, String, PathBuf, Expected)>>,
    /// Files of secrets, which are read at once.
    secrets: RefCell<Vec<PathBuf>>,
}

impl<'a> YamlReader<'a> {
    pub(crate) fn new(file: &Path, kind: FileKind<'a>) -> Self {
        Self {
            file: file.into(),
            kind,
            problems: RefCell::default(),
            files: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// Parses the file's content; `None` if that is no YAML, which is reported.
    pub(crate) fn parse(&self, text: &str) -> Option<YamlNode> {
        let max_values = match self.kind {
            // Some 60,000 routes.
            FileKind::Configuration(_) => 500_000,
            // Some 300,000 tokens.
            FileKind::Tokens => 10_000_000,
        };
        parse(text, max_values)
            .map_err(|error| self.report(Severity::Error, error.position, String::new(), error.message))
            .ok()
    }

    /// The whole file as a field.
    pub(crate) fn root(&'a self, node: &'a YamlNode) -> Field<'a> {
        Field { reader: self, node, position: node.position, path: KeyPath::default() }
    }

    /// An item of a list under a key of the file, as a field. The caller reads items one by one.
    pub(crate) fn item(&'a self, key: &'a str, index: usize, node: &'a YamlNode) -> Field<'a> {
        Field { reader: self, node, position: node.position, path: KeyPath::default().key(key).index(index) }
    }

    pub(super) fn report(&self, severity: Severity, at: Position, path: String, message: String) {
        let file = self.file.clone();
        self.problems.borrow_mut().push(Problem { file, line: at.line, column: at.column, path, message, severity });
    }

    /// The files that the configuration names, but for the token file.
    pub(super) fn named_files(&self) -> Vec<PathBuf> {
        let files = self.files.borrow();
        let files = files.iter().filter(|(.., expected)| !matches!(expected, Expected::Tokens));
        files.map(|(_, _, file, _)| file.clone()).chain(self.secrets.borrow().iter().cloned()).collect()
    }

    /// Reports what is wrong with the files that the configuration names.
    pub(super) fn check_files(&self) {
        let (files, now) = (self.files.borrow(), SystemTime::now());
        for (position, path, file, expected) in files.iter() {
            for (severity, message) in files::check(file, expected, now) {
                self.report(severity, *position, path.clone(), message);
            }
        }
        let is_servers = |expected: &Expected| matches!(expected, Expected::ChainOf(_, Purpose::Server));
        let servers: Vec<_> = files.iter().filter(|(_, _, _, expected)| is_servers(expected)).collect();
        let paths: Vec<PathBuf> = servers.iter().map(|(_, _, file, _)| file.clone()).collect();
        for (index, message) in files::shared_names(&paths) {
            let (position, path, ..) = servers[index];
            self.report(Severity::Warning, *position, path.clone(), message);
        }
    }

    /// All problems, in the order of the file; of two at one position, the one found first comes first.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    /// Paths in the file are relative to its folder.
    fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// A value, its position and path, and how to complain about it.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub(super) reader: &'a YamlReader<'a>,
    pub(super) node: &'a YamlNode,
    pub(crate) position: Position,
    /// The keys and indices that lead to it, for example `routes[2].upstream`.
    pub(super) path: KeyPath<'a>,
}

impl<'a> Field<'a> {
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.reader.report(Severity::Error, self.position, self.path.to_string(), message.into());
    }

    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.reader.report(Severity::Warning, self.position, self.path.to_string(), message.into());
    }

    /// The value of `result`; reports its error.
    pub(crate) fn accept<T>(&self, result: Result<T, impl Into<String>>) -> Option<T> {
        result.map_err(|message| self.error(message)).ok()
    }

    /// The value; reports that something else must be here if there is none.
    pub(crate) fn must_be<T>(&self, what: &str, value: Option<T>) -> Option<T> {
        self.accept(value.ok_or_else(|| format!("must be {what}, not {}", self.shown())))
    }

    /// The same value under another position.
    pub(crate) fn at(&self, position: Position) -> Self {
        Self { position, ..self.clone() }
    }

    /// Reports that something else must be here.
    pub(crate) fn refuse<T>(&self, what: &str, remedy: &str) -> Option<T> {
        self.accept(Err(format!("must be {what}, not {}{remedy}", self.kind())))
    }

    /// The entries of a map; reports anything else.
    pub(crate) fn map(&self) -> &'a [YamlEntry] {
        match &self.node.value {
            YamlValue::Map(entries) => entries,
            YamlValue::Null => &[],
            _ => self.refuse("a map of keys and values", "").unwrap_or(&[]),
        }
    }

    /// The entries of a map; reports anything else, and keys that are given twice.
    pub(super) fn entries(&self) -> &'a [YamlEntry] {
        let entries = self.map();
        let mut many: HashMap<&str, &YamlEntry> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let first = if entries.len() > FEW {
                *many.entry(&entry.key).or_insert(entry)
            } else {
                entries[..at].iter().find(|other| other.key == entry.key).unwrap_or(entry)
            };
            if !std::ptr::eq(first, entry) {
                let line = first.key_position.line;
                self.key(entry).error(format!("is given twice (the first is on line {line}; keep one)"));
            }
        }
        entries
    }

    /// The value of an entry of this map. An empty one has no position of its own: its key's is used.
    pub(crate) fn value(&self, entry: &'a YamlEntry) -> Field<'a> {
        let YamlEntry { key, key_position, node } = entry;
        let position = if matches!(node.value, YamlValue::Null) { *key_position } else { node.position };
        Field { reader: self.reader, node, position, path: self.path.key(key) }
    }

    /// The key of an entry, to complain about it.
    pub(super) fn key(&self, entry: &'a YamlEntry) -> Field<'a> {
        self.value(entry).at(entry.key_position)
    }

    /// This value as a map whose keys the operator chooses; each key once.
    pub(crate) fn names(&self) -> Vec<(&'a str, Field<'a>)> {
        let mut seen = HashSet::new();
        let distinct = self.entries().iter().filter(|entry| seen.insert(&entry.key));
        distinct.map(|entry| (&*entry.key, self.value(entry))).collect()
    }

    /// The items of a list; reports anything else.
    pub(crate) fn items(&self) -> Vec<Field<'a>> {
        let items: &[YamlNode] = match &self.node.value {
            YamlValue::List(items) => items,
            YamlValue::Null => &[],
            _ => self.refuse("a list", "").unwrap_or(&[]),
        };
        let item = |(index, node): (usize, &'a YamlNode)| Field {
            reader: self.reader,
            node,
            position: node.position,
            path: self.path.index(index),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The items of a list, of which there must be one at least.
    pub(crate) fn some_items(&self, remedy: &str) -> Vec<Field<'a>> {
        if matches!(&self.node.value, YamlValue::List(items) if items.is_empty()) {
            self.error(format!("is empty ({remedy})"));
        }
        self.items()
    }

    /// The items of a list, or a single value.
    pub(crate) fn one_or_many(&self) -> Vec<Field<'a>> {
        if self.is_scalar() { vec![self.clone()] } else { self.items() }
    }

    /// A single value, or the items of a list, of which there must be one at least.
    pub(crate) fn one_or_more(&self, remedy: &str) -> Vec<Field<'a>> {
        if self.is_scalar() { vec![self.clone()] } else { self.some_items(remedy) }
    }

    /// Different values from a single text or a list of at least one; `None` if one of them was reported.
    pub(crate) fn one_or_more_different<T: PartialEq>(
        &self,
        remedy: &str,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.one_or_more(remedy);
        let mut values = Vec::with_capacity(items.len());
        for item in &items {
            match read(item) {
                Some(value) if values.contains(&value) => item.error("is given twice (keep one)"),
                Some(value) => values.push(value),
                None => {}
            }
        }
        (!items.is_empty() && values.len() == items.len()).then_some(values)
    }

    fn is_scalar(&self) -> bool {
        matches!(self.node.value, YamlValue::Text(_) | YamlValue::Number(_) | YamlValue::Bool(_))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, YamlValue::Null)
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, YamlValue::Map(_))
    }

    /// Whether this is a map without a key.
    pub(crate) fn is_empty_map(&self) -> bool {
        matches!(&self.node.value, YamlValue::Map(entries) if entries.is_empty())
    }

    /// This value with its `${…}` replaced, as if the result were in the file without quotes.
    pub(crate) fn scalar(&self) -> Option<Cow<'a, YamlValue>> {
        let (YamlValue::Text(raw), FileKind::Configuration(env)) = (&self.node.value, self.reader.kind) else {
            return Some(Cow::Borrowed(&self.node.value));
        };
        Some(match self.accept(expand(raw, env))? {
            Cow::Borrowed(_) => Cow::Borrowed(&self.node.value),
            Cow::Owned(text) => Cow::Owned(plain(&text)),
        })
    }

    /// A text with its `${…}` replaced; reports anything else.
    pub(crate) fn text(&self) -> Option<String> {
        let YamlValue::Text(raw) = &self.node.value else {
            return self.refuse("a text", if self.is_scalar() { " (put it in quotes)" } else { "" });
        };
        match self.reader.kind {
            FileKind::Configuration(env) => self.accept(expand(raw, env)).map(Cow::into_owned),
            FileKind::Tokens => Some(raw.clone()),
        }
    }

    /// A text, or a number as it is written: for short forms that look like a number when they are incomplete.
    pub(crate) fn word(&self) -> Option<String> {
        if let YamlValue::Number(text) = &self.node.value { Some(text.clone()) } else { self.text() }
    }

    /// A text that may also be kept in a file (`file:PATH`), which is read and trimmed.
    pub(crate) fn secret(&self) -> Option<String> {
        let text = self.text()?;
        match text.strip_prefix("file:") {
            None => Some(text),
            Some(path) => {
                let path = self.reader.resolve(path);
                self.reader.secrets.borrow_mut().push(path.clone());
                self.accept(files::read_secret(&path))
            }
        }
    }

    /// The file that holds what [`Field::secret`] reads, if it is one.
    pub(crate) fn secret_file(&self) -> Option<PathBuf> {
        let (YamlValue::Text(raw), FileKind::Configuration(env)) = (&self.node.value, &self.reader.kind) else {
            return None;
        };
        let text = expand(raw, env).ok()?;
        text.strip_prefix("file:").map(|path| self.reader.resolve(path))
    }

    /// The path of a file, resolved against the configuration's folder; the file is checked later.
    pub(crate) fn file(&self, expected: Expected) -> Option<PathBuf> {
        let file = self.path_of_file()?;
        self.expect(&file, expected);
        Some(file)
    }

    /// The files of a certificate and of its private key, which are checked later.
    pub(crate) fn certificate_files(cert: &Self, key: &Self, purpose: Purpose) -> Option<CertificateFiles> {
        let (chain, secret) = (cert.path_of_file(), key.path_of_file());
        let (chain, secret) = (chain?, secret?);
        cert.expect(&chain, Expected::ChainOf(secret.clone(), purpose));
        key.expect(&secret, Expected::KeyOf(chain.clone()));
        Some(CertificateFiles { cert: chain, key: secret })
    }

    /// A path of the file, which is relative to the file's folder.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.reader.resolve(path)
    }

    /// The path of a file, resolved against the configuration's folder.
    pub(crate) fn path_of_file(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            return self.accept(Err("must be the path of a file, not an empty text"));
        }
        Some(self.reader.resolve(&text))
    }

    fn expect(&self, file: &Path, expected: Expected) {
        self.reader.files.borrow_mut().push((self.position, self.path.to_string(), file.to_owned(), expected));
    }

    /// What kind of value this is, to say what is wrong with it.
    pub(crate) fn kind(&self) -> String {
        let is_quoted = matches!(self.reader.kind, FileKind::Configuration(_));
        match &self.node.value {
            YamlValue::Null => "nothing".to_owned(),
            YamlValue::Bool(value) => format!("the truth value {value}"),
            YamlValue::Number(number) if is_quoted => format!("the number {number}"),
            YamlValue::Text(text) if is_quoted => format!("the text {}", quoted(text)),
            YamlValue::Number(_) => "a number".to_owned(),
            YamlValue::Text(_) => "a text".to_owned(),
            YamlValue::List(_) => "a list".to_owned(),
            YamlValue::Map(_) => "a map".to_owned(),
        }
    }

    /// The value as it is in the file, in quotes. Variables stay unresolved, because they may be secrets.
    pub(crate) fn shown(&self) -> String {
        match (&self.node.value, self.reader.kind) {
            (YamlValue::Text(text) | YamlValue::Number(text), FileKind::Configuration(_)) => quoted(text),
            (YamlValue::Bool(value), _) => format!("\"{value}\""),
            _ => self.kind(),
        }
    }
}
