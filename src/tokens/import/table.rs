//! The forms that an export comes in: each becomes rows of named values.

use serde_json::{Map, Value};

use super::backslash::{self, is_escaped};

/// One token of an export.
#[derive(Debug)]
pub(in crate::tokens) struct Row {
    /// Its place: of CSV and of JSON lines the line, of one JSON list the place in it, from 1.
    pub(in crate::tokens) line: u64,
    /// What is told of it by names of columns, in small letters; or why it can't be read.
    pub(in crate::tokens) fields: Result<Map<String, Value>, String>,
}

/// Why an export can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It holds nothing.
    #[error("it is empty: a first line with the names of columns is needed, or JSON objects")]
    Empty,
    /// No column can hold the hashes.
    #[error("none of its columns is called sha256, hash or token: which one holds the SHA-256 of the tokens?")]
    NoHashes,
    /// It is said to be JSON and is not.
    #[error("it is no JSON list: {0}")]
    Json(String),
}

/// What stands for nothing in exports of databases.
const NOTHING: [&str; 3] = ["", "NULL", "\\N"];
/// Columns that can hold the hash.
pub(super) const HASHES: [&str; 3] = ["sha256", "hash", "token"];

/// CSV, whose first line names the columns.
pub(super) fn csv(text: &str) -> Result<Vec<Row>, ExportError> {
    let head = text.trim_start().lines().next().unwrap_or_default();
    let most = [',', ';', '\t'].into_iter().max_by_key(|separator| {
        let count = head.chars().filter(|character| character == separator).count();
        (count, *separator == ',')
    });
    let separator = most.unwrap_or(',');
    let rows = text.trim_start_matches(['\n', '\r']);
    let lines_before = text[..text.len() - rows.len()].matches('\n').count() as u64;
    let mut rows = if is_escaped(rows, separator) { escaped(rows, separator)? } else { quoted(rows, separator)? };
    rows.iter_mut().for_each(|row| row.line += lines_before);
    Ok(rows)
}

/// CSV in which quotes are written twice (RFC 4180).
fn quoted(text: &str, separator: char) -> Result<Vec<Row>, ExportError> {
    let delimiter = u8::try_from(separator).unwrap_or(b',');
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::Headers).from_reader(text.as_bytes());
    let head = reader.headers().cloned().unwrap_or_default();
    let names = names(head.iter())?;
    let row = |record: csv::Result<csv::StringRecord>| {
        let position = record.as_ref().map_or_else(csv::Error::position, csv::StringRecord::position);
        let line = position.map_or(0, csv::Position::line);
        let value = |cell: &str| if NOTHING.contains(&cell) { Value::Null } else { cell.into() };
        let fields = record.map(|record| names.iter().cloned().zip(record.iter().map(value)).collect());
        Row { line, fields: fields.map_err(|error| description(&error)) }
    };
    Ok(reader.records().map(row).collect())
}

/// CSV in which backslashes escape.
fn escaped(text: &str, separator: char) -> Result<Vec<Row>, ExportError> {
    let mut rows = backslash::rows(text, separator).into_iter();
    let head = rows.next().map(|(_, head)| head).unwrap_or_default();
    let names = names(head.iter().map(|name| name.as_deref().unwrap_or_default().trim()))?;
    let row = |(line, values): (u64, Vec<Option<String>>)| {
        let (columns, value) = (values.len(), |cell: Option<String>| cell.filter(|cell| !cell.is_empty()).into());
        let fields = names.iter().cloned().zip(values.into_iter().map(value)).collect();
        let fields = if columns == names.len() { Ok(fields) } else { Err(unequal(columns, names.len())) };
        Row { line, fields }
    };
    Ok(rows.map(row).collect())
}

/// The names of columns, in small letters. One must be able to hold the hashes.
fn names<'a>(head: impl Iterator<Item = &'a str>) -> Result<Vec<String>, ExportError> {
    let names: Vec<String> = head.map(str::to_lowercase).collect();
    let has_hashes = names.iter().any(|name| HASHES.contains(&name.as_str()));
    if has_hashes { Ok(names) } else { Err(ExportError::NoHashes) }
}

fn unequal(columns: impl std::fmt::Display, expected: impl std::fmt::Display) -> String {
    format!("has {columns} columns, not {expected} as the first line")
}

/// What is wrong with a line, without repeating any of it.
fn description(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => unequal(len, expected_len),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => "can't be read as CSV".to_owned(),
    }
}

/// One JSON list of objects.
pub(super) fn json_list(text: &str) -> Result<Vec<Row>, ExportError> {
    let list: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        // The text of the error could quote the export; its place and kind don't.
        ExportError::Json(format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()))
    })?;
    let list = if is_phpmyadmin(&list) { list.into_iter().flat_map(rows_of_table).collect() } else { list };
    Ok(rows(list))
}

/// A row for each object of a list.
pub(super) fn rows(list: Vec<Value>) -> Vec<Row> {
    list.into_iter().zip(1..).map(|(value, line)| Row { line, fields: object(value) }).collect()
}

/// Whether this is an export of phpMyAdmin: a header, and tables with their rows as `data`.
fn is_phpmyadmin(list: &[Value]) -> bool {
    list.first().is_some_and(|first| first["type"] == "header")
}

