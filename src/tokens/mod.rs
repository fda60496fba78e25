//! Token records: their format, the two stores that keep them, and what people do to them.
//!
//! [`Registry`] is for whoever issues tokens; `auth/` reads records to answer requests.

mod audit;
mod base62;
mod cursor;
mod date;
mod draft;
mod error;
mod file;
mod hour;
mod import;
mod limit_text;
mod operation;
mod outcome;
mod permission;
mod plans;
mod recent_refusals;
mod record;
mod redis;
mod registry;
mod token;
mod usage_counts;
mod usage_writer;
mod view;

pub use audit::{Action, ActionContext, Actor, Entry, TRAIL_LENGTH, TrailFilter, TrailPage};
pub use date::Date;
pub(crate) use draft::shortened;
pub use draft::{Change, Draft};
pub use error::{Fault, FileError, RedisTokensError, RegistryError};
pub(crate) use file::{ServedFile, Stamp, check_tokens};
pub(crate) use hour::{Hour, HourUsage};
pub use import::{COLUMNS, Defaults, Export, ExportError, LONGEST_EXPORT};
pub(crate) use limit_text::limit_text;
pub use operation::{MAX_GRACE, Operation};
pub use outcome::{Edited, Found, Issued, Origin, RevokedAccount, Rotated};
pub(crate) use permission::{covers, strange_permissions};
pub(crate) use plans::PlanChoice;
pub use plans::Plans;
pub use record::{Record, State, StoredHash, StoredRecord, Usage};
pub use redis::RedisTokens;
pub use registry::{Filter, Imported, Listing, Refused, Registry};
pub use token::{NewToken, TokenHash};
pub(crate) use token::{Shape, is_id};
pub use usage_counts::UsageCounts;
pub use usage_writer::UsageWriter;
pub(crate) use view::TokenView;

#[cfg(test)]
pub(crate) use plans::tests::plans as test_plans;
#[cfg(test)]
pub(crate) use record::tests::record_of;
