//! Server-sent events of calls (WHATWG HTML, section 9.2).

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::watch;

use super::calls::FeedScope;
use super::response::{DemoResponse, empty_response, stream_response};
use super::service::VoiceService;

/// An idle feed sends a comment this often, so that proxies and clients see that it lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// Brings the headers to the client at once, and makes it reconnect after a second.
const OPENING: Bytes = Bytes::from_static(b": call events\nretry: 1000\n\n");

/// Responds with the events after the client's `Last-Event-ID`, or else from the latest event on. A feed that has ended
/// is 204, which makes clients stop reconnecting.
pub(super) fn open(service: Arc<VoiceService>, scope: FeedScope, headers: &HeaderMap) -> DemoResponse {
    let changes = service.changes();
    let cursor = {
        let calls = service.calls();
        let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
        // A higher id is from an earlier run of this server.
        let cursor = last_seen.filter(|&id| id <= calls.last_event()).unwrap_or_else(|| calls.start_of(scope));
        if calls.read(scope, &mut cursor.clone()) == Poll::Ready(None) {
            return empty_response(StatusCode::NO_CONTENT);
        }
        cursor
    };
    let feed = EventFeed { service, scope, cursor, changes };
    let events = stream::unfold(feed, async |mut feed| Some((feed.next().await?, feed)));
    let mut response = stream_response("text/event-stream", stream::iter([OPENING]).chain(events));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct EventFeed {
    service: Arc<VoiceService>,
    scope: FeedScope,
    /// The id of the last event that was sent or skipped.
    cursor: u64,
    changes: watch::Receiver<()>,
}

impl EventFeed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let read = self.service.calls().read(self.scope, &mut self.cursor);
            if let Poll::Ready(event) = read {
                return event;
            }
            // A change since the read above wakes this at once.
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE_INTERVAL) => return Some(KEEP_ALIVE),
                () = self.service.shutdown.draining() => return None,
            }
        }
    }
}
