//! Edits of a token file's text that keep what people wrote in it: comments, order and layout.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use super::parse::Placed;
use crate::config::Position;
use crate::tokens::limit_text::limit_text;
use crate::tokens::record::Record;

/// The head of a file that Callgate makes.
const HEAD: &str = "\
# Tokens of Callgate: their SHA-256, never their text. `callgate token` manages them here; a running gateway follows.
";

/// What is to become of a file.
#[derive(Default)]
pub(super) struct Edits {
    /// Records that take the place of others, by index.
    pub(super) changed: BTreeMap<usize, Record>,
    /// Records that come at the end.
    pub(super) added: Vec<Record>,
}

impl Edits {
    /// All records as they are to be.
    pub(super) fn applied<'a>(&'a self, placed: &'a [Placed]) -> impl Iterator<Item = &'a Record> {
        let kept = placed.iter().enumerate().map(|(at, old)| self.changed.get(&at).unwrap_or(&old.record));
        kept.chain(&self.added)
    }
}

/// The text with single lines changed: those of the keys whose values are others. `None` if a token isn't laid out that way.
pub(super) fn by_lines(text: &str, placed: &[Placed], edits: &Edits) -> Option<String> {
    edit(text, placed, edits, |lines, span, old, new| {
        let mut numbers: Vec<usize> = old.keys.iter().map(|(_, position)| position.line).collect();
        numbers.dedup();
        if numbers.len() != old.keys.len() {
            return None;
        }
        let (before, after) = (keys(&old.record), keys(new));
        let written = |key: &str| old.keys.iter().find(|(name, _)| *name == key).map(|(_, position)| *position);
        let ends = |line: usize| numbers.iter().copied().find(|other| *other > line).unwrap_or(span.end + 1);
        let mut changes: Vec<(Position, LineEdit)> = Vec::new();
        // The last new key first: each is put directly below the id.
        for (key, value) in after.iter().rev().filter(|pair| !before.contains(pair)) {
            let line = format!("{key}: {value}");
            changes.push(match written(key) {
                Some(position) => (position, LineEdit::Instead(line)),
                None => (written("id")?, LineEdit::Below(line)),
            });
        }
        for (key, _) in before.iter().filter(|(key, _)| !after.iter().any(|(other, _)| other == key)) {
            changes.push((written(key)?, LineEdit::Away));
        }
        // From below, so that the numbers above stay true.
        changes.sort_by_key(|(position, _)| std::cmp::Reverse(position.line));
        for (position, change) in changes {
            let Position { line, column } = position;
            match change {
                LineEdit::Below(new) => lines.insert(line, format!("{:1$}{new}\n", "", column - 1).into()),
                LineEdit::Instead(new) => exchange_value(lines, position, ends(line), Some(new))?,
                LineEdit::Away => exchange_value(lines, position, ends(line), None)?,
            }
        }
        Some(())
    })
}

/// The text with whole tokens written anew, and everything around them as it was. `None` if a token shares a line with others.
pub(super) fn by_entries(text: &str, placed: &[Placed], edits: &Edits) -> Option<String> {
    edit(text, placed, edits, |lines, span, old, new| {
        let first = lines.get(span.start - 1)?;
        let indent = first.len() - first.trim_start_matches(' ').len();
        if !first.trim_start().starts_with('-') || old.position.line != span.start {
            return None;
        }
        let mut entry = String::new();
        push_entry(&mut entry, indent, new);
        lines.splice(span.start - 1..span.end, [entry.into()]);
        Some(())
    })
}

