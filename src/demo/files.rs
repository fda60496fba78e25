//! The files of a demo (certificate, token file, configuration), and what it prints.

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::certificates::TrialCertificate;
use crate::config::AdminAddress;

/// The folder of one demo. Dropping the value removes it.
pub(super) struct DemoFiles {
    folder: PathBuf,
    pub(super) config: PathBuf,
}

impl DemoFiles {
    /// Creates a certificate for localhost and writes a configuration.
    pub(super) fn create(https: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("callgate-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).with_context(|| format!("can't create {}", folder.display()))?;
        let files = Self { config: folder.join("callgate.yaml"), folder };
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let trial = TrialCertificate::new(names.into()).context("can't create a certificate")?;
        for (name, text) in
            [("cert.pem", trial.cert), ("key.pem", trial.key), ("callgate.yaml", configuration(https, admin, upstream))]
        {
            write_private(&files.folder.join(name), &text)?;
        }
        Ok(files)
    }

    /// What is running, and commands to try it.
    pub(super) fn instructions(
        &self,
        https: SocketAddr,
        admin: &AdminAddress,
        upstream: SocketAddr,
        [token, reader]: [&str; 2],
    ) -> String {
        let (folder, config, port) = (self.folder.display(), self.config.display(), https.port());
        format!(
            r#"
Callgate is serving a sample voice-call API.

  gateway        https://localhost:{port}   (certificate made just now, for this machine only)
  upstream       http://{upstream}   (sample API: calls, a WebSocket, a feed of events)
  configuration  {config}
  console        http://{admin}/   (in the browser: traffic, tokens, calls)
  metrics        http://{admin}/metrics   (also /livez, /readyz)

Paste this into another terminal first:

  CA={folder}/cert.pem; API=https://localhost:{port}/api/v1
  TOKEN={token}
  READER={reader}
  call() {{ curl -s --cacert "$CA" -H "Authorization: Bearer ${{AS:-$TOKEN}}" "$@"; echo; }}

Then any of these:

  # place a call, and see the limit headers
  call -i "$API/calls" -H 'Content-Type: application/json' -d '{{"to":"+15551234567","from":"+15557654321"}}'
  # list calls
  call "$API/calls"
  # the identity that the upstream receives
  call "$API/whoami"
  # invalid input: the upstream's 422 passes through unchanged
  call -i "$API/calls" -H 'Content-Type: application/json' -d '{{"to":"nobody"}}'
  # no token: 401
  curl -si --cacert "$CA" "$API/calls"; echo
  # a token without the permission: 403
  AS=$READER call -i -X POST "$API/calls"
  # live events (server-sent events, for 5 seconds)
  call -N --max-time 5 "$API/events"
  # a WebSocket on a new call: 101, then audio can flow (for 2 seconds)
  ID=$(call "$API/calls" -H 'Content-Type: application/json' -d '{{"to":"+15551234567","from":"+15557654321"}}' | sed -E 's/.*"id":"([^"]+)".*/\1/')
  call -i --http1.1 -N --max-time 2 "$API/calls/$ID/stream" -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: Y2FsbGdhdGUtZGVtby1rZQ=='
  # exceed the limit of 60 requests a minute: 200s, then 429s
  AS=$READER call -o /dev/null -w '%{{http_code}} ' "$API/calls?limit=[1-62]"
  # the body and headers of a 429
  AS=$READER call -i "$API/calls"

Press Ctrl-C to stop. Requests are logged below.

"#
        )
    }
}

impl Drop for DemoFiles {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("callgate: can't remove {}: {error}", self.folder.display());
        }
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("can't write {}", path.display()))
}

fn configuration(https: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        r#"# Created by `callgate demo`.
listen: {{ https: "{https}", admin: "{admin}", max_connections: 1000 }}
admin: {{ anonymous: write }} # so that the console can change tokens
tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
store: memory
tokens: {{ file: tokens.yaml }}
plans:
  standard: {{ limits: {{ minute: 60/1m, hour: 1000/1h }} }}
limits: {{ headers: [x-ratelimit, ietf] }}
routes:
  - {{ path: /api/v1/calls, methods: [GET], permission: "calls:read", upstream: voice }}
  - {{ path: /api/v1/calls, methods: [POST], permission: "calls:write", upstream: voice }}
  - {{ path: "/api/v1/calls/{{id}}", methods: [GET], permission: "calls:read", upstream: voice }}
  - {{ path: "/api/v1/calls/{{id}}", methods: [DELETE], permission: "calls:write", upstream: voice }}
  - {{ path: "/api/v1/calls/{{id}}/stream", permission: "calls:stream", upstream: voice, call: {{ max_duration: 4h }} }}
  - {{ path: "/api/v1/calls/{{id}}/events", methods: [GET], permission: "calls:read", upstream: voice }}
  - {{ path: /api/v1/events, methods: [GET], permission: "calls:read", upstream: voice }}
  - {{ path: "/api/v1/{{*rest}}", upstream: voice }}
upstreams:
  voice: {{ endpoints: ["http://{upstream}"] }}
log: {{ format: human }}
drain: {{ timeout: 5s, calls: 5s, spread: 1s }}
"#
    )
}
