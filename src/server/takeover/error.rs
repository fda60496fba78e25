//! Why a takeover fails.

/// Why a takeover failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The other process says why.
    #[error("the running process refused: {0}")]
    Refused(String),
    #[error("Redis does not answer, so the running process goes on: {0}")]
    StoreDown(String),
}
