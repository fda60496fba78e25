//! The second server: metrics, health and the API for tokens and limits, for operators only.

mod access;
mod answer;
mod failures;
mod guard;
mod health;
mod limits;
mod router;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::config::{Config, Role};
use crate::shutdown::Shutdown;
use crate::store::StoreHealth;
use crate::telemetry::{Metrics, request_id};
use access::{Access, Caller};
use answer::{Answer, Problem, stamp};
use router::{Act, Endpoint, Match, Needs};

pub use guard::CONFIRMATION;
pub use limits::{DeskError, LimitsDesk};

/// A request must come, and a connection may stay idle, for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failed accept so long a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at one time; one more waits to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// What the admin listener answers from.
pub struct Admin {
    config: Arc<Config>,
    access: Access,
    metrics: Arc<Metrics>,
    store: Option<Arc<StoreHealth>>,
    limits: LimitsDesk,
    shutdown: Shutdown,
}

impl Admin {
    /// `store` is there when readiness depends on Redis.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        store: Option<Arc<StoreHealth>>,
        limits: LimitsDesk,
        shutdown: Shutdown,
    ) -> Self {
        Self { access: Access::new(&config.admin), config, metrics, store, limits, shutdown }
    }

    /// Serves for as long as the process lives: a drain is when health is asked for most.
    pub async fn run(self: Arc<Self>, socket: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Nobody closes the semaphore.
            let place = places.clone().acquire_owned().await;
            match socket.accept().await {
                Ok((stream, client)) => {
                    let admin = self.clone();
                    tokio::spawn(async move {
                        admin.serve(stream, client).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "can't accept connections on the admin listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr) {
        let service = service_fn(|request| {
            let admin = &self;
            async move { Ok::<_, Infallible>(admin.answer(request, client).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "an admin connection broke off");
        }
    }

    async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Answer {
        let id = request_id(&request, SystemTime::now());
        let mut answer = match self.handle(request, client).await {
            Ok(answer) => answer,
            Err(problem) => problem.into_answer(&id),
        };
        stamp(&mut answer, id);
        answer
    }

    /// The order is the policy: web pages first, then who asks, and only then what there is.
    async fn handle(&self, request: Request<Incoming>, client: SocketAddr) -> Result<Answer, Problem> {
        let path = request.uri().path().to_owned();
        let found = router::find(request.method(), &path);
        if let Match::Endpoint(Endpoint { needs: Needs::Nothing, act, .. }, id) = found {
            return self.act(*act, id).await;
        }
        guard::check_origin(&request, self.is_private()).map_err(Problem::Foreign)?;
        let (endpoint, id) = match found {
            Match::Endpoint(endpoint, id) => (endpoint, id),
            missed => {
                self.admit(&request, client, Role::Read)?;
                return Err(self.missed(missed));
            }
        };
        match endpoint.needs {
            Needs::Nothing => {}
            Needs::Metrics if self.config.admin.public_metrics => {}
            Needs::Metrics => drop(self.admit(&request, client, Role::Read)?),
            Needs::Role(role) => drop(self.admit(&request, client, role)?),
        }
        self.act(endpoint.act, id).await
    }

    async fn act(&self, act: Act, id: &str) -> Result<Answer, Problem> {
        match act {
            Act::Live => Ok(health::live()),
            Act::Ready => Ok(health::ready(self)),
            Act::Metrics => health::metrics(self),
            Act::PeekLimits => limits::show(&self.limits, id).await,
            Act::ResetLimits => limits::clear(&self.limits, id).await,
        }
    }

    /// Who asks, if they have this role.
    fn admit(&self, request: &Request<Incoming>, client: SocketAddr, needed: Role) -> Result<Caller, Problem> {
        let caller = self.access.caller(request.headers(), client.ip(), Instant::now()).map_err(Problem::Denied)?;
        if caller.role < needed {
            return Err(Problem::Role(needed));
        }
        if !caller.has_token && needed > Role::Read {
            guard::check_intent(request).map_err(Problem::Foreign)?;
        }
        Ok(caller)
    }

    fn missed(&self, missed: Match<'_>) -> Problem {
        match missed {
            Match::OtherMethod(allow) => Problem::Method(allow),
            Match::Nothing | Match::Endpoint(..) => {
                Problem::NotFound("Try /metrics, /livez, /readyz or /api/limits/TOKEN-ID.".to_owned())
            }
        }
    }

    /// Whether nobody on another machine can reach the listener.
    fn is_private(&self) -> bool {
        self.config.listen.admin.ip().is_loopback()
    }
}
