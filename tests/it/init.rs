//! `callgate init`: what it writes serves at once, and it replaces nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::gateway::PROGRAM;
use crate::support::redis::RedisServer;
use crate::support::upstream::Upstream;

fn init(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).current_dir(folder).args(["init", "--yes"]).args(arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// What is in a folder, with the content of each file.
fn content(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = files.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_it_writes_is_checked_without_a_warning_and_serves_the_first_token() {
    let (upstream, folder) = (Upstream::start().await, TempDir::new().unwrap());
    let (service, https) = (format!("http://{}", upstream.address), free_address());
    let made =
        init(folder.path(), &["--upstream", &service, "--listen", &https.to_string(), "--domain", "api.example.com"]);
    assert!(made.status.success(), "{}", errors(&made));
    let secret = String::from_utf8(made.stdout.clone()).unwrap().trim().to_owned();
    assert!(secret.starts_with("kal_live_") && !errors(&made).contains(&secret));
    assert_eq!(mode(&folder.path().join("key.pem")), 0o600);
    let checked = Command::new(PROGRAM).current_dir(folder.path()).args(["check", "callgate.yaml"]).output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", errors(&checked));

    let config = folder.path().join("callgate.yaml");
    let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1:9901", "127.0.0.1:0");
    fs::write(&config, text).unwrap();
    let mut child = tokio::process::Command::new(PROGRAM);
    child.args(["serve", "--config"]).arg(&config).stdout(std::process::Stdio::null()).kill_on_drop(true);
    let _serving = child.spawn().unwrap();
    let trusted = reqwest::Certificate::from_pem(&fs::read(folder.path().join("cert.pem")).unwrap()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]);
    let client = client.resolve("api.example.com", https).build().unwrap();
    let url = format!("https://api.example.com:{}/api/v1/echo", https.port());
    let answer =
        crate::support::eventually("an answer", async || client.get(&url).bearer_auth(&secret).send().await.ok());
    assert_eq!(answer.await.status(), 200);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
}

#[test]
fn it_replaces_nothing_unless_forced_and_never_tokens() {
    let folder = TempDir::new().unwrap();
    assert!(init(folder.path(), &[]).status.success());
    let before = content(folder.path());
    let refused = init(folder.path(), &["--account", "other"]);
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty());
    assert!(errors(&refused).contains("callgate.yaml, cert.pem, key.pem, tokens.yaml"), "{}", errors(&refused));
    assert_eq!(content(folder.path()), before);
    let forced = init(folder.path(), &["--account", "other", "--force"]);
    assert!(forced.status.success() && errors(&forced).contains("replaced ./key.pem"), "{}", errors(&forced));
    let tokens = fs::read_to_string(folder.path().join("tokens.yaml")).unwrap();
    assert!(tokens.contains("acme") && tokens.contains("other"), "{tokens}");
}

#[test]
fn what_would_be_invalid_is_not_written() {
    let folder = TempDir::new().unwrap();
    for (arguments, wanted) in [
        (&["--upstream", "127.0.0.1:3000"][..], "upstreams.api.endpoints[0]: must start with http:// or https://"),
        (&["--listen", "8443"], "listen.https: must be an IP address and a port"),
        (&["--path", "/a/../b"], "routes[0].path: "),
        (&["--redis", "localhost"], "store.redis.url: "),
    ] {
        let refused = init(folder.path(), arguments);
        assert!(refused.status.code() == Some(1) && errors(&refused).contains(wanted), "{}", errors(&refused));
        assert_eq!(content(folder.path()), []);
    }
}

#[test]
fn a_redis_with_a_password_is_named_in_a_file_of_its_own() {
    let (redis, folder) = (RedisServer::start_with(&["--requirepass", "hunter2"]), TempDir::new().unwrap());
    let url = redis.url().replace("redis://", "redis://:hunter2@");
    let made = init(folder.path(), &["--redis", &url, "--force", "new/place"]);
    assert!(made.status.success(), "{}", errors(&made));
    let place = folder.path().join("new/place");
    let text = fs::read_to_string(place.join("callgate.yaml")).unwrap();
    assert!(!text.contains("hunter2") && text.contains("url: \"file:redis-url\""), "{text}");
    assert_eq!((mode(&place.join("redis-url")), place.join("tokens.yaml").exists()), (0o600, false));
    let list =
        Command::new(PROGRAM).args(["token", "list", "--config"]).arg(place.join("callgate.yaml")).output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().contains("first"));
}

#[test]
fn without_redis_the_files_are_written_and_the_command_for_the_token_is_named() {
    let folder = TempDir::new().unwrap();
    let made = init(folder.path(), &["--redis", &format!("redis://{}", free_address())]);
    assert_eq!(made.status.code(), Some(1));
    assert!(errors(&made).contains("make one when Redis answers: `callgate token create --config ./callgate.yaml"));
    assert!(folder.path().join("callgate.yaml").exists());
}
