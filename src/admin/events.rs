//! `GET /api/events`: the status of this process every two seconds, as server-sent events.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::backend::AdminBackend;
use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, event_stream};
use super::status::{status, warnings};
use crate::shutdown::Shutdown;
use crate::telemetry::{ProcessUsage, UpDownCounter};

/// How often an event comes.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// A stream ends after this time, shortly before its connection would be cut.
const MAX_AGE: Duration = Duration::from_secs(285);
/// Events that may wait for a slow listener. It misses some after these.
const MAX_WAITING: usize = 2;

/// `GET /api/events`
pub(super) async fn listen(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    request.query.finish()?;
    let backend = request.backend;
    if backend.shutdown.is_draining() {
        return Err(ApiError::Unavailable("This process is ending.".to_owned()));
    }
    let observer = &backend.observer;
    let permit = observer.listeners.clone().try_acquire_owned().map_err(|_| ApiError::TooManyListeners)?;
    let (events, received) = mpsc::channel(MAX_WAITING);
    let feed = Feed {
        events,
        newest: observer.newest.subscribe(),
        access_changes: observer.access_changes.subscribe(),
        shutdown: backend.shutdown.clone(),
    };
    let history = json!({ "interval_seconds": INTERVAL.as_secs(), "points": observer.traffic.points() });
    let first = Bytes::from([event("history", &history), status_event(backend)].concat());
    tokio::spawn(feed.run(first));
    Ok(event_stream(received, permit))
}

/// Looks at everything, and tells those who listen. To be called every [`INTERVAL`].
pub(super) fn observe(backend: &AdminBackend) {
    let observer = &backend.observer;
    let routes = backend.routes.iter().map(|(_, metrics)| &**metrics).chain([&*observer.no_route]);
    let connections = backend.connections.iter().map(UpDownCounter::get).sum::<i64>();
    let open = [backend.instances.calls().len(), connections.try_into().unwrap_or(0)];
    let now = SystemTime::now();
    observer.traffic.sample(routes, Instant::now(), now, open);
    if observer.newest.receiver_count() > 0 {
        observer.newest.send_replace(status_event(backend));
    } else {
        // So that each is dated.
        warnings(backend, &backend.upstreams.report(), &ProcessUsage::read(), now);
    }
}

/// The status with the newest point of the plot.
fn status_event(backend: &AdminBackend) -> Bytes {
    let mut status = status(backend);
    status["point"] = json!(backend.observer.traffic.newest());
    event("status", &status)
}

fn event(name: &str, data: &Value) -> Bytes {
    // JSON in one line.
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// What one listener gets.
struct Feed {
    events: mpsc::Sender<Bytes>,
    newest: watch::Receiver<Bytes>,
    access_changes: watch::Receiver<()>,
    shutdown: Shutdown,
}

impl Feed {
    /// Sends events until the listener is gone or there is a reason to end.
    async fn run(mut self, first: Bytes) {
        let mut next = first;
        let age = tokio::time::sleep(MAX_AGE);
        tokio::pin!(age);
        let reason = loop {
            // A listener that takes nothing is cut with its connection.
            if self.events.send(next).await.is_err() {
                return;
            }
            tokio::select! {
                changed = self.newest.changed() => match changed {
                    Ok(()) => next = self.newest.borrow_and_update().clone(),
                    Err(_) => return,
                },
                _ = self.access_changes.changed() => break "reconnect",
                () = self.shutdown.draining() => break "draining",
                () = &mut age => break "reconnect",
                () = self.events.closed() => return,
            }
        };
        // The listener may have gone.
        let _ = self.events.send(event("end", &json!({ "reason": reason }))).await;
    }
}
