//! The feeds of call events (server-sent events, WHATWG HTML section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;

use super::Voice;
use super::answer::{Answer, empty_answer};
use super::exchange::{Reading, Scope};

/// A feed with nothing to tell sends a comment this often, so that everybody on the way sees that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a feed begins with: it brings the headers to the client at once, and tells it to come back after a second.
const OPENING: Bytes = Bytes::from_static(b": call events\nretry: 1000\n\n");
const STILL_HERE: Bytes = Bytes::from_static(b": still here\n\n");

/// Answers with a feed that goes on behind the client's `Last-Event-ID`, or with the latest event. A feed that has nothing
/// more to tell is 204, which tells clients not to come back.
pub(super) fn open(voice: Arc<Voice>, scope: Scope, headers: &HeaderMap) -> Answer {
    let latest = voice.latest.subscribe();
    let cursor = voice.look(|exchange| match last_seen(headers) {
        // An id from the future belongs to the server that ran here before.
        Some(id) if id <= exchange.latest_event() => id,
        Some(_) | None => exchange.start(scope),
    });
    if voice.look(|exchange| exchange.read(scope, &mut cursor.clone())) == Reading::End {
        return empty_answer(StatusCode::NO_CONTENT);
    }
    let feed = Feed { voice, scope, cursor, latest, opened: false };
    let frames = stream::unfold(feed, async |mut feed| {
        let bytes = feed.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), feed))
    });
    let mut answer = Answer::new(StreamBody::new(frames).boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn last_seen(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

struct Feed {
    voice: Arc<Voice>,
    scope: Scope,
    /// The id of the last event that was sent or passed over.
    cursor: u64,
    latest: watch::Receiver<u64>,
    opened: bool,
}

impl Feed {
    /// What is sent next; `None` ends the feed.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.opened {
            self.opened = true;
            return Some(OPENING);
        }
        loop {
            match self.voice.look(|exchange| exchange.read(self.scope, &mut self.cursor)) {
                Reading::Event(frame) => return Some(frame),
                Reading::End => return None,
                Reading::Nothing => {}
            }
            // An event since the look above, or one that the look has told already, wakes this at once.
            tokio::select! {
                changed = self.latest.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(STILL_HERE),
                () = self.voice.stop.cancelled() => return None,
            }
        }
    }
}
