//! Making a connection to one server: TCP, TLS where asked for, login, database, and a first answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::PubSub;
use redis::{ErrorKind, RedisConnectionInfo, RedisError, RedisResult, Value};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::outage::Outage;
use super::pipeline::Pipeline;
use crate::config::{RedisLogin, RedisNode, RedisStore, RedisTls};
use crate::tls::{self, TlsError};

/// A silent peer is probed after this time, and given up when it has not confirmed for the second one.
const KEEPALIVE: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// What CLIENT LIST shows of a connection: name and version.
const LIBRARY: (&str, &str) = ("callgate", env!("CARGO_PKG_VERSION"));

/// Why the configured Redis can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its TLS can't be used.
    #[error("store.redis: {0}")]
    Tls(#[from] TlsError),
    /// It does not answer a command that waits for it; for this reason.
    #[error("{0}")]
    Down(String),
}

/// A connection without or with TLS.
type Transport = Either<TcpStream, TlsStream<TcpStream>>;

/// What the client wraps errors of a connection into.
type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// How connections are made.
#[derive(Clone)]
pub(super) struct Dialer {
    login: Arc<ArcSwapOption<RedisLogin>>,
    database: u32,
    tls: Option<TlsConnector>,
    /// How long making a connection may take.
    pub(super) timeout: Duration,
}

impl Dialer {
    /// Reads the certificates.
    pub(super) fn new(store: &RedisStore) -> Result<Self, OpenError> {
        let tls = store.tls.as_ref().map(connector).transpose()?;
        let login = Arc::new(ArcSwapOption::from_pointee(store.login.clone()));
        Ok(Self { login, database: store.database, tls, timeout: store.connect_timeout })
    }

    /// The same with another login, for servers without data.
    pub(super) fn with_login(&self, login: Option<&RedisLogin>) -> Self {
        Self { login: Arc::new(ArcSwapOption::from_pointee(login.cloned())), database: 0, ..self.clone() }
    }

    /// Makes a connection that has answered once, and starts its task.
    pub(super) async fn dial(&self, node: &RedisNode) -> Result<Pipeline, Outage> {
        let ends = Instant::now() + self.timeout;
        let attempt = async || {
            let transport = self.transport(node, ends).await?;
            let greeted = timeout_at(ends, self.greet(transport)).await.map_err(|_| Outage::Silent(node.clone()))?;
            greeted.map_err(|error| self.sort(node, error))
        };
        match attempt().await {
            Err(Outage::Login(..)) if self.read_login_again() => attempt().await,
            made => made,
        }
    }

    /// Makes a connection that hears what is published on these channels.
    pub(super) async fn listen(&self, node: &RedisNode, channels: &[&str]) -> Result<PubSub, Outage> {
        let ends = Instant::now() + self.timeout;
        let attempt = async || {
            let transport = self.transport(node, ends).await?;
            let listening = async {
                let mut connection = PubSub::new(&self.settings(), transport).await?;
                connection.subscribe(channels).await?;
                Ok(connection)
            };
            let listening = timeout_at(ends, listening).await.map_err(|_| Outage::Silent(node.clone()))?;
            listening.map_err(|error| self.sort(node, error))
        };
        match attempt().await {
            Err(Outage::Login(..)) if self.read_login_again() => attempt().await,
            made => made,
        }
    }

    /// Reads the files of the login, if it is in files; returns whether it is another one by now.
    fn read_login_again(&self) -> bool {
        let login = self.login.load().as_ref().and_then(|login| login.read_again());
        login.map(|login| self.login.store(Some(Arc::new(login)))).is_some()
    }

    fn settings(&self) -> RedisConnectionInfo {
        let settings = RedisConnectionInfo::default().set_lib_name(LIBRARY.0, LIBRARY.1);
        let mut settings = settings.set_db(i64::from(self.database));
        if let Some(login) = &*self.login.load() {
            settings = settings.set_password(login.password.expose());
            if let Some(user) = &login.user {
                settings = settings.set_username(user);
            }
        }
        settings
    }

    async fn transport(&self, node: &RedisNode, ends: Instant) -> Result<Transport, Outage> {
        let socket = timeout_at(ends, tcp(node)).await.map_err(|_| Outage::Silent(node.clone()))?;
        let socket = socket.map_err(|error| Outage::Unreachable(node.clone(), error))?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(socket)) };
        let failed = |error| Outage::Tls(node.clone(), error);
        let name = ServerName::try_from(node.host.to_string());
        let name = name.map_err(|error| failed(io::Error::other(error)))?;
        let stream = timeout_at(ends, tls.connect(name, socket)).await;
        Ok(Either::Right(stream.map_err(|_| Outage::NoHandshake(node.clone()))?.map_err(failed)?))
    }

    /// Logs in, chooses the database, and has the server answer. The client library does the same for a subscription.
    async fn greet(&self, transport: Transport) -> RedisResult<Pipeline> {
        let pipeline = Pipeline::start(transport);
        if let Some(login) = self.login.load_full() {
            log_in(&pipeline, &login).await?;
        }
        let select = async {
            match self.database {
                0 => Ok(Value::Okay),
                database => pipeline.ask(redis::cmd("SELECT").arg(database)).await,
            }
        };
        // An older server, or one that doesn't permit it, goes without.
        let name = async |what, text| pipeline.ask(redis::cmd("CLIENT").arg("SETINFO").arg(what).arg(text)).await.ok();
        let ping = redis::cmd("PING");
        // The first answer tells why a server wants no connection.
        let (answer, database, _, _) =
            futures_util::join!(pipeline.ask(&ping), select, name("LIB-NAME", LIBRARY.0), name("LIB-VER", LIBRARY.1));
        answer.and(database)?;
        Ok(pipeline)
    }

    /// A server that refuses a client's certificate says so in place of its first answer (TLS 1.3).
    fn sort(&self, node: &RedisNode, error: RedisError) -> Outage {
        let shared = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<SharedError>());
        let io = shared.and_then(|cause| cause.downcast_ref::<io::Error>());
        match io.filter(|cause| cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())) {
            Some(cause) => Outage::Tls(node.clone(), io::Error::new(cause.kind(), cause.to_string())),
            None => Outage::of(node, error),
        }
    }
}

async fn log_in(pipeline: &Pipeline, login: &RedisLogin) -> RedisResult<()> {
    let auth = async |user: Option<&str>| {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = user {
            command.arg(user);
        }
        pipeline.ask(command.arg(login.password.expose())).await
    };
    let mut answer = auth(login.user.as_deref()).await;
    // Before version 6 there were no users.
    if login.user.is_some()
        && let Err(error) = &answer
        && error.detail().is_some_and(|detail| detail.contains("wrong number of arguments for 'auth' command"))
    {
        answer = auth(None).await;
    }
    answer.map(drop).map_err(|error| match error.code() {
        Some(_) => RedisError::from((ErrorKind::AuthenticationFailed, "Password authentication failed")),
        None => error,
    })
}

async fn tcp(node: &RedisNode) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((&*node.host, node.port)).await?;
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    // Elsewhere only the deadlines of calls, and keep-alive, notice a dead connection.
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(socket)
}

fn connector(settings: &RedisTls) -> Result<TlsConnector, TlsError> {
    let client = settings.client.as_ref().map(|files| (&*files.cert, &*files.key));
    let config = tls::client_config(settings.ca.as_deref(), client, false)?;
    Ok(TlsConnector::from(Arc::new(config)))
}
