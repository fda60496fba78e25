//! Things that were not written here: nginx, httpbin, Python's and node's servers as upstreams, curl, openssl and others as clients.

mod httpbin;
mod others;
mod readings;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use aws_lc_rs::digest;
use http::StatusCode;
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{header, http1, http2, raw_to};
use crate::support::eventually_blocking;
use crate::support::gateway::{Gateway, Site, Token};
use crate::support::upstream::Upstream;

/// Debian's Python, whose packages tests/run installs; another one may stand before it on the PATH.
const PYTHON: &str = "/usr/bin/python3";
const UPLOAD: usize = 50 << 20;

/// A process that ends with the value.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/foreign").join(name)
}

/// A Python server, its address, and the lines that it prints.
fn python(name: &str) -> (Process, SocketAddr, impl Iterator<Item = String> + use<>) {
    python_of(PYTHON, name)
}

/// The same in another environment.
fn python_of(python: &str, name: &str) -> (Process, SocketAddr, impl Iterator<Item = String> + use<>) {
    python_with(python, name, &[])
}

/// The same with arguments.
fn python_with(
    python: &str,
    name: &str,
    arguments: &[&str],
) -> (Process, SocketAddr, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new(python);
    command.arg(script(name)).args(arguments);
    server(command)
}

/// Node with Debian's packages, to run a script.
fn node(name: &str) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", "/usr/share/nodejs").arg(script(name));
    command
}

/// A server of node.
fn javascript(name: &str) -> (Process, SocketAddr, impl Iterator<Item = String> + use<>) {
    server(node(name))
}

/// A server that prints its port first.
fn server(mut command: Command) -> (Process, SocketAddr, impl Iterator<Item = String> + use<>) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("it is installed (tests/run does that)");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let process = Process(child);
    let port: u16 = lines.next().expect("it prints its port").parse().unwrap();
    (process, ([127, 0, 0, 1], port).into(), lines)
}

/// A gateway before one upstream.
fn stage(upstream: SocketAddr) -> (Gateway, Token) {
    let routes = "  - { path: \"/{*rest}\", upstream: up }\n  - { path: /small, upstream: up, max_body: 1MB }";
    let site = Site::in_memory(upstream, routes);
    let token = site.token_with(&[], &["--limit", "minute=10000/1m", "--limit", "hour=10000/1h"]);
    (site.serve(), token)
}

/// nginx on a folder with one file; it ends every connection after three requests.
fn nginx() -> (Process, TempDir, SocketAddr) {
    nginx_with(
        "types { text/plain txt; } keepalive_requests 3;",
        "root files; location /live/ { ssi on; ssi_types *; }",
    )
}

/// nginx with these settings of `http` and of its one server.
pub(crate) fn nginx_with(http: &str, server: &str) -> (Process, TempDir, SocketAddr) {
    for _ in 0..5 {
        let folder = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let files = folder.path().join("files");
        std::fs::create_dir_all(files.join("live")).unwrap();
        std::fs::write(files.join("speech.txt"), text()).unwrap();
        std::fs::write(files.join("live/page.txt"), r#"you asked for <!--# echo var="uri" -->"#).unwrap();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {it};")).concat();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}} http {{ access_log off; {temporary} \
             {http} server {{ listen 127.0.0.1:{port}; {server} }} }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf"]).stderr(Stdio::null());
        let mut process = Process(command.spawn().expect("nginx is installed (tests/run does that)"));
        let address = ([127, 0, 0, 1], port).into();
        // Another process may have taken the port first.
        let answers = eventually_blocking("nginx to take connections or to end", || {
            let ended = process.0.try_wait().unwrap().is_some();
            let answers = !ended && std::net::TcpStream::connect(address).is_ok();
            (ended || answers).then_some(answers)
        });
        if answers {
            return (process, folder, address);
        }
    }
    panic!("nginx did not start");
}

/// 200 kB that differ from place to place.
fn text() -> String {
    (0..20_000).map(|number| format!("{number:09}\n")).collect()
}