/// The rows of a table of phpMyAdmin that can hold tokens.
fn rows_of_table(mut table: Value) -> Vec<Value> {
    let Some(Value::Array(rows)) = table.get_mut("data").map(Value::take) else { return Vec::new() };
    let has_hashes = rows.first().is_some_and(|row| HASHES.iter().any(|name| row.get(name).is_some()));
    if has_hashes { rows } else { Vec::new() }
}

/// One JSON object a line.
pub(super) fn json_lines(text: &str) -> Vec<Row> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let read = |(text, line): (&str, u64)| {
        let value = serde_json::from_str(text).map_err(|error| format!("is no JSON (column {})", error.column()));
        Row { line, fields: value.and_then(object) }
    };
    lines.map(read).collect()
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(fields) => Ok(fields.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()),
        _ => Err("is no JSON object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rows: &[Row]) -> Vec<(u64, Result<String, &str>)> {
        let fields = |row: &Row| match &row.fields {
            Ok(fields) => Ok(Value::Object(fields.clone()).to_string()),
            Err(why) => Err(why.clone()),
        };
        rows.iter().map(|row| (row.line, fields(row).map_err(|why| &*why.leak()))).collect()
    }

    #[test]
    fn csv_is_read_with_its_quotes_separators_and_line_numbers() {
        let text =
            "\nToken,Name,Abilities\nab,\"a \"\"b\"\", c\",\"[\"\"*\"\"]\"\ncd,\"two\nlines\",NULL\nef,x\ngh,,\\N\n";
        assert_eq!(
            shown(&csv(text).unwrap()),
            [
                (3, Ok(r#"{"abilities":"[\"*\"]","name":"a \"b\", c","token":"ab"}"#.to_owned())),
                (4, Ok("{\"abilities\":null,\"name\":\"two\\nlines\",\"token\":\"cd\"}".to_owned())),
                (6, Err("has 2 columns, not 3 as the first line")),
                (7, Ok(r#"{"abilities":null,"name":null,"token":"gh"}"#.to_owned())),
            ]
        );
        for separator in ["\t", ";"] {
            let text = format!("sha256{separator}name\nab{separator}a, b\n");
            assert_eq!(shown(&csv(&text).unwrap()), [(2, Ok(r#"{"name":"a, b","sha256":"ab"}"#.to_owned()))]);
        }
        assert!(matches!(csv("name,account\na,b\n"), Err(ExportError::NoHashes)));
    }

    #[test]
    fn csv_with_backslashes_is_read_as_databases_mean_it() {
        let text = "\nID,Token,Abilities,Type,At\n\"1\",\"ab\",\"[\\\"*\\\"]\",\"App\\\\User\",\\N\n\"2\",\"cd\"\n";
        assert_eq!(
            shown(&csv(text).unwrap()),
            [
                (3, Ok(r#"{"abilities":"[\"*\"]","at":null,"id":"1","token":"ab","type":"App\\User"}"#.to_owned())),
                (4, Err("has 2 columns, not 5 as the first line")),
            ]
        );
        let text = "hash\tname\nab\tApp\\\\User\ncd\t\\N\n";
        assert_eq!(
            shown(&csv(text).unwrap()),
            [
                (2, Ok(r#"{"hash":"ab","name":"App\\User"}"#.to_owned())),
                (3, Ok(r#"{"hash":"cd","name":null}"#.to_owned()))
            ]
        );
        assert!(matches!(csv("name,type\n\"a\",\"b\\\\c\"\n"), Err(ExportError::NoHashes)));
    }

    #[test]
    fn of_an_export_of_phpmyadmin_the_rows_of_tokens_are_read() {
        let rows = json_list(
            r#"[{"type":"header","version":"5.2.1"}, {"type":"database","name":"laravel"},
            {"type":"table","name":"users","data":[{"id":"5","name":"x"}]},
            {"type":"table","name":"personal_access_tokens","data":[{"id":"1","token":"ab"},{"id":"2","token":"cd"}]}]"#,
        );
        let tokens =
            [(1, Ok(r#"{"id":"1","token":"ab"}"#.to_owned())), (2, Ok(r#"{"id":"2","token":"cd"}"#.to_owned()))];
        assert_eq!(shown(&rows.unwrap()), tokens);
    }

    #[test]
    fn json_is_read_in_both_forms() {
        let rows = json_lines("{\"Hash\":\"ab\",\"n\":1}\n\n{\"hash\":\n[1]\n");
        let (first, rest) = (shown(&rows[..1]), &rows[1..]);
        assert_eq!(first, [(1, Ok(r#"{"hash":"ab","n":1}"#.to_owned()))]);
        assert_eq!(shown(rest), [(3, Err("is no JSON (column 8)")), (4, Err("is no JSON object"))]);
        let rows = json_list("[{\"hash\":\"ab\"}, 7]").unwrap();
        assert_eq!(shown(&rows), [(1, Ok(r#"{"hash":"ab"}"#.to_owned())), (2, Err("is no JSON object"))]);
        assert_eq!(json_list("[{").unwrap_err().to_string(), "it is no JSON list: Eof error at line 1, column 2");
    }
}
