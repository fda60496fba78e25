//! schemathesis, which was not written here, presses the admin API by its own description.

use std::path::Path;
use std::process::Command;

use super::{AdminToken, open_site};
use crate::support::redis::RedisServer;

const PROGRAM: &str = "target/schemathesis/bin/st";

/// Runs it against a gateway with this store, whose admin listener demands tokens.
fn press(store: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ops = AdminToken::new();
    let gateway =
        open_site(store, &format!("admin: {{ max_failures: 1000, tokens: [{}] }}", ops.line("ops", "write"))).serve();
    let (look, change) = (gateway.site.token(&[]), gateway.site.token(&[]));
    let base = format!("http://127.0.0.1:{}", gateway.admin.port());
    let mut command = Command::new(here.join(PROGRAM));
    command.arg("--config-file").arg(here.join("tests/it/admin/schemathesis.toml")).args(["--no-color", "run"]);
    command.arg(format!("{base}/api/openapi.json")).args(["--url", &base, "--checks", "all"]);
    command.args(["--header", &format!("Authorization: Bearer {}", ops.secret)]);
    command.env("TOKEN_TO_LOOK_AT", &look.id).env("TOKEN_TO_CHANGE", &change.id);
    // It leaves notes where it runs.
    let output = command.current_dir(gateway.site.folder.path()).output();
    let output = output.expect("schemathesis is installed (tests/run does that)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let log = gateway.output();
    assert!(!log.contains(&ops.secret) && !log.contains("panicked"), "{log}");
}

#[test]
fn schemathesis_finds_nothing_with_the_token_file() {
    press("store: memory\ntokens: { file: tokens.yaml }");
}

#[test]
fn schemathesis_finds_nothing_with_redis() {
    let redis = RedisServer::start();
    press(&format!("store: {{ redis: {{ url: \"{}\", deadline: 5s }} }}", redis.url()));
}
