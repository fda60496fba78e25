//! Authentication: from the `Authorization` header to a principal.

mod authenticator;
mod cache;
mod changes;
mod credential;
mod failures;
mod file_store;
mod open;
mod principal;
mod refusal;

pub use authenticator::Authenticator;
pub use cache::TokenCache;
pub use changes::Epoch;
pub use failures::Failures;
pub use file_store::FileStore;
pub use open::{OpenCall, OpenCalls, RecordWatch, Revocation};
pub use principal::{IDENTITY_HEADERS, Principal};
pub use refusal::{OUTCOMES, Reason, Refusal};
