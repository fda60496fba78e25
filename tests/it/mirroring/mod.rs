//! Routes with a mirror: which requests are copied, and that only the mirror notices.

mod faithful;
mod harmless;

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::Client;

use crate::support::client::{http1, http2};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site, Token};

/// A gateway whose route `all` leads to `up` and has the mirror `shadow`.
struct Stage {
    gateway: Gateway,
    token: Token,
    clients: [Client; 2],
}

/// More keys of the configuration, each with a comma before it.
#[derive(Default)]
struct Keys {
    mirror: &'static str,
    route: &'static str,
    up: &'static str,
    shadow: &'static str,
    /// Routes before that one.
    routes: &'static str,
    rest: &'static str,
}

fn site(up: SocketAddr, shadow: &[SocketAddr], keys: &Keys) -> Arc<Site> {
    let Keys { mirror, route, up: up_keys, shadow: shadow_keys, routes, rest } = keys;
    let shadows: Vec<String> = shadow.iter().map(|address| format!("http://{address}")).collect();
    Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\nplans: {{ standard: {{ limits: {{ minute: 10000/1m }} }} }}\n\
         routes:\n{routes}  - {{ path: \"/{{*rest}}\", name: all, upstream: up, mirror: {{ upstream: shadow{mirror} }}{route} }}\n\
         upstreams:\n  up: {{ endpoints: [\"http://{up}\"]{up_keys} }}\n  shadow: {{ endpoints: {shadows:?}{shadow_keys} }}\n{rest}"
    ))
}

impl Stage {
    fn new(up: SocketAddr, shadow: SocketAddr, keys: &Keys) -> Self {
        Self::on(&site(up, &[shadow], keys))
    }

    fn on(site: &Arc<Site>) -> Self {
        let token = site.token(&[]);
        let gateway = site.serve();
        let clients = [http1(&gateway), http2(&gateway)];
        Self { gateway, token, clients }
    }

    /// Asks with a GET, over HTTP/2; the status.
    async fn get(&self, path: &str) -> u16 {
        let request = self.clients[1].get(self.gateway.url(path)).bearer_auth(&self.token.secret);
        request.send().await.unwrap().status().as_u16()
    }

    /// How many copies came to this end.
    async fn counted(&self, outcome: &str) -> usize {
        let series = format!(r#"callgate_mirrored_total{{outcome="{outcome}",route="all",upstream="shadow"}}"#);
        self.gateway.metric(&series).await.unwrap() as usize
    }

    /// Waits until so many came to this end.
    async fn count(&self, outcome: &str, count: usize) {
        eventually(&format!("{count} to be counted as {outcome}"), async || {
            (self.counted(outcome).await == count).then_some(())
        })
        .await;
    }
}
