//! The admin listener: who may ask, and the API.

mod access;
mod description;
mod health;
mod sockets;
mod status;
mod tokens;

use std::sync::Arc;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::support::gateway::{Gateway, PROGRAM, Site};

/// An admin token, as `callgate admin-token create` makes it.
struct AdminToken {
    secret: String,
    sha256: String,
}

impl AdminToken {
    fn new() -> Self {
        let output = admin_token(&["--name", "any", "--json"]);
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Self { secret: text("token"), sha256: text("sha256") }
    }

    /// The line of the configuration.
    fn line(&self, name: &str, role: &str) -> String {
        format!("{{ name: {name}, role: {role}, sha256: \"{}\" }}", self.sha256)
    }
}

fn admin_token(arguments: &[&str]) -> std::process::Output {
    std::process::Command::new(PROGRAM).args(["admin-token", "create"]).args(arguments).output().unwrap()
}

/// A request to the admin listener.
fn request(gateway: &Gateway, method: Method, path: &str) -> RequestBuilder {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(crate::support::WAIT_TIMEOUT).build().unwrap();
    client.request(method, format!("http://127.0.0.1:{}{path}", gateway.admin.port()))
}

/// Status, headers and JSON of an answer.
async fn send(request: RequestBuilder) -> (u16, reqwest::header::HeaderMap, Value) {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A site without upstreams that matter, its `admin:` as given; `open` puts its admin listener on all addresses.
fn site(admin: &str, open: bool) -> Arc<Site> {
    if open { open_site(FILE, admin) } else { private_site(FILE, admin) }
}

/// The memory store.
const FILE: &str = "store: memory\ntokens: { file: tokens.yaml }";

/// A site with this store, and its admin listener on loopback.
fn private_site(store: &str, admin: &str) -> Arc<Site> {
    Site::new(&format!(
        "{store}\n{admin}\nroutes:\n  - {{ path: /echo, permission: \"calls:read\", upstream: up }}\n  \
           - {{ path: \"/{{*rest}}\", upstream: up }}\nupstreams: {{ up: {{ endpoints: [\"http://127.0.0.1:9\"] }} }}"
    ))
}

/// The same, its admin listener on all addresses.
fn open_site(store: &str, admin: &str) -> Arc<Site> {
    let site = private_site(store, admin);
    site.replace("admin: \"127.0.0.1:0\"", "admin: \"0.0.0.0:0\"");
    site
}
