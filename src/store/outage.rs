//! Why Redis can't be used at the moment, in words for the operator's log.

use std::io;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::config::RedisNode;

/// Why one server, or the way to it, can't be used at the moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum Outage {
    #[error("Redis at {0} can't be reached")]
    Unreachable(RedisNode, #[source] io::Error),
    #[error("TLS to Redis at {0} failed (see store.redis.ca, cert and key)")]
    Tls(RedisNode, #[source] io::Error),
    #[error("Redis at {0} did not answer the TLS handshake in time (does this port speak TLS?)")]
    NoHandshake(RedisNode),
    #[error("Redis at {0} refuses the user name or the password (see store.redis)")]
    Login(RedisNode, #[source] RedisError),
    #[error("Redis at {0} refuses to serve")]
    Refuses(RedisNode, #[source] RedisError),
    #[error("the connection to Redis at {0} broke")]
    Broken(RedisNode, #[source] RedisError),
    #[error("Redis at {0} did not answer in time")]
    Silent(RedisNode),
    #[error("Redis at {0} is a replica, not a primary")]
    Replica(RedisNode),
    #[error("Redis at {0} is no longer the primary, {1} is")]
    Demoted(RedisNode, RedisNode),
    #[error("the sentinels are replacing the primary, Redis at {0}")]
    HandsOver(RedisNode),
    #[error("no sentinel answers")]
    NoSentinel(#[source] Box<Outage>),
    #[error("the sentinels know no service of the name {0} (see store.redis.sentinel.service)")]
    UnknownService(Box<str>),
    #[error("Redis at {0} is not part of a cluster (see store.redis)")]
    NoCluster(RedisNode, #[source] RedisError),
    #[error("no node of the Redis cluster answers")]
    NoNode(#[source] Box<Outage>),
    #[error("the Redis cluster at {0} is down: {1} of its 16384 slots are served")]
    ClusterDown(RedisNode, usize),
    #[error(
        "the Redis cluster at {0} serves nothing (CLUSTERDOWN), for a node is missing; \
         with cluster-require-full-coverage no it serves the slots of the others"
    )]
    ClusterRefuses(RedisNode),
    #[error("Redis at {0} sent an unexpected answer")]
    Unexpected(RedisNode),
}

impl Outage {
    /// Sorts an error of a connection that is being made.
    pub(super) fn of(node: &RedisNode, error: RedisError) -> Self {
        let node = node.clone();
        let code = error.code();
        if error.kind() == ErrorKind::AuthenticationFailed || code.is_some_and(|c| c == "NOAUTH" || c == "WRONGPASS") {
            Self::Login(node, error)
        } else if is_broken(&error) {
            Self::Broken(node, error)
        } else {
            Self::Refuses(node, error)
        }
    }

    /// Whether only an operator can end it, so that it gets a line of its own when it appears during another outage.
    pub(super) fn needs_operator(&self) -> bool {
        match self {
            Self::Refuses(_, error) => error.kind() != ServerErrorKind::BusyLoading.into(),
            Self::Tls(..) | Self::Login(..) | Self::UnknownService(_) | Self::NoCluster(..) => true,
            Self::NoSentinel(why) | Self::NoNode(why) => why.needs_operator(),
            Self::Unreachable(..)
            | Self::Broken(..)
            | Self::Silent(_)
            | Self::NoHandshake(_)
            | Self::Replica(_)
            | Self::Demoted(..)
            | Self::HandsOver(_)
            | Self::ClusterDown(..)
            | Self::ClusterRefuses(_)
            | Self::Unexpected(_) => false,
        }
    }

    /// The error and its causes, in one line.
    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            next = cause.source();
        }
        text
    }
}

/// Errors of the connection. Half an answer is one: the server has not refused anything.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.kind() == ErrorKind::Parse
}

/// Errors that say "this server can't serve anybody now" rather than "this command is wrong".
pub(super) fn is_outage(error: &RedisError) -> bool {
    is_broken(error)
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_a_broken_connection_and_no_refusal() {
        let half = RedisError::from((ErrorKind::Parse, "the answer ends in the middle"));
        assert!(is_outage(&half));
        let node = RedisNode { host: "127.0.0.1".into(), port: 1 };
        assert!(matches!(Outage::of(&node, half), Outage::Broken(..)));
    }
}
