//! The limit of open files: every connection takes one, and one more towards the upstream.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of listeners, logs and the store.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit to the hard one, and warns when that is too low for `listen.max_connections`.
pub(super) fn raise_limit(max_connections: usize) {
    let limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })
    {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
    let needed = 2 * max_connections as u64 + OTHER_FILES;
    if let Some(current) = getrlimit(Resource::Nofile).current
        && current < needed
    {
        tracing::warn!(
            "only {current} files may be open, but listen.max_connections of {max_connections} can need {needed}: \
             raise the limit (ulimit -n, LimitNOFILE=) or lower listen.max_connections"
        );
    }
}
