//! What both stores answer with: records, what is kept beside them, and where a listing goes on.

use super::date::Date;
use super::record::{Record, Usage};

/// A record with all that is kept beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredRecord {
    pub(super) version: u64,
    pub(super) record: Record,
    pub(super) usage: Usage,
}

/// Where a listing goes on: behind this token.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cursor {
    /// When the token there was made, in Unix seconds.
    pub(super) created: u64,
    /// Its id.
    pub(super) id: String,
}

/// Some records, each with its cursor, and the cursor of the last one unless nothing follows it.
pub(super) type RecordPage = (Vec<(Cursor, StoredRecord)>, Option<Cursor>);

/// How a token was used since that was saved last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewUsage {
    pub(super) requests: u64,
    pub(super) last: Date,
}
