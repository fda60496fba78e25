//! Attacks, and good clients beside them: every good request is answered, and the gateway's memory is bounded.
//! `hygiene/duties.txt` lists which attack is which.

mod floods;
mod resets;
mod stalls;

use std::time::Duration;

use reqwest::Client;

use crate::support::client::{get, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

/// More memory than any attack here may cost; each of them would take many times as much if it worked.
const MEMORY: u64 = 48 << 20;
/// The error code of HTTP/2 for a peer that causes excessive load (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A gateway before an upstream. Everything below `/open` is for everybody, so that no limit on a token stops an attack.
struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    token: Token,
}

impl Stage {
    async fn new(listen: &str) -> Self {
        let upstream = Upstream::start().await;
        let site = Site::with_listen(
            listen,
            &format!(
                "store: memory\ntokens: {{ file: tokens.yaml }}\n\
                 routes: [{{ path: \"/open/{{*rest}}\", auth: none, strip_prefix: /open, upstream: up }}, {{ path: \"/{{*rest}}\", upstream: up }}]\n\
                 upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
                upstream.address
            ),
        );
        let token = site.token_with(&[], &["--limit", "minute=1000000/1m", "--limit", "hour=1000000/1h"]);
        let gateway = site.serve();
        Self { upstream, gateway, token }
    }

    /// Runs an attack while good clients ask, over new connections and over old ones; returns what came of it.
    async fn beside_good_clients<T>(&self, attack: impl Future<Output = T>) -> T {
        let clients = [http1(&self.gateway), http2(&self.gateway)];
        for client in &clients {
            self.good(client).await;
        }
        let before = self.gateway.resident();
        let mut peak = before;
        let beside = async {
            loop {
                for client in &clients {
                    self.good(client).await;
                }
                self.good(&http2(&self.gateway)).await;
                peak = peak.max(self.gateway.resident());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let outcome = tokio::select! {
            outcome = attack => outcome,
            () = beside => unreachable!("good clients never stop"),
        };
        for client in &clients {
            self.good(client).await;
        }
        peak = peak.max(self.gateway.resident());
        assert!(peak < before + MEMORY, "memory went from {before} to {peak}");
        outcome
    }

    async fn good(&self, client: &Client) {
        let answer = get(client, &self.gateway, "/status/200", &self.token).await;
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    }

    /// Waits until the gateway has nothing left of an attack: requests at the upstream, or connections of clients.
    async fn gone(&self) {
        crate::support::eventually("the connections of the attack to be gone", async || {
            let open = self.gateway.metric(r#"callgate_connections_open{listener="https"}"#).await;
            (open == Some(0.0)).then_some(())
        })
        .await;
    }

    /// How many requests of an attack the upstream has seen.
    fn arrived(&self) -> usize {
        self.upstream.seen().iter().filter(|seen| seen.target != "/status/200").count()
    }
}
