//! The second server: metrics, health and the API for tokens and limits, for operators only.

mod access;
mod answer;
mod audit;
mod condition;
mod description;
mod failures;
mod faults;
mod guard;
mod health;
mod import;
mod intake;
mod limits;
mod problem;
mod query;
mod router;
mod token_actions;
mod tokens;
mod upstreams;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::auth::FileStore;
use crate::config::{Config, Role};
use crate::forward::UpstreamStates;
use crate::shutdown::Shutdown;
use crate::store::StoreHealth;
use crate::telemetry::{Metrics, request_id};
use crate::tokens::{Actor, Registry};
use access::Access;
use answer::{Answer, stamp};
use description::Description;
use intake::Fields;
use problem::Problem;
use query::Query;
use router::{Act, Match, Needs};

pub use guard::CONFIRMATION;
pub use limits::{LimitService, LimitServiceError};

/// A request must come, and a connection may stay idle, for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failed accept so long a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at one time; one more waits to be accepted.
const MAX_CONNECTIONS: usize = 1_024;
/// Items on a page, unless a request says how many, and at most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 200;

/// Where tokens and limits are managed.
pub struct AdminBackend {
    /// The records.
    pub registry: Arc<Registry>,
    /// The limits.
    pub limits: LimitService,
    /// With the memory store, the records that this process goes by.
    pub file: Option<Arc<FileStore>>,
    /// How the upstreams are.
    pub upstreams: Arc<UpstreamStates>,
    /// With Redis, how it is; readiness depends on it.
    pub store: Option<Arc<StoreHealth>>,
}

/// What the admin listener answers from.
pub struct Admin {
    config: Arc<Config>,
    access: Access,
    metrics: Arc<Metrics>,
    desk: AdminBackend,
    description: Description,
    shutdown: Shutdown,
}

impl Admin {
    /// Answers for the process that `desk` belongs to.
    #[must_use]
    pub fn new(config: Arc<Config>, metrics: Arc<Metrics>, desk: AdminBackend, shutdown: Shutdown) -> Self {
        let (access, description) = (Access::new(&config.admin), Description::new(&config));
        Self { config, access, metrics, desk, description, shutdown }
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
        let (endpoint, id) = match router::find(request.method(), &path) {
            Match::Endpoint(endpoint, id) => (endpoint, id),
            missed => {
                self.admit(&request, client, Role::Read)?;
                return Err(missed_as_problem(missed));
            }
        };
        let by = match endpoint.needs {
            Needs::Nothing => Actor::loopback(),
            Needs::Metrics if self.config.admin.public_metrics => {
                guard::check_origin(&request, self.is_private()).map_err(Problem::Foreign)?;
                Actor::loopback()
            }
            Needs::Metrics => self.admit(&request, client, Role::Read)?,
            Needs::Role(role) => self.admit(&request, client, role)?,
        };
        let (head, body) = request.into_parts();
        let query = Query::parse(head.uri.query(), endpoint.query)?;
        let body = intake::read(endpoint.takes, &head.headers, body).await?;
        let now = SystemTime::now();
        let call = Call { admin: self, by, id, headers: &head.headers, query, body, now };
        call.act(endpoint.act).await
    }

    /// Who asks, if it is no page of somebody else's and they have this role.
    fn admit(&self, request: &Request<Incoming>, client: SocketAddr, needed: Role) -> Result<Actor, Problem> {
        guard::check_origin(request, self.is_private()).map_err(Problem::Foreign)?;
        let caller = self.access.caller(request.headers(), client.ip(), Instant::now()).map_err(Problem::Denied)?;
        if caller.role < needed {
            return Err(Problem::Role(needed));
        }
        if !caller.has_token && needed > Role::Read {
            guard::check_intent(request).map_err(Problem::Foreign)?;
        }
        Ok(if caller.has_token { Actor::admin(&caller.name) } else { Actor::loopback() })
    }

    /// Lets this instance know of what was just written to the token file; with Redis it knows without.
    async fn refresh(&self) {
        if let Some(file) = self.desk.file.clone() {
            // It looks again by itself in a moment, and says there what is wrong.
            let _ = tokio::task::spawn_blocking(move || file.refresh()).await;
        }
    }

    /// Whether nobody on another machine can reach the listener.
    fn is_private(&self) -> bool {
        self.config.listen.admin.ip().is_loopback()
    }
}

/// One request to the API, admitted and read.
struct Call<'a> {
    admin: &'a Admin,
    /// Who asks, for the audit trail.
    by: Actor,
    /// The `{id}` in its path.
    id: &'a str,
    headers: &'a HeaderMap,
    query: Query,
    body: Fields,
    now: SystemTime,
}

impl Call<'_> {
    async fn act(self, act: Act) -> Result<Answer, Problem> {
        match act {
            Act::Live => Ok(health::live()),
            Act::Ready => Ok(health::ready(self.admin)),
            Act::Metrics => health::metrics(self.admin),
            Act::Describe => Ok(self.admin.description.answer()),
            Act::ListTokens => tokens::list(self).await,
            Act::CreateToken => tokens::create(self).await,
            Act::ImportTokens => import::import(self).await,
            Act::ShowToken => tokens::show(self).await,
            Act::ChangeToken => tokens::change(self).await,
            Act::RotateToken => token_actions::rotate(self).await,
            Act::RevokeToken => token_actions::revoke(self).await,
            Act::EnableToken => token_actions::switch(self, true).await,
            Act::DisableToken => token_actions::switch(self, false).await,
            Act::RevokeAccount => token_actions::revoke_account(self).await,
            Act::Audit => audit::list(self).await,
            Act::ListUpstreams => upstreams::list(self),
            Act::PeekLimits => limits::show(self).await,
            Act::ResetLimits => limits::clear(self).await,
        }
    }
}

fn missed_as_problem(missed: Match<'_>) -> Problem {
    match missed {
        Match::OtherMethod(allow) => Problem::Method(allow),
        Match::Nothing | Match::Endpoint(..) => {
            Problem::NotFound("Nothing is here; /api/openapi.json describes what there is.".to_owned())
        }
    }
}
