//! Token records: their format, the two stores that keep them, and what people do to them.
//!
//! [`Registry`] is for whoever issues tokens; `auth/` reads records to answer requests.

mod audit;
mod base62;
mod date;
mod file;
mod import;
mod permission;
mod plans;
mod record;
mod redis;
mod registry;
mod token;
mod usage;
mod view;

pub use audit::{Action, Actor, Entry, TRAIL_LENGTH, TrailFilter, TrailPage};
pub use date::Date;
pub use file::{EditError, FileError, TokenFile, check_tokens};
pub(crate) use file::{Stamp, load, read_records};
pub use import::{COLUMNS, Defaults, Export, ExportError, LONGEST_EXPORT};
pub use permission::{covers, strange_permissions};
pub(crate) use plans::Plans;
pub use plans::limit_text;
pub use record::{Record, State, StoredHash, Usage};
pub use redis::{RedisTokens, RedisTokensError};
pub use registry::{
    Change, Draft, Edited, Fault, Filter, Found, Imported, Issued, Listed, Listing, MAX_GRACE, Origin, Refused,
    Registry, RegistryError, Rotated,
};
pub(crate) use token::Shape;
pub use token::{NewToken, TokenHash};
pub use usage::{UsageCounts, UsageWriter};
pub(crate) use view::TokenView;

#[cfg(test)]
pub(crate) use plans::tests::plans as test_plans;
#[cfg(test)]
pub(crate) use record::tests::record_of;
