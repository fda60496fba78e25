//! Why records could not be read, or a change was refused.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::token;
use crate::config::{Problem, did_you_mean};
use crate::store::StoreError;

/// How long a writer of the token file waits for another one.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What managing tokens answers.
pub(super) type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// One thing that is wrong with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The field: a key of a token as `--json` prints it, or what else was given.
    pub field: &'static str,
    /// What is wrong and what would be right, in one sentence.
    pub message: String,
}

impl Fault {
    /// The error of a request in which this alone is wrong.
    pub(super) fn invalid(field: &'static str, message: impl Into<String>) -> RegistryError {
        RegistryError::Invalid(vec![Self { field, message: message.into() }])
    }
}

/// Why a record was not managed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// What was asked for is wrong: all of it.
    #[error("{}", lines(.0))]
    Invalid(Vec<Fault>),
    /// A token with this hash or id is there already.
    #[error("the token is registered already, with the id {0}")]
    Exists(String),
    /// The key of this request was used before, to make another token.
    #[error("this key was used before to make another token ({0}): take a new key")]
    KeyUsed(String),
    /// No token has this id; the known ids are for a hint.
    #[error("{}", unknown(id, known))]
    Unknown {
        /// The id that was asked for.
        id: String,
        /// Some of the ids that there are.
        known: Vec<String>,
    },
    /// No record has this id, but Redis has lost some.
    #[error(
        "Redis has no record of the token {id}, which does not work any more: it has lost the record, which an eviction \
         (see maxmemory-policy) or a restart without persistence does"
    )]
    Lost {
        /// The token.
        id: String,
    },
    /// No record has the id, and Redis has evicted keys.
    #[error(
        "no token has this id. Redis has evicted {keys} keys (see maxmemory-policy): if the token's record was one of \
         them, the token does not work any more"
    )]
    Evicted {
        /// How many.
        keys: u64,
    },
    /// The record has another version than the caller expects.
    #[error("the token {id} was changed meanwhile, its version is {version} now: look at it again")]
    Stale {
        /// The token.
        id: String,
        /// The version that it has.
        version: u64,
    },
    /// The token is revoked, which can't be undone.
    #[error("the token {0} is revoked, for good: make a new one")]
    Revoked(String),
    /// No secret of Callgate's can be made for this id.
    #[error("the token {0} can't be rotated, for its id is not 12 letters and digits: make a new one, and revoke this")]
    NoSecret(String),
    /// Redis broke off while the record was written, and has not answered since.
    #[error(
        "Redis does not answer, so it is not known whether the token {id} was written: look at it when Redis is back"
    )]
    Uncertain {
        /// The token.
        id: String,
        /// What Redis said last.
        #[source]
        source: StoreError,
    },
    /// Some tokens were managed, and then something went wrong.
    #[error("{done} tokens were managed before this: do the same again for the others")]
    Partly {
        /// How many.
        done: usize,
        /// What went wrong.
        #[source]
        source: Box<RegistryError>,
    },
    /// Others change the record all the time.
    #[error("the token {0} is being changed by others at the same time: try again")]
    Contended(String),
    /// The operating system gives no randomness for a secret.
    #[error("no randomness for a token")]
    Randomness(#[from] getrandom::Error),
    /// The token file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process kept the token file locked.
    #[error("{}: another process has been changing it for {} seconds", .0.display(), LOCK_WAIT.as_secs())]
    Locked(PathBuf),
    /// Redis can't be asked, or holds a damaged record.
    #[error(transparent)]
    Redis(#[from] RedisTokensError),
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        Self::Redis(error.into())
    }
}

fn lines(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Characters of an unknown id that are repeated.
const REPEATED: usize = 24;

/// That no token has this id. What was given may be a token's text, taken for its id: that is never repeated, and never whole what might
/// be one.
fn unknown(id: &str, known: &[String]) -> String {
    if let Some(inside) = token::id_inside(id) {
        return format!("that is the text of a token, not its id, which is {inside:?}: keep the text secret");
    }
    if !token::is_id(id) {
        return "no token has such an id: one is 1 to 64 letters, digits, \".\", \"_\" and \"-\"".to_owned();
    }
    let shown = if id.len() <= REPEATED { id.to_owned() } else { format!("{}…", &id[..REPEATED]) };
    format!("no token has the id {shown:?}{}", did_you_mean(id, known.iter().map(String::as_str)))
}

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// What is in it is wrong: every problem, in the order of the file.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// It has no list of tokens. Files are emptied by mistake, and that would revoke all tokens.
    #[error("{}: {}", .0.display(), Self::EMPTY)]
    Empty(PathBuf),
}

impl FileError {
    pub(super) const EMPTY: &str = "is empty (if there is to be no token at all, write `tokens: []`)";
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RedisTokensError {
    /// Redis gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what Callgate writes.
    #[error("the record of token {id} in Redis can't be read: {why}")]
    Damaged {
        /// The token's id.
        id: String,
        /// What is wrong with it.
        why: String,
    },
}
