//! Active health checks: endpoints are asked whether they are well, one prober for the whole process. Its questions go over
//! connections of their own, made as those for requests are, and count nowhere.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::body::Body;
use crate::config::{Health, HealthProbe};

use super::Forwarder;
use super::grpc_health::{self, HealthCheckError};
use super::pool::NoConnection;
use super::upstream::UpstreamPools;

/// Bytes of an answer that are read for the sake of good manners.
const MOST_READ: usize = 64 << 10;
/// The first questions are spread over this time.
const SPREAD: Duration = Duration::from_millis(250);

/// Why an endpoint is not well.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the exchange broke off: {0}")]
    Broken(#[source] hyper::Error),
    #[error("it answers with {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error(transparent)]
    Grpc(#[from] HealthCheckError),
}

impl Forwarder {
    /// Asks for as long as it is polled. The pools of this forwarder should serve nothing else.
    pub async fn check_health(&self) {
        let checks = self.upstreams.iter().flat_map(|upstream| {
            let health = upstream.config.balancing.health.as_ref();
            health.into_iter().flat_map(move |health| {
                (0..upstream.endpoints.len()).map(move |index| upstream.check_endpoint(index, health))
            })
        });
        join_all(checks).await;
    }
}

impl UpstreamPools {
    async fn check_endpoint(&self, index: usize, health: &Health) {
        let mut tally = Tally::default();
        tokio::time::sleep(SPREAD.min(health.interval).mul_f64(fastrand::f64())).await;
        loop {
            let asked = tokio::time::timeout(health.timeout, self.ask(index, health)).await;
            let answer = asked.unwrap_or(Err(ProbeError::Slow(health.timeout)));
            // The next question is for a new connection, however this one ended.
            self.endpoints[index].let_go();
            if let Some(down) = tally.note(answer.is_ok(), health.healthy, health.unhealthy) {
                let why = answer.err().map(|unwell| unwell.to_string()).unwrap_or_default();
                self.roster.judged(index, down, &why);
            }
            let jitter = f64::from(health.jitter) / 100.0 * (2.0 * fastrand::f64() - 1.0);
            tokio::time::sleep(health.interval.mul_f64(1.0 + jitter).max(Duration::from_millis(10))).await;
        }
    }

    /// One question, on a connection that is made for it: who can't be connected to anew is not well.
    async fn ask(&self, index: usize, health: &Health) -> Result<(), ProbeError> {
        let pool = &self.endpoints[index];
        let mut lease = pool.lease(false, None).await.map_err(|reason| match reason {
            NoConnection::Failed(error) => ProbeError::Connect(error),
            NoConnection::Full => ProbeError::Connect(io::ErrorKind::QuotaExceeded.into()),
        })?;
        let mut request = match &health.probe {
            HealthProbe::Http { path, .. } => get(path),
            HealthProbe::Grpc { service } => grpc_health::question(service, health.timeout),
        };
        let host = health.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
        let headers = request.headers_mut();
        headers.insert(header::HOST, host.unwrap_or_else(|| pool.authority.clone()));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("callgate-health"));
        let response = lease.send(request).await.map_err(|error| ProbeError::Broken(error.into_error()))?;
        match &health.probe {
            HealthProbe::Http { status, .. } => {
                let (parts, _, _) = read(response).await?;
                let is_good = status.iter().any(|range| range.contains(&parts.status.as_u16()));
                if is_good { Ok(()) } else { Err(ProbeError::Status(parts.status)) }
            }
            HealthProbe::Grpc { .. } => {
                let (parts, body, trailers) = read(response).await?;
                if parts.status != StatusCode::OK {
                    return Err(ProbeError::Status(parts.status));
                }
                Ok(grpc_health::judge(&parts.headers, &body, trailers.as_ref().unwrap_or(&parts.headers))?)
            }
        }
    }
}

fn get(path: &str) -> Request<Body> {
    let mut request = Request::new(Body::Empty);
    // The configuration has been checked to hold a path.
    *request.uri_mut() = path.parse::<Uri>().unwrap_or_default();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    request
}

/// Reads an answer, as much of it as there is any need to.
async fn read(response: Response<Incoming>) -> Result<(Parts, Vec<u8>, Option<HeaderMap>), ProbeError> {
    let (parts, mut body) = response.into_parts();
    let (mut read, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(ProbeError::Broken)?.into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if read.len() > MOST_READ {
            break;
        }
    }
    Ok((parts, read, trailers))
}

/// Answers in a row. The first one of all decides alone; from then on it takes as many as configured to change anything.
#[derive(Default)]
struct Tally {
    down: Option<bool>,
    against: u32,
}

impl Tally {
    /// Takes note of an answer; tells what the endpoint is from now on when that may be new.
    fn note(&mut self, good: bool, healthy: u32, unhealthy: u32) -> Option<bool> {
        let Some(down) = self.down else {
            self.down = Some(!good);
            return self.down;
        };
        if good != down {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if down { healthy } else { unhealthy } {
            return None;
        }
        (self.down, self.against) = (Some(!down), 0);
        self.down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_decides_and_then_it_takes_a_row() {
        let told = |answers: &str| -> Vec<Option<bool>> {
            let mut tally = Tally::default();
            answers.bytes().map(|byte| tally.note(byte == b'+', 2, 3)).collect()
        };
        assert_eq!(told("-++"), [Some(true), None, Some(false)]);
        assert_eq!(told("+--+---"), [Some(false), None, None, None, None, None, Some(true)]);
        assert_eq!(told("-+-++"), [Some(true), None, None, None, Some(false)]);
    }
}
