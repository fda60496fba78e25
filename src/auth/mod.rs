//! Who asks: from the `Authorization` header to a principal, with records in a YAML file or in Redis.
//!
//! [`Authenticator`] is the step of a request; [`Registry`] is for those who issue tokens.

mod audit;
mod authenticator;
mod base62;
mod cache;
mod changes;
mod credential;
mod date;
mod failures;
mod file;
mod import;
mod open;
mod permission;
mod plans;
mod principal;
mod record;
mod redis_tokens;
mod refusal;
mod registry;
mod token;
mod usage;

pub use audit::{Action, Actor, Entry, TRAIL_LENGTH, TrailFilter, TrailPage};
pub use authenticator::Authenticator;
pub use cache::TokenCache;
pub use changes::Epoch;
pub use date::Date;
pub use failures::Failures;
pub use file::{EditError, FileError, FileStore, TokenFile, check_tokens};
pub use import::{COLUMNS, Defaults, Export, ExportError, LONGEST_EXPORT};
pub use open::{OpenCall, OpenCalls, RecordWatch, Withdrawal};
pub use permission::{covers, strange_permissions};
pub use plans::limit_text;
pub use principal::{IDENTITY_HEADERS, Principal};
pub use record::{Record, State, StoredHash, Usage};
pub use redis_tokens::{RedisTokens, RedisTokensError};
pub use refusal::{OUTCOMES, Reason, Refusal};
pub use registry::{
    Change, Draft, Edited, Fault, Filter, Found, Imported, Issued, Listed, Listing, MAX_GRACE, Origin, Refused,
    Registry, RegistryError, Rotated,
};
pub use token::{NewToken, TokenHash};
pub use usage::{UsageBook, UsageKeeper};

/// ` (did you mean "…"?)` with the known name that comes nearest, or nothing.
fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    crate::config::nearest(name, known).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
}