/// Changes tokens one by one, the last one first, and adds new ones at the end. A token's span are the numbers of its first and last line,
/// without comments and empty lines behind it.
fn edit(
    text: &str,
    placed: &[Placed],
    edits: &Edits,
    change: impl Fn(&mut Vec<Cow<'_, str>>, Span, &Placed, &Record) -> Option<()>,
) -> Option<String> {
    let mut lines: Vec<Cow<'_, str>> = text.split_inclusive('\n').map(Cow::from).collect();
    if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
        last.to_mut().push('\n');
    }
    let indent = placed.first().map(|first| {
        let line = lines.get(first.position.line.saturating_sub(1)).map_or("", |line| &**line);
        line.len() - line.trim_start_matches(' ').len()
    });
    for (at, new) in edits.changed.iter().rev() {
        let old = &placed[*at];
        let next = placed.get(at + 1).map_or(lines.len() + 1, |next| next.position.line);
        let mut end = next.checked_sub(1).filter(|end| *end >= old.position.line)?;
        while end > old.position.line && is_remark(&lines[end - 1]) {
            end -= 1;
        }
        change(&mut lines, Span { start: old.position.line, end }, old, new)?;
    }
    let mut text = lines.concat();
    match indent {
        Some(indent) => edits.added.iter().for_each(|record| push_entry(&mut text, indent, record)),
        None => text = rendered(&text, edits.added.iter()),
    }
    Some(text)
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

/// What becomes of a key's line.
enum LineEdit {
    /// Another line comes below it.
    Below(String),
    /// Another key and value come in its place.
    Instead(String),
    /// It goes.
    Away,
}

/// Puts a new key and value (`None`: nothing) in place of the one at a line and column, which ends before the line `end`. Comments
/// stay.
fn exchange_value(
    lines: &mut Vec<Cow<'_, str>>,
    Position { line, column }: Position,
    end: usize,
    new: Option<String>,
) -> Option<()> {
    let goes_on = line..end.saturating_sub(1).min(lines.len());
    for at in goes_on.rev() {
        if !is_remark(&lines[at]) {
            lines.remove(at);
        }
    }
    let old = lines.get_mut(line - 1)?;
    let (head, rest) = old.split_at_checked(column - 1)?;
    let Some(new) = new else {
        if !head.trim().is_empty() {
            return None;
        }
        lines.remove(line - 1);
        return Some(());
    };
    // A comment begins with a space and #; behind a quote it could be a part of the value.
    let comment = rest.rfind(" #").map(|at| &rest[at..]).filter(|comment| !comment.contains(['"', '\'']));
    let ending = if rest.ends_with("\r\n") { "\r\n" } else { "\n" };
    *old = format!("{head}{new}{}{ending}", comment.map_or("", str::trim_end)).into();
    Some(())
}

fn is_remark(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// A whole file: the comment at the head of `old`, and all records.
pub(super) fn rendered<'a>(old: &str, records: impl Iterator<Item = &'a Record>) -> String {
    let mut text: String = old.split_inclusive('\n').take_while(|line| is_remark(line)).collect();
    if text.trim().is_empty() {
        text = HEAD.to_owned();
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str("tokens:\n");
    for record in records {
        push_entry(&mut text, 2, record);
    }
    text
}

fn push_entry(text: &mut String, indent: usize, record: &Record) {
    for (at, (key, value)) in keys(record).iter().enumerate() {
        let lead = if at == 0 { "- " } else { "  " };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{:indent$}{lead}{key}: {value}", "");
    }
}

/// The keys of a token and their values as they are written.
fn keys(record: &Record) -> Vec<(&'static str, String)> {
    // JSON's strings are YAML's double-quoted ones.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut keys = vec![
        ("id", quoted(&record.id)),
        ("hash", quoted(&record.hashes[0].sha256.to_hex())),
        ("name", quoted(&record.name)),
        ("account", quoted(&record.account)),
    ];
    let permissions: Vec<String> = record.permissions.iter().map(|permission| quoted(permission)).collect();
    keys.push(("permissions", format!("[{}]", permissions.join(", "))));
    keys.extend(record.plan.as_ref().map(|plan| ("plan", quoted(plan))));
    if !record.limits.is_empty() {
        let limits: Vec<String> =
            record.limits.iter().map(|limit| format!("{}: {}", quoted(&limit.name), limit_text(limit))).collect();
        keys.push(("limits", format!("{{ {} }}", limits.join(", "))));
    }
    keys.extend(record.concurrent_calls.map(|calls| ("concurrent_calls", calls.to_string())));
    keys.extend(record.in_flight.map(|requests| ("in_flight", requests.to_string())));
    keys.extend(record.created_at.map(|date| ("created_at", date.to_string())));
    keys.extend(record.expires_at.map(|date| ("expires_at", date.to_string())));
    keys.extend((!record.enabled).then(|| ("enabled", "false".to_owned())));
    keys.extend(record.revoked_at.map(|date| ("revoked_at", date.to_string())));
    let old_hashes = record.hashes.iter().skip(1).filter_map(|hash| Some((hash.sha256.to_hex(), hash.expires_at?)));
    let old_hashes: Vec<String> = old_hashes.map(|(hash, end)| format!("{}: {end}", quoted(&hash))).collect();
    keys.extend((!old_hashes.is_empty()).then(|| ("old_hashes", format!("{{ {} }}", old_hashes.join(", ")))));
    keys.extend(record.request.as_ref().map(|request| ("request", quoted(request))));
    keys
}
