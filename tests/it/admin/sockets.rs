//! The admin listener on a Unix socket, and over TLS with client certificates.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use reqwest::{Certificate, Client, Identity, Method};
use rustix::process::Signal;
use serde_json::json;

use super::{AdminToken, FILE, send};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Site};

/// A route and an upstream that do not matter.
const ROUTE: &str = "routes: [{ path: /a, upstream: up }]\nupstreams: { up: { endpoints: [\"http://127.0.0.1:9\"] } }";

fn unix_site(listen: &str, admin: &str) -> Arc<Site> {
    Site::with_listen(&format!(", {listen}"), &format!("{FILE}\n{admin}\n{ROUTE}"))
}

fn over(socket: &Path) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().unix_socket(socket.to_owned()).build().unwrap()
}

async fn status_over(socket: &Path, method: Method, path: &str) -> u16 {
    let request = over(socket).request(method, format!("http://localhost{path}")).header("x-callgate-admin", "1");
    send(request).await.0
}

#[tokio::test]
async fn whoever_may_open_the_unix_socket_may_change_things_and_is_named_in_the_trail() {
    let site = unix_site("admin: \"unix:admin.sock\"", "admin: { max_failures: 10 }");
    let gateway = site.serve();
    let socket = site.path("admin.sock");
    let metadata = std::fs::symlink_metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(status_over(&socket, Method::GET, "/readyz").await, 200);
    assert_eq!(status_over(&socket, Method::GET, "/status").await, 200);
    let create = over(&socket).post("http://any.name/api/tokens").header("x-callgate-admin", "1");
    assert_eq!(
        send(create.json(&json!({ "name": "a", "account": "acme", "permissions": ["calls:read"] }))).await.0,
        201
    );
    let (_, _, trail) = send(over(&socket).get("http://localhost/api/audit")).await;
    let name = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let local = format!("local:{}", String::from_utf8(name).unwrap().trim());
    assert_eq!(trail["entries"][0]["by"], *local, "{trail}");
    // Without its header a change is refused here too.
    assert_eq!(send(over(&socket).post("http://localhost/api/reload")).await.0, 403);

    // A second process does not take the socket away.
    let failed = site.try_serve(crate::support::gateway::PROGRAM, &[], &[]).err().unwrap();
    assert!(
        failed.contains("admin.sock (listen.admin)") && failed.contains("another process listens there"),
        "{failed}"
    );
    assert_eq!(status_over(&socket, Method::GET, "/livez").await, 200);
    gateway.signal(Signal::TERM);
    eventually("the socket to be removed", async || (!socket.exists()).then_some(())).await;
}

#[tokio::test]
async fn a_unix_socket_has_the_configured_mode_and_group_and_tokens_close_it() {
    let ops = AdminToken::new();
    // One of the groups of this user, by its number; root may choose any.
    let groups = rustix::process::getgroups().unwrap();
    let group = if rustix::process::getuid().is_root() { 1 } else { groups.first().unwrap().as_raw() };
    let listen = format!("admin: {{ address: \"unix:admin.sock\", mode: \"0600\", group: {group} }}");
    let site = unix_site(&listen, &format!("admin: {{ tokens: [{}] }}", ops.line("ops", "read")));
    let _gateway = site.serve();
    let socket = site.path("admin.sock");
    let metadata = std::fs::symlink_metadata(&socket).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), group);
    assert_eq!(status_over(&socket, Method::GET, "/status").await, 401);
    assert_eq!(send(over(&socket).get("http://localhost/status").bearer_auth(&ops.secret)).await.0, 200);
}

#[tokio::test]
async fn what_a_killed_process_leaves_is_replaced_and_other_files_are_not() {
    let site = unix_site("admin: \"unix:admin.sock\"", "");
    let socket = site.path("admin.sock");
    let gateway = site.serve();
    gateway.signal(Signal::KILL);
    drop(gateway);
    assert!(socket.exists());
    let gateway = site.serve();
    assert_eq!(status_over(&socket, Method::GET, "/livez").await, 200);
    drop(gateway);
    let _ = std::fs::remove_file(&socket);
    std::fs::write(&socket, "a letter").unwrap();
    let failed = site.try_serve(crate::support::gateway::PROGRAM, &[], &[]).err().unwrap();
    assert!(failed.contains("a file that is no socket is there"), "{failed}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a letter");
}

