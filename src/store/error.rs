//! Why Redis gave no answer.

use redis::RedisError;

use super::late::LateAnswer;

/// Why Redis gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection at the moment.
    #[error("no connection to Redis")]
    Down,
    /// The deadline passed. The answer may come yet, if anything was sent.
    #[error("Redis did not answer in time")]
    Deadline(Option<LateAnswer>),
    /// Redis answered with an error.
    #[error("Redis refused the command")]
    Refused(#[source] RedisError),
    /// Redis answered something that makes no sense here.
    #[error("unexpected answer from Redis: {0}")]
    Unexpected(&'static str),
}

impl StoreError {
    /// The same, for a call whose late answer nobody wants to know.
    #[must_use]
    pub fn without_answer(self) -> Self {
        if let Self::Deadline(_) = self { Self::Deadline(None) } else { self }
    }
}
