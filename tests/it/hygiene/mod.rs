//! Requirements of the standards and known attacks on intermediaries: the tests send bytes that no proper client or server sends,
//! and check the bytes that arrive at the other end. `hygiene/duties.txt` lists the demands, each with the tests that hold it.

mod answers;
mod bodies;
mod duties;
mod fields;
mod hops;
mod http2;
mod late_bodies;
mod lengths;
mod logs;
mod paths;
mod requests;
mod transport;
mod websocket;

use crate::support::client::exchange;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::recorder::{Message, Recorder};

/// A gateway before a recorder. A connection that is kept open is closed when it is idle for a second.
struct Stage {
    upstream: Recorder,
    gateway: Gateway,
    token: Token,
}

const EVERYTHING: &str = "routes: [{ path: \"/{*rest}\", upstream: up }]";

impl Stage {
    async fn new() -> Self {
        Self::before(Recorder::start().await, EVERYTHING)
    }

    /// With these routes, and what else stands in the configuration.
    async fn with(more: &str) -> Self {
        Self::before(Recorder::start().await, more)
    }

    fn before(upstream: Recorder, more: &str) -> Self {
        let site = Site::with_listen(
            ", idle_timeout: 1s",
            &format!(
                "store: memory\ntokens: {{ file: tokens.yaml }}\n{more}\n\
                 upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
                upstream.address
            ),
        );
        let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
        let gateway = site.serve();
        Self { upstream, gateway, token }
    }

    /// Sends bytes, with `AUTH` in place of the credential's line, and reads until the gateway closes.
    async fn send(&self, text: &str) -> String {
        exchange(&self.gateway, &self.bytes(text)).await
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        text.replace("AUTH", &format!("authorization: Bearer {}", self.token.secret)).into_bytes()
    }

    /// Sends a GET with more header lines, each with its CRLF; returns what arrived.
    async fn forwarded(&self, more: &str) -> Message {
        let answer = self.send(&format!("GET /x HTTP/1.1\r\nhost: a\r\nAUTH\r\n{more}connection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{more:?}: {answer}");
        self.upstream.last()
    }

    /// Sends something that must be refused, and behind it a request that then nobody may see.
    async fn refused(&self, statuses: &[&str], text: &str) {
        let answer = self.send(&format!("{text}GET /smuggled HTTP/1.1\r\nhost: a\r\nAUTH\r\n\r\n")).await;
        let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        assert!(statuses.contains(&status), "{text:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{text:?}: {answer}");
        assert!(answer.contains("content-type: application/json") && answer.contains("\"request_id\""), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{text:?}: {answer}");
        assert!(!self.upstream.received().contains("smuggled"), "{text:?}: {}", self.upstream.received());
    }

    /// The same for a list, of which not a byte may arrive.
    async fn all_refused(&self, statuses: &[&str], texts: &[&str]) {
        for text in texts {
            self.refused(statuses, text).await;
        }
        assert_eq!(self.upstream.received(), "");
    }
}

/// The statuses of the answers in what was read.
fn statuses(answer: &str) -> Vec<&str> {
    answer.match_indices("HTTP/1.1 ").map(|(at, text)| &answer[at + text.len()..][..3]).collect()
}
