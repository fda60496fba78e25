//! `callgate selftest` against a real Redis, an absent one, and ones that refuse.

use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::support::eventually;
use crate::support::gateway::{PROGRAM, write_pair};
use crate::support::redis::RedisServer;
use crate::support::topology::RedisCluster;

async fn selftest(args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("selftest").args(args).env_remove("CALLGATE_REDIS_URL").output().await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_good_redis_passes_and_keeps_its_data() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}/3", server.port());
    let output = selftest(&["--redis", &url, "--seconds", "1", "--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    assert!(!text.contains("hunter2"), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["good"], true);
    assert_eq!(report["address"], format!("redis://127.0.0.1:{}/3", server.port()));
    let exact = report["exact"].as_array().unwrap();
    let counts = |verdict: &Value| {
        ["expected", "admitted", "over", "wrongly_refused", "misplaced", "unanswered"]
            .map(|key| verdict[key].as_u64().unwrap())
    };
    assert_eq!(exact[0]["plan"], "60/1m, 1000/1h");
    assert_eq!(counts(&exact[0]), [480, 480, 0, 0, 0, 0]);
    assert_eq!(exact[1]["plan"], "20/1s, 50/1h");
    assert_eq!(counts(&exact[1]), [400, 400, 0, 0, 0, 0]);
    assert!(exact[0]["decisions"].as_u64().unwrap() > 480);
    for speed in report["speed"].as_array().unwrap() {
        assert!(speed["per_second"].as_u64().unwrap() > 0, "{speed}");
        assert!(speed["latency_us"]["p50"].as_u64() <= speed["latency_us"]["max"].as_u64(), "{speed}");
    }
    let bytes = |at: usize| report["bytes_per_token"]["done"][at]["bytes"].as_u64().unwrap();
    assert!(bytes(0) > 0 && bytes(0) <= 200 && bytes(3) > 4_000 && bytes(3) <= 4_400, "{text}");
    let cut = &report["cut"]["done"];
    assert_eq!([&cut["cut"], &cut["back"], &cut["failed"]], [4, 4, 0], "{cut}");
    // Records of 16 contended, 256 busy and 4 measured tokens, and their logs.
    assert!(report["keys_deleted"].as_u64().unwrap() > 276, "{text}");
    let client = redis::Client::open(url).unwrap();
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client.get_connection().unwrap()).unwrap();
    assert_eq!(left, Vec::<String>::new());
}

/// A file whose Redis is tested, with a namespace that its user may write and no other.
fn configuration(store: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "tls: {{ certificates: [{{ cert: a.pem, key: a.pem }}] }}\nstore: {{ redis: {{ {store}, namespace: voice }} }}\n\
         routes: [{{ path: /, upstream: a }}]\nupstreams: {{ a: {{ endpoints: [\"http://127.0.0.1:1\"] }} }}\n"
    );
    std::fs::write(folder.path().join("callgate.yaml"), text).unwrap();
    write_pair(&folder.path().join("a.pem"));
    folder
}

async fn selftest_of(store: &str) -> (Output, Value) {
    let folder = configuration(store);
    let file = folder.path().join("callgate.yaml");
    let output = selftest(&["--config", file.to_str().unwrap(), "--seconds", "1", "--json"]).await;
    let report = serde_json::from_str(&stdout(&output)).unwrap_or_default();
    (output, report)
}

#[tokio::test]
async fn a_cluster_is_tested_by_its_configuration_on_all_nodes() {
    let cluster = tokio::task::spawn_blocking(RedisCluster::start).await.unwrap();
    let (output, report) = selftest_of(&format!("cluster: {}", cluster.urls())).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert_eq!((&report["good"], &report["redis"]["mode"]), (&true.into(), &"cluster".into()), "{report}");
    assert!(report["address"].as_str().unwrap().starts_with("the cluster of 127.0.0.1:"), "{report}");
    assert_eq!(report["bytes_per_token"]["done"].as_array().unwrap().len(), 4, "{report}");
    let cut = &report["cut"]["done"];
    assert_eq!([&cut["cut"], &cut["back"], &cut["failed"]], [12, 4, 0], "{cut}");
    for node in &cluster.nodes {
        assert_eq!(node.say::<u64>(&["DBSIZE"]), 0);
    }
}

