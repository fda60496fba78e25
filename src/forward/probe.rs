//! Active health checks: one prober for the whole process asks every endpoint. It has connections of its own, made like those for
//! requests, and its requests are not counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio_util::task::AbortOnDropHandle;

use crate::body::{Body, BodyError, ServiceBody};
use crate::config::{Health, HealthProbe};
use crate::shutdown::Shutdown;

use super::acquire::Wanted;
use super::endpoint_pool::NoConnection;
use super::grpc_health::{self, HealthCheckError};
use super::kept_connections::UpstreamConnections;
use super::upstream_pools::UpstreamPools;
use super::upstreams::{SharedUpstream, Upstreams};

/// Bytes of an answer that are read at most.
const MAX_READ: usize = 64 << 10;
/// The first checks are spread over this time.
const SPREAD: Duration = Duration::from_millis(250);

/// Why an endpoint is not healthy.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the exchange broke off: {0}")]
    Broken(#[source] hyper::Error),
    #[error("the exchange broke off: {0}")]
    BrokenBody(#[source] BodyError),
    #[error("it answers with {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Grpc(#[from] HealthCheckError),
}

/// The health checks of one configuration's upstreams.
#[derive(Default)]
pub struct HealthChecks(Vec<Arc<HealthCheck>>);

/// The checks of one upstream, in a task of this runtime. Dropped, it ends.
struct HealthCheck {
    upstream: Arc<SharedUpstream>,
    _task: AbortOnDropHandle<()>,
}

impl HealthChecks {
    /// Checks all endpoints again and again. What `before` does for unchanged upstreams goes on.
    pub fn start(shared: &Upstreams, shutdown: &Shutdown, before: &Self) -> Self {
        let checked = shared.all.iter().filter(|upstream| upstream.config.balancing.health.is_some());
        let checks = checked.map(|upstream| {
            let known = before.0.iter().find(|known| Arc::ptr_eq(&known.upstream, upstream));
            known.cloned().unwrap_or_else(|| Arc::new(HealthCheck::start(upstream, shutdown.clone())))
        });
        Self(checks.collect())
    }
}

impl HealthCheck {
    fn start(upstream: &Arc<SharedUpstream>, shutdown: Shutdown) -> Self {
        // Nothing else uses these connections, and they don't count in `max_connections`.
        let pools = UpstreamPools::new(upstream, &UpstreamConnections::new(&upstream.config));
        let checks = async move {
            tokio::select! {
                () = check(&pools) => {}
                () = shutdown.draining() => {}
            }
        };
        Self { upstream: upstream.clone(), _task: AbortOnDropHandle::new(tokio::spawn(checks)) }
    }
}

async fn check(upstream: &UpstreamPools) {
    let Some(health) = &upstream.config.balancing.health else { return };
    join_all((0..upstream.endpoints.len()).map(|index| check_endpoint(upstream, index, health))).await;
}

async fn check_endpoint(upstream: &UpstreamPools, index: usize, health: &Health) {
    let mut streak = Streak { down: upstream.state.known_health(index), length: 0 };
    tokio::time::sleep(SPREAD.min(health.interval).mul_f64(fastrand::f64())).await;
    loop {
        let answer = tokio::time::timeout(health.timeout, probe(upstream, index, health)).await;
        let answer = answer.unwrap_or(Err(ProbeError::Timeout(health.timeout)));
        // Each check makes a connection of its own: an endpoint that can't be connected to is not healthy.
        upstream.endpoints[index].close_all();
        if let Some(down) = streak.note(answer.is_ok(), health.healthy, health.unhealthy) {
            let why = answer.err().map(|error| error.to_string()).unwrap_or_default();
            upstream.state.set_health(index, down, &why);
        }
        let jitter = f64::from(health.jitter) / 100.0 * (2.0 * fastrand::f64() - 1.0);
        tokio::time::sleep(health.interval.mul_f64(1.0 + jitter).max(Duration::from_millis(10))).await;
    }
}

/// One check, on a new connection.
async fn probe(upstream: &UpstreamPools, index: usize, health: &Health) -> Result<(), ProbeError> {
    let pool = &upstream.endpoints[index];
    let mut connection = pool.connection(Wanted::default()).await.map_err(|reason| match reason {
        NoConnection::Failed(error) => ProbeError::Connect(error),
        NoConnection::Full => ProbeError::Connect(io::ErrorKind::QuotaExceeded.into()),
    })?;
    let mut request = match &health.probe {
        HealthProbe::Http { path, .. } => get(path),
        HealthProbe::Grpc { service } => grpc_health::request(service, health.timeout),
    };
    let host = health.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
    let headers = request.headers_mut();
    headers.insert(header::HOST, host.unwrap_or_else(|| pool.authority.clone()));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("callgate-health"));
    let response = connection.send(request).await.map_err(|error| ProbeError::Broken(error.into_error()))?;
    let (parts, body, trailers) = read(response).await?;
    match &health.probe {
        HealthProbe::Http { status, .. } if status.iter().any(|range| range.contains(&parts.status.as_u16())) => Ok(()),
        HealthProbe::Grpc { .. } if parts.status == StatusCode::OK => {
            Ok(grpc_health::check(&parts.headers, &body, trailers.as_ref().unwrap_or(&parts.headers))?)
        }
        HealthProbe::Http { .. } | HealthProbe::Grpc { .. } => Err(ProbeError::Status(parts.status)),
    }
}

fn get(path: &str) -> Request<Body> {
    let mut request = Request::new(Body::Empty);
    // The configuration has been checked to hold a path.
    *request.uri_mut() = path.parse::<Uri>().unwrap_or_default();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    request
}

/// Reads an answer, up to [`MAX_READ`].
async fn read(response: Response<ServiceBody>) -> Result<(Parts, Vec<u8>, Option<HeaderMap>), ProbeError> {
    let (parts, mut body) = response.into_parts();
    let (mut read, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(ProbeError::BrokenBody)?.into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if read.len() > MAX_READ {
            break;
        }
    }
    Ok((parts, read, trailers))
}

/// Equal answers in a row. The first answer decides alone; then it takes as many as configured to change the state.
#[derive(Default)]
struct Streak {
    down: Option<bool>,
    length: u32,
}

impl Streak {
    /// Takes an answer; returns whether the endpoint is down when that may have changed.
    fn note(&mut self, good: bool, healthy: u32, unhealthy: u32) -> Option<bool> {
        let Some(down) = self.down else {
            self.down = Some(!good);
            return self.down;
        };
        if good != down {
            self.length = 0;
            return None;
        }
        self.length += 1;
        if self.length < if down { healthy } else { unhealthy } {
            return None;
        }
        (self.down, self.length) = (Some(!down), 0);
        self.down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_decides_and_then_it_takes_several_in_a_row() {
        let states = |answers: &str| -> Vec<Option<bool>> {
            let mut streak = Streak::default();
            answers.bytes().map(|byte| streak.note(byte == b'+', 2, 3)).collect()
        };
        assert_eq!(states("-++"), [Some(true), None, Some(false)]);
        assert_eq!(states("+--+---"), [Some(false), None, None, None, None, None, Some(true)]);
        assert_eq!(states("-+-++"), [Some(true), None, None, None, Some(false)]);
    }
}
