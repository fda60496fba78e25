//! `store.redis`, validated: servers, login, deadlines.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::{CertificateFiles, Secret, files};

/// Databases are counted from 0; servers have 16 of them by default.
pub(super) const MAX_DATABASE: u32 = 9_999;

/// A Redis that all instances share.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisStore {
    /// Its servers.
    pub servers: RedisServers,
    /// The login to the servers that hold data; `None`: there is none.
    pub login: Option<RedisLogin>,
    /// The number of the database; 0 with a cluster, which has no other.
    pub database: u32,
    /// TLS to every server, sentinels included; `None`: no TLS.
    pub tls: Option<RedisTls>,
    /// The prefix of every key.
    pub namespace: Arc<str>,
    /// How long one command may take before the outage policy decides.
    pub deadline: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How requests are decided while Redis does not answer.
    pub on_failure: OnFailure,
}

/// Which servers hold the data.
#[derive(Debug, Clone, PartialEq)]
pub enum RedisServers {
    /// One.
    Single(RedisNode),
    /// A Redis Cluster, found through any of these nodes (at least one).
    Cluster(Vec<RedisNode>),
    /// The primary that Sentinel names.
    Sentinel(RedisSentinel),
}

/// A group of servers watched by Sentinel.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisSentinel {
    /// The name of the group in the sentinels' configuration.
    pub service: Arc<str>,
    /// The sentinels, at least one.
    pub nodes: Vec<RedisNode>,
    /// The login to the sentinels themselves; `None`: there is none.
    pub login: Option<RedisLogin>,
}

/// The address of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisNode {
    /// A host name or address literal, without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisLogin {
    /// An ACL user; `None`: the server's default user.
    pub user: Option<Arc<str>>,
    /// Its password.
    pub password: Secret,
    /// Where it was read from.
    pub source: LoginSource,
}

/// Where a login is written. What is in files may change while Callgate runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LoginSource {
    /// In the configuration itself.
    #[default]
    Configuration,
    /// In a file that holds a URL with both.
    Url(PathBuf),
    /// In a file each, those that there are.
    Files {
        /// That of the user's name.
        user: Option<PathBuf>,
        /// That of the password.
        password: Option<PathBuf>,
    },
}

impl RedisLogin {
    /// The login as its files have it now; `None`: it is in none, they can't be read, or they are unchanged.
    pub(crate) fn read_again(&self) -> Option<Self> {
        let read = |path: &Option<PathBuf>| path.as_deref().map(files::read_secret).transpose().ok();
        let mut login = self.clone();
        match &self.source {
            LoginSource::Configuration => return None,
            LoginSource::Url(path) => {
                let url = RedisUrl::parse(&files::read_secret(path).ok()?).ok()?;
                login = RedisLogin { source: self.source.clone(), ..url.login? };
            }
            LoginSource::Files { user, password } => {
                if let Some(user) = read(user)? {
                    login.user = Some(user.into());
                }
                if let Some(password) = read(password)?.filter(|password| !password.is_empty()) {
                    login.password = Secret::new(password);
                }
            }
        }
        (login != *self).then_some(login)
    }
}

/// TLS towards Redis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RedisTls {
    /// Trusted certificates; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub client: Option<CertificateFiles>,
}

/// How requests are decided while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// By the exact in-memory limiter of this instance.
    Local,
    /// All are rejected with 503.
    Deny,
    /// All are admitted.
    Allow,
}

impl OnFailure {
    /// As in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// The parts of a URL.
pub(super) struct RedisUrl {
    pub(super) tls: bool,
    pub(super) node: RedisNode,
    /// Whether the port is the URL's own.
    pub(super) names_port: bool,
    pub(super) login: Option<RedisLogin>,
    pub(super) database: u32,
}

impl RedisUrl {
    /// Whether both have the same login, or none.
    pub(super) fn is_same_login(&self, other: &Self) -> bool {
        let login = |url: &Self| url.login.as_ref().map(|login| (login.user.clone(), login.password.clone()));
        login(self) == login(other)
    }

    /// Reads `redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`.
    ///
    /// # Errors
    /// What is wrong with it. The messages repeat nothing of it: it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
        let rest =
            rest.ok_or("must start with redis:// or, for TLS, rediss:// (for example \"redis://127.0.0.1:6379\")")?;
        if rest.contains(['?', '#']) {
            return Err("must not have a ? or # (percent-encode special characters in the password; \
                        trusted certificates belong in `ca`)");
        }
        let malformed = "is not a Redis URL (redis://USER:PASSWORD@HOST:PORT/DATABASE; \
                         percent-encode special characters in the password)";
        let info = text.into_connection_info().map_err(|_| malformed)?;
        let (tls, host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (false, host, port),
            ConnectionAddr::TcpTls { host, port, .. } => (true, host, port),
            _ => return Err(malformed),
        };
        let settings = info.redis_settings();
        let login = match (settings.username(), settings.password()) {
            (user, Some(password)) => {
                let (user, password) = (user.map(Arc::from), Secret::new(password));
                Some(RedisLogin { user, password, source: LoginSource::Configuration })
            }
            (Some(_), None) => return Err("has a user without a password (redis://USER:PASSWORD@HOST)"),
            (None, None) => None,
        };
        let database = u32::try_from(settings.db()).ok().filter(|number| *number <= MAX_DATABASE);
        Ok(Self {
            tls,
            node: RedisNode { host: Arc::from(host.as_str()), port: *port },
            names_port: names_port(rest),
            login,
            database: database.ok_or("has a database that is not a number from 0 to 9999")?,
        })
    }
}

/// `rest` is what follows the scheme of a URL that could be read.
fn names_port(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.rsplit(']').next().unwrap_or_default().contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_all_parts() {
        let url = RedisUrl::parse("rediss://gate:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!(url.node.to_string(), "[::1]:7000");
        let source = LoginSource::Configuration;
        let login = RedisLogin { user: Some("gate".into()), password: Secret::new("p@ss"), source };
        assert_eq!(url.login, Some(login));
        assert_eq!((url.tls, url.database, url.names_port), (true, 3, true));
        let url = RedisUrl::parse("redis://:secret@redis.internal").unwrap();
        assert_eq!(url.node, RedisNode { host: "redis.internal".into(), port: 6379 });
        let source = LoginSource::Configuration;
        assert_eq!(url.login, Some(RedisLogin { user: None, password: Secret::new("secret"), source }));
        assert_eq!((url.tls, url.database, url.names_port), (false, 0, false));
        assert!(!RedisUrl::parse("redis://[::1]").unwrap().names_port);
    }

    #[test]
    fn bad_urls_are_rejected() {
        for text in [
            "127.0.0.1:6379",
            "redis://",
            "redis://host:port",
            "redis://host/database",
            "redis://host/-1",
            "redis://host/10000",
            "redis://user@host",
            "redis://host?protocol=resp3",
            "rediss://host/#insecure",
            "redis+unix:///socket",
        ] {
            assert!(RedisUrl::parse(text).is_err(), "{text}");
        }
    }
}