/// Runs curl against a gateway; what it prints, with the `-w` line last.
fn curl(gateway: &Gateway, token: &str, arguments: &[&str], path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--ipv4", "--max-time", "60", "--noproxy", "*", "--cacert"]);
    command.arg(gateway.site.path("cert.pem")).arg("--oauth2-bearer").arg(token);
    command.args(["--write-out", "\n%{http_code} %{http_version} %{size_upload}"]).args(arguments);
    let output = command.arg(gateway.url(path)).stdin(Stdio::null()).output().expect("curl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_static_file_of_nginx_passes_unchanged() {
    let (_nginx, _folder, address) = nginx();
    let (gateway, token) = stage(address);
    for client in [http1(&gateway), http2(&gateway)] {
        let ask = |method: http::Method, path: &str, field: (&'static str, String)| {
            client.request(method, gateway.url(path)).bearer_auth(&token.secret).header(field.0, field.1).send()
        };
        let get = |path: &'static str, name, value: &str| ask(http::Method::GET, path, (name, value.to_owned()));
        let whole = get("/speech.txt", "accept", "*/*").await.unwrap();
        let etag = header(&whole, "etag").to_owned();
        assert_eq!((whole.status(), header(&whole, "content-length")), (StatusCode::OK, "200000"));
        assert_eq!((header(&whole, "accept-ranges"), header(&whole, "content-type")), ("bytes", "text/plain"));
        assert_ne!(header(&whole, "last-modified"), "");
        assert_eq!(whole.text().await.unwrap(), text());

        let unchanged = get("/speech.txt", "if-none-match", &etag).await.unwrap();
        assert_eq!((unchanged.status(), header(&unchanged, "etag")), (StatusCode::NOT_MODIFIED, etag.as_str()));
        assert_eq!(header(&unchanged, "x-ratelimit-limit"), "10000");
        assert_eq!(unchanged.bytes().await.unwrap().len(), 0);

        let part = get("/speech.txt", "range", "bytes=100-119").await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!((header(&part, "content-range"), header(&part, "content-length")), ("bytes 100-119/200000", "20"));
        assert_eq!(part.text().await.unwrap(), text()[100..120]);
        let parts = get("/speech.txt", "range", "bytes=0-9,50-59").await.unwrap();
        assert!(header(&parts, "content-type").starts_with("multipart/byteranges"));
        let beyond = get("/speech.txt", "range", "bytes=999999-").await.unwrap();
        assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);

        let head = ask(http::Method::HEAD, "/speech.txt", ("accept", "*/*".into())).await.unwrap();
        assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, "200000"));
        assert_eq!(head.bytes().await.unwrap().len(), 0);

        let absent = get("/absent.txt", "accept", "*/*").await.unwrap();
        assert_eq!((absent.status(), header(&absent, "content-type")), (StatusCode::NOT_FOUND, "text/html"));
        assert_eq!(header(&absent, "x-ratelimit-limit"), "10000");
        assert!(absent.text().await.unwrap().contains("nginx"), "it is nginx's own page");

        let refused = ask(http::Method::POST, "/speech.txt", ("accept", "*/*".into())).await.unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);

        let chunked = get("/live/page.txt", "accept", "*/*").await.unwrap();
        assert_eq!((chunked.status(), header(&chunked, "content-length")), (StatusCode::OK, ""));
        assert_eq!(chunked.text().await.unwrap(), "you asked for /live/page.txt");
    }
}

#[tokio::test]
async fn no_request_is_lost_when_nginx_closes_connections_after_three() {
    let (_nginx, _folder, address) = nginx();
    let (gateway, token) = stage(address);
    let clients: Vec<Client> = vec![http1(&gateway), http2(&gateway)];
    for number in 0..60 {
        let get = |client: &Client| client.get(gateway.url("/speech.txt")).bearer_auth(&token.secret).send();
        let (one, two) = tokio::join!(get(&clients[0]), get(&clients[1]));
        for response in [one.unwrap(), two.unwrap()] {
            assert_eq!(response.status(), 200, "request {number}");
            assert_eq!(response.bytes().await.unwrap().len(), 200_000, "request {number}");
        }
    }
}

