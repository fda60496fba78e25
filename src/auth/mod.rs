//! Authentication: from the `Authorization` header to a principal.

mod authenticator;
mod cache;
mod changes;
mod credential;
mod failures;
mod file_store;
mod open_calls;
mod principal;
mod rechecks;
mod record_watch;
mod refusal;
mod served_token;

pub use authenticator::Authenticator;
pub use cache::TokenCache;
pub use changes::Epoch;
pub use failures::Failures;
pub use file_store::FileStore;
pub use open_calls::{OpenCall, OpenCalls, Revocation};
pub use principal::{IDENTITY_HEADERS, Principal};
pub use record_watch::RecordWatch;
pub use refusal::{OUTCOMES, Reason, Refusal, Refused};
