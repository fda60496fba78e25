//! Another configuration while the process runs: all of it or nothing, and nobody notices.

mod changes;
mod files;
mod load;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};

/// One upstream called `up`, a plan, and the routes that a test is about.
fn site(upstream: SocketAddr, routes: &str) -> Arc<Site> {
    // For the clients that ask the admin listener.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\n\
         plans: {{ standard: {{ limits: {{ minute: 1000/1m }} }} }}\nroutes: [{routes}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://{upstream}\"] }} }}"
    ))
}

/// Asks for a reload: status and answer.
async fn reload(gateway: &Gateway) -> (u16, Value) {
    let request = admin_client().post(format!("http://{}/api/reload", gateway.admin));
    let response = request.header("x-callgate-admin", "1").send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn admin_client() -> reqwest::Client {
    reqwest::Client::new()
}

/// Changes the file and reloads; returns what has changed.
async fn reload_with(gateway: &Gateway, old: &str, new: &str) -> Vec<String> {
    replace(gateway, old, new);
    let (status, answer) = reload(gateway).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_value(answer["changes"].clone()).unwrap()
}

/// Changes a text of the configuration, which must be there.
fn replace(gateway: &Gateway, old: &str, new: &str) {
    let text = std::fs::read_to_string(gateway.site.config()).unwrap();
    assert!(text.contains(old), "{old} is not in {text}");
    write(&gateway.site.config(), &text.replace(old, new));
}

/// Writes a file as an editor does: another one takes its place.
fn write(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

async fn status(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.admin("/status").await.1).unwrap_or(json!(null))
}