#[tokio::test]
async fn a_process_that_takes_over_takes_the_unix_socket_too() {
    let site = unix_site("admin: \"unix:admin.sock\"", "");
    let socket = site.path("admin.sock");
    let first = site.take_over().unwrap();
    let version = async || {
        let (_, _, status) = send(over(&socket).get("http://localhost/status")).await;
        status["process"]["pid"].as_u64().or(status["pid"].as_u64())
    };
    assert_eq!(version().await, Some(u64::from(first.pid())));
    let second = site.take_over().unwrap();
    assert_eq!(version().await, Some(u64::from(second.pid())));
    eventually("the first process to end", async || {
        (!Path::new(&format!("/proc/{}/exe", first.pid())).exists()).then_some(())
    })
    .await;
    assert_eq!(version().await, Some(u64::from(second.pid())), "the end of the first does not remove it");
}

/// Runs a command on this site; what it printed, if its exit code is 0.
fn command(site: &Site, arguments: &[&str]) -> Result<String, String> {
    let mut command = std::process::Command::new(crate::support::gateway::PROGRAM);
    let output = command.args(arguments).current_dir(site.folder.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn commands_find_the_unix_socket_by_the_configuration_or_by_its_name() {
    let site = unix_site("admin: \"unix:admin.sock\"", "");
    let token = site.token(&[]);
    let _gateway = site.serve();
    assert_eq!(command(&site, &["reload"]).as_deref(), Ok("Nothing has changed.\n"));
    assert!(command(&site, &["status", "--json"]).unwrap().contains("\"well\":true"));
    // With the memory store the log is in the running instance.
    assert!(command(&site, &["limits", "peek", &token.id]).unwrap().contains("minute"));
    assert!(command(&site, &["limits", "reset", &token.id, "--yes"]).unwrap().contains("is cleared"));
    let named = format!("unix:{}", site.path("admin.sock").display());
    assert!(command(&site, &["healthcheck", "--admin", &named]).unwrap().contains("ready"));
    assert!(command(&site, &["calls", "list", "--admin", &named]).is_ok());
    let nobody = command(&site, &["status", "--admin", "unix:nobody.sock"]).unwrap_err();
    assert!(nobody.contains("no admin listener at unix:nobody.sock"), "{nobody}");
}

#[tokio::test]
async fn commands_reach_a_listener_over_tls_with_a_token_or_a_certificate() {
    let (authority, ops) = (Authority::new("operators"), AdminToken::new());
    let tls = "tls: { cert: cert.pem, key: key.pem, client_ca: ca.pem, clients: [{ name: ops.example, role: write }] }";
    let admin = format!("admin: {{ tokens: [{}], {tls} }}", ops.line("ops", "read"));
    let site = Site::with_listen("", &format!("{FILE}\n{admin}\n{ROUTE}"));
    std::fs::write(site.path("ca.pem"), &authority.1).unwrap();
    std::fs::write(site.path("client.pem"), authority.client_pem("ops.example")).unwrap();
    let gateway = site.serve();
    // The port is not in the configuration.
    let url = format!("https://localhost:{}", gateway.admin.port());
    let trusted = ["--admin", &url, "--admin-ca", "cert.pem"];
    let with = |words: &[&str]| command(&site, &[words, &trusted].concat());
    assert!(with(&["status"]).unwrap_err().contains("needs an admin token"));
    assert!(with(&["reload", "--admin-cert", "client.pem"]).unwrap().contains("Nothing has changed"));
    let untrusted = command(&site, &["status", "--admin", &url]).unwrap_err();
    assert!(untrusted.contains("no answer from https://localhost"), "{untrusted}");
    site.replace("admin: \"127.0.0.1:0\"", &format!("admin: \"{}\"", gateway.admin));
    let mut command = std::process::Command::new(crate::support::gateway::PROGRAM);
    command.args(["status", "-c"]).arg(site.config()).env("CALLGATE_ADMIN_TOKEN", &ops.secret);
    let output = command.output().unwrap();
    assert!(output.status.code().is_some() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate and its key in one text, signed by an authority.
struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(rcgen::Issuer::new(params, key), pem)
    }

    fn client(&self, name: &str) -> Identity {
        Identity::from_pem(self.client_pem(name).as_bytes()).unwrap()
    }

    fn client_pem(&self, name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let pem = params.signed_by(&key, &self.0).unwrap().pem();
        format!("{pem}{}", key.serialize_pem())
    }
}

/// A client that trusts what the admin listener shows.
fn over_tls(site: &Site, identity: Option<Identity>) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let trusted = Certificate::from_pem(&std::fs::read(site.path("cert.pem")).unwrap()).unwrap();
    let builder = Client::builder().no_proxy().tls_certs_only([trusted]);
    let builder = identity.into_iter().fold(builder, |builder, identity| builder.identity(identity));
    builder.build().unwrap()
}

/// Statuses of a read, a change and a probe.
async fn statuses(client: &Client, gateway: &Gateway) -> [u16; 3] {
    let url = |path: &str| format!("https://localhost:{}{path}", gateway.admin.port());
    let change = client.delete(url("/api/limits/nobody")).header("x-callgate-admin", "1");
    [send(client.get(url("/status"))).await.0, send(change).await.0, send(client.get(url("/readyz"))).await.0]
}

#[tokio::test]
async fn over_tls_a_certificate_gives_the_role_of_its_name() {
    let (authority, ops) = (Authority::new("operators"), AdminToken::new());
    let clients = "clients: [{ name: Ops.Example, role: write }, { name: probe.example, role: read }]";
    let tls = format!("tls: {{ cert: cert.pem, key: key.pem, client_ca: ca.pem, {clients} }}");
    let admin = format!("admin: {{ tokens: [{}], {tls} }}", ops.line("ops", "read"));
    let site = Site::with_listen(", admin: \"0.0.0.0:0\"", &format!("{FILE}\n{admin}\n{ROUTE}"));
    std::fs::write(site.path("ca.pem"), &authority.1).unwrap();
    let gateway = site.serve();

    assert_eq!(statuses(&over_tls(&site, Some(authority.client("ops.example"))), &gateway).await, [200, 404, 200]);
    assert_eq!(statuses(&over_tls(&site, Some(authority.client("probe.example"))), &gateway).await, [200, 403, 200]);
    assert_eq!(statuses(&over_tls(&site, Some(authority.client("nobody.example"))), &gateway).await, [401, 401, 200]);
    assert_eq!(statuses(&over_tls(&site, None), &gateway).await, [401, 401, 200]);
    let url = format!("https://localhost:{}/status", gateway.admin.port());
    assert_eq!(send(over_tls(&site, None).get(&url).bearer_auth(&ops.secret)).await.0, 200);

    // A browser sends a certificate by itself, so a change needs the header.
    let client = over_tls(&site, Some(authority.client("ops.example")));
    let reload = format!("https://localhost:{}/api/reload", gateway.admin.port());
    assert_eq!(send(client.post(&reload)).await.0, 403);
    assert_eq!(send(client.post(&reload).header("x-callgate-admin", "1")).await.0, 200);
    let made = client.post(format!("https://localhost:{}/api/tokens", gateway.admin.port()));
    assert_eq!(
        send(
            made.header("x-callgate-admin", "1")
                .json(&json!({ "name": "a", "account": "acme", "permissions": ["calls:read"] }))
        )
        .await
        .0,
        201
    );
    let (_, _, trail) = send(client.get(format!("https://localhost:{}/api/audit", gateway.admin.port()))).await;
    assert_eq!(trail["entries"][0]["by"], "admin:ops.example", "{trail}");

    // A certificate of another authority ends the handshake, and HTTP in clear gets no answer.
    let stranger = over_tls(&site, Some(Authority::new("operators").client("ops.example")));
    assert!(stranger.get(&url).send().await.is_err());
    let clear = format!("http://localhost:{}/readyz", gateway.admin.port());
    assert!(over_tls(&site, None).get(&clear).send().await.is_err());
}

#[tokio::test]
async fn the_certificate_of_the_admin_listener_is_watched_and_exchanged() {
    let admin = "admin: { anonymous: write, tls: { cert: admin.pem, key: admin.pem } }";
    let site = Site::new(&format!("{FILE}\n{admin}\n{ROUTE}"));
    crate::support::gateway::write_pair(&site.path("admin.pem"));
    let gateway = site.serve();
    let url = |path: &str| format!("https://localhost:{}{path}", gateway.admin.port());
    let client = |trusted: &[u8]| {
        let trusted = Certificate::from_pem(trusted).unwrap();
        Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap()
    };
    let before = std::fs::read(site.path("admin.pem")).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (status, _, report) = send(client(&before).get(url("/status"))).await;
    let files: Vec<_> = report["certificates"].as_array().unwrap().iter().map(|it| it["file"].clone()).collect();
    assert!(status == 200 && files.iter().any(|file| file.as_str().unwrap().ends_with("admin.pem")), "{files:?}");
    let (_, _, metrics) = send(client(&before).get(url("/metrics"))).await;
    let expiry =
        |line: &str| line.starts_with("callgate_certificate_expiry_timestamp_seconds") && line.contains("admin.pem");
    assert!(metrics.as_str().unwrap().lines().any(expiry));

    crate::support::gateway::write_pair(&site.path("admin.pem"));
    let after = std::fs::read(site.path("admin.pem")).unwrap();
    eventually("the new certificate", async || client(&after).get(url("/readyz")).send().await.ok()).await;
    assert!(client(&before).get(url("/readyz")).send().await.is_err());
}
