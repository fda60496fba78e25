//! TLS to upstreams: client certificates, server names and versions; and how `callgate check` reads the files.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use super::site;
use crate::support::client::{get, http2};
use crate::support::gateway::Site;
use crate::support::upstream::{Manner, Upstream};

/// A certificate authority, and certificates that it signed, with their keys, as PEM.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Authority {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key), roots }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// Shows one certificate, and remembers which names it was asked for.
#[derive(Debug)]
struct Asked(Arc<CertifiedKey>, Mutex<Vec<Option<String>>>);

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.1.lock().unwrap().push(hello.server_name().map(str::to_owned));
        Some(self.0.clone())
    }
}

/// An upstream whose certificate is for `name`, which speaks these versions, and demands a certificate of this authority's.
async fn upstream(
    authority: &Authority,
    name: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
    demands: bool,
) -> (Upstream, Arc<Asked>) {
    let (certificate, key) = authority.sign(name);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap();
    let asked = Arc::new(Asked(Arc::new(certified), Mutex::default()));
    let config = rustls::ServerConfig::builder_with_protocol_versions(versions);
    let config = if demands {
        let roots = Arc::new(authority.roots.clone());
        config.with_client_cert_verifier(WebPkiClientVerifier::builder(roots).build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_cert_resolver(asked.clone())));
    (Upstream::with(Manner { http2: None, tls: Some(acceptor) }).await, asked)
}

fn write_key(site: &Site, name: &str, key: &KeyPair) {
    site.write_secret(name, &key.serialize_pem());
}

/// The status of one request, with these keys of the upstream beside `ca`. There is a certificate `client.pem`, `client.key`, too.
async fn asked(authority: &Authority, endpoint: String, keys: &str) -> u16 {
    let site = site(&[endpoint], &format!(", ca: up.pem{keys}"), "");
    std::fs::write(site.path("up.pem"), &authority.pem).unwrap();
    let (certificate, key) = authority.sign("gate");
    std::fs::write(site.path("client.pem"), certificate.pem()).unwrap();
    write_key(&site, "client.key", &key);
    let (token, gateway) = (site.token(&[]), site.serve());
    get(&http2(&gateway), &gateway, "/x", &token).await.status().as_u16()
}

#[tokio::test]
async fn a_service_that_asks_for_a_client_certificate_gets_it() {
    let authority = Authority::new();
    let (upstream, _) = upstream(&authority, "localhost", &[&TLS13, &TLS12], true).await;
    let endpoint = format!("https://localhost:{}", upstream.address.port());
    assert_eq!(asked(&authority, endpoint.clone(), "").await, 502);
    assert_eq!(asked(&authority, endpoint.clone(), ", cert: client.pem, key: client.key").await, 200);
    let stranger = Authority::new();
    let other = Authority { pem: authority.pem.clone(), ..stranger };
    assert_eq!(asked(&other, endpoint, ", cert: client.pem, key: client.key").await, 502);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_self_signed_certificate_that_is_pinned_is_trusted() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let upstream = Upstream::with(Manner { http2: None, tls: Some(TlsAcceptor::from(Arc::new(config))) }).await;
        let authority = Authority { pem: certificate.pem(), ..Authority::new() };
        let port = upstream.address.port();
        assert_eq!(asked(&authority, format!("https://localhost:{port}"), "").await, 200, "{is_ca:?}");
        assert_eq!(asked(&authority, format!("https://127.0.0.1:{port}"), "").await, 502, "{is_ca:?}: another name");
        let stranger = Authority::new();
        assert_eq!(asked(&stranger, format!("https://localhost:{port}"), "").await, 502, "{is_ca:?}: not pinned");
    }
}

#[tokio::test]
async fn server_name_replaces_the_host() {
    let authority = Authority::new();
    let (upstream, names) = upstream(&authority, "api.internal", &[&TLS13], false).await;
    let endpoint = format!("https://{}", upstream.address);
    assert_eq!(asked(&authority, endpoint.clone(), "").await, 502);
    assert_eq!(asked(&authority, endpoint.clone(), ", server_name: other.internal").await, 502);
    assert_eq!(asked(&authority, endpoint, ", server_name: api.internal").await, 200);
    let names = names.1.lock().unwrap().clone();
    assert_eq!(names, [None, Some("other.internal".to_owned()), Some("api.internal".to_owned())]);
    // The request is for the client's host all the same.
    assert!(upstream.seen()[0].headers["host"].to_str().unwrap().starts_with("localhost"));
}

#[tokio::test]
async fn an_old_tls_version_is_refused() {
    let authority = Authority::new();
    let (upstream, _) = upstream(&authority, "localhost", &[&TLS12], false).await;
    let endpoint = format!("https://localhost:{}", upstream.address.port());
    assert_eq!(asked(&authority, endpoint.clone(), ", min_version: \"1.3\"").await, 502);
    assert_eq!(asked(&authority, endpoint, "").await, 200);
}

/// The output of `callgate check` for a site.
fn check(site: &Site) -> (bool, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let good = callgate::cli::check::report(&site.config(), false, &mut out, &mut err).unwrap();
    (good, String::from_utf8(err).unwrap())
}

#[test]
fn check_reads_the_certificate_files() {
    let authority = Authority::new();
    let site = site(&["https://localhost".to_owned()], ", ca: up.pem, cert: client.pem, key: client.key", "");
    let ((certificate, key), (_, other)) = (authority.sign("gate"), authority.sign("gate"));
    std::fs::write(site.path("up.pem"), &authority.pem).unwrap();
    std::fs::write(site.path("client.pem"), certificate.pem()).unwrap();
    write_key(&site, "client.key", &key);
    site.token(&[]);
    assert_eq!(check(&site), (true, String::new()));

    std::fs::set_permissions(site.path("client.key"), Permissions::from_mode(0o640)).unwrap();
    assert_eq!(check(&site), (true, String::new()));
    std::fs::set_permissions(site.path("client.key"), Permissions::from_mode(0o644)).unwrap();
    let (good, said) = check(&site);
    assert!(good && said.contains("warning: upstreams.up.key: ") && said.contains("(chmod 600)"), "{said}");

    write_key(&site, "client.key", &other);
    let (good, said) = check(&site);
    assert!(!good && said.contains("client.key is not the key of the first certificate in "), "{said}");

    std::fs::write(site.path("up.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let (good, said) = check(&site);
    assert!(!good && said.contains("up.pem holds a certificate that can't be used: "), "{said}");
}

#[tokio::test]
async fn a_service_that_speaks_plain_http_is_reported_as_such() {
    let upstream = Upstream::start().await;
    let site = site(&[format!("https://localhost:{}", upstream.address.port())], ", ca: cert.pem", "");
    let token = site.token(&[]);
    let gateway = site.serve();
    assert_eq!(get(&http2(&gateway), &gateway, "/plain", &token).await.status(), 502);
    let error = gateway.access("/plain", 1).await[0]["error"].as_str().unwrap().to_owned();
    assert!(error.ends_with("the server does not speak TLS"), "{error}");
}
