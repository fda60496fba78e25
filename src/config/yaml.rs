//! YAML text → a tree of values with their positions. The only file that knows the YAML parser.

use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

/// Levels of lists and maps in each other; a configuration needs 6.
const MAX_DEPTH: usize = 32;

/// A line and a column in characters, both from 1; both 0 for a file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    pub(crate) const WHOLE_FILE: Self = Self { line: 0, column: 0 };
    const START: Self = Self { line: 1, column: 1 };
}

/// A value and its position.
#[derive(Debug, Clone)]
pub(crate) struct YamlNode {
    pub(crate) position: Position,
    pub(crate) value: YamlValue,
}

/// The values of YAML 1.2's core schema.
#[derive(Debug, Clone)]
pub(crate) enum YamlValue {
    Null,
    Bool(bool),
    /// As it is written: the reader knows which kind of number it needs.
    Number(String),
    Text(String),
    List(Vec<YamlNode>),
    /// In the order of the file; a key may occur twice.
    Map(Vec<YamlEntry>),
}

impl YamlValue {
    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn is_text(&self, word: &str) -> bool {
        self.as_text() == Some(word)
    }
}

/// A key of a map and its value.
#[derive(Debug, Clone)]
pub(crate) struct YamlEntry {
    pub(crate) key: String,
    pub(crate) key_position: Position,
    pub(crate) node: YamlNode,
}

/// Why a text can't be parsed: the first reason, because what follows it can't be trusted.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) position: Position,
    pub(crate) message: String,
}

/// Parses the one document in `text`, with at most `max_values` values after aliases are expanded. An empty text is `Null`.
pub(crate) fn parse(text: &str, max_values: usize) -> Result<YamlNode, YamlError> {
    let parser = Parser::new_from_str(text);
    let mut builder = Builder { parser, anchors: HashMap::new(), max_values, values: 0, depth: 0 };
    let mut root = None;
    loop {
        let (event, position) = builder.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(..) if root.is_some() => {
                return Err(failure(
                    position,
                    "a second YAML document starts here (keep one, and remove the line ---)",
                ));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            node => root = Some(builder.node(node, position)?),
        }
    }
    Ok(root.unwrap_or(YamlNode { position: Position::START, value: YamlValue::Null }))
}

/// What a plain (unquoted) scalar means in YAML 1.2's core schema.
pub(crate) fn plain(text: &str) -> YamlValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => YamlValue::Null,
        "true" | "True" | "TRUE" => YamlValue::Bool(true),
        "false" | "False" | "FALSE" => YamlValue::Bool(false),
        text if is_number(text) => YamlValue::Number(text.to_owned()),
        text => YamlValue::Text(text.to_owned()),
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
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, YamlNode>,
    max_values: usize,
    values: usize,
    depth: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Position), YamlError> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, position_of(&span.start))),
            Some(Err(error)) => Err(syntax_error(&error)),
            None => Ok((Event::StreamEnd, Position::START)),
        }
    }

    /// The node that starts with `event`.
    fn node(&mut self, event: Event<'a>, position: Position) -> Result<YamlNode, YamlError> {
        self.count(1, position)?;
        let (value, anchor, tag) = match event {
            Event::Alias(id) => return self.alias(id, position),
            Event::Scalar(text, style, anchor, tag) => {
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => YamlValue::Text(text.into_owned()),
                };
                (value, anchor, tag)
            }
            Event::SequenceStart(_, anchor, tag) => (self.nested(position, Self::list)?, anchor, tag),
            Event::MappingStart(_, anchor, tag) => (self.nested(position, Self::map)?, anchor, tag),
            _ => return Err(failure(position, "not valid YAML here")),
        };
        if tag.is_some() {
            return Err(failure(position, "YAML tags (\"!…\") are not supported (remove it, or quote the text)"));
        }
        let node = YamlNode { position, value };
        if anchor > 0 {
            self.count(size(&node), position)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn nested(
        &mut self,
        position: Position,
        read: fn(&mut Self) -> Result<YamlValue, YamlError>,
    ) -> Result<YamlValue, YamlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(failure(position, format!("lists and maps are nested more than {MAX_DEPTH} deep")));
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<YamlValue, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(YamlValue::List(items)),
                (event, position) => items.push(self.node(event, position)?),
            }
        }
    }

    fn map(&mut self) -> Result<YamlValue, YamlError> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (key, key_position, merge) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(text, style, 0, None), position) => {
                    let merge = text == "<<" && style == ScalarStyle::Plain;
                    (text.into_owned(), position, merge)
                }
                (_, position) => {
                    return Err(failure(position, "a key must be a text (quote it if it starts with [, {, & or !)"));
                }
            };
            let (event, position) = self.next()?;
            let node = self.node(event, position)?;
            if merge {
                merged.push(node);
            } else {
                entries.push(YamlEntry { key, key_position, node });
            }
        }
        if !merged.is_empty() {
            let mut taken: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            merged.into_iter().try_for_each(|node| merge(&mut entries, &mut taken, node))?;
        }
        Ok(YamlValue::Map(entries))
    }

    /// A copy of what the alias names, at the position of the alias.
    fn alias(&mut self, id: usize, position: Position) -> Result<YamlNode, YamlError> {
        let Some(node) = self.anchors.get(&id) else {
            return Err(failure(position, "an alias can't be inside the value that it names"));
        };
        let copy = YamlNode { position, value: node.value.clone() };
        self.count(size(&copy), position)?;
        Ok(copy)
    }

    /// Aliases of aliases grow without end; a budget stops them.
    fn count(&mut self, more: usize, position: Position) -> Result<(), YamlError> {
        self.values += more;
        if self.values > self.max_values {
            let max = self.max_values;
            return Err(failure(position, format!("the file has more than {max} values, aliases included")));
        }
        Ok(())
    }
}

/// `<<: *defaults`: the keys of another map (or of several, the first wins) that the map itself does not have.
fn merge(entries: &mut Vec<YamlEntry>, taken: &mut HashSet<String>, node: YamlNode) -> Result<(), YamlError> {
    match node.value {
        YamlValue::Map(more) => {
            entries.extend(more.into_iter().filter(|entry| taken.insert(entry.key.clone())));
            Ok(())
        }
        YamlValue::List(maps) => maps.into_iter().try_for_each(|map| merge(entries, taken, map)),
        _ => Err(failure(node.position, "`<<` takes a map or a list of maps, usually as an alias (<<: *name)")),
    }
}

/// How many values a node holds, itself included.
fn size(node: &YamlNode) -> usize {
    1 + match &node.value {
        YamlValue::List(items) => items.iter().map(size).sum(),
        YamlValue::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
        YamlValue::Null | YamlValue::Bool(_) | YamlValue::Number(_) | YamlValue::Text(_) => 0,
    }
}

/// The parser counts columns from 0.
fn position_of(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

fn failure(position: Position, message: impl Into<String>) -> YamlError {
    YamlError { position, message: message.into() }
}

/// The parser's reason, which quotes at most one character of the text, and a remedy for the mistakes that people make.
fn syntax_error(error: &ScanError) -> YamlError {
    let remedy = match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => " (indent with spaces)",
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => {
            " (in one-line lists and maps, quote texts with { } [ ] or commas, and close every bracket)"
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation | ErrorKind::SimpleKeyExpected => {
            " (check the indentation, and that a space follows each colon)"
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            " (check the line before: a bracket or the space after its colon may be missing; quote texts with \": \")"
        }
        ErrorKind::UnknownAnchor => " (quote a text that starts with *)",
        _ => "",
    };
    failure(position_of(error.marker()), format!("not valid YAML: {}{remedy}", error.kind()))
}
