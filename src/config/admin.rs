//! The admin listener: where it is, and who may use it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::CertificateFiles;
use crate::hash::TokenHash;

/// Where the admin listener listens.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket: the mode of its file says who may use it.
    Unix(UnixSocket),
}

/// A listening Unix socket.
#[derive(Debug, Clone, PartialEq)]
pub struct UnixSocket {
    /// Its file.
    pub path: PathBuf,
    /// The mode of the file; only those who may write to it can connect.
    pub mode: u32,
    /// The number of the group that the file belongs to; `None`: the group of the process.
    pub group: Option<u32>,
}

impl AdminAddress {
    /// Whether only processes of this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}

/// Access to the admin listener. Liveness and readiness need none.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminAccess {
    /// What requests without a token may do; `None`: nothing. On an address that others can reach it is always `None`.
    pub anonymous: Option<Role>,
    /// Valid tokens.
    pub tokens: Vec<AdminToken>,
    /// Whether the metrics need no token.
    pub public_metrics: bool,
    /// Wrong tokens from one address in a minute.
    pub max_failures: u32,
    /// TLS on the admin listener; `None`: in clear.
    pub tls: Option<AdminTls>,
}

/// TLS on the admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminTls {
    /// What it shows.
    pub certificate: CertificateFiles,
    /// The certificates that sign those of clients; `None`: no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Who may do what by a certificate of their own.
    pub clients: Vec<AdminClient>,
}

/// A caller that is known by its certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminClient {
    /// A DNS name of the certificate, or its common name, in lower case.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// A token of the admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminToken {
    /// Its name in the audit trail.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// The SHA-256 of its text.
    pub sha256: TokenHash,
}

/// What a request may do on the admin listener; a later role includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Change.
    Write,
}

impl Role {
    /// Every role and its name in the configuration.
    pub const NAMES: [(&'static str, Role); 2] = [("read", Role::Read), ("write", Role::Write)];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}
