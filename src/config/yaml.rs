//! YAML text → a small tree of values with their positions. The only file that knows the YAML parser.

use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span};

/// Values in one file, after aliases are expanded: some 60,000 routes.
const MAX_VALUES: usize = 500_000;
/// Lists and maps within each other; a configuration needs 6.
const MAX_DEPTH: usize = 32;

/// A position: line and column in characters, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What YAML 1.2 can say, as far as a configuration needs it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it is written; the reader knows what it is to be.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; the same key may stand there twice.
    Map(Vec<Entry>),
}

impl Value {
    /// Whether this is that text.
    pub(super) fn is_text(&self, word: &str) -> bool {
        matches!(self, Self::Text(text) if text == word)
    }
}

/// A key of a map and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: At,
    pub(super) node: Node,
}

/// Why a text is no usable YAML: the first reason, for what follows it can't be trusted.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: At,
    pub(super) message: String,
}

/// Reads the one document in `text`; an empty text is `Null`.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), values: 0, depth: 0 };
    let mut root = None;
    loop {
        let (event, at) = builder.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(..) if root.is_some() => {
                return Err(fault(at, "a second YAML document starts here (keep one, and remove the line ---)"));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            node => root = Some(builder.node(node, at)?),
        }
    }
    Ok(root.unwrap_or(Node { at: At { line: 1, column: 1 }, value: Value::Null }))
}

/// What a plain (unquoted) scalar means in YAML 1.2's core schema.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text if is_number(text) => Value::Number(text.to_owned()),
        text => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| matches!(b, b'0'..=b'7'));
    }
    // "1e3" is a number, but "infinity" and "nan", which Rust would read, are not in YAML.
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok()
}

struct Builder<'a> {
    parser: Parser<'a, serde_yaml::granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    values: usize,
    depth: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, At), Fault> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, start(&span))),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, At { line: 1, column: 1 })),
        }
    }

    /// The node that starts with `event`.
    fn node(&mut self, event: Event<'a>, at: At) -> Result<Node, Fault> {
        self.count(1, at)?;
        let (value, anchor, tag) = match event {
            Event::Alias(id) => return self.alias(id, at),
            Event::Scalar(text, style, anchor, tag) => {
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                (value, anchor, tag)
            }
            Event::SequenceStart(_, anchor, tag) => (self.nested(at, Self::list)?, anchor, tag),
            Event::MappingStart(_, anchor, tag) => (self.nested(at, Self::map)?, anchor, tag),
            _ => return Err(fault(at, "not valid YAML here")),
        };
        if tag.is_some() {
            return Err(fault(at, "YAML tags (\"!…\") are not supported (remove it, or quote the text)"));
        }
        let node = Node { at, value };
        if anchor > 0 {
            self.count(size(&node), at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn nested(&mut self, at: At, read: fn(&mut Self) -> Result<Value, Fault>) -> Result<Value, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fault(at, format!("lists and maps lie more than {MAX_DEPTH} deep in each other")));
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<Value, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, at) => items.push(self.node(event, at)?),
            }
        }
    }

    fn map(&mut self) -> Result<Value, Fault> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (key, key_at, merge) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(text, style, 0, None), at) => {
                    let merge = text == "<<" && style == ScalarStyle::Plain;
                    (text.into_owned(), at, merge)
                }
                (_, at) => return Err(fault(at, "a key must be a text (quote it if it starts with [, {, & or !)")),
            };
            let (event, at) = self.next()?;
            let node = self.node(event, at)?;
            if merge {
                merged.push(node);
            } else {
                entries.push(Entry { key, key_at, node });
            }
        }
        if !merged.is_empty() {
            let mut taken: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            merged.into_iter().try_for_each(|node| merge(&mut entries, &mut taken, node))?;
        }
        Ok(Value::Map(entries))
    }

    /// A copy of what the alias names, at the alias's own place.
    fn alias(&mut self, id: usize, at: At) -> Result<Node, Fault> {
        let Some(node) = self.anchors.get(&id) else {
            return Err(fault(at, "an alias can't stand inside what it names"));
        };
        let copy = Node { at, value: node.value.clone() };
        self.count(size(&copy), at)?;
        Ok(copy)
    }

    /// Aliases of aliases grow without end; a budget stops them.
    fn count(&mut self, more: usize, at: At) -> Result<(), Fault> {
        self.values += more;
        if self.values > MAX_VALUES {
            return Err(fault(at, format!("the file holds more than {MAX_VALUES} values, aliases included")));
        }
        Ok(())
    }
}

/// `<<: *defaults`: the keys of another map (or of several, the first wins) that the map itself does not have.
fn merge(entries: &mut Vec<Entry>, taken: &mut HashSet<String>, node: Node) -> Result<(), Fault> {
    match node.value {
        Value::Map(more) => {
            entries.extend(more.into_iter().filter(|entry| taken.insert(entry.key.clone())));
            Ok(())
        }
        Value::List(maps) => maps.into_iter().try_for_each(|map| merge(entries, taken, map)),
        _ => Err(fault(node.at, "`<<` takes a map or a list of maps, mostly as an alias (<<: *name)")),
    }
}

/// How many values a node holds, itself included.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 0,
    }
}

fn start(span: &Span) -> At {
    position(&span.start)
}

/// The parser counts columns from 0.
fn position(marker: &Marker) -> At {
    At { line: marker.line().max(1), column: marker.col() + 1 }
}

fn fault(at: At, message: impl Into<String>) -> Fault {
    Fault { at, message: message.into() }
}

/// The parser's reason, which quotes at most one character of the text, and a remedy for the mistakes that people make.
fn syntax(error: &ScanError) -> Fault {
    let remedy = match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => " (indent with spaces)",
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => {
            " (in one-line lists and maps, quote texts with { } [ ] or commas, and close every bracket)"
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation | ErrorKind::SimpleKeyExpected => {
            " (check the indentation, and that a space follows each colon)"
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            " (see whether the line before lacks a bracket, or the space behind its colon; quote texts with \": \")"
        }
        ErrorKind::UnknownAnchor => " (quote a text that starts with *)",
        _ => "",
    };
    fault(position(error.marker()), format!("not valid YAML: {}{remedy}", error.kind()))
}
