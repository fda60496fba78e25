//! Who asks: from the `Authorization` header to a principal, with records in a YAML file or in Redis.
//!
//! [`Authenticator`] is the step of a request; [`Registry`] is for those who issue tokens.

mod authenticator;
mod base62;
mod cache;
mod credential;
mod date;
mod file;
mod nearest;
mod permission;
mod plans;
mod principal;
mod record;
mod redis_tokens;
mod refusal;
mod registry;
mod token;

pub use authenticator::Authenticator;
pub use cache::TokenCache;
pub use date::Date;
pub use file::{EditError, Edited, FileError, FileProblem, FileStore, TokenFile};
pub use principal::{IDENTITY_HEADERS, Principal};
pub use record::{Record, State, StoredHash};
pub use redis_tokens::{RedisTokens, RedisTokensError};
pub use refusal::{OUTCOMES, Reason, Refusal};
pub use registry::{Draft, Registry, RegistryError};
pub use token::{NewToken, TokenHash};

pub(crate) use nearest::nearest;
