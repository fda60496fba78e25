//! Clients: reqwest for whole requests, and a bare TLS stream for bytes that no proper client sends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::gateway::{Gateway, Token};

/// A client that trusts the gateway's certificate and follows nothing.
pub fn builder(gateway: &Gateway) -> ClientBuilder {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pem = std::fs::read(gateway.site.path("cert.pem")).unwrap();
    let certificate = reqwest::Certificate::from_pem(&pem).unwrap();
    Client::builder()
        .tls_certs_only([certificate])
        .redirect(reqwest::redirect::Policy::none())
        .timeout(super::WAIT_TIMEOUT)
        .no_proxy()
}

/// An HTTP/2 client.
pub fn http2(gateway: &Gateway) -> Client {
    builder(gateway).build().unwrap()
}

/// An HTTP/1.1 client.
pub fn http1(gateway: &Gateway) -> Client {
    builder(gateway).http1_only().build().unwrap()
}

/// A GET with a token.
pub async fn get(client: &Client, gateway: &Gateway, path: &str, token: &Token) -> reqwest::Response {
    client.get(gateway.url(path)).bearer_auth(&token.secret).send().await.unwrap()
}

/// Asks for `/a` with this pause in between until `over`: how many were admitted, and how many were asked. The others are over the limit.
pub async fn ask_until(
    client: Client,
    gateway: Arc<Gateway>,
    token: Token,
    over: Arc<AtomicBool>,
    pause: Duration,
) -> (u32, u32) {
    let (mut admitted, mut asked) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let status = get(&client, &gateway, "/a", &token).await.status().as_u16();
        assert!(matches!(status, 200 | 429), "{status}");
        admitted += u32::from(status == 200);
        asked += 1;
        tokio::time::sleep(pause).await;
    }
    (admitted, asked)
}

/// The text of a header; empty when it isn't there.
pub fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A TLS connection on which any bytes can be sent.
pub async fn raw(gateway: &Gateway, alpn: &str) -> TlsStream<TcpStream> {
    raw_to(gateway, &gateway.site.path("cert.pem"), "localhost", alpn).await
}

/// The same with a server name of its own, for which this certificate is expected.
pub async fn raw_to(gateway: &Gateway, certificate: &Path, name: &str, alpn: &str) -> TlsStream<TcpStream> {
    try_raw_to(gateway, certificate, name, alpn).await.unwrap()
}

/// The same to a gateway that may not be there.
pub async fn try_raw_to(
    gateway: &Gateway,
    certificate: &Path,
    name: &str,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(gateway.https).await?;
    connector(certificate, alpn).connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await
}

/// Expects this certificate, and offers one protocol.
pub fn connector(certificate: &Path, alpn: &str) -> tokio_rustls::TlsConnector {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// Sends bytes on a new connection and reads until the gateway closes it.
pub async fn exchange(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = raw(gateway, "http/1.1").await;
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

/// Reads until the other side closes.
pub async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    // A close without a goodbye ends the answer too.
    let _ = tokio::time::timeout(super::WAIT_TIMEOUT, stream.read_to_end(&mut answer)).await.expect("a close in time");
    String::from_utf8_lossy(&answer).into_owned()
}
