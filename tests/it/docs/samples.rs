//! The code samples for clients: each waits as it is told, and then gets its answer.

use std::process::{Output, Stdio};
use std::sync::Arc;

use tokio::process::Command;

use super::blocks;
use crate::support::client::{get, http1};
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

/// A gateway of which a token has one request left in two seconds, and none after [`used_up`].
struct Stage {
    _upstream: Upstream,
    site: Arc<Site>,
    gateway: Gateway,
    token: Token,
}

impl Stage {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let site = Site::new(&format!(
            "store: memory\ntokens: {{ file: tokens.yaml }}\nplans: {{ tight: {{ limits: {{ moment: 1/2s }} }} }}\n\
             default_plan: tight\nroutes:\n  - {{ path: \"/{{*rest}}\", upstream: up }}\n\
             upstreams: {{ up: {{ endpoints: [\"http://{}\"] }} }}",
            upstream.address
        ));
        let (token, gateway) = (site.token(&[]), site.serve());
        Self { _upstream: upstream, site, gateway, token }
    }

    /// Runs a program that has the address and the token in its environment, when the limit is used up.
    async fn run(&self, program: &str, arguments: &[&str]) -> Output {
        assert_eq!(get(&http1(&self.gateway), &self.gateway, "/calls", &self.token).await.status(), 200);
        let certificate = self.site.path("cert.pem");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.env("API", format!("https://localhost:{}", self.gateway.https.port())).env("TOKEN", &self.token.secret);
        // How each of them is told to trust a certificate.
        for variable in ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            command.env(variable, &certificate);
        }
        command.output().await.unwrap()
    }

    /// The statuses of its requests, in their order.
    async fn statuses(&self, count: usize) -> Vec<u64> {
        let lines = self.gateway.access("/calls", count).await;
        lines.iter().map(|line| line["status"].as_u64().unwrap()).collect()
    }
}

/// The first sample in a language.
fn sample(language: &str) -> String {
    let samples = blocks(language).into_iter().filter(|block| block.file.ends_with("docs/clients.md"));
    samples.map(|block| block.text).next().unwrap_or_else(|| panic!("docs/clients.md has no sample in {language}"))
}

async fn waits_as_told(program: &str, before: &[&str], code: &str) {
    let stage = Stage::new().await;
    let output = stage.run(program, &[before, &[code]].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {said}");
    // The first is the one that used the limit up. One refusal is enough: Retry-After is sufficient.
    assert_eq!(stage.statuses(3).await, [200, 429, 200], "{program}: {said}");
}

#[tokio::test]
async fn curl_waits_as_told() {
    waits_as_told("sh", &["-ec"], &sample("sh")).await;
}

#[tokio::test]
async fn python_waits_as_told() {
    waits_as_told("/usr/bin/python3", &["-c"], &sample("python")).await;
}

#[tokio::test]
async fn javascript_waits_as_told() {
    waits_as_told("node", &["-e"], &sample("js")).await;
}

#[tokio::test]
async fn php_waits_as_told() {
    let stage = Stage::new().await;
    let file = stage.site.path("sample.php");
    std::fs::write(&file, sample("php")).unwrap();
    let ca = format!("curl.cainfo={}", stage.site.path("cert.pem").display());
    let output = stage.run("php", &["-d", &ca, file.to_str().unwrap()]).await;
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(stage.statuses(3).await, [200, 429, 200]);
}