#[test]
fn a_call_of_the_websockets_package_passes_unchanged() {
    let (_server, address, mut lines) = python("echo.py");
    let (gateway, token) = stage(address);
    let url = gateway.url("/calls/1/stream").replace("https", "wss");
    let mut client = Command::new(PYTHON);
    client.arg(script("talk.py")).arg(url).arg(gateway.site.path("cert.pem")).arg(&token.secret);
    let output = client.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines.next().unwrap().trim_end(), "closed 1000");
    assert_eq!(lines.next().unwrap(), "closed 4001 the client is done");
    assert_eq!(lines.next().unwrap(), "closed 4002 as asked");
}

#[test]
fn curl_uploads_whole_over_both_protocols_with_and_without_a_length() {
    let (_server, address, _lines) = python("uploads.py");
    let (gateway, token) = stage(address);
    let words = (0..UPLOAD as u64 / 8).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let file = gateway.site.path("upload");
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    let sha256: String =
        digest::digest(&digest::SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    // Without its length, curl sends a body in chunks over HTTP/1.1, and over HTTP/2 as it is.
    let lengthless = ["-H", "Transfer-Encoding: chunked"];
    for (protocol, version, more, chunked) in [
        ("--http1.1", "1.1", &[][..], false),
        ("--http1.1", "1.1", &lengthless, true),
        ("--http2", "2", &[], false),
        ("--http2", "2", &lengthless, true),
    ] {
        let said = curl(&gateway, &token.secret, &[&[protocol, "-T", file], more].concat(), "/upload");
        let (body, reported) = said.rsplit_once('\n').unwrap();
        assert!(reported.starts_with(&format!("200 {version} ")), "{said}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((body["length"].as_u64(), body["sha256"].as_str()), (Some(UPLOAD as u64), Some(sha256.as_str())));
        assert_eq!(body["chunked"], chunked, "{protocol} {more:?}");
    }
}

#[test]
fn curl_is_refused_before_it_sends_a_body() {
    let (_server, address, _lines) = python("uploads.py");
    let (gateway, token) = stage(address);
    let file = gateway.site.path("upload");
    std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let expect = ["--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "-T", file.to_str().unwrap()];
    let refused = curl(&gateway, "wrong", &expect, "/upload");
    assert!(refused.ends_with("\n401 1.1 0") && refused.contains("invalid_token"), "{refused}");
    assert_eq!(curl(&gateway, &token.secret, &["--http1.1"], "/count"), "{\"uploads\": 0}\n200 1.1 0");
    let taken = curl(&gateway, &token.secret, &expect, "/upload");
    assert!(taken.ends_with(&format!("\n200 1.1 {}", 1 << 20)), "{taken}");
    assert_eq!(curl(&gateway, &token.secret, &["--http2"], "/count"), "{\"uploads\": 1}\n200 2 0");
}

/// A client that is told so before it has sent all hears what it is told, and not only that its stream is reset.
#[test]
fn curl_receives_the_reason_for_a_refused_upload() {
    let (_server, address, _lines) = python("uploads.py");
    let (gateway, token) = stage(address);
    let file = gateway.site.path("upload");
    std::fs::write(&file, vec![b'x'; 12_000_000]).unwrap();
    let upload = ["-T", file.to_str().unwrap(), "-H", "Expect:"];
    for protocol in ["--http1.1", "--http2"] {
        for (path, token, status) in [("/upload", "wrong", 401), ("/small", token.secret.as_str(), 413)] {
            for length in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
                let said = curl(&gateway, token, &[&[protocol], &upload[..], length].concat(), path);
                assert!(
                    said.contains(&format!("\n{status} ")) && said.contains("request_id"),
                    "{protocol} {path}: {said}"
                );
            }
        }
    }
}

#[test]
fn a_client_of_http_1_0_gets_whole_bodies() {
    let (_nginx, _folder, address) = nginx();
    let (gateway, token) = stage(address);
    let said = curl(&gateway, &token.secret, &["--http1.0", "--include"], "/speech.txt");
    assert!(said.contains(&text()) && said.ends_with("\n200 1 0"), "…{}", &said[said.len() - 60..]);
    // nginx sends it in chunks, which such a client does not know.
    let said = curl(&gateway, &token.secret, &["--http1.0", "--include"], "/live/page.txt").to_lowercase();
    assert!(said.ends_with("\r\n\r\nyou asked for /live/page.txt\n200 1 0"), "{said}");
    assert!(!said.contains("transfer-encoding"), "{said}");
}

/// A gateway with a certificate for `localhost` and one for `other.test`.
async fn two_certificates() -> (Upstream, Gateway, Token) {
    let upstream = Upstream::start().await;
    let site: Arc<Site> = Site::in_memory(upstream.address, "  - { path: \"/{*rest}\", upstream: up }");
    let other = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap();
    std::fs::write(site.path("other.pem"), other.cert.pem()).unwrap();
    site.write_secret("other.key", &other.signing_key.serialize_pem());
    let config = std::fs::read_to_string(site.config()).unwrap();
    let first = "{ cert: cert.pem, key: key.pem }";
    std::fs::write(site.config(), config.replace(first, &format!("{first}, {{ cert: other.pem, key: other.key }}")))
        .unwrap();
    let token = site.token(&[]);
    let gateway = site.serve();
    (upstream, gateway, token)
}

/// One handshake of `openssl s_client`, or of what it is piped into.
fn s_client(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &gateway.https.to_string()]).args(arguments);
    command.stdin(Stdio::null()).output().expect("openssl is installed")
}

