//! Every answer of the contract, over HTTP/1.1 and HTTP/2.

mod authentication;
mod requests;
mod responses;

use http::{Method, StatusCode};
use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::client::{self, exchange, get, header, http1, http2};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

const ROUTES: &str = r#"
  - { path: /echo, methods: [GET, POST], permission: "calls:read", upstream: up }
  - { path: "/echo/{*rest}", upstream: up, max_body: 100 }
  - { path: "/status/{n}", upstream: up }
  - { path: "/slow/{n}", upstream: up, first_byte_timeout: 200ms }
  - { path: /limits, upstream: up }
  - { path: /public, auth: none, upstream: up }
  - { path: /dead, upstream: dead }
"#;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    token: Token,
    clients: [Client; 2],
}

impl Stage {
    async fn new() -> Self {
        Self::with("", "").await
    }

    async fn with(listen: &str, more: &str) -> Self {
        let upstream = Upstream::start().await;
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = upstream.address;
        let site = Site::with_listen(
            listen,
            &format!(
                "store: memory\ntokens: {{ file: tokens.yaml }}\nroutes:\n{ROUTES}\n\
                 upstreams: {{ up: {{ endpoints: [\"http://{at}\"] }}, dead: {{ endpoints: [\"http://{dead}\"] }} }}\n{more}"
            ),
        );
        let token = site.token(&["calls:*"]);
        let gateway = site.serve();
        let clients = [http1(&gateway), http2(&gateway)];
        Self { upstream, gateway, token, clients }
    }

    async fn get(&self, path: &str) -> [Response; 2] {
        let [h1, h2] = &self.clients;
        [get(h1, &self.gateway, path, &self.token).await, get(h2, &self.gateway, path, &self.token).await]
    }
}

/// Checks an answer that Callgate made itself, and returns its message.
async fn rejected(response: Response, status: u16, code: &str) -> String {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "cache-control"), "no-store");
    let request_id = header(&response, "x-request-id").to_owned();
    let text = response.text().await.unwrap();
    assert!(text.starts_with("{\"message\":"), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["code"], code);
    assert_eq!(body["request_id"], request_id.as_str());
    assert_eq!(body.as_object().unwrap().len(), 3);
    body["message"].as_str().unwrap().to_owned()
}
