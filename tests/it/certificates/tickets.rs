//! Session tickets: which instances continue the sessions of which others.

use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::gateway::{Gateway, Site};

const KEY_A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v";
const KEY_B: &str = "MDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5f";

/// A gateway whose file of ticket keys has these lines; without lines it names no file. All have one certificate.
fn gateway(first: &Site, keys: &[&str]) -> Gateway {
    let site = Site::new(
        "tokens: { file: tokens.yaml }\nroutes: [{ path: /a, upstream: a }]\nupstreams: { a: { endpoints: [\"http://127.0.0.1:1\"] } }",
    );
    for file in ["cert.pem", "key.pem"] {
        std::fs::copy(first.path(file), site.path(file)).unwrap();
    }
    if !keys.is_empty() {
        site.write_secret("tickets", &(keys.join("\n") + "\n"));
        site.replace("key: key.pem }] }", "key: key.pem }], ticket_keys: tickets }");
    }
    site.serve()
}

/// A client that keeps its sessions.
fn client(site: &Site, version: &'static rustls::SupportedProtocolVersion) -> TlsConnector {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(site.path("cert.pem")).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[version]);
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Whether a connection continues a session. Reads an answer, because tickets come before it.
async fn resumes(client: &TlsConnector, gateway: &Gateway) -> bool {
    let socket = TcpStream::connect(gateway.https).await.unwrap();
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[tokio::test]
async fn instances_with_the_same_ticket_keys_continue_each_others_sessions() {
    let site = Site::new("");
    let [a, same, rotated, b, random, other_random] =
        [&[KEY_A][..], &[KEY_A], &[KEY_B, KEY_A], &[KEY_B], &[], &[]].map(|keys| gateway(&site, keys));
    for version in [&TLS13, &TLS12] {
        for (first, second, wanted) in [
            (&a, &a, true),
            (&a, &same, true),
            (&same, &a, true),
            (&a, &b, false),
            (&a, &random, false),
            // A new key on top of the old one.
            (&a, &rotated, true),
            (&rotated, &b, true),
            (&rotated, &a, false),
            (&random, &random, true),
            (&random, &other_random, false),
        ] {
            let client = client(&site, version);
            assert!(!resumes(&client, first).await);
            let (from, to) = (first.https.port(), second.https.port());
            assert_eq!(resumes(&client, second).await, wanted, "{version:?} {from} → {to}");
        }
    }
}

#[test]
fn check_names_the_line_that_is_no_key() {
    let site = Site::new(
        "tokens: { file: tokens.yaml }\nroutes: [{ path: /a, upstream: a }]\nupstreams: { a: { endpoints: [\"http://127.0.0.1:1\"] } }",
    );
    site.replace("key: key.pem }] }", "key: key.pem }], ticket_keys: tickets }");
    std::fs::write(site.path("tokens.yaml"), "tokens: []\n").unwrap();
    let check = || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let good = callgate::cli::check::report(&site.config(), false, &mut out, &mut err).unwrap();
        (good, String::from_utf8(err).unwrap())
    };
    site.write_secret("tickets", &format!("# newest first\n{KEY_A}\n{KEY_B}\n"));
    assert_eq!(check(), (true, String::new()));
    site.write_secret("tickets", &format!("{KEY_A}\n{}\n", &KEY_B[4..]));
    let (good, said) = check();
    assert!(!good && said.contains(" tls.ticket_keys: ") && said.contains("tickets has no key on line 2: "), "{said}");
    assert!(!said.contains(&KEY_B[4..]), "{said}");
    std::fs::write(site.path("tickets"), KEY_A).unwrap();
    std::fs::set_permissions(site.path("tickets"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (good, said) = check();
    assert!(good && said.contains("tickets holds keys that every user of this machine may read or change (chmod 600)"));
}
