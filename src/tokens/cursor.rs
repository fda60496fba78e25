//! Where a listing of records continues.

use super::error::{Fault, Result};
use super::record::StoredRecord;
use super::token;

/// The last token of a page: the next page begins behind it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cursor {
    /// When the token there was made, in Unix seconds; in a file, its index.
    pub(super) created: u64,
    /// Its id.
    pub(super) id: String,
}

/// Some records, each with its cursor, and the cursor of the last one unless nothing follows it.
pub(super) type RecordPage = (Vec<(Cursor, StoredRecord)>, Option<Cursor>);

impl Cursor {
    /// Reads what [`Self::text`] writes.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let cursor = text.split_once('.').and_then(|(created, id)| {
            let created = created.parse().ok().filter(|_| created.bytes().all(|b| b.is_ascii_digit()))?;
            token::is_id(id).then(|| Self { created, id: id.to_owned() })
        });
        cursor.ok_or_else(|| Fault::invalid("after", "must be what the page before said"))
    }

    pub(super) fn text(&self) -> String {
        format!("{}.{}", self.created, self.id)
    }
}
