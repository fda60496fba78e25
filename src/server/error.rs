//! Why a gateway can't start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::gateway::SnapshotError;
use crate::listener::TlsError;
use crate::store::OpenError;
use crate::telemetry::{LogError, TraceError};
use crate::tokens::FileError;

use super::takeover::TakeoverError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("can't listen on {address} ({key})")]
    Bind {
        /// The key of the configuration, such as `listen.https`.
        key: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("can't listen on unix:{} ({key})", path.display())]
    BindUnix {
        /// The key of the configuration.
        key: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the socket that systemd passes as {key} listens on {address}, but the configuration says {configured}")]
    Activated { key: &'static str, address: SocketAddr, configured: SocketAddr },
    #[error("can't take over by {}", path.display())]
    Takeover {
        path: PathBuf,
        #[source]
        source: TakeoverError,
    },
    #[error("can't seal session tickets")]
    Tickets(#[source] TlsError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("tokens.file: {0}")]
    Tokens(#[from] FileError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("can't set up metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("telemetry.otlp: {0}")]
    Traces(#[from] TraceError),
    #[error("can't set up the log")]
    Log(#[from] LogError),
    /// A thread, its event loop or its sockets.
    #[error("can't start a worker")]
    Worker(#[source] io::Error),
}
