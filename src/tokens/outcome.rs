//! What the registry answers.

use std::sync::Arc;

use super::date::Date;
use super::record::{Record, Usage};
use super::token::TokenHash;
use crate::config::{Plan, Secret};

/// One token, looked up by its id.
#[derive(Debug)]
pub struct Found {
    /// The version of its record.
    pub version: u64,
    /// Its record.
    pub record: Record,
    /// Its limits.
    pub plan: Arc<Plan>,
    /// How it is used.
    pub usage: Usage,
}

/// What became of a deed.
#[derive(Debug)]
pub struct Edited {
    /// The record as it is now.
    pub record: Record,
    /// Its version.
    pub version: u64,
    /// Whether anything had to be changed.
    pub changed: bool,
    /// Whether a token file was written anew, so that comments between its tokens are gone.
    pub rewritten: bool,
}

/// The tokens of an account that were revoked together.
#[derive(Debug)]
pub struct RevokedAccount {
    /// Those that were not revoked before.
    pub tokens: Vec<Edited>,
    /// Tokens of any account that are listed, but whose records Redis has lost: they don't work.
    pub lost: usize,
}

/// Where the secret of a new record comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// It is made here.
    New,
    /// The token exists already, and this is its SHA-256. `id` is that of a token that another Callgate made.
    Registered {
        /// The id; `None`: derived from the hash.
        id: Option<String>,
        /// The hash.
        hash: TokenHash,
    },
}

/// A token that was made.
#[derive(Debug)]
pub struct Issued {
    /// Its record and what became of it. `changed` is false if an earlier request with the same key made it.
    pub edited: Edited,
    /// Its text, unless it was registered by its hash or made by an earlier request: it is known only at the moment it is made.
    pub secret: Option<Secret>,
}

/// A token that was rotated.
#[derive(Debug)]
pub struct Rotated {
    /// Its record.
    pub edited: Edited,
    /// Its new text.
    pub secret: Secret,
    /// Until when the secret works that it had until now; `None`: it has ended.
    pub old_until: Option<Date>,
}

/// What became of one record.
pub(super) enum ImportOutcome {
    /// It is registered under this id.
    Written(String),
    /// A record with this id was there, for this token.
    Present(String),
    /// A record with this id was there, for another token.
    Taken(String),
}
