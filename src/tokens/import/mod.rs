//! Tokens that were made elsewhere, as an export lists them: by their hashes, in CSV or JSON.

mod backslash;
mod row;
mod table;

use serde_json::Value;

pub(super) use row::ImportRow;
pub use row::{COLUMNS, Defaults};
pub use table::ExportError;
pub(super) use table::Row;

/// Bytes of an export.
pub const LONGEST_EXPORT: u64 = 512 << 20;

/// An export, read and not yet checked.
#[derive(Debug, Default)]
pub struct Export {
    pub(super) rows: Vec<Row>,
    /// Columns that mean nothing here.
    pub ignored: Vec<String>,
}

impl Export {
    /// Reads CSV with a line of names first (the separator is a comma, a semicolon or a tab; quotes are doubled or escaped by
    /// backslashes), a JSON list of objects, an export of phpMyAdmin in JSON, or one JSON object a line.
    ///
    /// # Errors
    /// [`ExportError`]; what is wrong with single lines is told when they are imported.
    pub fn read(text: &str) -> Result<Self, ExportError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ok(Self::of_rows(match text.trim_start().bytes().next() {
            None => return Err(ExportError::Empty),
            Some(b'[') => table::json_list(text)?,
            Some(b'{') => table::json_lines(text),
            Some(_) => table::csv(text)?,
        }))
    }

    /// Takes a list of JSON objects.
    pub(crate) fn of(list: Vec<Value>) -> Self {
        Self::of_rows(table::rows(list))
    }

    fn of_rows(rows: Vec<Row>) -> Self {
        let mut ignored: Vec<String> = Vec::new();
        for name in rows.iter().filter_map(|row| row.fields.as_ref().ok()).flat_map(|fields| fields.keys()) {
            if !COLUMNS.contains(&name.as_str()) && !ignored.contains(name) && ignored.len() < 100 {
                ignored.push(name.clone());
            }
        }
        Self { rows, ignored }
    }

    /// How many tokens it lists, good or not.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}