/// The DNS names of the certificate that a client is shown.
fn names_shown(gateway: &Gateway, arguments: &[&str]) -> String {
    let shown = s_client(gateway, arguments).stdout;
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-ext", "subjectAltName"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&shown).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[tokio::test]
async fn openssl_agrees_on_versions_protocols_and_certificates() {
    let (_upstream, gateway, _token) = two_certificates().await;
    for version in ["-tls1", "-tls1_1"] {
        // Debian's openssl must be talked into offering it at all.
        let refused = s_client(&gateway, &[version, "-cipher", "DEFAULT@SECLEVEL=0"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        let alert = said.contains("alert protocol version") || said.contains("alert handshake failure");
        assert!(!refused.status.success() && alert, "{version}: {said}");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (offered, agreed) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1"), ("http/1.1,h2", "h2")] {
            let output = s_client(&gateway, &[version, "-alpn", offered]);
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{version} {offered}: {said}");
            assert!(said.contains(&format!("New, {name}, Cipher is ")), "{version}: {said}");
            assert!(said.contains(&format!("ALPN protocol: {agreed}\n")), "{offered}: {said}");
        }
        let unknown = s_client(&gateway, &[version, "-alpn", "spdy/3"]);
        let said = String::from_utf8_lossy(&unknown.stderr);
        assert!(said.contains("no application protocol"), "{said}");
    }
    assert!(names_shown(&gateway, &["-servername", "other.test"]).contains("DNS:other.test"));
    assert!(names_shown(&gateway, &["-servername", "OTHER.test"]).contains("DNS:other.test"));
    for arguments in [&["-servername", "localhost"][..], &["-servername", "stranger.test"], &["-noservername"]] {
        assert!(names_shown(&gateway, arguments).contains("DNS:localhost"), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_connection_serves_the_hosts_of_its_certificate_only() {
    let (upstream, gateway, token) = two_certificates().await;
    for (shown, name, cases) in [
        ("cert.pem", "localhost", [("localhost", 200), ("other.test", 421), ("OTHER.test:443", 421)]),
        ("other.pem", "other.test", [("other.test", 200), ("localhost", 421), ("stranger.test", 421)]),
    ] {
        let stream = raw_to(&gateway, &gateway.site.path(shown), name, "h2").await;
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (host, status) in cases {
            let request = http::Request::get(format!("https://{host}/status/200"));
            let request = request.header("authorization", format!("Bearer {}", token.secret)).body(()).unwrap();
            sender = sender.ready().await.unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), status, "{host} on a connection for {name}");
        }
    }
    assert_eq!(upstream.seen().len(), 2);
}
