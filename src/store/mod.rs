//! The connection to the Redis that all instances share: one pipelined connection a worker, healed in the background.
//!
//! A call either answers within its deadline or fails at once: while the connection is down nobody waits for it.

mod health;
mod script;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;

use crate::config::RedisStore;

pub use health::StoreHealth;
pub use script::Script;

/// So many calls in a row without an answer open the circuit: the connection is dropped and made anew.
const MISSES_BEFORE_RECONNECT: u32 = 3;
/// The connection is asked this often whether it still answers, so that an idle instance knows the truth too.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The first and the longest pause between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why Redis gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection at the moment.
    #[error("no connection to Redis")]
    Down,
    /// The deadline passed.
    #[error("Redis did not answer in time")]
    Deadline,
    /// Redis answered with an error.
    #[error("Redis refused the command")]
    Refused(#[source] RedisError),
    /// Redis answered something that makes no sense here.
    #[error("unexpected answer from Redis: {0}")]
    Unexpected(&'static str),
}

/// Why the configured Redis can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one of Redis.
    #[error("store.redis.url is not a Redis URL")]
    Url(#[source] RedisError),
}

/// A pipelined connection; clones share it.
#[derive(Clone)]
pub struct Redis {
    link: Arc<Link>,
}

struct Link {
    client: Client,
    connection: ArcSwapOption<MultiplexedConnection>,
    misses: AtomicU32,
    broken: Notify,
    deadline: Duration,
    connect_timeout: Duration,
    namespace: Arc<str>,
    health: Arc<StoreHealth>,
}

impl Redis {
    /// Connects, and keeps a task on this runtime that heals the connection for as long as a clone lives. Returns after the
    /// first attempt, whether it succeeded or not.
    ///
    /// # Errors
    /// [`OpenError`] when the URL can't be used; an absent server is no error.
    pub async fn open(config: &RedisStore, health: Arc<StoreHealth>) -> Result<Self, OpenError> {
        let info = config.url.expose().into_connection_info().map_err(OpenError::Url)?;
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)))
            .set_user_timeout(Duration::from_secs(3));
        let client = Client::open(info.set_tcp_settings(tcp)).map_err(OpenError::Url)?;
        let link = Arc::new(Link {
            client,
            connection: ArcSwapOption::empty(),
            misses: AtomicU32::new(0),
            broken: Notify::new(),
            deadline: config.deadline,
            connect_timeout: config.connect_timeout,
            namespace: config.namespace.clone(),
            health,
        });
        link.health.join();
        let first = link.connect().await;
        let weak = Arc::downgrade(&link);
        tokio::spawn(async move {
            let mut attempt = first;
            let mut pause = BACKOFF.0;
            loop {
                let Some(link) = weak.upgrade() else { return };
                match attempt {
                    Ok(()) => {
                        pause = BACKOFF.0;
                        link.watch().await;
                    }
                    Err(error) => {
                        link.health.unreachable(&error);
                        drop(link);
                        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                        pause = (pause * 2).min(BACKOFF.1);
                    }
                }
                let Some(link) = weak.upgrade() else { return };
                attempt = link.connect().await;
            }
        });
        Ok(Self { link })
    }

    /// The prefix of every key, without its colon.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.link.namespace
    }

    /// Whether there is a connection at the moment.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.connection.load().is_some()
    }

    /// Sends one command and waits for its answer, within the configured deadline.
    ///
    /// # Errors
    /// [`StoreError`]; a command that met its deadline may have been carried out all the same.
    pub async fn call(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.link.call(command, self.link.deadline).await
    }

    /// Runs a script by its digest. A server that doesn't know it is given it, in place.
    ///
    /// # Errors
    /// [`StoreError`], as [`Redis::call`].
    pub async fn run(&self, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<Value, StoreError> {
        match self.call(&script.by_digest(keys, args)).await {
            Err(StoreError::Refused(error)) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.call(&script.load()).await?;
                self.call(&script.by_digest(keys, args)).await
            }
            other => other,
        }
    }
}

impl Link {
    async fn connect(&self) -> Result<(), StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024);
        let attempt = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = tokio::time::timeout(self.connect_timeout, attempt)
            .await
            .map_err(|_| StoreError::Deadline)?
            .map_err(StoreError::Refused)?;
        tokio::time::timeout(self.connect_timeout, connection.send_packed_command(&redis::cmd("PING")))
            .await
            .map_err(|_| StoreError::Deadline)?
            .and_then(Value::extract_error)
            .map_err(StoreError::Refused)?;
        self.misses.store(0, Ordering::Relaxed);
        self.health.up();
        self.connection.store(Some(Arc::new(connection)));
        Ok(())
    }

    /// Returns when the connection is gone.
    async fn watch(&self) {
        loop {
            if tokio::time::timeout(PROBE_INTERVAL, self.broken.notified()).await.is_ok() {
                return;
            }
            // A failed probe reports itself through `give_up`.
            let _ = self.call(&redis::cmd("PING"), self.connect_timeout).await;
        }
    }

    async fn call(&self, command: &Cmd, deadline: Duration) -> Result<Value, StoreError> {
        let Some(shared) = self.connection.load_full() else { return Err(StoreError::Down) };
        let mut connection = MultiplexedConnection::clone(&shared);
        // The client hands a refusal by the server over as a value.
        let answer = tokio::time::timeout(deadline, connection.send_packed_command(command)).await;
        match answer.map(|answer| answer.and_then(Value::extract_error)) {
            Ok(Ok(value)) => {
                if self.misses.load(Ordering::Relaxed) != 0 {
                    self.misses.store(0, Ordering::Relaxed);
                }
                Ok(value)
            }
            Ok(Err(error)) if is_outage(&error) => {
                self.give_up(&shared, &StoreError::Refused(error));
                Err(StoreError::Down)
            }
            Ok(Err(error)) => Err(StoreError::Refused(error)),
            Err(_) => {
                if self.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES_BEFORE_RECONNECT {
                    self.give_up(&shared, &StoreError::Deadline);
                }
                Err(StoreError::Deadline)
            }
        }
    }

    /// Drops a connection that failed, unless somebody else has replaced it already.
    fn give_up(&self, failed: &Arc<MultiplexedConnection>, why: &StoreError) {
        let previous = self.connection.compare_and_swap(failed, None);
        if previous.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            self.health.lost(why);
            self.broken.notify_one();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.health.leave(self.connection.load().is_some());
    }
}

/// Errors that say "this server can't serve anybody now" rather than "this command is wrong".
fn is_outage(error: &RedisError) -> bool {
    use redis::ErrorKind;
    error.is_io_error()
        || error.is_connection_dropped()
        || matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::ClusterDown
            )
        )
}
