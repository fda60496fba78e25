//! Large lists in the layout that Callgate and most people write, read line by line: faster than by the YAML parser, and one
//! item at a time, so that neither the text nor its values need be in memory as a whole. Whatever is laid out otherwise is for the
//! parser; both make the same values with the same positions of the rest.
//!
//! The layout: `KEY:` alone on a line, then items, each with its keys below each other (`- id: a`, `  name: b`) or in braces on one line.
//! Values are scalars of one line, or lists and maps of those in brackets. Comments and empty lines may be anywhere. Of the escapes
//! between double quotes only those of a quote and of a backslash are known.

mod line;
mod value;

use std::io::{self, BufRead};

use super::Position;
use super::yaml::{YamlNode, YamlValue};
use line::{Line, is_blank, is_remark};

pub(crate) use value::{OtherLayout, SimpleEntry, SimpleValue};

/// The items of a list under the only key of a file.
pub(crate) struct SimpleList<R> {
    lines: Lines<R>,
    /// Blanks before the dash of each item.
    indent: Option<usize>,
}

impl<R: BufRead> SimpleList<R> {
    /// Finds the list; `None` if the text begins in another way.
    pub(crate) fn find(text: R, key: &str) -> Option<Self> {
        let mut lines = Lines { text, line: String::new(), number: 0 };
        let head = lines.skip_remarks().ok()??;
        let is_head = head.rest().strip_prefix(key).and_then(|rest| rest.strip_prefix(':')).is_some_and(is_blank);
        lines.step();
        is_head.then_some(Self { lines, indent: None })
    }

    /// Calls `take` with each key of the next item and its value; returns the position of the item, or `None` at the end.
    pub(crate) fn next_item(&mut self, mut take: impl FnMut(SimpleEntry<'_>)) -> Result<Option<Position>, OtherLayout> {
        let Some(mut line) = self.lines.skip_remarks()? else { return Ok(None) };
        let indent = line.indent();
        if *self.indent.get_or_insert(indent) != indent {
            return Err(OtherLayout);
        }
        line.start_item(indent)?;
        let (position, column) = (line.position(), line.at);
        if line.rest().starts_with('{') {
            let entries = line.braces(0)?;
            line.end()?;
            entries.into_iter().for_each(take);
            self.lines.step();
            return Ok(Some(position));
        }
        take(line.entry()?);
        self.lines.step();
        while let Some(mut line) = self.lines.skip_remarks()? {
            if line.indent() != column {
                break;
            }
            line.at = column;
            take(line.entry()?);
            self.lines.step();
        }
        Ok(Some(position))
    }
}

impl<R: BufRead> Iterator for SimpleList<R> {
    type Item = Result<YamlNode, OtherLayout>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut entries = Vec::new();
        let position = self.next_item(|entry| entries.push(entry.into_yaml())).transpose()?;
        Some(position.map(|position| YamlNode { position, value: YamlValue::Map(entries) }))
    }
}

/// The lines of a text, of which one is in memory.
struct Lines<R> {
    text: R,
    /// The present line without its end; empty: it is still to be read.
    line: String,
    /// The number of the present line.
    number: usize,
}

impl<R: BufRead> Lines<R> {
    /// Steps over empty lines and comments to a line that is neither; `None` at the end.
    fn skip_remarks(&mut self) -> io::Result<Option<Line<'_>>> {
        while is_remark(&self.line) {
            self.line.clear();
            if self.text.read_line(&mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.ends_with('\n') {
                self.line.pop();
            }
        }
        Ok(Some(Line::new(self.number, &self.line)))
    }

    /// Leaves the present line.
    fn step(&mut self) {
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::yaml::parse;
    use super::*;

    /// The items, as far as their layout is simple to the end.
    fn simple(text: &str) -> Option<Vec<YamlNode>> {
        SimpleList::find(text.as_bytes(), "tokens")?.collect::<Result<_, _>>().ok()
    }

    fn parsed(text: &str) -> Option<Vec<YamlNode>> {
        let YamlValue::Map(mut entries) = parse(text, 10_000).ok()?.value else { return None };
        match entries.pop()?.node.value {
            YamlValue::List(items) => Some(items),
            YamlValue::Null => Some(Vec::new()),
            _ => None,
        }
    }

    #[test]
    fn the_layouts_that_people_write_are_simple() {
        for text in [
            "# ours\n\ntokens:\n  - id: \"a\"\n    hash: \"0a\"\n    # why\n    permissions: [\"a:b\", c:*]\n    at: 2027-01-31T12:00:00Z\n",
            "tokens:\n- id: a # first\n  name: 'two words'\n  account: two words # here\n\n- { id: b, limits: { minute: 9/1m, \"d\": 5/1d }, n: 7 }",
            "tokens:\n  - id: \"say \\\"a\\\" or \\\\\"\n    name: { \"k\": \"\\\"\" }\n",
            "tokens:\n  - id: Ä\u{2028}\n",
        ] {
            let (simple, parsed) = (simple(text), parsed(text));
            assert_eq!(simple.is_some(), !text.contains('Ä'), "{text}");
            assert!(
                simple.is_none() || format!("{simple:?}") == format!("{parsed:?}"),
                "{text}\n{simple:?}\n{parsed:?}"
            );
        }
    }

    /// Pieces of token files, well and badly put together.
    fn text() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "- ",
            "  - ",
            "  ",
            "    ",
            "id: ",
            "name: ",
            "a",
            "b c",
            "\"x\"",
            "'y'",
            "\"é\" ",
            "[a, b]",
            "[\"é\", b:c ]",
            "[]",
            "{ k: v }",
            "{ \"k\": 1, l: [a] }",
            ": ",
            ":",
            ", ",
            " # c",
            "#",
            "\n",
            "\n",
            "\n",
            "\n    name: ",
            "\n  - id: ",
            "null",
            "true",
            "07",
            "1e3",
            "2027-01-31",
            "''",
            "\"\"",
            "\\",
            "\\\"",
            "\"\\\\\"",
            "&a ",
            "*a",
            "!",
            "---",
            "\t",
            "\r",
            "|",
            ">",
            "? ",
            "<<: ",
            "%",
            "@",
            "`",
            "-",
            "~",
        ]);
        prop::collection::vec(pieces, 0..14).prop_map(|pieces| format!("tokens:\n  - id: {}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn both_readers_read_the_same_values(text in text()) {
            if let Some(items) = simple(&text) {
                prop_assert_eq!(format!("{:?}", Some(items)), format!("{:?}", parsed(&text)), "{}", text);
            }
        }
    }
}
