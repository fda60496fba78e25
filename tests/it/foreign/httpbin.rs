//! httpbin's own tests: each ends through the gateway as it ends without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::script;
use crate::support::gateway::Site;

/// The environment that tests/run makes.
const FOREIGN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/foreign");

/// Tests that have other results through a gateway, and why.
const DEVIATIONS: [(&str, &str); 1] = [(
    "test_methods__to_status_endpoint",
    "it sends TRACE, which no gateway may reflect and this one refuses with 405",
)];

/// The outcome of each test, and what there is to say about those that failed.
fn run(url: &str, certificate: Option<&Path>) -> (BTreeMap<String, String>, Value) {
    let mut command = Command::new(format!("{FOREIGN}/bin/python"));
    command.arg(script("httpbin_suite.py")).arg(format!("{FOREIGN}/source/tests")).arg(url).args(certificate);
    let output = command.output().expect("it is installed (tests/run does that)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reported: Value = serde_json::from_slice(output.stdout.rsplit(|byte| *byte == b'\n').nth(1).unwrap()).unwrap();
    (serde_json::from_value(reported["of"].clone()).unwrap(), reported["why"].clone())
}

/// Runs the tests without and with a gateway before a server; none may end otherwise, but for the deviations. Returns how many
/// failed without one.
fn compare(server: &str) -> usize {
    let (_server, address, _lines) =
        super::python_with(&format!("{FOREIGN}/bin/python"), "httpbin_server.py", &[server]);
    let site = Site::new(&format!(
        "store: memory\ntokens: {{ file: tokens.yaml }}\ntrusted_proxies: [127.0.0.0/8]\n\
         routes: [{{ path: \"/{{*rest}}\", auth: none, forward_credentials: true, upstream: up }}]\n\
         upstreams: {{ up: {{ endpoints: [\"http://{address}\"] }} }}"
    ));
    let gateway = site.serve();
    let direct = std::thread::spawn(move || run(&format!("http://{address}"), None));
    let (through, why) = run(&gateway.url(""), Some(&gateway.site.path("cert.pem")));
    let (direct, why_direct) = direct.join().unwrap();
    assert_eq!((direct.len(), through.len()), (70, 70));
    let differ = direct.iter().filter(|(name, outcome)| through.get(*name) != Some(outcome));
    let names: Vec<_> = differ.map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, DEVIATIONS.map(|(name, _)| name), "{why:#}\nwithout a gateway: {why_direct:#}");
    direct.values().filter(|outcome| *outcome != "passed").count()
}

#[test]
fn the_tests_of_httpbin_have_the_same_results_through_the_gateway() {
    assert_eq!(compare("werkzeug"), 0);
}

/// One of them wants a server that knows no chunks.
#[test]
fn the_tests_of_httpbin_have_the_same_results_over_kept_connections() {
    assert_eq!(compare("waitress"), 1);
}