#[tokio::test]
async fn a_user_that_may_write_its_namespace_alone_is_enough() {
    let server = RedisServer::start();
    server.say::<()>(&["ACL", "SETUSER", "voice", "on", ">hunter2", "~voice:*", "+@all", "-@dangerous", "+info"]);
    let store = format!("url: \"redis://127.0.0.1:{}\", username: voice, password: hunter2", server.port());
    let (output, report) = selftest_of(&store).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(report["namespace"].as_str().unwrap().starts_with("voice:selftest-"), "{report}");
    assert!(report["cut"]["failed"].is_string() && !report.to_string().contains("hunter2"), "{report}");
    assert_eq!(server.say::<u64>(&["DBSIZE"]), 0);
    let (refused, _) = selftest_of(&store.replace("hunter2", "hunter3")).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("refuses the user name or the password"), "{}", stderr(&refused));
}

#[tokio::test]
async fn the_text_report_names_the_checks_that_a_user_may_not_run() {
    let server = RedisServer::start();
    let acl = ["ACL", "SETUSER", "poor", "on", ">hunter2", "~*", "+@all", "-client|kill", "-memory"];
    server.say::<()>(&acl);
    let url = format!("redis://poor:hunter2@127.0.0.1:{}", server.port());
    let output = selftest(&["--redis", &url, "--seconds", "1"]).await;
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for part in [
        &format!("self-test of redis://127.0.0.1:{}\n", server.port()),
        "60/1m, 1000/1h",
        "one at a time",
        "64 at a time",
        "Bytes per token: not measured",
        "Connections cut under load: not tested",
        "Result: good\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hunter2") && stderr(&output).is_empty(), "{}", stderr(&output));
}

#[tokio::test]
async fn an_unusable_redis_fails_and_the_password_is_not_printed() {
    let mut server = RedisServer::start_with(&["--requirepass", "right"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let address = format!("Redis at redis://127.0.0.1:{}", server.port());
    let wrong = selftest(&["--redis", &url]).await;
    server.kill();
    let absent = selftest(&["--redis", &url, "--json"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let in_file = selftest(&["--redis", &format!("file:{}", file.path().display())]).await;
    assert_eq!(in_file.status.code(), Some(1));
    assert!(stderr(&in_file).contains("refused") && !stderr(&in_file).contains("hunter2"), "{}", stderr(&in_file));
    for output in [&wrong, &absent] {
        assert_eq!(output.status.code(), Some(1));
        let reported = stderr(output);
        assert!(reported.contains(&address) && !reported.contains("hunter2"), "{reported}");
    }
    assert!(stdout(&wrong).is_empty());
    let report: Value = serde_json::from_str(&stdout(&absent)).unwrap();
    assert_eq!(report["good"], false);
    assert!(report["problems"][0].as_str().unwrap().starts_with(&address), "{report}");
}

#[tokio::test]
async fn wrong_usage_has_its_own_exit_code_and_the_url_is_not_printed() {
    for args in [&["--redis", "http://:hunter2@host"][..], &["--redis", "redis://:hunter2@h", "--seconds", "0"], &[]] {
        let output = selftest(args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains("--redis") || stderr(&output).contains("--seconds"), "{}", stderr(&output));
        assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn an_interrupted_test_deletes_its_keys_too() {
    let server = RedisServer::start();
    let mut command = Command::new(PROGRAM);
    command.args(["selftest", "--redis", &server.url(), "--seconds", "60"]).stderr(Stdio::piped());
    let child = command.kill_on_drop(true).spawn().unwrap();
    eventually("admissions", async || (server.say::<u64>(&["DBSIZE"]) > 280).then_some(())).await;
    let id = child.id().unwrap() as i32;
    kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("interrupted before the end"), "{}", stderr(&output));
    assert_eq!(server.say::<u64>(&["DBSIZE"]), 0);
}
